//! A connection that evaluates statements as many callers, and prepares them as the login.
//!
//! Each evaluation runs in its own transaction under the caller's role and settings. The
//! transaction is always rolled back, so whatever a policy's functions set or cache is gone before
//! the next evaluation. Between transactions, the connection is parked on [`PARKED_ROLE`], which
//! has no rights. If switching to a caller's role fails, the statement runs without rights, and its
//! result is discarded.
//!
//! Statements are *prepared* as the login and *executed* as the caller. PostgreSQL checks USAGE on
//! a function's schema when it resolves the name. The names in a policy were resolved when the
//! policy was created, so a caller need not have USAGE. EXECUTE on functions and privileges on
//! tables are checked at execution, as the caller's role.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::pin::Pin;

use futures_util::future::{BoxFuture, MaybeDone, join3, maybe_done};
use futures_util::poll;
use thiserror::Error;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::connection::PARKED_ROLE;

/// Maximum prepared statements per connection, one per query. Beyond this number, all are dropped
/// and prepared again as needed.
const MAX_STATEMENTS: usize = 512;

/// Why an evaluation has no result.
#[derive(Debug, Error)]
pub enum ParkedError {
    /// The connection is not in the expected state, so none of its results count.
    #[error("The connection is not in the expected state")]
    Doubtful,
    /// The database refused a statement, or the connection broke.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
}

/// The identity that a statement runs as.
pub struct Caller<'a> {
    /// The role. The connection never switches to `none`, which PostgreSQL reads as the login's own
    /// role.
    pub role: &'a str,
    /// Values of the settings named when the connection was parked, in the same order.
    pub settings: Vec<&'a str>,
}

/// Ends a transaction of a [`Pipeline`] and begins the next one with the same properties.
pub const NEXT_TRANSACTION: &str = "rollback and chain";

/// A parked connection. After any error, except errors of a [`Pipeline`]'s queries, its role is
/// unknown and it must be dropped. The same applies if one of its futures is dropped before
/// completion.
pub struct ParkedConnection {
    client: Client,
    become_caller: Statement,
    /// Prepared statements by the number of their query.
    statements: HashMap<u64, Statement>,
}

impl ParkedConnection {
    /// Runs the statements in `settings` on a new connection and parks it. `caller_settings` names
    /// the settings that are set for each caller in addition to the role.
    ///
    /// # Errors
    /// Fails if the server refuses one of the statements, for instance because the login may not
    /// switch to the parked role.
    pub async fn park(
        client: Client,
        settings: &str,
        caller_settings: &[&'static str],
    ) -> Result<Self, tokio_postgres::Error> {
        client.batch_execute(settings).await?;
        let become_caller = client.prepare(&become_caller(caller_settings)).await?;
        let connection = Self {
            client,
            become_caller,
            statements: HashMap::new(),
        };
        connection.return_to_parked().await?;
        Ok(connection)
    }

    /// Returns the connection, for statements that the parked role may run.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Switches to the rights of the login until [`Self::return_to_parked`].
    ///
    /// # Errors
    /// Fails if the server refuses or the connection is lost.
    pub async fn become_login(&self) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute("reset role").await
    }

    /// Returns from the rights of the login to the parked role.
    ///
    /// # Errors
    /// Same as [`Self::become_login`].
    pub async fn return_to_parked(&self) -> Result<(), tokio_postgres::Error> {
        self.client
            .batch_execute(&format!("set role {PARKED_ROLE}"))
            .await
    }

    /// Switches to the role and settings of `caller` until the end of the transaction. Sends its
    /// message when first polled.
    ///
    /// # Errors
    /// [`ParkedError::Doubtful`] if the connection has another role afterwards.
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

    /// Prepares the numbered statements that are not yet prepared. Returns the server's errors for
    /// the statements that it refuses.
    ///
    /// # Errors
    /// Fails on any other error.
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

    /// Returns a prepared statement.
    pub fn statement(&self, number: u64) -> Option<&Statement> {
        self.statements.get(&number)
    }

    /// Drops a prepared statement that a schema change made invalid.
    pub fn forget(&mut self, number: u64) {
        self.statements.remove(&number);
    }

