//! Runs access checks: queries are repeated until each input has a result or is known to fail.
//!
//! An outage never counts as a result: a check waits until the outage is over. The exception is a
//! check in a snapshot, because an outage destroys the snapshot. If an input makes a statement
//! fail, the input is found by halving the inputs, so that the other inputs still get their
//! results.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::backoff::Backoff;
use super::error::QueryError;
use super::failure::{Failure, Reaction, Stage};
use super::queries::{
    DatabaseState, Execution, ExecutionMode, Principal, Query, QueryOutput, QueryPool, TextArray,
};
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::VisibilityMetrics;

/// The SQLSTATE for errors without one: `internal_error`.
const INTERNAL_ERROR: &str = "XX000";

/// Maximum number of times that the inputs of one check are halved. Finding one failing input among
/// a thousand takes ten. Without this limit, an identity for which a policy always fails would cost
/// two executions per input, and the changes of all tables wait for them.
const MAX_HALVINGS: usize = 64;

/// The distinct inputs of a query. Rows with equal values in the columns that the query reads are
/// one input.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    rows: Vec<Vec<Option<Bytes>>>,
    known: HashMap<Vec<Option<Bytes>>, u32>,
}

impl Inputs {
    /// Returns the number of this input. A new input gets the next number.
    pub(super) fn number(&mut self, input: Vec<Option<Bytes>>) -> u32 {
        if let Some(number) = self.known.get(&input) {
            return *number;
        }
        // The number of changes in a batch fits into a u32.
        let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(input.clone());
        self.known.insert(input, number);
        number
    }

    /// Returns the number of distinct inputs.
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

/// One query, run as one principal on some of the inputs.
#[derive(Clone)]
pub(super) struct AccessCheck {
    pub(super) principal: Arc<Principal>,
    pub(super) query: Arc<Query>,
    pub(super) inputs: Arc<Inputs>,
    /// The inputs to check.
    pub(super) numbers: Arc<[u32]>,
    /// The operand and the time limit, if the check is a filter condition.
    pub(super) filter: Option<FilterCheck>,
}

/// What distinguishes the check of a filter condition from that of a policy.
#[derive(Clone)]
pub(super) struct FilterCheck {
    pub(super) operand: Arc<str>,
    pub(super) time_limit: Duration,
}

/// The result of an [`AccessCheck`]. Inputs in neither list are not accepted.
#[derive(Debug, Default)]
pub(super) struct AccessCheckResult {
    /// Inputs for which the query's condition is true.
    pub(super) accepted: Vec<u32>,
    /// Inputs that make the statement fail, with the SQLSTATE.
    pub(super) failed: Vec<(u32, String)>,
    /// How long the executions of a filter condition took in the database.
    pub(super) time: Duration,
    /// How often the inputs have been halved.
    halvings: usize,
}

impl AccessCheckResult {
    /// Adds the inputs that the query returned. `ordinals` are positions in `numbers`, counted from
    /// 1.
    fn accept(&mut self, numbers: &[u32], ordinals: &[i64]) {
        self.accepted.extend(ordinals.iter().filter_map(|ordinal| {
            let place = usize::try_from(*ordinal).ok()?.checked_sub(1)?;
            numbers.get(place).copied()
        }));
    }

    /// Counts these inputs as failed.
    pub(super) fn fail(&mut self, numbers: &[u32], sqlstate: &str) {
        let failed = numbers.iter().map(|number| (*number, sqlstate.to_owned()));
        self.failed.extend(failed);
    }
}

/// The error if a statement fails whatever its input. The catalogue must be read again, and then
/// access must be decided again.
#[derive(Debug)]
pub(super) struct StaleCatalog;

/// One execution of a check, on some of its inputs.
struct Attempt {
    /// Index of the check.
    check: usize,
    numbers: Arc<[u32]>,
    stage: Stage,
}

impl Attempt {
    fn new(check: usize, numbers: Arc<[u32]>) -> Self {
        Self {
            check,
            numbers,
            stage: Stage::First,
        }
    }

