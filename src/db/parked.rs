//! A connection that asks in many callers' names, and prepares as the login what it asks.
//!
//! Each question has a transaction of its own under its caller's role and settings, which is always
//! rolled back: whatever a policy's functions set or remember is gone before the next one's turn.
//! Between transactions the connection is parked on [`PARKED_ROLE`], which may do nothing, so a
//! question whose role did not take meets no power; its answer does not count besides.
//!
//! Statements are *prepared* as the login and *executed* as the caller. PostgreSQL checks USAGE on
//! the schema of a function when it resolves the name, and the names in a policy were resolved when it was
//! made, so a caller need not have it; EXECUTE on functions and rights on tables are checked at
//! execution, as the caller's role.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::pin::Pin;

use futures_util::future::{BoxFuture, MaybeDone, join3, maybe_done};
use futures_util::poll;
use thiserror::Error;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::pool::PARKED_ROLE;

/// Prepared statements kept for each connection. Each is one of a role and of what is asked; beyond
/// this all are forgotten and made anew as needed.
const MAX_STATEMENTS: usize = 512;

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum ParkedError {
    /// The session is not in the state it should be in: nothing that it says counts.
    #[error("The connection is not in the state it should be in")]
    Doubtful,
    /// The database refused something, or the connection broke.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
}

/// In whose name something is asked.
pub struct Caller<'a> {
    /// The role. `none`, by which PostgreSQL means the login's own, is not taken on.
    pub role: &'a str,
    /// Values of the settings that the connection was parked with, in their order.
    pub settings: Vec<&'a str>,
}

/// What ends a turn of a [`Flight`] where the next transaction is to be like the one before.
pub const NEXT_TURN: &str = "rollback and chain";

/// A parked connection. After any error but those of a [`Flight`]'s turns its role is uncertain, and it
/// must be dropped; so it must when a future of it is dropped half-way.
pub struct ParkedConnection {
    client: Client,
    become_caller: Statement,
    /// By the number of what is asked.
    statements: HashMap<u64, Statement>,
}

