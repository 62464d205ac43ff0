//! Whether row-level security lets a role see a row image: decided from the catalogue where
//! that suffices, otherwise put to PostgreSQL as a question.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ask::{AskPool, Asker, Asking, Question, TextArray, Way};
use super::catalog::{Catalog, QuestionKey, QuestionKind, Table, TableColumn, TableRights};
use super::error::AskError;
use crate::change::{ColumnValue, Relation};
use crate::observability::metrics::VisibilityMetrics;

/// How long one condition of a filter may take. Filters are written by strangers, and a pattern
/// can be made to run for ever; an honest one takes microseconds a value.
const FILTER_TIME_LIMIT: Duration = Duration::from_millis(250);

/// SQLSTATE of a statement that ran out of its time.
const QUERY_CANCELED: &str = "57014";

/// First and longest wait before a question is repeated while the database is away. A restart
/// takes about a second; nobody is served by asking every 50 ms for an hour.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// How a role's access to the rows of a table is decided. The ways that need no SQL because
/// a policy is understood or a membership is known belong in here, in front of `Asked`.
#[derive(Debug)]
pub(super) enum Access {
    /// Row-level security does not hide any row.
    Visible,
    /// No policy lets any row through.
    Hidden,
    /// PostgreSQL evaluates the policies.
    Asked(Inquiry),
}

/// What PostgreSQL is asked for the rows of one table and role.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// The policies on row images; absent if images can never be complete.
    pub(super) image: Option<ImageInquiry>,
    /// The row itself, for images that are not complete; absent without a primary key.
    pub(super) key: Option<ImageInquiry>,
}

/// A question and what of an image it needs.
#[derive(Debug)]
pub(super) struct ImageInquiry {
    pub(super) question: Arc<Question>,
    /// Places of the needed values in the image.
    pub(super) columns: Vec<usize>,
    /// Whether they are sent as one row text instead of one list for each column.
    is_whole_row: bool,
}

/// How a role's access is decided for images of this shape.
pub(super) fn access(
    catalog: &Catalog,
    table: &Table,
    relation: &Relation,
    role: &str,
    rights: &TableRights,
) -> Access {
    if rights.bypasses_row_security || !table.has_row_security {
        return Access::Visible;
    }
    let mut permissive = Vec::new();
    let mut restrictive = Vec::new();
    for policy in table.policies_for(rights) {
        if policy.is_permissive {
            permissive.push(policy);
        } else {
            restrictive.push(policy);
        }
    }
    if permissive.is_empty() {
        return Access::Hidden;
    }
    // Only if all say so: beside a policy that makes every `select` fail, such as one that
    // refers to itself, `true` shows nothing.
    if restrictive.is_empty() && permissive.iter().all(|policy| policy.expression == "true") {
        return Access::Visible;
    }
    let policies = || permissive.iter().chain(&restrictive);
    let is_whole_row = policies().any(|policy| policy.uses_whole_row);
    let needed: Vec<&TableColumn> = table
        .columns
        .iter()
        .filter(|column| {
            is_whole_row || policies().any(|policy| policy.columns.contains(&column.number))
        })
        .collect();
    let image = places(&needed, relation).map(|columns| {
        let key = QuestionKey {
            table: table.oid,
            role: role.to_owned(),
            kind: QuestionKind::Image,
        };
        let parameters = if is_whole_row { 1 } else { needed.len().max(1) };
        let question = catalog.question(key, || {
            // As PostgreSQL puts them together: every restrictive one, and any of the permissive.
            let any = permissive
                .iter()
                .map(|policy| format!("({})", policy.expression))
                .collect::<Vec<_>>()
                .join(" or ");
            let mut condition = String::new();
            for policy in &restrictive {
                // Writing to a String cannot fail.
                let _ = write!(condition, "({}) and ", policy.expression);
            }
            let _ = write!(condition, "({any})");
            let from = if is_whole_row {
                whole_row_source(table)
            } else {
                image_source(table, &needed)
            };
            Question::new(
                format!("{SELECT_ORDINALS} from {from} where {condition}"),
                parameters,
                policies().any(|policy| policy.uses_immutable_function),
            )
        });
        ImageInquiry {
            question,
            columns,
            is_whole_row,
        }
    });
    Access::Asked(Inquiry {
        image: image.filter(|image| image.question.way() != Way::Impossible),
        key: key_inquiry(catalog, table, relation, role),
    })
}

