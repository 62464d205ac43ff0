//! Filter conditions that only PostgreSQL can decide, gathered over a run of changes.
//!
//! They are asked about rows that whoever set the filter may see, and about no others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::catalog::Table;
use super::delivery::Payload;
use super::inquiry::{Inputs, Item, Outcome, QUERY_CANCELED, Stale};
use super::predicate::Test;
use super::resolution::{Groups, Resolution, add, unanswered_text};
use super::row_access::condition_question;
use super::subscription::Subscription;
use crate::change::ColumnValue;

/// Conditions of one identity that are asked about before it is looked whether one of them took too
/// long. Anybody may set filters by the thousand, and changes of all tables wait for them.
const CONDITIONS_AT_ONCE: usize = 4;

/// Filter conditions that PostgreSQL decides, gathered over a run.
#[derive(Default)]
pub(super) struct Conditions<'a> {
    pub(super) waiting: Vec<Waiting<'a>>,
}

/// A change that a filter accepts if all of its asked conditions are true.
pub(super) struct Waiting<'a> {
    pub(super) change: usize,
    pub(super) subscription: Arc<Subscription>,
    /// Position of the condition in the filter, and the value it is about.
    pub(super) conditions: Vec<(usize, &'a ColumnValue)>,
    /// What is due then.
    pub(super) payload: Payload,
}

impl Conditions<'_> {
    /// Adds what is due of accepted changes.
    ///
    /// # Errors
    /// As [`super::inquiry::settle`].
    pub(super) async fn decide(
        self,
        resolution: &Resolution<'_>,
        table: &Table,
        may_be_stale: bool,
        groups: &mut Groups,
    ) -> Result<(), Stale> {
        // One question for each identity and condition, over all values of the run.
        let mut places: HashMap<(usize, &str, &str, &str), usize> = HashMap::new();
        let mut inputs: Vec<Inputs> = Vec::new();
        let mut subjects = Vec::new();
        let mut numbers = Vec::with_capacity(self.waiting.len());
        for waiting in &self.waiting {
            let mut own = Vec::with_capacity(waiting.conditions.len());
            for (position, value) in &waiting.conditions {
                let condition = &waiting.subscription.predicate.conditions[*position];
                let Test::Asked { sql, operand } = &condition.test else {
                    continue;
                };
                let asker = &waiting.subscription.asker;
                let key = (
                    Arc::as_ptr(asker).addr(),
                    condition.column.as_str(),
                    sql.as_str(),
                    &**operand,
                );
                let place = *places.entry(key).or_insert_with(|| {
                    inputs.push(Inputs::default());
                    subjects.push((asker, condition, sql, operand));
                    inputs.len() - 1
                });
                let text = match value {
                    ColumnValue::Text(text) => Some(text.clone()),
                    ColumnValue::Null | ColumnValue::Unchanged => None,
                };
                own.push((place, inputs[place].number(vec![text])));
            }
            numbers.push(own);
        }
        let mut items = Vec::with_capacity(inputs.len());
        for (inputs, (asker, condition, sql, operand)) in inputs.into_iter().zip(subjects) {
            let Some(column) = table.column(&condition.column) else {
                return Err(Stale);
            };
            let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
            items.push(Item {
                asker: Arc::clone(asker),
                question: condition_question(
                    resolution.catalog,
                    table,
                    &asker.identity.role,
                    column,
                    sql,
                ),
                inputs: Arc::new(inputs),
                numbers: (0..count).collect(),
                operand: Some(Arc::clone(operand)),
            });
        }
        let resolver = resolution.resolver;
        let outcomes = outcomes(resolution, items, may_be_stale).await?;
        let answers: Vec<(HashSet<u32>, HashMap<u32, String>)> = outcomes
            .into_iter()
            .map(|outcome| {
                (
                    outcome.visible.into_iter().collect(),
                    outcome.failed.into_iter().collect(),
                )
            })
            .collect();
        for (waiting, own) in self.waiting.into_iter().zip(numbers) {
            let failure = own
                .iter()
                .find_map(|(place, number)| answers[*place].1.get(number));
            if let Some(sqlstate) = failure {
                resolver.metrics.unanswered.inc();
                let table = resolution.run.relation.table.to_string();
                let payload = Payload::Unanswered(unanswered_text(&table, sqlstate));
                add(&mut groups[waiting.change], payload, &waiting.subscription);
            } else if own
                .iter()
                .all(|(place, number)| answers[*place].0.contains(number))
            {
                add(
                    &mut groups[waiting.change],
                    waiting.payload,
                    &waiting.subscription,
                );
            }
        }
        Ok(())
    }
}

/// Asks everything, a few conditions of each identity at once. When one of them takes too long, the
/// others of that identity are not asked about any more: they count as if they did, too.
async fn outcomes(
    resolution: &Resolution<'_>,
    items: Vec<Item>,
    may_be_stale: bool,
) -> Result<Vec<Outcome>, Stale> {
    let resolver = resolution.resolver;
    let mut outcomes: Vec<Outcome> = items.iter().map(|_| Outcome::default()).collect();
    // By the asker's address, of which there is one for each identity.
    let mut asked_of: HashMap<usize, usize> = HashMap::new();
    let mut turns: Vec<Vec<usize>> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let asked = asked_of.entry(Arc::as_ptr(&item.asker).addr()).or_default();
        let turn = *asked / CONDITIONS_AT_ONCE;
        *asked += 1;
        if turn == turns.len() {
            turns.push(Vec::new());
        }
        turns[turn].push(place);
    }
    for turn in turns {
        let now = Instant::now();
        let (slow, asked): (Vec<usize>, Vec<usize>) = turn.into_iter().partition(|place| {
            resolver
                .slow_filters
                .has(&items[*place].asker.identity, now)
        });
        for place in slow {
            let numbers = items[place].numbers.iter();
            outcomes[place].failed = numbers
                .map(|number| (*number, QUERY_CANCELED.to_owned()))
                .collect();
        }
        let questions: Vec<Item> = asked.iter().map(|place| items[*place].clone()).collect();
        let answers = resolution.ask(&questions, may_be_stale).await?;
        for (place, outcome) in asked.into_iter().zip(answers) {
            let mut failures = outcome.failed.iter();
            if failures.any(|(_, sqlstate)| sqlstate == QUERY_CANCELED) {
                resolver
                    .slow_filters
                    .note(&items[place].asker.identity, Instant::now());
            }
            outcomes[place] = outcome;
        }
    }
    Ok(outcomes)
}
