//! Puts questions to PostgreSQL until each input has an answer or is known to have none.
//!
//! An outage is waited out and never taken for an answer. One input that makes a statement fail
//! is searched for by halving, so that it takes no other with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ask::{Answer, AskPool, Asker, Asking, Question, State, TextArray, Way};
use super::error::AskError;
use crate::observability::metrics::VisibilityMetrics;

/// SQLSTATE of a statement that ran out of its time.
pub(super) const QUERY_CANCELED: &str = "57014";

/// First and longest wait before a question is repeated while the database is away. A restart
/// takes about a second; nobody is served by asking every 50 ms for an hour.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

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
/// bounds what one statement's time limit covers. A snapshot is lost in an outage, so questions
/// in it are not repeated and have no answer.
///
/// # Errors
/// [`Stale`] with `may_be_stale` when a statement itself fails, and at any time when a
/// question turns out to be impossible.
pub(super) async fn settle(
    pool: &AskPool,
    metrics: &VisibilityMetrics,
    max_inputs: usize,
    items: &[Item],
    state: &State,
    may_be_stale: bool,
) -> Result<Vec<Outcome>, Stale> {
    let mut outcomes: Vec<Outcome> = items.iter().map(|_| Outcome::default()).collect();
    let mut open: VecDeque<Part> = VecDeque::new();
    // Identities that are asked about the same inputs share the pieces, too: they are encoded once
    // and asked about in one call. What an address stands for is kept alive by `items`.
    let mut pieces: HashMap<usize, Vec<Arc<[u32]>>> = HashMap::new();
    for (position, item) in items.iter().enumerate() {
        if item.numbers.len() <= max_inputs {
            open.push_back(Part::new(position, Arc::clone(&item.numbers)));
        } else {
            let pieces = pieces
                .entry(Arc::as_ptr(&item.numbers).addr())
                .or_insert_with(|| item.numbers.chunks(max_inputs).map(Arc::from).collect());
            open.extend(
                pieces
                    .iter()
                    .map(|numbers| Part::new(position, Arc::clone(numbers))),
            );
        }
    }
    let mut patience = Patience::new(metrics);
    while !open.is_empty() {
        let parts: Vec<Part> = open.drain(..).collect();
        let askings = askings(items, &parts);
        let answers = pool.ask(&askings, state).await;
        let mut away = None;
        let mut is_impossible = false;
        let ways: Vec<Way> = askings.iter().map(|asking| asking.way).collect();
        for ((part, way), answer) in parts.into_iter().zip(ways).zip(answers) {
            let ordinals = answer.and_then(Answer::ordinals);
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
                Err(AskError::Unavailable(_)) if matches!(state, State::At(_)) => {}
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
