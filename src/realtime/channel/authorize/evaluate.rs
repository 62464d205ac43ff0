//! Asks without writing: the policies' own expressions are evaluated on messages that are not in the
//! table, many callers in one flight.
//!
//! Each caller has a transaction of his own under his role and claims, which is always rolled
//! back: whatever a policy's functions set or remember is gone before the next one's turn. Between
//! transactions the connection is parked on [`PARKED_ROLE`], which may do nothing, so a question whose
//! settings did not take meets no power; its answer is thrown away with the connection besides.
//! Two callers never share a statement: `(select auth.uid())` is evaluated once for all rows of one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::{MaybeDone, maybe_done};
use futures_util::poll;
use tokio_postgres::{Client, Row, Statement};
use uuid::Uuid;

use super::catalog::{self, Evaluation};
use super::error::AuthorizeError;
use super::{Permissions, Subject};
use crate::db::PARKED_ROLE;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// A policy may be a slow query; it is stopped on the server before nobody waits for it any more.
const SESSION: &str = "set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
                       set idle_in_transaction_session_timeout = '30s'";

/// Takes on a role and its claims, in both conventions of PostgREST, for one transaction. A session
/// that is not parked gets no role.
const BECOME: &str = "\
    select \
        pg_catalog.set_config('realtime.topic', $1, true), \
        pg_catalog.set_config('request.jwt.claims', $2, true), \
        pg_catalog.set_config('request.jwt.claim.sub', $3, true), \
        pg_catalog.set_config('request.jwt.claim.role', $4, true), \
        pg_catalog.set_config('request.headers', $5, true), \
        pg_catalog.set_config('plan_cache_mode', $6, true), \
        pg_catalog.set_config('role', case current_user when 'rapport_request' then $4 \
            else 'rapport_request' end, true)";

/// Position of the role among the answers of [`BECOME`].
const ROLE_ANSWER: usize = 6;

/// Prepared statements kept for each connection. Each is one of a role; beyond this all are forgotten and
/// made anew as needed.
const MAX_STATEMENTS: usize = 512;

/// A connection that asks in this way.
pub(super) struct Evaluator {
    pub(super) client: Client,
    become_caller: Statement,
    fingerprint: Statement,
    statements: HashMap<u64, Statement>,
}

type Pending<'a, T> = Pin<Box<MaybeDone<Sending<'a, T>>>>;
type Sending<'a, T> = Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a>>;

/// Everything of one flight, on its way. What it holds must be awaited in its order.
pub(super) struct Flight<'a> {
    begin: Pending<'a, ()>,
    fingerprint: Pending<'a, Row>,
    asks: std::vec::IntoIter<Ask<'a>>,
    end: Pending<'a, ()>,
    is_sound: bool,
}

struct Ask<'a> {
    role: &'a str,
    settings: Pending<'a, Row>,
    rows: Pending<'a, Vec<Row>>,
    end: Pending<'a, ()>,
}

impl Evaluator {
    /// Opens a connection and parks it.
    ///
    /// # Errors
    /// With [`AuthorizeError::Policy`] where the login may not do that: there is no such way then.
    pub(super) async fn open(connector: &Connector, tasks: &Tasks) -> Result<Self, AuthorizeError> {
        let client = connector.connect("rapport private channels", tasks).await?;
        client.batch_execute(SESSION).await?;
        let become_caller = client.prepare(BECOME).await?;
        let fingerprint = client.prepare(&catalog::fingerprint()).await?;
        client
            .batch_execute(&format!("set role {PARKED_ROLE}"))
            .await?;
        Ok(Self {
            client,
            become_caller,
            fingerprint,
            statements: HashMap::new(),
        })
    }

