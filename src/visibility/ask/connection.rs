//! One connection that puts questions about rows, in the way that each of them needs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::ask_function;
use super::ask_loop::AskLoop;
use super::question::{Answer, Asking, SETTINGS};
use super::state::State;
use crate::db::parked::{ParkedConnection, ParkedError};
use crate::visibility::error::AskError;

/// Functions that put a question for many, kept for each connection. Each is one of a table, a role and a kind;
/// beyond this all are dropped and made anew as needed.
const MAX_LOOPS: usize = 512;

/// How the askings of a flight are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    /// Each as a prepared statement, whatever they are about.
    Statements,
    /// All as one function.
    Function,
    /// All in one call, which has one set of inputs: an asking about others would be answered
    /// with what somebody may see of these.
    Loop,
}

/// A connection with what was made on it.
pub(super) struct Connection {
    parked: ParkedConnection,
    /// By the question's number.
    loops: HashMap<u64, AskLoop>,
    /// The server's limit for a statement, as the setting of that name is written.
    statement_timeout: String,
}

/// What came of a flight.
pub(super) struct Landed {
    /// One for each asking, in their order.
    pub(super) answers: Vec<Result<Answer, AskError>>,
    /// Whether the connection can be used again.
    pub(super) is_sound: bool,
}

impl Connection {
    /// Parks a new connection. One statement may take `statement_timeout` at most.
    ///
    /// # Errors
    /// When the server refuses that.
    pub(super) async fn park(
        client: Client,
        statement_timeout: Duration,
    ) -> Result<Self, AskError> {
        let statement_timeout = statement_timeout.as_millis().max(1).to_string();
        // Compiling a plan takes longer than any of these statements.
        let session = format!(
            "set statement_timeout = {statement_timeout}; \
             set idle_in_transaction_session_timeout = '30s'"
        );
        Ok(Self {
            parked: ParkedConnection::park(client, &session, &SETTINGS).await?,
            loops: HashMap::new(),
            statement_timeout,
        })
    }

    /// Whether it has broken.
    pub(super) fn is_closed(&self) -> bool {
        self.parked.client().is_closed()
    }

    /// Puts the questions of a flight.
    ///
    /// # Errors
    /// After which the connection's state is uncertain, and nothing it said counts.
    pub(super) async fn answer(
        &mut self,
        kind: Flight,
        flight: &[&Asking],
        state: &State,
    ) -> Result<Landed, AskError> {
        let mut landed = match kind {
            Flight::Function => {
                let timeout = &self.statement_timeout;
                let answers = ask_function::ask(&self.parked, flight, state, timeout);
                return Ok(Landed::sound(answers.await?));
            }
            Flight::Loop => Landed::sound(self.ask_in_one_call(flight, state).await?),
            Flight::Statements => self.ask_one_by_one(flight, state).await?,
        };
        if landed.is_sound {
            self.repeat_stale(flight, state, &mut landed).await?;
        }
        Ok(landed)
    }

    /// Asks once more, with statements prepared anew, what failed by its statement. A plan that the
    /// server had to make anew, which it does when anybody makes a schema, was made under an
    /// identity's role, which need not be able to resolve the names in it. Such a failure must not
    /// leave its connection: the next one may have as old a plan, and two of them in a row look like
    /// a fault of the question.
    async fn repeat_stale(
        &mut self,
        flight: &[&Asking],
        state: &State,
        landed: &mut Landed,
    ) -> Result<(), AskError> {
        let is_stale = |error: &AskError| {
            error.concerns_statement() && !matches!(error, AskError::Unpreparable(_))
        };
        let (stale, again): (Vec<usize>, Vec<&Asking>) = flight
            .iter()
            .enumerate()
            .zip(&landed.answers)
            .filter(|(_, answer)| answer.as_ref().is_err_and(is_stale))
            .map(|(asking, _)| asking)
            .unzip();
        if again.is_empty() {
            return Ok(());
        }
        for asking in &again {
            self.loops.remove(&asking.question.id);
            self.parked.forget(asking.question.id);
        }
        let repeated = self.ask_one_by_one(&again, state).await?;
        for (place, answer) in stale.into_iter().zip(repeated.answers) {
            landed.answers[place] = answer;
        }
        landed.is_sound = repeated.is_sound;
        Ok(())
    }

