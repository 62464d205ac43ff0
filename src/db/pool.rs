//! A bounded pool of connections that have no rights until they act for a caller.
//!
//! When a connection is opened it is parked on [`PARKED_ROLE`], a role without rights, for the
//! whole session. A caller's role is set for one transaction only ([`super::rls`]). Whatever fails
//! in between, such as a lost `BEGIN` or a setting that was not applied, the next statement runs as
//! a role that may neither read nor write.
//!
//! Requires a direct connection or a session-mode pooler. In transaction mode the parked role and
//! the prepared statements would belong to another client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    self, Metrics, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::connect::{ConnectError, Connector};
use super::error::DbError;
use super::rls;
use crate::config::DatabaseConfig;
use crate::observability::readiness::Readiness;
use crate::shutdown::Tasks;

/// The role of a connection that acts for no caller. A migration creates it. It cannot log in, is
/// granted to the login, and must never be granted any privilege.
pub const PARKED_ROLE: &str = "rapport_request";

/// How long a connection in an uncertain state has to prove that it is clean before it is closed. A
/// check is one round trip. A longer time means that a statement is still running after its client
/// has gone.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Added to the server's statement timeout before we stop waiting for the result. It matters only
/// if the network drops packets; otherwise the server responds first.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(2);

/// Maximum waiting requests per connection. Further requests are refused immediately, because their
/// wait would exceed its timeout anyway.
const MAX_WAITING_PER_CONNECTION: usize = 64;

/// Checks that the session is outside a transaction and on the parked role. It must be sent as a
/// simple query: then the two clock readings differ only inside an older transaction.
const CHECK: &str = "select current_user = 'rapport_request' and now() = statement_timestamp()";

/// The connection pool. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Db {
    pool: managed::Pool<Connections>,
    max_waiting: usize,
    /// How long to wait for the result of one statement.
    pub(super) answer_timeout: Duration,
    reachability: Arc<Reachability>,
}

/// Opens, checks and counts connections.
pub(super) struct Connections {
    connector: Connector,
    tasks: Tasks,
    session: String,
    reachability: Arc<Reachability>,
}

/// A connection with its prepared statements.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The statement that switches the session to the caller for one transaction.
    pub(super) become_caller: Statement,
    /// Keyed by text. All statements of this program are constants.
    pub(super) statements: HashMap<&'static str, Statement>,
    /// Set while a transaction is in progress. It stays set if the transaction fails or its request
    /// is dropped, and the connection is then checked before its next use.
    pub(super) needs_check: bool,
}

/// A connection borrowed from the pool.
pub(super) type Lease = managed::Object<Connections>;

impl Db {
    /// Creates a pool over `connector`, without opening a connection.
    ///
    /// # Errors
    /// Fails if the settings are not valid for a pool.
    pub fn new(
        connector: Connector,
        config: &DatabaseConfig,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, DbError> {
        let reachability = Arc::new(Reachability {
            last: AtomicBool::new(true),
            readiness,
        });
        let connections = Connections {
            connector,
            tasks: tasks.clone(),
            session: session_settings(config.statement_timeout),
            reachability: Arc::clone(&reachability),
        };
        let pool = managed::Pool::builder(connections)
            .max_size(config.request_pool_size.max(1))
            .wait_timeout(Some(config.pool_wait))
            .create_timeout(Some(config.connect_timeout))
            // The most recently used connection has the warmest caches on both sides.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| DbError::Unexpected(error.into()))?;
        let max_waiting = config.request_pool_size.max(1) * MAX_WAITING_PER_CONNECTION;
        Ok(Self {
            pool,
            max_waiting,
            answer_timeout: config.statement_timeout + NETWORK_ALLOWANCE,
            reachability,
        })
    }

    /// Checks that the database responds and the parked role exists. The result is also reported as
    /// readiness.
    ///
    /// # Errors
    /// [`DbError::PoolExhausted`] and [`DbError::Unavailable`].
    pub async fn ping(&self) -> Result<(), DbError> {
        let mut lease = self.lease().await?;
        if lease.check().await {
            self.reachability.record(true, &"");
            return Ok(());
        }
        self.reachability
            .record(false, &"a connection does not respond");
        drop(managed::Object::take(lease));
        Err(DbError::Unavailable(None))
    }

    /// Open, borrowed and awaited connections.
    pub fn status(&self) -> deadpool::Status {
        self.pool.status()
    }

    /// Closes idle connections now, and the others when they are returned. Waiting requests fail.
    pub fn close(&self) {
        self.pool.close();
    }

    pub(super) async fn lease(&self) -> Result<Lease, DbError> {
        if self.pool.status().waiting >= self.max_waiting {
            return Err(DbError::PoolExhausted);
        }
        self.pool.get().await.map_err(|error| match error {
            // If no connection can be opened, the wait is only a symptom.
            PoolError::Timeout(TimeoutType::Wait) if self.reachability.was_reachable() => {
                DbError::PoolExhausted
            }
            PoolError::Backend(error) => DbError::Unavailable(Some(Box::new(error))),
            PoolError::Timeout(TimeoutType::Create) => {
                self.reachability
                    .record(false, &"opening a connection timed out");
                DbError::Unavailable(None)
            }
            PoolError::Timeout(_) | PoolError::Closed => DbError::Unavailable(None),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                DbError::Unexpected(error.to_string().into())
            }
        })
    }
}

