//! Filters that are prepared for evaluation: their operands have the types of their columns.
//!
//! A comparison is evaluated here only if this module reproduces its type and operator exactly.
//! PostgreSQL evaluates the other comparisons. The logic is three-valued: a row passes only if the
//! condition is true, and not if it is unknown.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;

use super::filter::{Condition, Operator};
use super::table::TableColumn;
use crate::change::ColumnValue;

/// Maximum number of values in an `in` list (protocol 6.2).
pub(super) const MAX_LIST: usize = 100;

const BOOL: u32 = 16;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const UUID: u32 = 2950;
const NUMERIC: u32 = 1700;

/// A filter whose operands have been checked against their columns.
#[derive(Debug, Default)]
pub(super) struct Predicate {
    /// The conditions, all of which must be true.
    pub(super) conditions: Vec<TypedCondition>,
}

/// A condition on a column of known type.
#[derive(Debug)]
pub(super) struct TypedCondition {
    /// The column.
    pub(super) column: String,
    /// The column's type when the operand was checked. While the column has another type, the
    /// condition is not true.
    pub(super) type_oid: u32,
    /// How the condition is evaluated.
    pub(super) test: Test,
}

/// How a condition is evaluated.
#[derive(Debug)]
pub(super) enum Test {
    /// Evaluated in this process.
    Local {
        comparison: Comparison,
        is_negated: bool,
        kind: Option<ScalarKind>,
    },
    /// Evaluated by PostgreSQL.
    Query {
        /// SQL in which `{value}` stands for the column's value and `$2[1]` for the operand.
        sql: String,
        operand: Arc<str>,
    },
}

/// A comparison that is evaluated in this process.
#[derive(Debug, PartialEq)]
pub(super) enum Comparison {
    /// `=`, `<` and so on.
    Ordered(Operator, Scalar),
    /// `= any`: the values of the list, and whether it contains a null.
    Member(Vec<Scalar>, bool),
    /// `is distinct from`
    Distinct(Scalar),
    /// `is null`, `is unknown`
    Null,
    /// `is true`, `is false`
    Truth(bool),
}

/// How values of a type are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarKind {
    /// Integers.
    Integer,
    /// Values are equal and ordered as their texts are.
    Bytes,
    /// Values are equal if their texts are equal, but the order of the texts is not that of the
    /// values.
    EqualBytes,
    /// Dates and timestamps in ISO form.
    Time,
    /// `numeric`
    Decimal,
}

impl ScalarKind {
    /// Returns the scalar kind of a column's type, or `None` if only PostgreSQL can compare its
    /// values.
    pub(super) fn of(column: &TableColumn) -> Option<Self> {
        match column.base_type {
            20 | 21 | 23 | 26 => Some(Self::Integer),
            BOOL | UUID => Some(Self::Bytes),
            TEXT | VARCHAR if column.is_deterministic => Some(Self::EqualBytes),
            1082 | 1114 | 1184 => Some(Self::Time),
            NUMERIC => Some(Self::Decimal),
            _ if column.is_enum => Some(Self::EqualBytes),
            _ => None,
        }
    }

    fn has_order(self) -> bool {
        self != Self::EqualBytes
    }

    /// Parses a value in PostgreSQL's output form.
    pub(super) fn read(self, text: &[u8]) -> Option<Scalar> {
        match self {
            Self::Integer => std::str::from_utf8(text)
                .ok()?
                .parse()
                .ok()
                .map(Scalar::Integer),
            Self::Bytes | Self::EqualBytes => Some(Scalar::Bytes(Bytes::copy_from_slice(text))),
            Self::Time => read_time(text),
            Self::Decimal => read_decimal(text),
        }
    }

    /// Returns whether equal values have equal texts, so that the text can serve as an index key.
    pub(super) fn is_canonical(self) -> bool {
        self != Self::Decimal
    }
}