    /// Sends a pipeline of one transaction per query, before reading any result. The opening begins
    /// the first transaction. Each transaction switches to a caller, runs its query, and ends with
    /// `next`, which rolls back and begins the next transaction. A rollback follows the last one.
    ///
    /// Each future must send all its messages when first polled, as the futures of `tokio_postgres`
    /// do if their statements are prepared.
    pub async fn send_pipeline<'a, B, T, A>(
        &'a self,
        opening: impl Future<Output = Result<B, tokio_postgres::Error>> + Send + 'a,
        next: &'a str,
        queries: impl Iterator<Item = (Caller<'a>, A)>,
    ) -> Pipeline<'a, B, T>
    where
        A: Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a,
        B: Send + 'a,
        T: Send + 'a,
    {
        let opening = send(opening).await;
        let mut outcomes = VecDeque::new();
        for (caller, query) in queries {
            outcomes.push_back(send(self.run_as(caller, query, next)).await);
        }
        let end = send(self.client.batch_execute("rollback")).await;
        Pipeline {
            opening,
            outcomes,
            end,
            is_sound: false,
        }
    }

    /// Runs the transaction of one query, whose messages are all sent at once.
    async fn run_as<T>(
        &self,
        caller: Caller<'_>,
        query: impl Future<Output = Result<T, tokio_postgres::Error>>,
        next: &str,
    ) -> Outcome<T> {
        let (switched, result, end) = join3(
            self.become_caller(&caller),
            query,
            self.client.batch_execute(next),
        )
        .await;
        Outcome {
            result: switched.and(result.map_err(ParkedError::from)),
            is_rolled_back: end.is_ok(),
        }
    }
}

/// Returns the statement that switches to a caller, whose role is `$1`. Its last column is the
/// resulting role. A connection that is not parked does not switch to the caller's role.
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

/// A pipeline whose results are being read. `B` is the result of its opening, and `T` the result of
/// each query. Results must be awaited in order, because the driver continues reading only after
/// the previous result was taken.
pub struct Pipeline<'a, B, T> {
    opening: Sent<'a, Result<B, tokio_postgres::Error>>,
    outcomes: VecDeque<Sent<'a, Outcome<T>>>,
    end: Sent<'a, Result<(), tokio_postgres::Error>>,
    /// Whether the connection is known to be in the expected state. Results do not count until the
    /// opening has succeeded. They also do not count after a future that awaited a result was
    /// dropped.
    is_sound: bool,
}

/// The outcome of one transaction of a pipeline.
struct Outcome<T> {
    result: Result<T, ParkedError>,
    is_rolled_back: bool,
}

/// A sent message, possibly with its result.
type Sent<'a, T> = MaybeDone<BoxFuture<'a, T>>;

impl<B, T> Pipeline<'_, B, T> {
    /// Returns the result of the opening, which comes first.
    ///
    /// # Errors
    /// Fails if the opening failed. In that case no later result counts.
    pub async fn opening(&mut self) -> Result<B, ParkedError> {
        let opened = wait(&mut self.opening).await.ok_or(ParkedError::Doubtful)?;
        self.is_sound = opened.is_ok();
        Ok(opened?)
    }

    /// Returns the result of the next query in sending order; `None` after the last. The result
    /// counts only if the opening and every earlier rollback succeeded and the switch to the role
    /// worked.
    pub async fn next(&mut self) -> Option<Result<T, ParkedError>> {
        let mut outcome = self.outcomes.pop_front()?;
        let was_sound = std::mem::replace(&mut self.is_sound, false);
        let Some(outcome) = wait(&mut outcome).await.filter(|_| was_sound) else {
            return Some(Err(ParkedError::Doubtful));
        };
        let is_doubtful = matches!(outcome.result, Err(ParkedError::Doubtful));
        self.is_sound = outcome.is_rolled_back && !is_doubtful;
        Some(outcome.result)
    }

    /// Waits for the remaining results and discards them. Returns whether the connection can be
    /// reused.
    pub async fn finish(mut self) -> bool {
        while self.next().await.is_some() {}
        let ended = wait(&mut self.end).await;
        self.is_sound && matches!(ended, Some(Ok(())))
    }
}

/// Sends the messages of `future` by polling it once, without waiting for the result.
async fn send<'a, T>(future: impl Future<Output = T> + Send + 'a) -> Sent<'a, T> {
    let mut sent = maybe_done(Box::pin(future) as BoxFuture<'a, T>);
    let _ = poll!(Pin::new(&mut sent));
    sent
}

/// Returns the result, on the first call only.
async fn wait<T>(sent: &mut Sent<'_, T>) -> Option<T> {
    Pin::new(&mut *sent).await;
    Pin::new(sent).take_output()
}