    /// Asks each as a prepared statement. One that cannot be prepared is an answer of its own.
    async fn ask_one_by_one(
        &mut self,
        flight: &[&Asking],
        state: &State,
    ) -> Result<Landed, AskError> {
        let refused = self.prepare(flight).await?;
        let client = self.parked.client();
        let turns = flight.iter().filter_map(|asking| {
            let statement = self.parked.statement(asking.question.id)?;
            let question = async move { client.query_one(statement, &asking.parameters()).await };
            Some((asking.caller(&self.statement_timeout), question))
        });
        let (begin, next) = (state.begin("read only"), state.next_turn());
        let opening = client.batch_execute(&begin);
        let mut sent = self.parked.fly(opening, &next, turns).await;
        sent.opening().await?;
        let mut answers = Vec::with_capacity(flight.len());
        for asking in flight {
            answers.push(match refused.get(&asking.question.id) {
                Some(error) => Err(AskError::Unpreparable(Arc::clone(error))),
                None => match sent.next().await {
                    Some(answer) => answer.map(Answer::Row).map_err(AskError::from),
                    None => Err(ParkedError::Doubtful.into()),
                },
            });
        }
        let is_sound = sent.land().await;
        Ok(Landed { answers, is_sound })
    }

    /// Asks in one call, which is made if it is not there.
    async fn ask_in_one_call(
        &mut self,
        flight: &[&Asking],
        state: &State,
    ) -> Result<Vec<Result<Answer, AskError>>, AskError> {
        let Some(first) = flight.first() else {
            return Ok(Vec::new());
        };
        let id = first.question.id;
        let found = match self.loops.get(&id) {
            Some(call) => self.run(call, flight, state).await,
            None => match self.make_call(first).await {
                Ok(call) => {
                    let found = self.run(&call, flight, state).await;
                    self.loops.insert(id, call);
                    found
                }
                Err(error) => Err(error),
            },
        };
        match found {
            Ok(found) => Ok(found
                .into_iter()
                .map(|answer| answer.map(Answer::Ordinals))
                .collect()),
            Err(AskError::Unpreparable(error)) => Ok(everyone(flight, || {
                AskError::Unpreparable(Arc::clone(&error))
            })),
            Err(AskError::Together(error)) => {
                self.loops.remove(&id);
                Ok(everyone(flight, || AskError::Together(Arc::clone(&error))))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a call, in a transaction of its own where the state is not that of now.
    async fn run(
        &self,
        call: &AskLoop,
        flight: &[&Asking],
        state: &State,
    ) -> Result<Vec<Result<Vec<i64>, AskError>>, AskError> {
        let client = self.parked.client();
        if state.is_now() {
            return call.run(client, flight).await;
        }
        client.batch_execute(&state.begin("read only")).await?;
        let found = call.run(client, flight).await;
        client.batch_execute("rollback").await?;
        found
    }

    /// Makes the call for the question of `asking`.
    ///
    /// # Errors
    /// [`AskError::Unpreparable`] or [`AskError::Together`] when the server refuses the question or the
    /// function; the connection's state is uncertain after any other.
    async fn make_call(&mut self, asking: &Asking) -> Result<AskLoop, AskError> {
        let question = &asking.question;
        if let Some(error) = self.prepare(&[asking]).await?.remove(&question.id) {
            return Err(AskError::Unpreparable(error));
        }
        self.parked.become_login().await?;
        if self.loops.len() >= MAX_LOOPS {
            self.loops.clear();
            self.parked.client().batch_execute("discard temp").await?;
        }
        let made = AskLoop::make(self.parked.client(), question).await;
        self.parked.return_to_parked().await?;
        made.map_err(|error| match error.as_db_error() {
            Some(_) => {
                tracing::debug!(%error, "identities are asked about one by one");
                AskError::Together(Arc::new(error))
            }
            None => error.into(),
        })
    }

    /// Sees to it that every statement of the flight is prepared. Returns why some cannot be.
    async fn prepare(
        &mut self,
        flight: &[&Asking],
    ) -> Result<HashMap<u64, Arc<tokio_postgres::Error>>, AskError> {
        let wanted = flight
            .iter()
            .map(|asking| (asking.question.id, &*asking.question.sql));
        let refused = self.parked.prepare(wanted).await?;
        let shared = |(id, error)| (id, Arc::new(error));
        Ok(refused.into_iter().map(shared).collect())
    }
}

impl Landed {
    fn sound(answers: Vec<Result<Answer, AskError>>) -> Self {
        Self {
            answers,
            is_sound: true,
        }
    }
}

/// The same error as everybody's answer.
pub(super) fn everyone(
    flight: &[&Asking],
    error: impl Fn() -> AskError,
) -> Vec<Result<Answer, AskError>> {
    flight.iter().map(|_| Err(error())).collect()
}