fn key_inquiry(
    catalog: &Catalog,
    table: &Table,
    relation: &Relation,
    role: &str,
) -> Option<ImageInquiry> {
    let key_columns: Vec<&TableColumn> = table.primary_key().collect();
    if key_columns.is_empty() {
        return None;
    }
    let columns = places(&key_columns, relation)?;
    let key = QuestionKey {
        table: table.oid,
        role: role.to_owned(),
        kind: QuestionKind::Key,
    };
    let question = catalog.question(key, || {
        let mut condition = String::new();
        for (position, column) in key_columns.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(
                condition,
                "{}{RELATION}.{} = {INPUT}.\"rapport {position}\"::{}",
                if position > 0 { " and " } else { "" },
                quote(&column.name),
                column.type_sql
            );
        }
        Question::new(
            format!(
                "{SELECT_ORDINALS} from {} where exists (select from {}.{} as {RELATION} where {condition})",
                unnested(key_columns.len()),
                quote(&table.name.schema),
                quote(&table.name.name),
            ),
            key_columns.len(),
            false,
        )
    });
    Some(ImageInquiry {
        question,
        columns,
        is_whole_row: false,
    })
}

/// Names that no policy can mean: an unqualified name in a policy is a column's of its table.
const INPUT: &str = "\"rapport input\"";
const RELATION: &str = "\"rapport relation\"";
const ORDINAL: &str = "\"rapport ordinal\"";

/// One row with the ordinals, counted from 1, for which the condition is true.
const SELECT_ORDINALS: &str =
    "select coalesce(pg_catalog.array_agg(\"rapport ordinal\"), '{}'::pg_catalog.int8[])";

/// Places of columns in the images; `None` if one is missing there, or of another type.
fn places(columns: &[&TableColumn], relation: &Relation) -> Option<Vec<usize>> {
    columns
        .iter()
        .map(|column| {
            relation.columns.iter().position(|published| {
                published.name == column.name
                    && published.type_oid == column.type_oid
                    // A cast to another length would change the value.
                    && published.type_modifier == column.type_modifier
            })
        })
        .collect()
}

/// `unnest` of one list per column, and the ordinal.
fn unnested(columns: usize) -> String {
    // Without any column one list still says how many rows there are.
    let lists: Vec<_> = (1..=columns.max(1))
        .map(|n| format!("pg_catalog.unnest(${n}::text[])"))
        .collect();
    let names: Vec<_> = (0..columns.max(1))
        .map(|n| format!("\"rapport {n}\""))
        .collect();
    format!(
        "rows from ({}) with ordinality as {INPUT} ({}, {ORDINAL})",
        lists.join(", "),
        names.join(", ")
    )
}

/// A sub-select that is named as the table and has the needed columns with their types, so
/// that qualified and unqualified names of a policy mean the image.
fn image_source(table: &Table, columns: &[&TableColumn]) -> String {
    let mut list = format!("{INPUT}.{ORDINAL}");
    for (position, column) in columns.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            list,
            ", ({}) as {}",
            cast(position, column),
            quote(&column.name)
        );
    }
    format!(
        "(select {list} from {}) as {}",
        unnested(columns.len()),
        quote(&table.name.name)
    )
}

/// A value of the unnested lists as its column's type and collation.
fn cast(position: usize, column: &TableColumn) -> String {
    let collation = column
        .collation
        .as_ref()
        .map(|collation| format!(" collate {collation}"))
        .unwrap_or_default();
    format!(
        "{INPUT}.\"rapport {position}\"::{}{collation}",
        column.type_sql
    )
}