impl ParkedConnection {
    /// Parks a new connection after the statements `session`. `settings` are the names of what is set
    /// for each caller besides the role.
    ///
    /// # Errors
    /// When the server refuses any of it, for instance because the login may not be parked.
    pub async fn park(
        client: Client,
        session: &str,
        settings: &[&'static str],
    ) -> Result<Self, tokio_postgres::Error> {
        client.batch_execute(session).await?;
        let become_caller = client.prepare(&become_caller(settings)).await?;
        let connection = Self {
            client,
            become_caller,
            statements: HashMap::new(),
        };
        connection.return_to_parked().await?;
        Ok(connection)
    }

    /// The connection itself, for what the parked role may do.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Takes on the rights of the login, until [`Self::return_to_parked`].
    ///
    /// # Errors
    /// When the server refuses it or is gone.
    pub async fn become_login(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("reset role").await
    }

    /// Gives up the rights of the login.
    ///
    /// # Errors
    /// As [`Self::become_login`].
    pub async fn return_to_parked(&self) -> Result<(), tokio_postgres::Error> {
        self.client
            .batch_execute(&format!("set role {PARKED_ROLE}"))
            .await
    }

    /// Takes on role and settings of `caller` until the end of the transaction. Writes its message when first polled.
    ///
    /// # Errors
    /// [`ParkedError::Doubtful`] when the session has another role afterwards.
    pub async fn become_caller(&self, caller: &Caller<'_>) -> Result<(), ParkedError> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&caller.role];
        for value in &caller.settings {
            parameters.push(value);
        }
        let row = self
            .client
            .query_one(&self.become_caller, &parameters)
            .await?;
        match row.try_get::<_, &str>(caller.settings.len()) {
            Ok(role) if caller.role == role => Ok(()),
            _ => Err(ParkedError::Doubtful),
        }
    }

    /// Prepares those of the numbered statements that are not prepared yet. Returns what the server says
    /// of those that it does not accept.
    ///
    /// # Errors
    /// When anything else fails.
    pub async fn prepare(
        &mut self,
        wanted: impl Iterator<Item = (u64, &str)>,
    ) -> Result<HashMap<u64, tokio_postgres::Error>, tokio_postgres::Error> {
        let mut refused = HashMap::new();
        let wanted: Vec<(u64, &str)> = wanted.collect();
        if wanted
            .iter()
            .all(|(number, _)| self.statements.contains_key(number))
        {
            return Ok(refused);
        }
        if self.statements.len() >= MAX_STATEMENTS {
            self.statements.clear();
        }
        self.become_login().await?;
        for (number, sql) in wanted {
            if self.statements.contains_key(&number) || refused.contains_key(&number) {
                continue;
            }
            match self.client.prepare(sql).await {
                Ok(statement) => {
                    self.statements.insert(number, statement);
                }
                Err(error) if error.as_db_error().is_some() => {
                    refused.insert(number, error);
                }
                Err(error) => return Err(error),
            }
        }
        self.return_to_parked().await?;
        Ok(refused)
    }

    /// A statement that is prepared.
    pub fn statement(&self, number: u64) -> Option<&Statement> {
        self.statements.get(&number)
    }

    /// Forgets a statement that the schema has left behind.
    pub fn forget(&mut self, number: u64) {
        self.statements.remove(&number);
    }

    /// Writes a whole flight to the socket before any of it is answered: the opening, which begins a
    /// transaction; then each turn, which takes on a caller, asks in his name and ends with `next`,
    /// which rolls back and begins the next transaction; then the end.
    ///
    /// Each future must write all that it has to say when it is first polled, as those of
    /// `tokio_postgres` do when their statements are prepared.
    pub async fn fly<'a, B, T, A>(
        &'a self,
        opening: impl Future<Output = Result<B, tokio_postgres::Error>> + Send + 'a,
        next: &'a str,
        turns: impl Iterator<Item = (Caller<'a>, A)>,
    ) -> Flight<'a, B, T>
    where
        A: Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a,
        B: Send + 'a,
        T: Send + 'a,
    {
        let opening = send(opening).await;
        let mut sent = VecDeque::new();
        for (caller, question) in turns {
            sent.push_back(send(self.turn(caller, question, next)).await);
        }
        let end = send(self.client.batch_execute("rollback")).await;
        Flight {
            opening,
            turns: sent,
            end,
            is_sound: false,
        }
    }

    /// One turn, all of which is written at once.
    async fn turn<T>(
        &self,
        caller: Caller<'_>,
        question: impl Future<Output = Result<T, tokio_postgres::Error>>,
        next: &str,
    ) -> Turn<T> {
        let (taken_on, answer, end) = join3(
            self.become_caller(&caller),
            question,
            self.client.batch_execute(next),
        )
        .await;
        Turn {
            answer: taken_on.and(answer.map_err(ParkedError::from)),
            is_rolled_back: end.is_ok(),
        }
    }
}

/// The statement that takes on a caller, whose role is `$1`. Its last answer is the role that the session
/// has now; one that is not parked does not get the caller's.
fn become_caller(settings: &[&'static str]) -> String {
    let mut sql = "select ".to_owned();
    for (name, place) in settings.iter().zip(2..) {
        // Writing to a String cannot fail.
        let _ = write!(sql, "pg_catalog.set_config('{name}', ${place}, true), ");
    }
    let _ = write!(
        sql,
        "pg_catalog.set_config('role', \
           case when current_user = '{PARKED_ROLE}' and $1::text <> 'none' then $1::text \
             else '{PARKED_ROLE}' end, true)"
    );
    sql
}

/// A flight on its way, with `B` as the answer to its opening and `T` as those of its turns. They must
/// be awaited in their order: the driver reads on when the answer before has been taken.
pub struct Flight<'a, B, T> {
    opening: Sent<'a, Result<B, tokio_postgres::Error>>,
    turns: VecDeque<Sent<'a, Turn<T>>>,
    end: Sent<'a, Result<(), tokio_postgres::Error>>,
    /// Whether the session is known to be in the state it should be in: nothing counts before the opening has
    /// succeeded, nor while something is waited for that might be dropped.
    is_sound: bool,
}

/// What came of a turn.
struct Turn<T> {
    answer: Result<T, ParkedError>,
    is_rolled_back: bool,
}

/// What has been written, perhaps with its answer.
type Sent<'a, T> = MaybeDone<BoxFuture<'a, T>>;

impl<B, T> Flight<'_, B, T> {
    /// The answer to the opening, which comes first.
    ///
    /// # Errors
    /// When it failed: then no answer counts.
    pub async fn opening(&mut self) -> Result<B, ParkedError> {
        let opened = wait(&mut self.opening).await.ok_or(ParkedError::Doubtful)?;
        self.is_sound = opened.is_ok();
        Ok(opened?)
    }

    /// The answer to the next turn, in the order in which they were sent; `None` behind the last. It
    /// counts if the opening and every rollback before it succeeded and the role was taken on.
    pub async fn next(&mut self) -> Option<Result<T, ParkedError>> {
        let mut turn = self.turns.pop_front()?;
        let was_sound = std::mem::replace(&mut self.is_sound, false);
        let Some(turn) = wait(&mut turn).await.filter(|_| was_sound) else {
            return Some(Err(ParkedError::Doubtful));
        };
        let is_doubtful = matches!(turn.answer, Err(ParkedError::Doubtful));
        self.is_sound = turn.is_rolled_back && !is_doubtful;
        Some(turn.answer)
    }

    /// Waits for what is left, which nobody asks for any more. Whether the connection can be used again.
    pub async fn land(mut self) -> bool {
        while self.next().await.is_some() {}
        let ended = wait(&mut self.end).await;
        self.is_sound && matches!(ended, Some(Ok(())))
    }
}

/// Writes what `future` has to say, which it does when it is first polled, without waiting for the answer.
async fn send<'a, T>(future: impl Future<Output = T> + Send + 'a) -> Sent<'a, T> {
    let mut sent = maybe_done(Box::pin(future) as BoxFuture<'a, T>);
    let _ = poll!(Pin::new(&mut sent));
    sent
}

/// The answer, the first time.
async fn wait<T>(sent: &mut Sent<'_, T>) -> Option<T> {
    Pin::new(&mut *sent).await;
    Pin::new(sent).take_output()
}
