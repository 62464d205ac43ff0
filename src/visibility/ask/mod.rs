//! Asks PostgreSQL in many identities' names, over a bounded set of connections.
//!
//! Each question runs under one identity's role and claims in a read-only transaction or
//! subtransaction of its own, on connections as [`crate::db::parked`] has them. There are three ways:
//! - as a prepared statement;
//! - about the same rows for many identities, as one call of a PL/pgSQL function (`ask_loop`) that takes on
//!   one identity after the other and runs the statement for each: the same executions, each with its own
//!   settings and its own evaluation of every sub-select, without a transaction and three messages
//!   around each of them;
//! - as a function of SQL (`ask_function`), where a prepared statement cannot be executed in an
//!   identity's name.

mod ask_function;
mod ask_loop;
mod connection;
mod question;
mod state;
mod text_array;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use self::connection::{Connection, Flight, everyone};
pub(super) use self::question::{Answer, Asker, Asking, Question, Way};
pub(super) use self::state::State;
pub(super) use self::text_array::TextArray;
use super::error::AskError;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Questions put to one connection in one flight. More would only make one connection busy
/// while others idle, and lengthen what an error throws away; fewer leave the server waiting
/// for the next flight.
const FLIGHT: usize = 32;

/// Identities for which a question is put in one call. The call costs as much as a few of them,
/// and an error that ends it is everybody's.
const LOOP_FLIGHT: usize = 128;

/// Identities that make a call worth while: below this, the call itself costs more than it saves.
const LOOP_MINIMUM: usize = 4;

/// Identities in a call at least before a further connection is used.
const LOOP_SHARE: usize = 24;

/// What is added to the server's limit for one statement before a flight is given up. It only
/// matters when the network swallows packets.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(2);

/// The connections.
pub(super) struct AskPool {
    connector: Connector,
    tasks: Tasks,
    size: usize,
    statement_timeout: Duration,
    /// Idle connections. A std lock: held to push or pop one.
    idle: Mutex<Vec<Connection>>,
    /// One permit per connection that may exist.
    permits: Semaphore,
}

impl AskPool {
    pub(super) fn new(
        connector: Connector,
        size: usize,
        statement_timeout: Duration,
        tasks: &Tasks,
    ) -> Self {
        let size = size.max(1);
        Self {
            connector,
            tasks: tasks.clone(),
            size,
            statement_timeout,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(size),
        }
    }

    /// Asks everything in one state, spread over the connections; one answer for each, in the
    /// same order.
    pub(super) async fn ask(
        &self,
        askings: &[Asking],
        state: &State,
    ) -> Vec<Result<Answer, AskError>> {
        let mut flights = Vec::new();
        for (kind, places) in self.flights(askings) {
            let flight: Vec<&Asking> = places.iter().map(|place| &askings[*place]).collect();
            flights.push(self.fly(kind, flight, state, places));
        }
        let mut answers: Vec<Result<Answer, AskError>> = askings
            .iter()
            .map(|_| Err(AskError::Unavailable(None)))
            .collect();
        let mut landed = stream::iter(flights).buffer_unordered(self.size);
        while let Some((places, found)) = landed.next().await {
            for (place, answer) in places.into_iter().zip(found) {
                answers[place] = answer;
            }
        }
        answers
    }

    /// Places of askings that go to one connection together, and how they are put there.
    fn flights(&self, askings: &[Asking]) -> Vec<(Flight, Vec<usize>)> {
        let mut statements = Vec::new();
        let mut functions: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut loops: HashMap<(u64, usize), Vec<usize>> = HashMap::new();
        for (place, asking) in askings.iter().enumerate() {
            let id = asking.question.id;
            match asking.way {
                Way::Loop => {
                    let inputs = Arc::as_ptr(&asking.parameters).addr();
                    loops.entry((id, inputs)).or_default().push(place);
                }
                Way::Function => functions.entry(id).or_default().push(place),
                Way::Prepared | Way::Impossible => statements.push(place),
            }
        }
        let mut flights = Vec::new();
        let mut add = |kind, places: &[usize], smallest: usize, largest: usize| {
            let size = places.len().div_ceil(self.size).clamp(smallest, largest);
            let chunks = places.chunks(size);
            flights.extend(chunks.map(|places| (kind, places.to_vec())));
        };
        for places in loops.into_values() {
            if places.len() < LOOP_MINIMUM {
                statements.extend(places);
            } else {
                add(Flight::Loop, &places, LOOP_SHARE, LOOP_FLIGHT);
            }
        }
        for places in functions.values() {
            add(Flight::Function, places, 1, FLIGHT);
        }
        add(Flight::Statements, &statements, 1, FLIGHT);
        flights
    }

    /// One flight, with the places of its askings handed through.
    async fn fly<P>(
        &self,
        kind: Flight,
        flight: Vec<&Asking>,
        state: &State,
        places: P,
    ) -> (P, Vec<Result<Answer, AskError>>) {
        (places, self.put(kind, &flight, state).await)
    }

    /// One flight. A connection with any doubt about its state is closed instead of kept.
    async fn put(
        &self,
        kind: Flight,
        flight: &[&Asking],
        state: &State,
    ) -> Vec<Result<Answer, AskError>> {
        let unavailable = || everyone(flight, || AskError::Unavailable(None));
        // Closed only by dropping the pool.
        let Ok(_permit) = self.permits.acquire().await else {
            return unavailable();
        };
        let statements = u32::try_from(flight.len()).unwrap_or(u32::MAX);
        let limit = self.statement_timeout * statements + NETWORK_ALLOWANCE;
        let attempt = async {
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                None => match self.connect().await {
                    Ok(connection) => connection,
                    Err(error) => {
                        tracing::debug!(error = %error, "no connection for questions about row visibility");
                        return unavailable();
                    }
                },
            };
            let landed = match connection.answer(kind, flight, state).await {
                Ok(landed) => landed,
                // The connection's state is uncertain now.
                Err(error) => {
                    tracing::debug!(%error, "questions about row visibility were not put");
                    return unavailable();
                }
            };
            if landed.is_sound && !connection.is_closed() {
                self.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(connection);
            }
            landed.answers
        };
        tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or_else(|_| unavailable())
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The one used last knows the most statements.
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, AskError> {
        let client = self
            .connector
            .connect("rapport visibility", &self.tasks)
            .await?;
        Connection::park(client, self.statement_timeout).await
    }
}
