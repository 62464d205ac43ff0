//! Checks permissions without writing. The expressions of the policies are evaluated on messages
//! that are not in the table. One pipeline serves many callers (see [`crate::db::parked`]).
//!
//! Two callers never share a statement, because PostgreSQL evaluates `(select auth.uid())` only
//! once per statement.

use std::sync::Arc;

use futures_util::future::join;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::super::super::permissions::Permissions;
use super::catalog::{self, Evaluation};
use super::check::{self, Check};
use super::error::AuthorizeError;
use crate::db::connect::Connector;
use crate::db::parked::{self, Caller, NEXT_TRANSACTION, ParkedConnection, ParkedError};
use crate::shutdown::Tasks;

/// Settings of the connection. A policy may be a slow query, so PostgreSQL stops it before the
/// check times out.
const CONNECTION_SETTINGS: &str = "\
    set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
    set idle_in_transaction_session_timeout = '30s'";

/// The names of the settings for each caller. They contain the claims in both forms that PostgREST
/// has used: as one object, and one by one.
const CALLER_SETTINGS: [&str; 6] = [
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

/// A pipeline that has been sent. Its results must be awaited in order.
pub(super) struct CheckPipeline<'a>(parked::Pipeline<'a, Row, Vec<Row>>);

impl Evaluator {
    /// Opens a connection and parks it.
    ///
    /// # Errors
    /// Fails with [`AuthorizeError::Policy`] if the login may not park a connection. In that case,
    /// policies cannot be evaluated.
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        let connection =
            ParkedConnection::park(client, CONNECTION_SETTINGS, &CALLER_SETTINGS).await?;
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
            tracing::debug!(%error, "cannot prepare the policies; checking by insertion");
        }
        Ok(refused.into_keys().collect())
    }

    /// Sends the whole pipeline. All of its evaluations must be prepared.
    pub(super) async fn send<'a>(
        &'a self,
        checks: &'a [(Arc<Check>, Arc<Evaluation>)],
    ) -> CheckPipeline<'a> {
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
        // If a statement is missing, the pipeline has fewer results than checks, and reading the
        // missing result fails.
        let queries = checks.iter().map_while(|(check, evaluation)| {
            let statement = self.connection.statement(evaluation.id)?;
            let query = async move {
                let id = Uuid::new_v4();
                let extensions = check.kind.extensions();
                client
                    .query(statement, &[&&*check.topic, &id, &extensions])
                    .await
            };
            Some((caller(check, evaluation), query))
        });
        CheckPipeline(
            self.connection
                .send_pipeline(opening, NEXT_TRANSACTION, queries)
                .await,
        )
    }

    /// Drops a prepared statement that a schema change made invalid.
    pub(super) fn forget(&mut self, id: u64) {
        self.connection.forget(id);
    }
}

impl CheckPipeline<'_> {
    /// Returns the fingerprint of the catalogue, which is the first result.
    pub(super) async fn fingerprint(&mut self) -> Result<String, AuthorizeError> {
        Ok(self.0.opening().await?.try_get(0)?)
    }

    /// Returns the next result, in the order of the checks.
    pub(super) async fn next(&mut self) -> Result<Permissions, AuthorizeError> {
        match self.0.next().await {
            Some(rows) => permissions(&rows?),
            None => Err(AuthorizeError::unexpected()),
        }
    }

    /// Waits for the remaining results. Returns whether the connection can be used again.
    pub(super) async fn finish(self) -> bool {
        self.0.finish().await
    }
}

/// Reads rows that each contain an extension and whether it is allowed.
fn permissions(rows: &[Row]) -> Result<Permissions, AuthorizeError> {
    let mut permissions = Permissions::default();
    for row in rows {
        check::set(&mut permissions, row.try_get(0)?, row.try_get(1)?);
    }
    Ok(permissions)
}

/// Returns the caller of a check, with the values of [`CALLER_SETTINGS`].
fn caller<'a>(check: &'a Check, evaluation: &Evaluation) -> Caller<'a> {
    let claims = &check.claims;
    let plan_cache_mode = if evaluation.plans_per_caller {
        "force_custom_plan"
    } else {
        "force_generic_plan"
    };
    Caller {
        role: &claims.role,
        settings: vec![
            &check.topic,
            &claims.json,
            claims.subject.as_deref().unwrap_or_default(),
            &claims.role,
            &check.headers,
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
