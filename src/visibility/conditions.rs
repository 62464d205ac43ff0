//! Evaluates filter conditions that only PostgreSQL can decide, for all changes of a table batch.
//!
//! A condition is evaluated only on rows that its subscriber may see.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checks::{AccessCheck, AccessCheckResult, FilterCheck, Inputs, StaleCatalog};
use super::delivery::Payload;
use super::failure::QUERY_CANCELED;
use super::predicate::Test;
use super::recipients::{RecipientGroups, add, check_failed_text};
use super::row_access::condition_query;
use super::subscription::Subscription;
use super::table::Table;
use super::table_batch::Resolution;
use crate::change::ColumnValue;

/// Number of conditions of one user in the first round. The time that they take is counted after
/// each round, and the changes of all tables wait for them, so only a few run at first. Each may
/// take all the time that the user has left, because they run in parallel on several connections.
const FIRST_ROUND: usize = 4;

/// Maximum number of conditions of one user in a round. Each round has twice as many as the one
/// before, so that many fast conditions take few rounds. The time limit of each condition becomes
/// smaller in the same proportion.
const LARGEST_ROUND: usize = 32;

/// Maximum number of conditions of one user per table batch. Each costs a statement, even if it
/// takes no time. Clients without a `sub` share their role and claims, and count as one user.
const MAX_CONDITIONS: usize = 1_000;

/// The deliveries that depend on conditions that only PostgreSQL can decide.
#[derive(Default)]
pub(super) struct PendingConditions<'a> {
    pub(super) waiting: Vec<PendingDelivery<'a>>,
}

/// A delivery that is made if all its conditions are true.
pub(super) struct PendingDelivery<'a> {
    /// The index of the change in the table batch.
    pub(super) change: usize,
    pub(super) subscription: Arc<Subscription>,
    /// The index of each condition in the filter, and the value on which the condition is
    /// evaluated.
    pub(super) conditions: Vec<(usize, &'a ColumnValue)>,
    /// The payload to deliver.
    pub(super) payload: Payload,
}

impl PendingConditions<'_> {
    /// Adds the recipients whose conditions are true. If one of a recipient's conditions fails, the
    /// recipient receives an error instead of the row.
    ///
    /// # Errors
    /// See [`super::checks::run_checks`].
    pub(super) async fn evaluate(
        self,
        resolution: &Resolution<'_>,
        table: &Table,
        may_be_stale: bool,
        groups: &mut RecipientGroups,
    ) -> Result<(), StaleCatalog> {
        // One check per identity and condition, for all values of the table batch.
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
            checks.push(AccessCheck {
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
                filter: Some(FilterCheck {
                    operand: Arc::clone(operand),
                    // Replaced by the time that the user has left when the check runs.
                    time_limit: Duration::ZERO,
                }),
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
                let payload = Payload::CheckFailed(check_failed_text(&table, sqlstate));
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

/// Returns the number of conditions of one user in a round, counted from 0.
fn round_size(round: usize) -> usize {
    (0..round).fold(FIRST_ROUND, |size, _| (size * 2).min(LARGEST_ROUND))
}

/// Runs the checks in rounds, see [`FIRST_ROUND`]. Once the time of a user is used up, the rest of
/// their checks fail as if they had exceeded their time limit.
async fn run_conditions(
    resolution: &Resolution<'_>,
    checks: Vec<AccessCheck>,
    may_be_stale: bool,
) -> Result<Vec<AccessCheckResult>, StaleCatalog> {
    let filter_time = &resolution.engine.filter_time;
    let mut results: Vec<AccessCheckResult> = checks
        .iter()
        .map(|_| AccessCheckResult::default())
        .collect();
    let mut by_user: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, check) in checks.iter().enumerate() {
        let places = by_user.entry(&*check.principal.user).or_default();
        if places.len() == MAX_CONDITIONS {
            results[place].fail(&check.numbers, QUERY_CANCELED);
        } else {
            places.push(place);
        }
    }
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for mut places in by_user.into_values() {
        let mut round = 0;
        while !places.is_empty() {
            if round == rounds.len() {
                rounds.push(Vec::new());
            }
            let size = round_size(round).min(places.len());
            rounds[round].extend(places.drain(..size));
            round += 1;
        }
    }
    for (number, round) in rounds.into_iter().enumerate() {
        let share = u32::try_from(round_size(number) / FIRST_ROUND).unwrap_or(1);
        let now = Instant::now();
        let (mut active, mut active_checks) = (Vec::new(), Vec::new());
        for place in round {
            let mut check = checks[place].clone();
            match (
                &mut check.filter,
                filter_time.available(&check.principal.user, now),
            ) {
                (Some(filter), Some(available)) => {
                    filter.time_limit = available / share;
                    active.push(place);
                    active_checks.push(check);
                }
                _ => results[place].fail(&check.numbers, QUERY_CANCELED),
            }
        }
        let answers = resolution.run_checks(&active_checks, may_be_stale).await?;
        let now = Instant::now();
        for (place, result) in active.into_iter().zip(answers) {
            let user = &checks[place].principal.user;
            let mut failures = result.failed.iter();
            if failures.any(|(_, sqlstate)| sqlstate == QUERY_CANCELED) {
                filter_time.suspend(user, now);
            } else {
                filter_time.charge(user, result.time, now);
            }
            results[place] = result;
        }
    }
    Ok(results)
}
