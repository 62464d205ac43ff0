//! A bounded pool of connections that have no rights until they act for a caller.
//!
//! When a connection is opened, it is parked: outside transactions, its role is
//! [`super::PARKED_ROLE`], which has no rights. A caller's role is set for one transaction only
//! ([`super::rls`]). If a step in between fails, such as a lost `BEGIN` or a setting that was not
//! applied, the next statement runs as a role that may neither read nor write.
//!
//! Requires a direct connection or a session-mode pooler. In transaction mode the parked role and
//! the prepared statements would belong to another client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{
    self, Metrics, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType,
};

use super::connect::{ConnectError, Connector};
use super::connection::{CHECK_TIMEOUT, Connection, connection_settings};
use super::error::DbError;
use super::permits::{Permit, Permits};
use crate::auth::Claims;
use crate::config::DatabaseConfig;
use crate::observability::readiness::Readiness;
use crate::shutdown::Tasks;

/// Time added to PostgreSQL's statement timeout before the pool stops waiting for the result. It
/// matters only if the network drops packets; otherwise PostgreSQL responds first.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(2);

/// Connections that users' requests leave to the server's own statements: presence, standings,
/// deliveries and unread counts. Each of these runs one statement at a time, and none takes long.
const CONNECTIONS_OF_SERVER: usize = 2;

/// The connection pool. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Db {
    pool: managed::Pool<Connections>,
    permits: Arc<Permits>,
    pub(super) tasks: Tasks,
    /// How long to wait for the result of one statement.
    pub(super) answer_timeout: Duration,
    reachability: Arc<Reachability>,
}

/// Opens, checks and counts connections.
pub(super) struct Connections {
    connector: Connector,
    tasks: Tasks,
    settings: String,
    reachability: Arc<Reachability>,
}

/// A connection borrowed from the pool.
pub(super) type Borrowed = managed::Object<Connections>;

/// A connection borrowed from the pool for a caller, and the caller's permit.
pub(super) struct Lease {
    pub(super) connection: Borrowed,
    /// Declared after the connection, so that the connection returns to the pool before another
    /// caller gets the permit.
    _permit: Permit,
}

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
            settings: connection_settings(config.statement_timeout, config.pool_wait),
            reachability: Arc::clone(&reachability),
        };
        let for_requests = config.request_pool_size.max(1);
        let pool = managed::Pool::builder(connections)
            .max_size(for_requests + CONNECTIONS_OF_SERVER)
            .wait_timeout(Some(config.pool_wait))
            .create_timeout(Some(config.connect_timeout))
            // The most recently used connection has the warmest caches on both sides.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| DbError::Unexpected(error.into()))?;
        Ok(Self {
            pool,
            permits: Arc::new(Permits::new(for_requests, config.pool_wait)),
            tasks: tasks.clone(),
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
        let mut connection = self.borrow().await?;
        if connection.check(CHECK_TIMEOUT).await {
            self.reachability.record(true, &"");
            return Ok(());
        }
        self.reachability
            .record(false, &"a connection does not respond");
        drop(managed::Object::take(connection));
        Err(DbError::Unavailable(None))
    }

    /// Returns the numbers of open, borrowed and awaited connections.
    pub fn status(&self) -> deadpool::Status {
        let status = self.pool.status();
        deadpool::Status {
            waiting: status.waiting + self.permits.waiting(),
            ..status
        }
    }

    /// Closes idle connections now, and the others when they are returned. Waiting requests fail.
    pub fn close(&self) {
        self.permits.close();
        self.pool.close();
    }

    /// Waits for the caller's permit and borrows a connection.
    pub(super) async fn lease(&self, caller: &Claims) -> Result<Lease, DbError> {
        let permit = self.permits.acquire(caller).await.map_err(|error| {
            // If no connection can be opened, the wait is only a symptom.
            if self.reachability.was_reachable() {
                error
            } else {
                DbError::Unavailable(None)
            }
        })?;
        let connection = self.borrow().await?;
        Ok(Lease {
            connection,
            _permit: permit,
        })
    }

    async fn borrow(&self) -> Result<Borrowed, DbError> {
        self.pool.get().await.map_err(|error| match error {
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
        Connection::park(client, &self.settings)
            .await
            .map_err(ConnectError::Connect)
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
        if connection.client.is_closed()
            || (connection.needs_check && !connection.check(CHECK_TIMEOUT).await)
        {
            return Err(RecycleError::message("connection is not clean"));
        }
        connection.needs_check = false;
        Ok(())
    }
}

/// The result of the most recent attempt to open a connection.
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

/// Returns the text of the innermost error. The outer ones only state that an error occurred.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