    /// Returns an attempt that runs the same statement without any input. If that fails too, for
    /// example because a right on a function is missing, the failing input need not be searched
    /// for.
    fn probe(self, sqlstate: String) -> Self {
        Self {
            check: self.check,
            numbers: Arc::new([]),
            stage: Stage::Probe {
                behind: self.numbers,
                sqlstate,
            },
        }
    }

    /// Returns the inputs whose results depend on this attempt.
    fn concerned(&self) -> &Arc<[u32]> {
        match &self.stage {
            Stage::Probe { behind, .. } => behind,
            Stage::First | Stage::Narrowed => &self.numbers,
        }
    }
}

/// Runs all checks and returns one result for each. Waits while the database is unreachable, and
/// narrows failures down to the inputs that cause them. One execution of a policy has at most
/// `max_inputs` inputs, which bounds the work under one statement timeout. An outage ends a
/// snapshot, so checks in a snapshot are not repeated after an outage, and their inputs are not
/// accepted.
///
/// # Errors
/// [`StaleCatalog`] if `may_be_stale` is set and a statement fails because of itself or an object
/// that it names, or if a query becomes [`ExecutionMode::Impossible`].
pub(super) async fn run_checks(
    pool: &QueryPool,
    metrics: &VisibilityMetrics,
    max_inputs: usize,
    checks: &[AccessCheck],
    state: &DatabaseState,
    may_be_stale: bool,
) -> Result<Vec<AccessCheckResult>, StaleCatalog> {
    let mut results: Vec<AccessCheckResult> = checks
        .iter()
        .map(|_| AccessCheckResult::default())
        .collect();
    let mut open = first_attempts(checks, max_inputs);
    let mut backoff = Backoff::new(metrics);
    while !open.is_empty() {
        let attempts: Vec<Attempt> = open.drain(..).collect();
        let executions = executions(checks, &attempts);
        let begun = Instant::now();
        let answers = pool.execute(&executions, state).await;
        let elapsed = begun.elapsed();
        let mut outage = None;
        let mut is_impossible = false;
        for ((attempt, execution), answer) in attempts.into_iter().zip(&executions).zip(answers) {
            let (check, result) = (attempt.check, &mut results[attempt.check]);
            if let Some(filter) = &checks[check].filter {
                result.time += match &answer {
                    Ok(output) => output.time(),
                    // PostgreSQL does not report the time of a failed statement.
                    Err(QueryError::Unavailable(_)) => Duration::ZERO,
                    Err(_) => elapsed.min(filter.time_limit),
                };
            }
            let error = match answer.and_then(QueryOutput::ordinals) {
                Ok(ordinals) => {
                    if let Stage::Probe { behind, sqlstate } = &attempt.stage {
                        split(&mut open, result, check, behind, sqlstate, metrics);
                    } else {
                        result.accept(&attempt.numbers, &ordinals);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let query = &checks[check].query;
            let sqlstate = error.sqlstate().unwrap_or(INTERNAL_ERROR).to_owned();
            let failure = Failure {
                kind: error.kind(),
                sqlstate: &sqlstate,
                stage: &attempt.stage,
                executed: execution.mode,
                current: query.mode(),
                is_filter: checks[check].filter.is_some(),
                is_in_snapshot: !state.is_current(),
                may_be_stale,
            };
            let reaction = failure.reaction();
            tracing::debug!(error = %Excerpt(&error), sqlstate, ?reaction, "access check failed");
            match reaction {
                Reaction::Abandon => {}
                Reaction::Wait => {
                    outage = Some(error);
                    open.push_back(attempt);
                }
                Reaction::ReadCatalogAgain => return Err(StaleCatalog),
                Reaction::Restart => {
                    is_impossible |= query.mode() == ExecutionMode::Impossible;
                    open.push_back(Attempt::new(check, Arc::clone(attempt.concerned())));
                }
                Reaction::SwitchMode(mode) => {
                    query.switch_mode(execution.mode, mode);
                    is_impossible |= query.mode() == ExecutionMode::Impossible;
                    open.push_back(Attempt::new(check, Arc::clone(attempt.concerned())));
                }
                Reaction::FailAll => result.fail(attempt.concerned(), &sqlstate),
                Reaction::Probe => open.push_back(attempt.probe(sqlstate)),
                Reaction::Split => {
                    split(
                        &mut open,
                        result,
                        check,
                        &attempt.numbers,
                        &sqlstate,
                        metrics,
                    );
                }
            }
        }
        if is_impossible {
            return Err(StaleCatalog);
        }
        match outage {
            Some(error) => backoff.wait(&error).await,
            None => backoff = Backoff::new(metrics),
        }
    }
    Ok(results)
}

/// Returns one attempt for each check, or several if a check of policies has more than `max_inputs`
/// inputs.
fn first_attempts(checks: &[AccessCheck], max_inputs: usize) -> VecDeque<Attempt> {
    let mut open = VecDeque::new();
    // Checks with the same list of inputs share the pieces of the list, so that a piece is encoded
    // once and checked in one call. The keys are addresses of lists that `checks` keeps alive.
    let mut pieces: HashMap<usize, Vec<Arc<[u32]>>> = HashMap::new();
    for (place, check) in checks.iter().enumerate() {
        // The time limit of a filter condition bounds its work.
        if check.numbers.len() <= max_inputs || check.filter.is_some() {
            open.push_back(Attempt::new(place, Arc::clone(&check.numbers)));
            continue;
        }
        let pieces = pieces
            .entry(Arc::as_ptr(&check.numbers).addr())
            .or_insert_with(|| check.numbers.chunks(max_inputs).map(Arc::from).collect());
        let attempts = pieces
            .iter()
            .map(|piece| Attempt::new(place, Arc::clone(piece)));
        open.extend(attempts);
    }
    open
}

/// Halves inputs that include at least one failing input. A single input is itself the failing one.
/// After [`MAX_HALVINGS`], all inputs count as failed.
fn split(
    open: &mut VecDeque<Attempt>,
    result: &mut AccessCheckResult,
    check: usize,
    numbers: &[u32],
    sqlstate: &str,
    metrics: &VisibilityMetrics,
) {
    if numbers.len() == 1 || result.halvings == MAX_HALVINGS {
        result.fail(numbers, sqlstate);
        return;
    }
    result.halvings += 1;
    metrics.bisections.inc();
    let (left, right) = numbers.split_at(numbers.len() / 2);
    let halves = [left, right].into_iter().filter(|half| !half.is_empty());
    open.extend(halves.map(|half| Attempt {
        check,
        numbers: half.into(),
        stage: Stage::Narrowed,
    }));
}

fn executions(checks: &[AccessCheck], attempts: &[Attempt]) -> Vec<Execution> {
    // Most principals have the same inputs, so these are encoded once. The keys are addresses of
    // values that `attempts` and `checks` keep alive.
    let mut encoded: HashMap<[usize; 3], Arc<[TextArray]>> = HashMap::new();
    attempts
        .iter()
        .map(|attempt| {
            let check = &checks[attempt.check];
            let key = [
                Arc::as_ptr(&check.inputs).addr(),
                Arc::as_ptr(&attempt.numbers).addr(),
                check
                    .filter
                    .as_ref()
                    .map_or(0, |filter| Arc::as_ptr(&filter.operand).addr()),
            ];
            let parameters = encoded.entry(key).or_insert_with(|| {
                let operand = check.filter.as_ref().map(|filter| &*filter.operand);
                check.inputs.encode(&attempt.numbers, operand)
            });
            Execution {
                principal: Arc::clone(&check.principal),
                query: Arc::clone(&check.query),
                mode: check.query.mode(),
                parameters: Arc::clone(parameters),
                time_limit: check.filter.as_ref().map(|filter| filter.time_limit.into()),
            }
        })
        .collect()
}