impl Connections {
    async fn open(&self) -> Result<Connection, ConnectError> {
        let client = self.connector.connect("rapport", &self.tasks).await?;
        client
            .batch_execute(&self.session)
            .await
            .map_err(ConnectError::Connect)?;
        let become_caller = client
            .prepare(rls::BECOME_CALLER)
            .await
            .map_err(ConnectError::Connect)?;
        Ok(Connection {
            client,
            become_caller,
            statements: HashMap::new(),
            needs_check: false,
        })
    }
}

impl managed::Manager for Connections {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        // Boxed because the state of a TLS handshake is large and most uses of the pool open no
        // connection.
        let opened = Box::pin(self.open()).await;
        match &opened {
            Ok(_) => self.reachability.record(true, &""),
            Err(error) => self.reachability.record(false, &cause(error)),
        }
        opened
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if connection.client.is_closed() || (connection.needs_check && !connection.check().await) {
            return Err(RecycleError::message("connection is not clean"));
        }
        connection.needs_check = false;
        Ok(())
    }
}

impl Connection {
    /// Waits for statements still in progress and checks the resulting state.
    async fn check(&mut self) -> bool {
        let answer = tokio::time::timeout(CHECK_TIMEOUT, self.client.simple_query(CHECK)).await;
        let Ok(Ok(messages)) = answer else {
            return false;
        };
        messages.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")),
        )
    }
}

/// The statements that start every session. The role is set last, because the session has no rights
/// afterwards.
///
/// `search_path` is the one that PostgREST sets, for functions and policies of the application that
/// rely on it; our own statements qualify every name. UTC and ISO determine how JSON built in the
/// database formats times.
fn session_settings(statement_timeout: Duration) -> String {
    let statement_timeout = statement_timeout.as_millis();
    format!(
        "set statement_timeout = {statement_timeout};
         set idle_in_transaction_session_timeout = {statement_timeout};
         set search_path = public, extensions;
         set timezone = 'UTC';
         set datestyle = 'ISO';
         set role {PARKED_ROLE}"
    )
}

/// Whether the most recent attempt to open a connection succeeded.
struct Reachability {
    /// Initially true, so that a database that is unavailable from the start is logged, too.
    last: AtomicBool,
    readiness: Readiness,
}

impl Reachability {
    fn was_reachable(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }

    /// Reports the result of an attempt. Logs only transitions between reachable and unreachable.
    fn record(&self, now: bool, cause: &dyn std::fmt::Display) {
        self.readiness.set_database_reachable(now);
        match (self.last.swap(now, Ordering::Relaxed), now) {
            (true, false) => tracing::error!(%cause, "database is unavailable"),
            (false, true) => tracing::info!("database is available again"),
            _ => {}
        }
    }
}

/// The text of the innermost error. The outer ones only state that an error occurred.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
