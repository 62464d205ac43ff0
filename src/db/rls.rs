//! Runs statements as a caller, under row-level security.
//!
//! `BEGIN`, the caller's role and claims, the statements and `COMMIT` are sent together in one
//! pipeline, and their results are read together. A request whose statements are already prepared
//! on the connection therefore costs one round trip. This is safe even if one of the messages
//! fails. An error inside the transaction turns `COMMIT` into a rollback. After a lost `BEGIN`, the
//! statements run as [`super::PARKED_ROLE`], which has no rights.
//!
//! If a request is dropped halfway, PostgreSQL still completes its pipeline, because everything
//! was already sent. The connection, and the caller's permit to use one, are occupied until then.

use std::time::Duration;

use futures_util::future::{join_all, join4};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::error::DbError;
use super::pool::{Db, Lease};
use crate::auth::Claims;
use crate::observability::excerpt::Excerpt;
use crate::shutdown::Tasks;

/// Starts a transaction. The level is explicit, because the chat refuses writes above it: a
/// statement with an older snapshot would not see that a right has been revoked.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Maximum attempts at a transaction. It is repeated if it was rolled back completely for a
/// transient reason: a deadlock, or a statement prepared before a schema change. All input is at
/// hand, so a retry is safe. More than one retry would only add to the contention.
const ATTEMPTS: usize = 2;

/// Random delay in milliseconds before the retry. After a deadlock, the transaction that was rolled
/// back receives its error while the surviving one is still waking up. Without a delay, the retry
/// would take its first lock before the surviving one continues, and cause the same deadlock.
const PAUSE_MS: std::ops::Range<u64> = 20..60;

/// A statement with its parameters. The text is a constant; input from callers goes only into
/// parameters.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The statement, with placeholders `$1`, `$2`, …
    pub sql: &'static str,
    /// The values of the placeholders.
    pub parameters: &'a [&'a (dyn ToSql + Sync)],
}

impl Db {
    /// Runs `sql` as the caller in a separate transaction and returns its rows.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn query_as(
        &self,
        caller: &Claims,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DbError> {
        let mut results = self.run_as(caller, &[Query { sql, parameters }]).await?;
        Ok(results.pop().unwrap_or_default())
    }

    /// Runs `queries` in order as the caller, in one transaction. Returns one list of rows per
    /// query.
    ///
    /// # Errors
    /// See [`DbError`]. After an error, nothing was written. The exception is
    /// [`DbError::Unavailable`]: the connection may have been lost during the commit, and the
    /// outcome is then unknown.
    pub async fn run_as(
        &self,
        caller: &Claims,
        queries: &[Query<'_>],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        for _ in 1..ATTEMPTS {
            match self.attempt(caller, queries).await {
                Err(error) if error.is_retryable() => {
                    tracing::debug!(error = %Excerpt(&error), "transaction was rolled back; retrying");
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
                }
                result => return result,
            }
        }
        self.attempt(caller, queries).await
    }

