//! Asks without writing: the policies' own expressions are evaluated on messages that are not in the
//! table, many callers in one flight ([`crate::db::parked`]).
//!
//! Two callers never share a statement: `(select auth.uid())` is evaluated once for all rows of one.

use std::sync::Arc;

use futures_util::future::join;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::catalog::{self, Evaluation};
use super::error::AuthorizeError;
use super::{Permissions, Subject};
use crate::db::connect::Connector;
use crate::db::parked::{self, Caller, NEXT_TURN, ParkedConnection, ParkedError};
use crate::shutdown::Tasks;

/// A policy may be a slow query; it is stopped on the server before nobody waits for it any more.
const SESSION: &str = "set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
                       set idle_in_transaction_session_timeout = '30s'";

/// What is set for each caller, with the claims in both conventions of PostgREST.
const SETTINGS: [&str; 6] = [
    "realtime.topic",
    "request.jwt.claims",
    "request.jwt.claim.sub",
    "request.jwt.claim.role",
    "request.headers",
    "plan_cache_mode",
];

/// A connection that asks in this way.
pub(super) struct Evaluator {
    connection: ParkedConnection,
    fingerprint: Statement,
}

/// Everything of one flight, on its way. What it holds must be awaited in its order.
pub(super) struct Flight<'a>(parked::Flight<'a, Row, Vec<Row>>);

impl Evaluator {
    /// Opens a connection and parks it.
    ///
    /// # Errors
    /// With [`AuthorizeError::Policy`] where the login may not do that: there is no such way then.
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        let connection = ParkedConnection::park(client, SESSION, &SETTINGS).await?;
        let fingerprint = connection.client().prepare(&catalog::fingerprint()).await?;
        Ok(Self {
            connection,
            fingerprint,
        })
    }

    /// The connection itself, for what the parked role may do.
    pub(super) fn client(&self) -> &Client {
        self.connection.client()
    }

    /// Prepares what is not known yet. Returns the id of what cannot be prepared.
    ///
    /// # Errors
    /// After which the connection's role is uncertain.
    pub(super) async fn prepare(
        &mut self,
        evaluations: impl Iterator<Item = &Evaluation>,
    ) -> Result<Vec<u64>, AuthorizeError> {
        let wanted = evaluations.map(|evaluation| (evaluation.id, &*evaluation.sql));
        let refused = self.connection.prepare(wanted).await?;
        for error in refused.values() {
            tracing::debug!(%error, "policies are asked by insertion");
        }
        Ok(refused.into_keys().collect())
    }

    /// Sends the whole flight. All of it must be prepared.
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
        // One that is missing makes the flight one answer short, which ends in an error.
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

    /// Forgets a statement that the schema has left behind.
    pub(super) fn forget(&mut self, id: u64) {
        self.connection.forget(id);
    }
}

impl Flight<'_> {
    /// The fingerprint of the catalogue, which comes first.
    pub(super) async fn fingerprint(&mut self) -> Result<String, AuthorizeError> {
        Ok(self.0.opening().await?.try_get(0)?)
    }

    /// The next answer, in the order in which they were asked.
    pub(super) async fn next(&mut self) -> Result<Permissions, AuthorizeError> {
        match self.0.next().await {
            Some(rows) => Permissions::of_rows(&rows?),
            None => Err(AuthorizeError::unexpected()),
        }
    }

    /// Waits for what is left. Whether the connection can be used again.
    pub(super) async fn land(self) -> bool {
        self.0.land().await
    }
}

/// Whose turn it is, with the values of [`SETTINGS`].
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
