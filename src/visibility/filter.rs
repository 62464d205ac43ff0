//! Parses the filter grammar of subscriptions (protocol 6.2): `column=[not.]operator.value`, joined
//! by commas.
//!
//! The result does not depend on the catalogue or on rows.

use super::error::SubscribeError;
use super::inspect::inspect_text;

/// The operator of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// `=`
    Eq,
    /// `!=`
    Neq,
    /// `<`
    Lt,
    /// `<=`
    Lte,
    /// `>`
    Gt,
    /// `>=`
    Gte,
    /// `= any (…)`
    In,
    /// `like`
    Like,
    /// `ilike`
    Ilike,
    /// `is null`, `is true`, `is false`, `is unknown`
    Is,
    /// `~`
    Match,
    /// `~*`
    Imatch,
    /// `is distinct from`
    IsDistinct,
}

impl Operator {
    const ALL: [(&'static str, Self); 13] = [
        ("eq", Self::Eq),
        ("neq", Self::Neq),
        ("lt", Self::Lt),
        ("lte", Self::Lte),
        ("gt", Self::Gt),
        ("gte", Self::Gte),
        ("in", Self::In),
        ("like", Self::Like),
        ("ilike", Self::Ilike),
        ("is", Self::Is),
        ("match", Self::Match),
        ("imatch", Self::Imatch),
        ("isdistinct", Self::IsDistinct),
    ];

    /// Returns the operator's name in a filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::In => "in",
            Self::Like => "like",
            Self::Ilike => "ilike",
            Self::Is => "is",
            Self::Match => "match",
            Self::Imatch => "imatch",
            Self::IsDistinct => "isdistinct",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, operator)| *operator)
    }
}

/// One condition of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Condition {
    /// The column name as written.
    pub column: String,
    /// The operator.
    pub operator: Operator,
    /// The operand as text. For `in`, this is a PostgreSQL array literal.
    pub value: String,
    /// Whether `not.` precedes the operator.
    pub negated: bool,
}

impl Condition {
    /// Parses a filter. A blank filter has no conditions.
    ///
    /// # Errors
    /// [`SubscribeError::Filter`] with the protocol's text.
    pub fn parse_all(filter: &str) -> Result<Vec<Self>, SubscribeError> {
        if filter.trim().is_empty() {
            return Ok(Vec::new());
        }
        split(filter).into_iter().map(Self::parse).collect()
    }

    fn parse(segment: &str) -> Result<Self, SubscribeError> {
        let segment = segment.trim();
        if segment.is_empty() {
            return Err(SubscribeError::Filter(
                "filter must not contain empty segments (check for extra commas)".to_owned(),
            ));
        }
        let unreadable = |parts: &[&str]| {
            let parts: Vec<_> = parts.iter().map(|part| inspect_text(part)).collect();
            SubscribeError::Filter(format!("[{}]", parts.join(", ")))
        };
        let Some((column, comparison)) = segment.split_once('=') else {
            return Err(unreadable(&[segment]));
        };
        let (negated, comparison) = match comparison.strip_prefix("not.") {
            Some(rest) => (true, rest),
            None => (false, comparison),
        };
        let Some((name, value)) = comparison.split_once('.') else {
            return Err(unreadable(&[comparison]));
        };
        let Some(operator) = Operator::from_name(name) else {
            return Err(unreadable(&[name, value]));
        };
        let value = if operator == Operator::In {
            let inside = value
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(|| {
                    SubscribeError::Filter(
                        "`in` filter value must be wrapped by parentheses".to_owned(),
                    )
                })?;
            format!("{{{inside}}}")
        } else {
            unquote(value)
        };
        Ok(Self {
            column: column.to_owned(),
            operator,
            value,
            negated,
        })
    }
}

/// Splits a filter at the commas outside parentheses and quoted values. A quote starts a value only
/// directly after `.`, `(` or `,`; elsewhere it is an ordinary character.
fn split(filter: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let mut start = 0;
    let mut depth = 0_u32;
    let mut is_quoted = false;
    let mut is_escaped = false;
    let mut previous = ',';
    for (at, character) in filter.char_indices() {
        if is_quoted {
            if is_escaped {
                is_escaped = false;
            } else if character == '\\' {
                is_escaped = true;
            } else if character == '"' {
                is_quoted = false;
            }
        } else {
            match character {
                '"' if matches!(previous, '.' | '(' | ',') => is_quoted = true,
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    segments.push(&filter[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        previous = character;
    }
    segments.push(&filter[start..]);
    segments
}

/// Removes the quotes from a value that is entirely quoted. Inside the quotes, `\x` stands for `x`.
fn unquote(value: &str) -> String {
    let Some(inside) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            '"' if characters.as_str().is_empty() => return text,
            '"' => break,
            other => text.push(other),
        }
    }
    value.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(column: &str, operator: Operator, value: &str, negated: bool) -> Condition {
        Condition {
            column: column.to_owned(),
            operator,
            value: value.to_owned(),
            negated,
        }
    }

    #[test]
    fn filters_are_parsed() {
        use Operator::{Eq, Gte, Ilike, In, Is, IsDistinct, Lt, Match};
        let cases: &[(&str, Vec<Condition>)] = &[
            ("", vec![]),
            ("  ", vec![]),
            ("id=eq.1", vec![condition("id", Eq, "1", false)]),
            (" id=eq.1 ", vec![condition("id", Eq, "1", false)]),
            ("id=eq.", vec![condition("id", Eq, "", false)]),
            ("a=eq.x=y.z", vec![condition("a", Eq, "x=y.z", false)]),
            (
                "id=gte.1,id=not.lt.5",
                vec![
                    condition("id", Gte, "1", false),
                    condition("id", Lt, "5", true),
                ],
            ),
            (
                "id=in.(1,2,3), b=is.null",
                vec![
                    condition("id", In, "{1,2,3}", false),
                    condition("b", Is, "null", false),
                ],
            ),
            (
                r#"a=eq."x,y",b=eq."say \"hi\" \\""#,
                vec![
                    condition("a", Eq, "x,y", false),
                    condition("b", Eq, r#"say "hi" \"#, false),
                ],
            ),
            (
                r#"a=in.("x,y",z)"#,
                vec![condition("a", In, r#"{"x,y",z}"#, false)],
            ),
            (
                r#"a=eq.5" pipe"#,
                vec![condition("a", Eq, r#"5" pipe"#, false)],
            ),
            (r#"a=eq."half"#, vec![condition("a", Eq, r#""half"#, false)]),
            (
                "a=ilike.%x%,b=match.^a(b,c)$,c=not.isdistinct.1",
                vec![
                    condition("a", Ilike, "%x%", false),
                    condition("b", Match, "^a(b,c)$", false),
                    condition("c", IsDistinct, "1", true),
                ],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(Condition::parse_all(text).as_ref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn invalid_filters_have_the_text_of_the_protocol() {
        let cases = [
            ("undefined", r#"["undefined"]"#),
            ("id=foo.hey", r#"["foo", "hey"]"#),
            ("id=foo", r#"["foo"]"#),
            (
                "id=in.1,2",
                "`in` filter value must be wrapped by parentheses",
            ),
            (
                "id=eq.1,,b=eq.2",
                "filter must not contain empty segments (check for extra commas)",
            ),
            (
                "id=eq.1,",
                "filter must not contain empty segments (check for extra commas)",
            ),
        ];
        for (text, why) in cases {
            assert_eq!(
                Condition::parse_all(text).map_err(|error| error.client_text()),
                Err(format!("Error parsing `filter` params: {why}")),
                "{text}"
            );
        }
    }
}