    /// Runs `query` as the caller in a separate transaction, without a retry. Adds to `work` the
    /// time that this took, without the wait for a connection.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn query_timed(
        &self,
        caller: &Claims,
        query: Query<'_>,
        work: &mut Duration,
    ) -> Result<Vec<Row>, DbError> {
        let lease = self.lease(caller).await?;
        let begun = Instant::now();
        let results = self.run_on(lease, caller, &[query]).await;
        *work += begun.elapsed();
        Ok(results?.pop().unwrap_or_default())
    }

    async fn attempt(
        &self,
        caller: &Claims,
        queries: &[Query<'_>],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        let lease = self.lease(caller).await?;
        self.run_on(lease, caller, queries).await
    }

    async fn run_on(
        &self,
        mut lease: Lease,
        caller: &Claims,
        queries: &[Query<'_>],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        lease.connection.needs_check = true;
        let limit = self.answer_timeout * u32::try_from(queries.len()).unwrap_or(1).max(1);
        let mut occupied = Occupied {
            lease: Some(lease),
            limit,
            tasks: &self.tasks,
        };
        let pipeline = async {
            let Some(lease) = &mut occupied.lease else {
                return Err(DbError::Unexpected("the connection is gone".into()));
            };
            lease.connection.prepare(caller, queries).await?;
            lease.connection.run_pipeline(caller, queries).await
        };
        let result = match tokio::time::timeout(limit, pipeline).await {
            Ok(result) => result,
            Err(elapsed) => Err(DbError::Unavailable(Some(elapsed.into()))),
        };
        let Some(mut lease) = occupied.lease.take() else {
            return result;
        };
        match &result {
            Ok(_) => lease.connection.needs_check = false,
            // The connection is still usable after a refusal. It is checked before its next use.
            Err(
                DbError::Refused(_)
                | DbError::DoneBefore
                | DbError::Contended(_)
                | DbError::Locked(_),
            ) => {}
            Err(_) => discard(lease),
        }
        result
    }
}

/// A connection with a pipeline in progress.
struct Occupied<'a> {
    lease: Option<Lease>,
    /// Timeout of the pipeline.
    limit: Duration,
    tasks: &'a Tasks,
}

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        // The request was dropped. If the connection were returned now, a user who cancels requests
        // could occupy any number of connections, and the next request would wait for this
        // pipeline.
        if Handle::try_current().is_ok() {
            let completed = complete(lease, self.limit, self.tasks.token().clone());
            self.tasks.spawn("cancelled request", completed);
        }
    }
}

/// Waits until the pipeline of a dropped request ends, and returns the connection to the pool.
async fn complete(mut lease: Lease, limit: Duration, stop: CancellationToken) {
    let is_clean = tokio::select! {
        is_clean = lease.connection.check(limit) => is_clean,
        () = stop.cancelled() => false,
    };
    if is_clean {
        lease.connection.needs_check = false;
    } else {
        discard(lease);
    }
}

/// Closes a connection instead of returning it to the pool.
fn discard(lease: Lease) {
    drop(deadpool::managed::Object::take(lease.connection));
}

impl Connection {
    /// Prepares the statements that are not prepared on this connection yet. This happens as the
    /// caller, because resolving names needs privileges on their schemas, which the parked role
    /// lacks.
    async fn prepare(&mut self, caller: &Claims, queries: &[Query<'_>]) -> Result<(), DbError> {
        if queries
            .iter()
            .all(|query| self.statements.contains_key(query.sql))
        {
            return Ok(());
        }
        self.client
            .batch_execute(BEGIN)
            .await
            .map_err(DbError::outside_statement)?;
        self.become_caller(caller).await?;
        for query in queries {
            if !self.statements.contains_key(query.sql) {
                let statement = self
                    .client
                    .prepare(query.sql)
                    .await
                    .map_err(DbError::in_statement)?;
                self.statements.insert(query.sql, statement);
            }
        }
        self.client
            .batch_execute("COMMIT")
            .await
            .map_err(DbError::outside_statement)
    }

    /// Sends the pipeline and reads its results. Each future sends its message when first polled,
    /// and the futures are polled in order. This relies on every statement being prepared already.
    async fn run_pipeline(
        &self,
        caller: &Claims,
        queries: &[Query<'_>],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        let mut prepared = Vec::with_capacity(queries.len());
        for query in queries {
            let statement = self.statements.get(query.sql);
            prepared.push(
                statement
                    .ok_or_else(|| DbError::Unexpected("a statement was not prepared".into()))?,
            );
        }
        let statements = queries
            .iter()
            .zip(prepared)
            .map(|(query, statement)| self.client.query(statement, query.parameters));
        let (begin, become_caller, results, commit) = join4(
            self.client.batch_execute(BEGIN),
            self.become_caller(caller),
            join_all(statements),
            self.client.batch_execute("COMMIT"),
        )
        .await;
        // Results are checked in the order in which the server processed the statements, because
        // the first error causes the others.
        begin.map_err(DbError::outside_statement)?;
        become_caller?;
        let results = results
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(DbError::in_statement)?;
        commit.map_err(DbError::in_statement)?;
        Ok(results)
    }
}