/// A comparable value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scalar {
    Integer(i64),
    Bytes(Bytes),
    /// The year, and the rest as a text that sorts in the order of time. The year is negative
    /// before Christ, and an extreme value for the infinities.
    Time(i64, String),
    Decimal(Decimal),
}

/// A `numeric`. In PostgreSQL's order, NaN is above all other values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decimal {
    NegativeInfinity,
    Finite {
        is_negative: bool,
        /// Digits before the point, without leading zeros.
        whole: String,
        /// Digits after the point, without trailing zeros.
        fraction: String,
    },
    Infinity,
    NaN,
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |value: &Self| match value {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        };
        let (
            Self::Finite {
                is_negative,
                whole,
                fraction,
            },
            Self::Finite {
                is_negative: other_negative,
                whole: other_whole,
                fraction: other_fraction,
            },
        ) = (self, other)
        else {
            return rank(self).cmp(&rank(other));
        };
        if is_negative != other_negative {
            return other_negative.cmp(is_negative);
        }
        let magnitude =
            (whole.len(), whole, fraction).cmp(&(other_whole.len(), other_whole, other_fraction));
        if *is_negative {
            magnitude.reverse()
        } else {
            magnitude
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn read_decimal(text: &[u8]) -> Option<Scalar> {
    let text = std::str::from_utf8(text).ok()?;
    let decimal = match text {
        "NaN" => Decimal::NaN,
        "Infinity" => Decimal::Infinity,
        "-Infinity" => Decimal::NegativeInfinity,
        _ => {
            let (is_negative, digits) = match text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, text),
            };
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            if !whole
                .bytes()
                .chain(fraction.bytes())
                .all(|byte| byte.is_ascii_digit())
            {
                return None;
            }
            let whole = whole.trim_start_matches('0').to_owned();
            let fraction = fraction.trim_end_matches('0').to_owned();
            Decimal::Finite {
                is_negative: is_negative && !(whole.is_empty() && fraction.is_empty()),
                whole,
                fraction,
            }
        }
    };
    Some(Scalar::Decimal(decimal))
}

/// Reads a date or time in ISO form and in UTC: `2026-01-02[ 03:04:05[.678]][+00][ BC]`.
fn read_time(text: &[u8]) -> Option<Scalar> {
    let text = std::str::from_utf8(text).ok()?;
    match text {
        "infinity" => return Some(Scalar::Time(i64::MAX, String::new())),
        "-infinity" => return Some(Scalar::Time(i64::MIN, String::new())),
        _ => {}
    }
    let (text, is_before_christ) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let text = text.strip_suffix("+00").unwrap_or(text);
    let (year, rest) = text.split_once('-')?;
    let year: i64 = year.parse().ok()?;
    // With an offset other than UTC, the text order would be wrong.
    if rest.contains('+') || rest.matches('-').count() != 1 {
        return None;
    }
    Some(Scalar::Time(
        if is_before_christ { -year } else { year },
        rest.to_owned(),
    ))
}

