//! Statements in a caller's name, under row-level security.
//!
//! One flight: `BEGIN`, the caller's role and claims, the statements and `COMMIT` are written
//! to the socket together and answered together, so a request costs one round trip. This
//! is safe because of what each message meets when one before it fails: an error inside the
//! transaction turns `COMMIT` into a rollback; a lost `BEGIN` leaves the statements to
//! [`super::pool::PARKED_ROLE`], which may do nothing.
//!
//! A request that is dropped half-way has its flight completed by the server: all of it was
//! already sent.

use std::time::Duration;

use futures_util::future::{join_all, join4};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::DbError;
use super::pool::{Connection, Db, Lease};
use crate::auth::Claims;

/// Makes the session the caller's for one transaction, in the manner of PostgREST: the claims
/// for policies written against either of its two conventions, then the role.
///
/// A session that is not parked does not get the caller's role: it would keep it, or whatever
/// it had, after a lost `BEGIN`.
pub(super) const BECOME_CALLER: &str = "\
    select \
        set_config('request.jwt.claims', $1, true), \
        set_config('request.jwt.claim.sub', $2, true), \
        set_config('request.jwt.claim.role', $3, true), \
        set_config('role', case current_user when 'rapport_request' then $3 else 'rapport_request' end, true)";

/// Position of the role among the answers of [`BECOME_CALLER`].
const ROLE_ANSWER: usize = 3;

/// Attempts at a flight that was rolled back whole for a reason that passes: a deadlock, or a
/// statement prepared before a change of the schema. Its input is at hand, so repeating it is
/// safe; more than once more would only add to the contention that caused it.
const ATTEMPTS: usize = 2;

/// Milliseconds before the repetition, drawn at random. Whoever survived a deadlock is still
/// waking up when its loser is told: without a pause the loser takes the lock from under it.
const PAUSE_MS: std::ops::Range<u64> = 20..60;

/// One statement with its parameters. The text is a constant: what callers send is a parameter.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    /// The statement, with `$1`, `$2`, …
    pub sql: &'static str,
    /// Their values.
    pub parameters: &'a [&'a (dyn ToSql + Sync)],
}

impl Db {
    /// Runs `sql` as the caller in a transaction of its own and returns its rows.
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

    /// Runs `queries` in order as the caller, in one transaction; one list of rows for each.
    ///
    /// # Errors
    /// See [`DbError`]. After an error nothing of it has happened, unless the connection was
    /// lost, when nobody can tell.
    pub async fn run_as(
        &self,
        caller: &Claims,
        queries: &[Query<'_>],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        for _ in 1..ATTEMPTS {
            match self.attempt(caller, queries).await {
                Err(error) if error.may_pass_on_repetition() => {
                    tracing::debug!(%error, "repeating a transaction that was rolled back");
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSE_MS))).await;
                }
                result => return result,
            }
        }
        self.attempt(caller, queries).await
    }

    async fn attempt(
        &self,
        caller: &Claims,
        queries: &[Query<'_>],
    ) -> Result<Vec<Vec<Row>>, DbError> {
        let mut lease = self.lease().await?;
        lease.is_doubtful = true;
        let limit = self.answer_timeout * u32::try_from(queries.len()).unwrap_or(1).max(1);
        let flight = async {
            lease.prepare(caller, queries).await?;
            lease.fly(caller, queries).await
        };
        let result = match tokio::time::timeout(limit, flight).await {
            Ok(result) => result,
            Err(elapsed) => Err(DbError::Unavailable(Some(elapsed.into()))),
        };
        match &result {
            Ok(_) => lease.is_doubtful = false,
            // What the database refused leaves a connection that proves itself at its next use.
            Err(DbError::Refused(_) | DbError::DoneBefore | DbError::Contended(_)) => {}
            Err(_) => discard(lease),
        }
        result
    }
}

/// Closes a connection instead of giving it back.
fn discard(lease: Lease) {
    drop(deadpool::managed::Object::take(lease));
}

impl Connection {
    /// Prepares those of the statements that this connection does not know yet, as the caller:
    /// resolving names needs rights on their schemas, which the parked role has not.
    async fn prepare(&mut self, caller: &Claims, queries: &[Query<'_>]) -> Result<(), DbError> {
        if queries
            .iter()
            .all(|query| self.statements.contains_key(query.sql))
        {
            return Ok(());
        }
        self.client
            .batch_execute("BEGIN")
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

    /// The flight. Each future writes its message when it is first polled, and they are polled
    /// in order: this holds because every statement is prepared already.
    async fn fly(&self, caller: &Claims, queries: &[Query<'_>]) -> Result<Vec<Vec<Row>>, DbError> {
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
            self.client.batch_execute("BEGIN"),
            self.become_caller(caller),
            join_all(statements),
            self.client.batch_execute("COMMIT"),
        )
        .await;
        // In the order in which the server met them: the first error is the cause of the others.
        begin.map_err(DbError::outside_statement)?;
        become_caller?;
        let results = results
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(DbError::in_statement)?;
        commit.map_err(DbError::in_statement)?;
        Ok(results)
    }

    async fn become_caller(&self, caller: &Claims) -> Result<(), DbError> {
        let subject = caller.subject.as_deref().unwrap_or_default();
        let row = self
            .client
            .query_one(
                &self.become_caller,
                &[&&*caller.json, &subject, &caller.role],
            )
            .await
            .map_err(DbError::outside_statement)?;
        let role: &str = row
            .try_get(ROLE_ANSWER)
            .map_err(DbError::outside_statement)?;
        if role == caller.role {
            return Ok(());
        }
        Err(DbError::Unexpected(
            "the session did not take the caller's role".into(),
        ))
    }
}
