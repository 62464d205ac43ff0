//! Puts queries to PostgreSQL until each input has an answer or is known to have none.
//!
//! An outage is waited out and never taken for an answer. One input that makes a statement fail
//! is searched for by halving, so that it takes no other with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::QueryError;
use super::queries::{
    Execution, ExecutionMode, Principal, Query, QueryOutput, QueryPool, State, TextArray,
};
use crate::observability::metrics::VisibilityMetrics;

/// SQLSTATE of a statement that ran out of its time.
pub(super) const QUERY_CANCELED: &str = "57014";

/// First and longest wait before a query is repeated while the database is away. A restart
/// takes about a second; nobody is served by execution every 50 ms for an hour.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Distinct inputs of one query: rows that do not differ in what matters are asked once.
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

/// One query in one identity's name about some of the inputs.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) principal: Arc<Principal>,
    pub(super) query: Arc<Query>,
    pub(super) inputs: Arc<Inputs>,
    pub(super) numbers: Arc<[u32]>,
    /// The operand of a filter condition.
    pub(super) operand: Option<Arc<str>>,
}

/// The answer to an [`Check`].
#[derive(Debug, Default)]
pub(super) struct CheckResult {
    /// Inputs for which the answer is yes.
    pub(super) visible: Vec<u32>,
    /// Inputs that got no answer, with SQLSTATEs.
    pub(super) failed: Vec<(u32, String)>,
}

/// Statements fail, by themselves and not by what they are asked about: the catalogue is to be
/// read anew and access to be decided again.
#[derive(Debug)]
pub(super) struct StaleCatalog;

/// A attempt of an check under way.
struct Attempt {
    check: usize,
    numbers: Arc<[u32]>,
    /// Whether nothing of it has failed yet.
    is_first_attempt: bool,
    /// Of a probe, which asks about nothing to learn if the statement fails by itself: what to
    /// search if it does not, and how that failed.
    behind_probe: Option<(Arc<[u32]>, String)>,
}

/// Asks everything until there is an answer: waits while the database is away, and narrows a
/// failure down to the inputs that cause it. One execution is about `max_inputs` at most: that
/// bounds what one statement's time limit covers. A snapshot is lost in an outage, so queries
/// in it are not repeated and have no answer.
///
/// # Errors
/// [`StaleCatalog`] with `may_be_stale` when a statement itself fails, and at any time when a
/// query turns out to be impossible.
pub(super) async fn run_checks(
    pool: &QueryPool,
    metrics: &VisibilityMetrics,
    max_inputs: usize,
    checks: &[Check],
    state: &State,
    may_be_stale: bool,
) -> Result<Vec<CheckResult>, StaleCatalog> {
    let mut results: Vec<CheckResult> = checks.iter().map(|_| CheckResult::default()).collect();
    let mut open: VecDeque<Attempt> = VecDeque::new();
    // Identities that are asked about the same inputs share the pieces, too: they are encoded once
    // and asked about in one call. What an address stands for is kept alive by `checks`.
    let mut pieces: HashMap<usize, Vec<Arc<[u32]>>> = HashMap::new();
    for (position, check) in checks.iter().enumerate() {
        if check.numbers.len() <= max_inputs {
            open.push_back(Attempt::new(position, Arc::clone(&check.numbers)));
        } else {
            let pieces = pieces
                .entry(Arc::as_ptr(&check.numbers).addr())
                .or_insert_with(|| check.numbers.chunks(max_inputs).map(Arc::from).collect());
            open.extend(
                pieces
                    .iter()
                    .map(|numbers| Attempt::new(position, Arc::clone(numbers))),
            );
        }
    }
    let mut backoff = Backoff::new(metrics);
    while !open.is_empty() {
        let attempts: Vec<Attempt> = open.drain(..).collect();
        let executions = executions(checks, &attempts);
        let answers = pool.execute(&executions, state).await;
        let mut away = None;
        let mut is_impossible = false;
        let modes: Vec<ExecutionMode> = executions.iter().map(|execution| execution.mode).collect();
        for ((attempt, mode), answer) in attempts.into_iter().zip(modes).zip(answers) {
            let ordinals = answer.and_then(QueryOutput::ordinals);
            match ordinals {
                Ok(ordinals) => {
                    if let Some((numbers, sqlstate)) = attempt.behind_probe {
                        narrow(
                            &mut open,
                            &mut results[attempt.check],
                            attempt.check,
                            &numbers,
                            &sqlstate,
                            metrics,
                        );
                        continue;
                    }
                    let numbers = ordinals.iter().filter_map(|ordinal| {
                        let place = usize::try_from(*ordinal).ok()?.checked_sub(1)?;
                        attempt.numbers.get(place).copied()
                    });
                    results[attempt.check].visible.extend(numbers);
                }
                Err(QueryError::Unavailable(_)) if matches!(state, State::At(_)) => {}
                Err(error @ QueryError::Unavailable(_)) => {
                    away = Some(error);
                    open.push_back(attempt);
                }
                Err(error) if may_be_stale && error.is_statement_error() => {
                    return Err(StaleCatalog);
                }
                Err(error) => {
                    let query = &checks[attempt.check].query;
                    let sqlstate = error.sqlstate().unwrap_or("XX000").to_owned();
                    tracing::debug!(%sqlstate, "a query about row visibility failed");
                    if query.fall_back(mode, &error, attempt.behind_probe.is_some()) {
                        is_impossible |= query.mode() == ExecutionMode::Impossible;
                        let numbers = attempt
                            .behind_probe
                            .map_or(attempt.numbers, |(numbers, _)| numbers);
                        open.push_back(Attempt::new(attempt.check, numbers));
                        continue;
                    }
                    let is_filter = checks[attempt.check].operand.is_some();
                    let result = &mut results[attempt.check];
                    let whole = match &attempt.behind_probe {
                        Some((numbers, _)) => Some(Arc::clone(numbers)),
                        // Looking for the one value on which a filter takes too long would take
                        // everybody's time.
                        None if matches!(error, QueryError::Unpreparable(_))
                            || (is_filter && sqlstate == QUERY_CANCELED) =>
                        {
                            Some(Arc::clone(&attempt.numbers))
                        }
                        None => None,
                    };
                    if let Some(numbers) = whole {
                        let failed = numbers.iter().map(|number| (*number, sqlstate.clone()));
                        result.failed.extend(failed);
                    } else if attempt.is_first_attempt {
                        open.push_back(attempt.probe(sqlstate));
                    } else {
                        narrow(
                            &mut open,
                            result,
                            attempt.check,
                            &attempt.numbers,
                            &sqlstate,
                            metrics,
                        );
                    }
                }
            }
        }
        if is_impossible {
            return Err(StaleCatalog);
        }
        match away {
            Some(error) => backoff.wait(&error).await,
            None => backoff = Backoff::new(metrics),
        }
    }
    Ok(results)
}

