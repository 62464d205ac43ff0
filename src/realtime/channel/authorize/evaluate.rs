//! Checks permissions without writing. The expressions of the policies are evaluated on messages
//! that are not in the table. One flight serves many callers (see [`crate::db::parked`]).
//!
//! Two callers never share a statement, because PostgreSQL evaluates `(select auth.uid())` only
//! once per statement.

use std::sync::Arc;

use futures_util::future::join;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::super::super::permissions::Permissions;
use super::catalog::{self, Evaluation};
use super::error::AuthorizeError;
use super::question::{self, Subject};
use crate::db::connect::Connector;
use crate::db::parked::{self, Caller, NEXT_TURN, ParkedConnection, ParkedError};
use crate::observability::excerpt::Excerpt;
use crate::shutdown::Tasks;

/// Settings of the connection. A policy may be a slow query, so PostgreSQL stops it before the
/// question times out.
const SESSION: &str = "set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
                       set idle_in_transaction_session_timeout = '30s'";

/// The names of the settings for each caller. They contain the claims in both forms that PostgREST
/// has used: as one object, and one by one.
const SETTINGS: [&str; 6] = [
    "realtime.topic",
    "request.jwt.claims",
    "request.jwt.claim.sub",
    "request.jwt.claim.role",
    "request.headers",
    "plan_cache_mode",
];

/// A connection that evaluates policies.
pub(super) struct Evaluator {
    connection: ParkedConnection,
    fingerprint: Statement,
}

/// A flight that has been sent. Its results must be awaited in order.
pub(super) struct Flight<'a>(parked::Flight<'a, Row, Vec<Row>>);

impl Evaluator {
    /// Opens a connection and parks it.
    ///
    /// # Errors
    /// Fails with [`AuthorizeError::Policy`] if the login may not park a connection. In that case,
    /// policies cannot be evaluated.
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        let connection = ParkedConnection::park(client, SESSION, &SETTINGS).await?;
        let fingerprint = connection.client().prepare(&catalog::fingerprint()).await?;
        Ok(Self {
            connection,
            fingerprint,
        })
    }

    /// Returns the underlying connection, for statements that the parked role may run.
    pub(super) fn client(&self) -> &Client {
        self.connection.client()
    }

    /// Prepares the evaluations that are not prepared yet. Returns the ids of those that cannot be
    /// prepared.
    ///
    /// # Errors
    /// After an error, the role of the connection is unknown, so the connection must not be used
    /// again.
    pub(super) async fn prepare(
        &mut self,
        evaluations: impl Iterator<Item = &Evaluation>,
    ) -> Result<Vec<u64>, AuthorizeError> {
        let wanted = evaluations.map(|evaluation| (evaluation.id, &*evaluation.sql));
        let refused = self.connection.prepare(wanted).await?;
        for error in refused.values() {
            tracing::debug!(error = %Excerpt(&error), "cannot prepare the policies; checking by insertion");
        }
        Ok(refused.into_keys().collect())
    }

    /// Sends the whole flight. All of its evaluations must be prepared.
    pub(super) async fn send<'a>(
        &'a self,
        asks: &'a [(Arc<Subject>, Arc<Evaluation>)],
    ) -> Flight<'a> {
        let client = self.client();
        let opening = async {
            let (begun, fingerprint) = join(
                client.batch_execute("begin"),
                client.query_one(&self.fingerprint, &[]),
            )
            .await;
            begun?;
            fingerprint
        };
        // If a statement is missing, the flight has fewer answers than questions, and reading the
        // missing answer fails.
        let turns = asks.iter().map_while(|(subject, evaluation)| {
            let statement = self.connection.statement(evaluation.id)?;
            let question = async move {
                let id = Uuid::new_v4();
                let extensions = subject.question.extensions();
                client
                    .query(statement, &[&&*subject.topic, &id, &extensions])
                    .await
            };
            Some((caller(subject, evaluation), question))
        });
        Flight(self.connection.fly(opening, NEXT_TURN, turns).await)
    }

    /// Drops a prepared statement that a schema change made invalid.
    pub(super) fn forget(&mut self, id: u64) {
        self.connection.forget(id);
    }
}

impl Flight<'_> {
    /// Returns the fingerprint of the catalogue, which is the first result.
    pub(super) async fn fingerprint(&mut self) -> Result<String, AuthorizeError> {
        Ok(self.0.opening().await?.try_get(0)?)
    }

    /// Returns the next answer, in the order of the questions.
    pub(super) async fn next(&mut self) -> Result<Permissions, AuthorizeError> {
        match self.0.next().await {
            Some(rows) => permissions(&rows?),
            None => Err(AuthorizeError::unexpected()),
        }
    }

    /// Waits for the remaining results. Returns whether the connection can be used again.
    pub(super) async fn land(self) -> bool {
        self.0.land().await
    }
}

/// Reads rows that each contain an extension and whether it is allowed.
fn permissions(rows: &[Row]) -> Result<Permissions, AuthorizeError> {
    let mut permissions = Permissions::default();
    for row in rows {
        question::set(&mut permissions, row.try_get(0)?, row.try_get(1)?);
    }
    Ok(permissions)
}

/// Returns the caller that a question is about, with the values of [`SETTINGS`].
fn caller<'a>(subject: &'a Subject, evaluation: &Evaluation) -> Caller<'a> {
    let claims = &subject.claims;
    let plan_cache_mode = if evaluation.is_planned_anew {
        "force_custom_plan"
    } else {
        "force_generic_plan"
    };
    Caller {
        role: &claims.role,
        settings: vec![
            &subject.topic,
            &claims.json,
            claims.subject.as_deref().unwrap_or_default(),
            &claims.role,
            &subject.headers,
            plan_cache_mode,
        ],
    }
}

impl From<ParkedError> for AuthorizeError {
    fn from(error: ParkedError) -> Self {
        match error {
            ParkedError::Doubtful => Self::Unavailable,
            ParkedError::Database(error) => error.into(),
        }
    }
}