impl TypedCondition {
    /// Returns the operand in PostgreSQL's output form if it is obviously a value of the column's
    /// type, or `None` if PostgreSQL has to cast it.
    pub(super) fn plain_operand(column: &TableColumn, text: &str) -> Option<String> {
        let is_integer_in = |min: i64, max: i64| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i64>()
                .ok()
                .filter(|value| is_plain && (min..=max).contains(value))
                .map(|value| value.to_string())
        };
        // Domains are not listed, because PostgreSQL must evaluate their checks.
        match column.type_oid {
            21 => is_integer_in(i64::from(i16::MIN), i64::from(i16::MAX)),
            23 => is_integer_in(i64::from(i32::MIN), i64::from(i32::MAX)),
            20 => is_integer_in(i64::MIN, i64::MAX),
            TEXT | VARCHAR => Some(text.to_owned()),
            UUID => uuid::Uuid::try_parse(text)
                .ok()
                .filter(|_| text.len() == uuid::fmt::Hyphenated::LENGTH)
                .map(|value| value.hyphenated().to_string()),
            BOOL => match text {
                "t" | "true" => Some("t".to_owned()),
                "f" | "false" => Some("f".to_owned()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Creates a condition with its operands in PostgreSQL's output form. `in` has several
    /// operands; a null among them is `None`.
    pub(super) fn new(
        condition: &Condition,
        column: &TableColumn,
        operands: &[Option<String>],
    ) -> Self {
        let test = match Self::comparison(condition, column, operands) {
            Some(comparison) => Test::Local {
                comparison,
                is_negated: condition.negated,
                kind: ScalarKind::of(column),
            },
            None => Self::query_test(condition, column, operands),
        };
        Self {
            column: column.name.clone(),
            type_oid: column.type_oid,
            test,
        }
    }

    fn comparison(
        condition: &Condition,
        column: &TableColumn,
        operands: &[Option<String>],
    ) -> Option<Comparison> {
        if condition.operator == Operator::Is {
            return Some(match condition.value.to_ascii_lowercase().as_str() {
                "true" => Comparison::Truth(true),
                "false" => Comparison::Truth(false),
                _ => Comparison::Null,
            });
        }
        let kind = ScalarKind::of(column)?;
        let scalars: Vec<Scalar> = operands
            .iter()
            .flatten()
            .map(|text| kind.read(text.as_bytes()))
            .collect::<Option<_>>()?;
        if condition.operator == Operator::In {
            return Some(Comparison::Member(scalars, operands.contains(&None)));
        }
        let operand = scalars.into_iter().next()?;
        match condition.operator {
            Operator::Eq | Operator::Neq => Some(Comparison::Ordered(condition.operator, operand)),
            Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => kind
                .has_order()
                .then_some(Comparison::Ordered(condition.operator, operand)),
            Operator::IsDistinct => Some(Comparison::Distinct(operand)),
            Operator::Like
            | Operator::Ilike
            | Operator::Match
            | Operator::Imatch
            | Operator::In
            | Operator::Is => None,
        }
    }

    fn query_test(
        condition: &Condition,
        column: &TableColumn,
        operands: &[Option<String>],
    ) -> Test {
        let sql = comparison_sql(condition.operator, &column.bare_type_sql);
        let negation = if condition.negated { "not " } else { "" };
        let operand = match condition.operator {
            Operator::In => condition.value.clone(),
            _ => operands.first().cloned().flatten().unwrap_or_default(),
        };
        Test::Query {
            sql: format!("{negation}({{value}} {sql})"),
            operand: operand.into(),
        }
    }

    /// Returns the texts for which a column value satisfies the condition, if they can be listed.
    pub(super) fn index_keys(&self, operands: &[Option<String>]) -> Option<Vec<Bytes>> {
        let Test::Local {
            comparison: Comparison::Member(..) | Comparison::Ordered(Operator::Eq, _),
            is_negated: false,
            kind: Some(kind),
        } = &self.test
        else {
            return None;
        };
        kind.is_canonical().then(|| {
            operands
                .iter()
                .flatten()
                .map(|text| Bytes::copy_from_slice(text.as_bytes()))
                .collect()
        })
    }
}

/// Returns the comparison as SQL, with the first element of `$2` as the operand.
fn comparison_sql(operator: Operator, type_sql: &str) -> String {
    let operand = format!("(($2::text[])[1])::{type_sql}");
    match operator {
        Operator::Eq | Operator::Is => format!("= {operand}"),
        Operator::Neq => format!("<> {operand}"),
        Operator::Lt => format!("< {operand}"),
        Operator::Lte => format!("<= {operand}"),
        Operator::Gt => format!("> {operand}"),
        Operator::Gte => format!(">= {operand}"),
        Operator::In => format!("= any ((($2::text[])[1])::{type_sql}[])"),
        Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch => {
            format!("{} (($2::text[])[1])", pattern_operator(operator))
        }
        Operator::IsDistinct => format!("is distinct from {operand}"),
    }
}

/// Returns the SQL operator that applies a pattern.
pub(super) fn pattern_operator(operator: Operator) -> &'static str {
    match operator {
        Operator::Ilike => "ilike",
        Operator::Match => "~",
        Operator::Imatch => "~*",
        _ => "like",
    }
}

/// Returns whether the comparison is true for `value`. Unknown counts as not true.
pub(super) fn is_true(
    comparison: &Comparison,
    is_negated: bool,
    kind: Option<ScalarKind>,
    value: &ColumnValue,
) -> bool {
    truth(comparison, kind, value).is_some_and(|truth| truth != is_negated)
}

fn truth(comparison: &Comparison, kind: Option<ScalarKind>, value: &ColumnValue) -> Option<bool> {
    let text = match value {
        ColumnValue::Text(text) => Some(text),
        ColumnValue::Null => None,
        ColumnValue::Unchanged => return None,
    };
    let scalar = || kind?.read(text?);
    match comparison {
        Comparison::Null => Some(text.is_none()),
        Comparison::Truth(wanted) => {
            Some(text.is_some_and(|text| text.as_ref() == if *wanted { b"t" } else { b"f" }))
        }
        Comparison::Distinct(operand) => match text {
            None => Some(true),
            Some(_) => Some(scalar()? != *operand),
        },
        Comparison::Ordered(operator, operand) => {
            let ordering = scalar()?.cmp(operand);
            Some(match operator {
                Operator::Neq => ordering.is_ne(),
                Operator::Lt => ordering.is_lt(),
                Operator::Lte => ordering.is_le(),
                Operator::Gt => ordering.is_gt(),
                Operator::Gte => ordering.is_ge(),
                _ => ordering.is_eq(),
            })
        }
        // No value is in an empty list, not even an unknown one.
        Comparison::Member(operands, false) if operands.is_empty() => Some(false),
        Comparison::Member(operands, has_null) => {
            let scalar = scalar()?;
            if operands.contains(&scalar) {
                Some(true)
            } else {
                (!has_null).then_some(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: ScalarKind, text: &str) -> Scalar {
        kind.read(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_ordered_as_postgresql_orders_them() {
        let ascending: &[(ScalarKind, &[&str])] = &[
            (
                ScalarKind::Integer,
                &["-5", "0", "10", "9223372036854775807"],
            ),
            (
                ScalarKind::Decimal,
                &[
                    "-Infinity",
                    "-10.5",
                    "-9",
                    "-0.01",
                    "0",
                    "0.001",
                    "0.01",
                    "2",
                    "10",
                    "Infinity",
                    "NaN",
                ],
            ),
            (
                ScalarKind::Time,
                &[
                    "-infinity",
                    "4714-11-24 BC",
                    "0044-03-15 BC",
                    "0001-01-01",
                    "2026-01-02 03:04:05+00",
                    "2026-01-02 03:04:05.45+00",
                    "2026-01-02 03:04:05.5+00",
                    "2026-01-02 03:04:06+00",
                    "10000-01-01 00:00:00+00",
                    "infinity",
                ],
            ),
        ];
        for (kind, texts) in ascending {
            for pair in texts.windows(2) {
                assert!(read(*kind, pair[0]) < read(*kind, pair[1]), "{pair:?}");
            }
        }
        assert_eq!(
            read(ScalarKind::Decimal, "1.50"),
            read(ScalarKind::Decimal, "1.5")
        );
        assert_eq!(
            read(ScalarKind::Decimal, "-0.00"),
            read(ScalarKind::Decimal, "0")
        );
    }

    #[test]
    fn values_not_in_output_form_are_left_to_postgresql() {
        assert_eq!(ScalarKind::Time.read(b"2026-01-02 03:04:05+02"), None);
        assert_eq!(ScalarKind::Time.read(b"2026-01-02 03:04:05-07"), None);
        assert_eq!(ScalarKind::Decimal.read(b"1e5"), None);
        assert_eq!(ScalarKind::Integer.read(b"x"), None);
    }
}
