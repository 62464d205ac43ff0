//! Filter conditions that only PostgreSQL can decide, gathered over a table_batch of changes.
//!
//! They are asked about rows that whoever set the filter may see, and about no others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::checks::{Check, CheckResult, Inputs, StaleCatalog};
use super::delivery::Payload;
use super::failure::QUERY_CANCELED;
use super::predicate::Test;
use super::recipients::{Groups, add, unanswered_text};
use super::row_access::condition_query;
use super::subscription::Subscription;
use super::table::Table;
use super::table_batch::Resolution;
use crate::change::ColumnValue;

/// PendingConditions of one identity that are asked about before it is looked whether one of them took too
/// long. Anybody may set filters by the thousand, and changes of all tables wait for them.
const CONDITIONS_PER_ROUND: usize = 4;

/// Filter conditions that PostgreSQL decides, gathered over a table_batch.
#[derive(Default)]
pub(super) struct PendingConditions<'a> {
    pub(super) waiting: Vec<PendingDelivery<'a>>,
}

/// A change that a filter accepts if all of its asked conditions are true.
pub(super) struct PendingDelivery<'a> {
    pub(super) change: usize,
    pub(super) subscription: Arc<Subscription>,
    /// Position of the condition in the filter, and the value it is about.
    pub(super) conditions: Vec<(usize, &'a ColumnValue)>,
    /// What is due then.
    pub(super) payload: Payload,
}

impl PendingConditions<'_> {
    /// Adds what is due of accepted changes.
    ///
    /// # Errors
    /// As [`super::checks::run_checks`].
    pub(super) async fn evaluate(
        self,
        resolution: &Resolution<'_>,
        table: &Table,
        may_be_stale: bool,
        groups: &mut Groups,
    ) -> Result<(), StaleCatalog> {
        // One query for each identity and condition, over all values of the table_batch.
        let mut places: HashMap<(usize, &str, &str, &str), usize> = HashMap::new();
        let mut inputs: Vec<Inputs> = Vec::new();
        let mut subjects = Vec::new();
        let mut numbers = Vec::with_capacity(self.waiting.len());
        for waiting in &self.waiting {
            let mut own = Vec::with_capacity(waiting.conditions.len());
            for (position, value) in &waiting.conditions {
                let condition = &waiting.subscription.predicate.conditions[*position];
                let Test::Query { sql, operand } = &condition.test else {
                    continue;
                };
                let principal = &waiting.subscription.principal;
                let key = (
                    Arc::as_ptr(principal).addr(),
                    condition.column.as_str(),
                    sql.as_str(),
                    &**operand,
                );
                let place = *places.entry(key).or_insert_with(|| {
                    inputs.push(Inputs::default());
                    subjects.push((principal, condition, sql, operand));
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
        let mut checks = Vec::with_capacity(inputs.len());
        for (inputs, (principal, condition, sql, operand)) in inputs.into_iter().zip(subjects) {
            let Some(column) = table.column(&condition.column) else {
                return Err(StaleCatalog);
            };
            let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
            checks.push(Check {
                principal: Arc::clone(principal),
                query: condition_query(
                    &resolution.catalog.queries,
                    table,
                    &principal.identity.role,
                    column,
                    sql,
                ),
                inputs: Arc::new(inputs),
                numbers: (0..count).collect(),
                operand: Some(Arc::clone(operand)),
            });
        }
        let engine = resolution.engine;
        let results = run_conditions(resolution, checks, may_be_stale).await?;
        let answers: Vec<(HashSet<u32>, HashMap<u32, String>)> = results
            .into_iter()
            .map(|result| {
                (
                    result.accepted.into_iter().collect(),
                    result.failed.into_iter().collect(),
                )
            })
            .collect();
        for (waiting, own) in self.waiting.into_iter().zip(numbers) {
            let failure = own
                .iter()
                .find_map(|(place, number)| answers[*place].1.get(number));
            if let Some(sqlstate) = failure {
                engine.metrics.unanswered.inc();
                let table = resolution.table_batch.relation.table.to_string();
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
async fn run_conditions(
    resolution: &Resolution<'_>,
    checks: Vec<Check>,
    may_be_stale: bool,
) -> Result<Vec<CheckResult>, StaleCatalog> {
    let engine = resolution.engine;
    let mut results: Vec<CheckResult> = checks.iter().map(|_| CheckResult::default()).collect();
    // By the principal's address, of which there is one for each identity.
    let mut asked_of: HashMap<usize, usize> = HashMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (place, check) in checks.iter().enumerate() {
        let asked = asked_of
            .entry(Arc::as_ptr(&check.principal).addr())
            .or_default();
        let round = *asked / CONDITIONS_PER_ROUND;
        *asked += 1;
        if round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[round].push(place);
    }
    for round in rounds {
        let now = Instant::now();
        let (slow, asked): (Vec<usize>, Vec<usize>) = round.into_iter().partition(|place| {
            engine
                .slow_filters
                .is_suspended(&checks[*place].principal.identity, now)
        });
        for place in slow {
            let numbers = checks[place].numbers.iter();
            results[place].failed = numbers
                .map(|number| (*number, QUERY_CANCELED.to_owned()))
                .collect();
        }
        let queries: Vec<Check> = asked.iter().map(|place| checks[*place].clone()).collect();
        let answers = resolution.run_checks(&queries, may_be_stale).await?;
        for (place, result) in asked.into_iter().zip(answers) {
            let mut failures = result.failed.iter();
            if failures.any(|(_, sqlstate)| sqlstate == QUERY_CANCELED) {
                engine
                    .slow_filters
                    .suspend(&checks[place].principal.identity, Instant::now());
            }
            results[place] = result;
        }
    }
    Ok(results)
}
