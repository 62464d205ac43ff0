//! Whether a private channel may be read: the policies of `realtime.messages` decide (protocol 4.3).
//!
//! Two messages that do not exist are inserted, the caller's role and claims are taken on, the
//! two are looked for, and everything is rolled back: a policy is asked exactly as it would be
//! for a message of the topic. Nothing of it is ever committed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join3;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::super::session::AuthorizeOrder;
use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// Connections at most. A question takes about two round trips, and questions come in crowds
/// only when everybody reconnects; the original uses 2 to 15 by the size of the machine.
const MAX_CONNECTIONS: usize = 4;

/// How long a question may take, waiting for a connection included. Clients give up on a join
/// after ten seconds, and are better told why.
const TIMEOUT: Duration = Duration::from_secs(6);

/// A policy may be a slow query; it is stopped on the server before nobody waits for it any more.
const SESSION: &str = "set statement_timeout = '5s'; set timezone = 'UTC'; set datestyle = 'ISO'";

/// The messages that are asked about. Everything else is left to its default, so that policies
/// see what they see in the original.
const PROBE: &str = "\
    insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
    select probe.id, $2, probe.extension, now(), now() \
    from (values ($1::uuid, 'broadcast'), ($3::uuid, 'presence')) as probe (id, extension) \
    where probe.extension = 'broadcast' or $4";

/// Takes on a role and its claims, in both conventions of PostgREST, for one transaction.
const BECOME: &str = "\
    select \
        set_config('realtime.topic', $1, true), \
        set_config('request.jwt.claims', $2, true), \
        set_config('request.jwt.claim.sub', $3, true), \
        set_config('request.jwt.claim.role', $4, true), \
        set_config('request.headers', $5, true), \
        set_config('role', $4, true)";

const LOOK: &str = "select 1 from realtime.messages where id = any ($1) limit 1";

/// What the policies say of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Broadcasts or presence may be read.
    Read,
    /// Nothing may.
    None,
    /// The database could not be asked.
    Unknown,
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum AuthorizeError {
    /// No connection.
    #[error("The database cannot be reached")]
    Connect(#[from] ConnectError),
    /// The database refused, or the connection broke.
    #[error("The permissions of a channel cannot be asked for")]
    Query(#[from] tokio_postgres::Error),
    /// It took too long.
    #[error("The permissions of a channel took too long")]
    Late,
}

impl AuthorizeError {
    /// Whether the answer is no: a policy or role that fails is one that does not allow (protocol
    /// 4.3). Not so a statement that was cancelled, a day without its partition, or an outage.
    fn is_refusal(&self) -> bool {
        let Self::Query(error) = self else {
            return false;
        };
        error.code().is_some_and(|state| {
            let state = state.code();
            let is_no_answer = state.starts_with("57")
                || state.starts_with("53")
                || state.starts_with("08")
                || state == "23514"
                || state == "42P01";
            !is_no_answer
        })
    }
}

/// Asks the database. Clones share its connections.
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    tasks: Tasks,
    permits: Semaphore,
    /// Connections nobody uses. A plain mutex: held for a push or a pop.
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Client,
    probe: Statement,
    become_caller: Statement,
    look: Statement,
}

impl Authorizer {
    /// Opens nothing yet. The login of `connector` must be allowed to insert into
    /// `realtime.messages` and to take on the roles of tokens.
    pub fn new(connector: Connector, tasks: &Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                connector,
                tasks: tasks.clone(),
                permits: Semaphore::new(MAX_CONNECTIONS),
                idle: Mutex::default(),
            }),
        }
    }

    /// Whether the order's claims may read its topic. Where nobody can be asked, nobody may.
    pub async fn ask(authorizer: Option<&Self>, order: &AuthorizeOrder) -> Permission {
        let Some(authorizer) = authorizer else {
            return Permission::None;
        };
        let answer = tokio::time::timeout(TIMEOUT, authorizer.inner.answer(order)).await;
        match answer.unwrap_or(Err(AuthorizeError::Late)) {
            Ok(true) => Permission::Read,
            Ok(false) => Permission::None,
            Err(error) => {
                let is_refusal = error.is_refusal();
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, is_refusal, "a private channel is refused");
                if is_refusal {
                    Permission::None
                } else {
                    Permission::Unknown
                }
            }
        }
    }
}

impl Inner {
    async fn answer(&self, order: &AuthorizeOrder) -> Result<bool, AuthorizeError> {
        // Never closed: an error cannot be.
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| AuthorizeError::Late)?;
        let idle = self.lock_idle(Vec::pop);
        let connection = match idle.filter(|connection| !connection.client.is_closed()) {
            Some(connection) => connection,
            None => Box::pin(self.open()).await?,
        };
        // Dropped half-way, or with a transaction that may still be open, a connection is closed.
        let answer = connection.ask(order).await;
        let ended = connection.client.batch_execute("ROLLBACK").await;
        if ended.is_ok() {
            self.lock_idle(|idle| idle.push(connection));
        }
        answer
    }

    async fn open(&self) -> Result<Connection, AuthorizeError> {
        let client = self
            .connector
            .connect("rapport private channels", &self.tasks)
            .await?;
        client.batch_execute(SESSION).await?;
        Ok(Connection {
            probe: client.prepare(PROBE).await?,
            become_caller: client.prepare(BECOME).await?,
            look: client.prepare(LOOK).await?,
            client,
        })
    }

    fn lock_idle<T>(&self, change: impl FnOnce(&mut Vec<Connection>) -> T) -> T {
        change(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connection {
    /// Whether a message of the topic would be seen. The transaction is open for certain before
    /// anything is written in it; the rest goes out in one flight.
    async fn ask(&self, order: &AuthorizeOrder) -> Result<bool, AuthorizeError> {
        let topic = super::super::protocol::sub_topic(&order.topic);
        let (broadcast, presence) = (Uuid::new_v4(), Uuid::new_v4());
        let ids = [broadcast, presence];
        let claims = &*order.claims.json;
        let subject = order.claims.subject.as_deref().unwrap_or_default();
        let role = order.claims.role.as_str();
        let headers = &*order.headers;
        self.client.batch_execute("BEGIN").await?;
        // Polled in this order, in which the messages are written: all statements are prepared.
        let (probe, become_caller, found) = join3(
            self.client.execute(
                &self.probe,
                &[&broadcast, &topic, &presence, &order.presence],
            ),
            self.client.query(
                &self.become_caller,
                &[&topic, &claims, &subject, &role, &headers],
            ),
            self.client.query(&self.look, &[&ids.as_slice()]),
        )
        .await;
        // The first error is the cause of the others.
        probe?;
        become_caller?;
        Ok(!found?.is_empty())
    }
}