/// Splits inputs of which one failed, or names the one that did.
fn narrow(
    open: &mut VecDeque<Attempt>,
    result: &mut CheckResult,
    check: usize,
    numbers: &Arc<[u32]>,
    sqlstate: &str,
    metrics: &VisibilityMetrics,
) {
    if let [number] = **numbers {
        result.failed.push((number, sqlstate.to_owned()));
        return;
    }
    metrics.bisections.inc();
    let (left, right) = numbers.split_at(numbers.len() / 2);
    for half in [left, right] {
        if !half.is_empty() {
            open.push_back(Attempt {
                is_first_attempt: false,
                ..Attempt::new(check, half.into())
            });
        }
    }
}

impl Attempt {
    fn new(check: usize, numbers: Arc<[u32]>) -> Self {
        Self {
            check,
            numbers,
            is_first_attempt: true,
            behind_probe: None,
        }
    }

    /// The same statement about nothing: what fails even so, such as a missing right on a
    /// function, is not looked for row by row.
    fn probe(self, sqlstate: String) -> Self {
        Self {
            check: self.check,
            numbers: Arc::new([]),
            is_first_attempt: false,
            behind_probe: Some((self.numbers, sqlstate)),
        }
    }
}

fn executions(checks: &[Check], attempts: &[Attempt]) -> Vec<Execution> {
    // Most identities are asked about the same inputs, shared: these are encoded once. Whatever
    // an address stands for is kept alive by `attempts` and `checks`.
    let mut encoded: HashMap<[usize; 3], Arc<[TextArray]>> = HashMap::new();
    attempts
        .iter()
        .map(|attempt| {
            let check = &checks[attempt.check];
            let key = [
                Arc::as_ptr(&check.inputs).addr(),
                Arc::as_ptr(&attempt.numbers).addr(),
                check
                    .operand
                    .as_ref()
                    .map_or(0, |operand| Arc::as_ptr(operand).addr()),
            ];
            let parameters = encoded.entry(key).or_insert_with(|| {
                check
                    .inputs
                    .encode(&attempt.numbers, check.operand.as_deref())
            });
            Execution {
                principal: Arc::clone(&check.principal),
                query: Arc::clone(&check.query),
                mode: check.query.mode(),
                parameters: Arc::clone(parameters),
            }
        })
        .collect()
}

/// The pauses between attempts while the database is away.
pub(super) struct Backoff<'a> {
    metrics: &'a VisibilityMetrics,
    wait: Duration,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(metrics: &'a VisibilityMetrics) -> Self {
        Self {
            metrics,
            wait: FIRST_RETRY,
        }
    }

    /// Waits after an error, longer each time.
    pub(super) async fn wait(&mut self, error: &QueryError) {
        self.metrics.retries.inc();
        tracing::warn!(%error, "row visibility waits for the database");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }
}