/// The images as rows of the table's own row type, for policies that hand a row on as a whole.
fn whole_row_source(table: &Table) -> String {
    format!(
        "{} cross join lateral pg_catalog.unnest(array[{INPUT}.\"rapport 0\"::{}.{}]) as {}",
        unnested(1),
        quote(&table.name.schema),
        quote(&table.name.name),
        quote(&table.name.name)
    )
}

/// The question whether a filter condition is true of values of a column.
pub(super) fn condition_question(
    catalog: &Catalog,
    table: &Table,
    role: &str,
    column: &TableColumn,
    condition: &str,
) -> Arc<Question> {
    let key = QuestionKey {
        table: table.oid,
        role: role.to_owned(),
        kind: QuestionKind::Condition(column.number, condition.to_owned()),
    };
    catalog.question(key, || {
        let value = format!("({})", cast(0, column));
        Question::new(
            format!(
                "{SELECT_ORDINALS} from pg_catalog.unnest($1::text[]) with ordinality as {INPUT} \
                 (\"rapport 0\", {ORDINAL}) where {}",
                condition.replace("{value}", &value)
            ),
            2,
            false,
        )
        .with_time_limit(FILTER_TIME_LIMIT)
    })
}

/// An identifier as SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl ImageInquiry {
    /// The texts to send for an image; `None` if the image lacks a needed value.
    pub(super) fn input<'a>(
        &self,
        value: impl Fn(usize) -> Option<&'a ColumnValue>,
    ) -> Option<Vec<Option<Bytes>>> {
        let values = self.columns.iter().map(|place| match value(*place)? {
            ColumnValue::Text(text) => Some(Some(text.clone())),
            ColumnValue::Null => Some(None),
            ColumnValue::Unchanged => None,
        });
        if self.is_whole_row {
            let values: Vec<_> = values.collect::<Option<_>>()?;
            return Some(vec![Some(row_text(&values))]);
        }
        values.collect()
    }
}

/// Row text (PostgreSQL manual 8.16.6): every value quoted, null as nothing.
fn row_text(values: &[Option<Bytes>]) -> Bytes {
    let mut text = vec![b'('];
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            text.push(b',');
        }
        if let Some(value) = value {
            text.push(b'"');
            for byte in value {
                if matches!(byte, b'"' | b'\\') {
                    text.push(*byte);
                }
                text.push(*byte);
            }
            text.push(b'"');
        }
    }
    text.push(b')');
    text.into()
}

/// Distinct inputs of one question: rows that do not differ in what matters are asked once.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    rows: Vec<Vec<Option<Bytes>>>,
    known: HashMap<Vec<Option<Bytes>>, u32>,
}

impl Inputs {
    /// The number of this input, a new one if it was not there.
    pub(super) fn number(&mut self, input: Vec<Option<Bytes>>) -> u32 {
        if let Some(number) = self.known.get(&input) {
            return *number;
        }
        // A batch has fewer changes than a u32 counts.
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(input.clone());
        self.known.insert(input, number);
        number
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn encode(&self, numbers: &[u32], operand: Option<&str>) -> Arc<[TextArray]> {
        let width = self.rows.first().map_or(0, Vec::len).max(1);
        let lists = (0..width).map(|column| {
            TextArray::new(numbers.iter().map(|number| {
                self.rows
                    .get(*number as usize)
                    .and_then(|row| row.get(column)?.as_deref())
            }))
        });
        let operand = operand.map(|operand| TextArray::new([Some(operand.as_bytes())].into_iter()));
        lists.chain(operand).collect()
    }
}

/// One question in one identity's name about some of the inputs.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) asker: Arc<Asker>,
    pub(super) question: Arc<Question>,
    pub(super) inputs: Arc<Inputs>,
    pub(super) numbers: Arc<[u32]>,
    /// The operand of a filter condition.
    pub(super) operand: Option<Arc<str>>,
}