    /// Prepares what is not known yet, as the login: PostgreSQL resolved the names of a policy when it
    /// was made, and a caller need not be able to. Returns the id of what cannot be prepared.
    ///
    /// # Errors
    /// After which the connection's role is uncertain.
    pub(super) async fn prepare(
        &mut self,
        evaluations: impl Iterator<Item = &Evaluation>,
    ) -> Result<Vec<u64>, AuthorizeError> {
        let mut refused = Vec::new();
        let mut is_parked = true;
        for evaluation in evaluations {
            if self.statements.contains_key(&evaluation.id) || refused.contains(&evaluation.id) {
                continue;
            }
            if is_parked {
                if self.statements.len() >= MAX_STATEMENTS {
                    self.statements.clear();
                }
                self.client.batch_execute("reset role").await?;
                is_parked = false;
            }
            match self.client.prepare(&evaluation.sql).await {
                Ok(statement) => {
                    self.statements.insert(evaluation.id, statement);
                }
                Err(error) if error.as_db_error().is_some() => {
                    tracing::debug!(%error, "policies are asked by insertion");
                    refused.push(evaluation.id);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !is_parked {
            self.client
                .batch_execute(&format!("set role {PARKED_ROLE}"))
                .await?;
        }
        Ok(refused)
    }

    /// Sends the whole flight. All of it must be prepared.
    pub(super) async fn send<'a>(
        &'a self,
        asks: &'a [(Arc<Subject>, Arc<Evaluation>)],
    ) -> Flight<'a> {
        let client = &self.client;
        let mut begin = pending(client.batch_execute("begin"));
        // A message is written when its future is first polled, so polling them in order
        // puts them on the wire in order without waiting for any.
        let _ = poll!(begin.as_mut());
        let mut fingerprint = pending(client.query_one(&self.fingerprint, &[]));
        let _ = poll!(fingerprint.as_mut());
        let mut sent = Vec::new();
        for (subject, evaluation) in asks {
            // One that is missing makes the flight one answer short, which ends in an error.
            let Some(statement) = self.statements.get(&evaluation.id) else {
                break;
            };
            let extensions = subject.question.extensions();
            let mut settings = pending(self.become_caller(subject, evaluation.is_planned_anew));
            let _ = poll!(settings.as_mut());
            let id = Uuid::new_v4();
            let mut rows = pending(async move {
                client
                    .query(statement, &[&&*subject.topic, &id, &extensions])
                    .await
            });
            let _ = poll!(rows.as_mut());
            let mut end = pending(client.batch_execute("rollback and chain"));
            let _ = poll!(end.as_mut());
            sent.push(Ask {
                role: &subject.claims.role,
                settings,
                rows,
                end,
            });
        }
        let mut end = pending(client.batch_execute("rollback"));
        let _ = poll!(end.as_mut());
        Flight {
            begin,
            fingerprint,
            asks: sent.into_iter(),
            end,
            is_sound: true,
        }
    }

    async fn become_caller(
        &self,
        subject: &Subject,
        is_planned_anew: bool,
    ) -> Result<Row, tokio_postgres::Error> {
        let claims = &subject.claims;
        let plan_cache_mode = if is_planned_anew {
            "force_custom_plan"
        } else {
            "force_generic_plan"
        };
        self.client
            .query_one(
                &self.become_caller,
                &[
                    &&*subject.topic,
                    &&*claims.json,
                    &claims.subject.as_deref().unwrap_or_default(),
                    &claims.role,
                    &&*subject.headers,
                    &plan_cache_mode,
                ],
            )
            .await
    }

    /// Forgets a statement that the schema has left behind.
    pub(super) fn forget(&mut self, id: u64) {
        self.statements.remove(&id);
    }
}

impl Flight<'_> {
    /// The fingerprint of the catalogue, which comes first.
    pub(super) async fn fingerprint(&mut self) -> Result<String, AuthorizeError> {
        let begun = wait(&mut self.begin).await;
        let row = wait(&mut self.fingerprint).await;
        self.is_sound = begun.is_ok() && row.is_ok();
        begun?;
        Ok(row?.try_get(0)?)
    }

    /// The next answer, in the order in which they were asked.
    pub(super) async fn next(&mut self) -> Result<Permissions, AuthorizeError> {
        let Some(mut ask) = self.asks.next() else {
            return Err(AuthorizeError::unexpected());
        };
        let settings = wait(&mut ask.settings).await;
        let rows = wait(&mut ask.rows).await;
        let ended = wait(&mut ask.end).await;
        let was_sound = self.is_sound;
        self.is_sound &= ended.is_ok();
        let settings = settings?;
        if !was_sound || settings.try_get::<_, &str>(ROLE_ANSWER)? != ask.role {
            // The session is not what it should be: nothing that it says counts.
            self.is_sound = false;
            return Err(AuthorizeError::Unavailable);
        }
        Permissions::of_rows(&rows?)
    }

    /// Waits for what is left. Whether the connection can be used again.
    pub(super) async fn land(mut self) -> bool {
        for ask in self.asks.by_ref() {
            let Ask {
                mut settings,
                mut rows,
                mut end,
                ..
            } = ask;
            // What nobody waits for any more.
            let _ = wait(&mut settings).await;
            let _ = wait(&mut rows).await;
            self.is_sound &= wait(&mut end).await.is_ok();
        }
        let ended = wait(&mut self.end).await;
        self.is_sound && ended.is_ok()
    }
}

fn pending<'a, T>(
    future: impl Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a,
) -> Pending<'a, T> {
    Box::pin(maybe_done(Box::pin(future) as Sending<'a, T>))
}

async fn wait<T>(pending: &mut Pending<'_, T>) -> Result<T, AuthorizeError> {
    pending.as_mut().await;
    match pending.as_mut().take_output() {
        Some(result) => Ok(result?),
        None => Err(AuthorizeError::unexpected()),
    }
}
