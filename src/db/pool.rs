//! A bounded pool of connections that may do nothing until they act for somebody.
//!
//! Every connection is parked at its creation on [`PARKED_ROLE`], a role without rights, for
//! the whole session. A caller's role is set for one transaction only ([`super::rls`]). So
//! whatever fails in between, a lost `BEGIN` or a setting that did not take, the statement
//! behind it meets a role that may neither read nor write.
//!
//! Needs a direct connection or a session-mode pooler: in transaction mode the parked role
//! and the prepared statements would be another client's.

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

/// The role a connection has while it acts for nobody. The migrations make it; it may not log
/// in, is granted to the login, and is never granted anything itself.
pub const PARKED_ROLE: &str = "rapport_request";

/// How long a connection with a doubtful state has to prove that it is clean before it is
/// thrown away. A check is one round trip; what takes longer is a statement that an
/// impatient client left running.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What is added to the server's own limit for a statement before we stop waiting for it. It
/// only matters when the network swallows packets: otherwise the server answers first.
const NETWORK_ALLOWANCE: Duration = Duration::from_secs(2);

/// Waiting requests per connection before new ones are turned away at once: beyond this the
/// wait would outlast its limit anyway.
const MAX_WAITING_PER_CONNECTION: usize = 64;

/// Whether the session is outside of a transaction and on the parked role. It goes out as a
/// simple query, in which the two clock readings differ only inside an older transaction.
const CHECK: &str = "select current_user = 'rapport_request' and now() = statement_timestamp()";

/// The pool. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Db {
    pool: managed::Pool<Connections>,
    max_waiting: usize,
    /// How long one statement may take until its answer is here.
    pub(super) answer_timeout: Duration,
    reachability: Arc<Reachability>,
}

/// Opens, checks and counts the connections.
pub(super) struct Connections {
    connector: Connector,
    tasks: Tasks,
    session: String,
    reachability: Arc<Reachability>,
}

/// A connection with the statements that were prepared on it.
pub(super) struct Connection {
    pub(super) client: Client,
    /// The statement that turns the session into the caller's for one transaction.
    pub(super) become_caller: Statement,
    /// By their text: all statements of this program are constants.
    pub(super) statements: HashMap<&'static str, Statement>,
    /// Set while something is under way and left standing when it fails or its request is
    /// dropped: the connection is then checked before anybody else gets it.
    pub(super) is_doubtful: bool,
}

/// A connection on loan.
pub(super) type Lease = managed::Object<Connections>;

impl Db {
    /// A pool over `connector`. Opens nothing yet.
    ///
    /// # Errors
    /// When the settings describe no pool.
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
            // The connection used last has the warmest caches on both sides.
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

    /// Whether the database answers and the parked role is there. What comes out is also
    /// reported as readiness.
    ///
    /// # Errors
    /// [`DbError::PoolExhausted`] and [`DbError::Unavailable`].
    pub async fn ping(&self) -> Result<(), DbError> {
        let mut lease = self.lease().await?;
        if lease.check().await {
            self.reachability.note(true, &"");
            return Ok(());
        }
        self.reachability
            .note(false, &"a connection does not answer");
        drop(managed::Object::take(lease));
        Err(DbError::Unavailable(None))
    }

    /// Connections open, on loan and being waited for.
    pub fn status(&self) -> deadpool::Status {
        self.pool.status()
    }

    /// Closes idle connections, and the others as they come back. Waiting requests get an error.
    pub fn close(&self) {
        self.pool.close();
    }

    pub(super) async fn lease(&self) -> Result<Lease, DbError> {
        if self.pool.status().waiting >= self.max_waiting {
            return Err(DbError::PoolExhausted);
        }
        self.pool.get().await.map_err(|error| match error {
            // With no connection to be had, the wait is a symptom and not the cause.
            PoolError::Timeout(TimeoutType::Wait) if self.reachability.last() => {
                DbError::PoolExhausted
            }
            PoolError::Backend(error) => DbError::Unavailable(Some(Box::new(error))),
            PoolError::Timeout(TimeoutType::Create) => {
                self.reachability
                    .note(false, &"opening a connection took too long");
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
            is_doubtful: false,
        })
    }
}

impl managed::Manager for Connections {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        // Boxed: a TLS handshake's state is large, and most uses of the pool never open anything.
        let opened = Box::pin(self.open()).await;
        match &opened {
            Ok(_) => self.reachability.note(true, &""),
            Err(error) => self.reachability.note(false, &cause(error)),
        }
        opened
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if connection.client.is_closed() || (connection.is_doubtful && !connection.check().await) {
            return Err(RecycleError::message("the connection is not clean"));
        }
        connection.is_doubtful = false;
        Ok(())
    }
}

impl Connection {
    /// Waits for what is still under way and looks at the state it left behind.
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

/// What every session starts with. The role comes last: it may do nothing afterwards.
///
/// `search_path` is what PostgREST sets, for functions and policies of the application that
/// rely on it; our own statements name every schema. UTC and ISO are how JSON built in the
/// database prints times.
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

/// Whether the last connection that was needed could be opened.
struct Reachability {
    /// True at first, so that a database that is away from the start is logged, too.
    last: AtomicBool,
    readiness: Readiness,
}

impl Reachability {
    fn last(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }

    /// Reports how it went, and logs the change from one to the other, once each.
    fn note(&self, now: bool, cause: &dyn std::fmt::Display) {
        self.readiness.set_database_reachable(now);
        match (self.last.swap(now, Ordering::Relaxed), now) {
            (true, false) => tracing::error!(%cause, "the database cannot be used"),
            (false, true) => tracing::info!("the database can be used again"),
            _ => {}
        }
    }
}

/// The innermost text of an error: the outer ones say only that there was one.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