/// The answer to an [`Item`].
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Inputs for which the answer is yes.
    pub(super) visible: Vec<u32>,
    /// Inputs that got no answer, with SQLSTATEs.
    pub(super) failed: Vec<(u32, String)>,
}

/// Statements fail, by themselves and not by what they are asked about: the catalogue is to be
/// read anew and access to be decided again.
#[derive(Debug)]
pub(super) struct Stale;

/// A part of an item under way.
struct Part {
    item: usize,
    numbers: Arc<[u32]>,
    /// Whether nothing of it has failed yet.
    is_first_attempt: bool,
    /// Of a probe, which asks about nothing to learn if the statement fails by itself: what to
    /// search if it does not, and how that failed.
    behind_probe: Option<(Arc<[u32]>, String)>,
}

/// Asks everything until there is an answer: waits while the database is away, and narrows a
/// failure down to the inputs that cause it. One execution is about `max_inputs` at most: that
/// bounds what one statement's time limit covers.
///
/// # Errors
/// [`Stale`] with `may_be_stale` when a statement itself fails, and at any time when a
/// question turns out to be impossible.
pub(super) async fn settle(
    pool: &AskPool,
    metrics: &VisibilityMetrics,
    max_inputs: usize,
    items: &[Item],
    may_be_stale: bool,
) -> Result<Vec<Outcome>, Stale> {
    let mut outcomes: Vec<Outcome> = items.iter().map(|_| Outcome::default()).collect();
    let mut open: VecDeque<Part> = VecDeque::new();
    for (position, item) in items.iter().enumerate() {
        if item.numbers.len() <= max_inputs {
            open.push_back(Part::new(position, Arc::clone(&item.numbers)));
        } else {
            open.extend(
                item.numbers
                    .chunks(max_inputs)
                    .map(|numbers| Part::new(position, numbers.into())),
            );
        }
    }
    let mut patience = Patience::new(metrics);
    while !open.is_empty() {
        let parts: Vec<Part> = open.drain(..).collect();
        let askings = askings(items, &parts);
        let answers = pool.ask(&askings).await;
        let mut away = None;
        let mut is_impossible = false;
        let ways: Vec<Way> = askings.iter().map(|asking| asking.way).collect();
        for ((part, way), answer) in parts.into_iter().zip(ways).zip(answers) {
            let ordinals = answer.and_then(|row| Ok(row.try_get::<_, Vec<i64>>(0)?));
            match ordinals {
                Ok(ordinals) => {
                    if let Some((numbers, sqlstate)) = part.behind_probe {
                        narrow(
                            &mut open,
                            &mut outcomes[part.item],
                            part.item,
                            &numbers,
                            &sqlstate,
                            metrics,
                        );
                        continue;
                    }
                    let numbers = ordinals.iter().filter_map(|ordinal| {
                        let place = usize::try_from(*ordinal).ok()?.checked_sub(1)?;
                        part.numbers.get(place).copied()
                    });
                    outcomes[part.item].visible.extend(numbers);
                }
                Err(error @ AskError::Unavailable(_)) => {
                    away = Some(error);
                    open.push_back(part);
                }
                Err(error) if may_be_stale && error.concerns_statement() => return Err(Stale),
                Err(error) => {
                    let question = &items[part.item].question;
                    let sqlstate = error.sqlstate().unwrap_or("XX000").to_owned();
                    tracing::debug!(%sqlstate, "a question about row visibility failed");
                    if question.give_way(way, &error, part.behind_probe.is_some()) {
                        is_impossible |= question.way() == Way::Impossible;
                        let numbers = part
                            .behind_probe
                            .map_or(part.numbers, |(numbers, _)| numbers);
                        open.push_back(Part::new(part.item, numbers));
                        continue;
                    }
                    let item_is_filter = items[part.item].operand.is_some();
                    let outcome = &mut outcomes[part.item];
                    let whole = match &part.behind_probe {
                        Some((numbers, _)) => Some(Arc::clone(numbers)),
                        // Looking for the one value on which a filter takes too long would take
                        // everybody's time.
                        None if matches!(error, AskError::Unpreparable(_))
                            || (item_is_filter && sqlstate == QUERY_CANCELED) =>
                        {
                            Some(Arc::clone(&part.numbers))
                        }
                        None => None,
                    };
                    if let Some(numbers) = whole {
                        let failed = numbers.iter().map(|number| (*number, sqlstate.clone()));
                        outcome.failed.extend(failed);
                    } else if part.is_first_attempt {
                        open.push_back(part.probe(sqlstate));
                    } else {
                        narrow(
                            &mut open,
                            outcome,
                            part.item,
                            &part.numbers,
                            &sqlstate,
                            metrics,
                        );
                    }
                }
            }
        }
        if is_impossible {
            return Err(Stale);
        }
        match away {
            Some(error) => patience.wait(&error).await,
            None => patience = Patience::new(metrics),
        }
    }
    Ok(outcomes)
}

/// Splits inputs of which one failed, or names the one that did.
fn narrow(
    open: &mut VecDeque<Part>,
    outcome: &mut Outcome,
    item: usize,
    numbers: &Arc<[u32]>,
    sqlstate: &str,
    metrics: &VisibilityMetrics,
) {
    if let [number] = **numbers {
        outcome.failed.push((number, sqlstate.to_owned()));
        return;
    }
    metrics.bisections.inc();
    let (left, right) = numbers.split_at(numbers.len() / 2);
    for half in [left, right] {
        if !half.is_empty() {
            open.push_back(Part {
                is_first_attempt: false,
                ..Part::new(item, half.into())
            });
        }
    }
}

impl Part {
    fn new(item: usize, numbers: Arc<[u32]>) -> Self {
        Self {
            item,
            numbers,
            is_first_attempt: true,
            behind_probe: None,
        }
    }

    /// The same statement about nothing: what fails even so, such as a missing right on a
    /// function, is not looked for row by row.
    fn probe(self, sqlstate: String) -> Self {
        Self {
            item: self.item,
            numbers: Arc::new([]),
            is_first_attempt: false,
            behind_probe: Some((self.numbers, sqlstate)),
        }
    }
}

fn askings(items: &[Item], parts: &[Part]) -> Vec<Asking> {
    // Most identities are asked about the same inputs, shared: these are encoded once. Whatever
    // an address stands for is kept alive by `parts` and `items`.
    let mut encoded: HashMap<[usize; 3], Arc<[TextArray]>> = HashMap::new();
    parts
        .iter()
        .map(|part| {
            let item = &items[part.item];
            let key = [
                Arc::as_ptr(&item.inputs).addr(),
                Arc::as_ptr(&part.numbers).addr(),
                item.operand
                    .as_ref()
                    .map_or(0, |operand| Arc::as_ptr(operand).addr()),
            ];
            let parameters = encoded
                .entry(key)
                .or_insert_with(|| item.inputs.encode(&part.numbers, item.operand.as_deref()));
            Asking {
                asker: Arc::clone(&item.asker),
                question: Arc::clone(&item.question),
                way: item.question.way(),
                parameters: Arc::clone(parameters),
            }
        })
        .collect()
}

/// The pauses between attempts while the database is away.
pub(super) struct Patience<'a> {
    metrics: &'a VisibilityMetrics,
    wait: Duration,
}

impl<'a> Patience<'a> {
    pub(super) fn new(metrics: &'a VisibilityMetrics) -> Self {
        Self {
            metrics,
            wait: FIRST_RETRY,
        }
    }

    /// Waits after an error, longer each time.
    pub(super) async fn wait(&mut self, error: &AskError) {
        self.metrics.retries.inc();
        tracing::warn!(%error, "row visibility waits for the database");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }
}
