//! Messages of a private topic that are stored, for a channel that joins (protocol 4.7).
//!
//! Only rows of `realtime.messages` can be replayed: what the database sent, and what clients had
//! stored. Who may have them is decided before this is asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// Connections at most. Replays come in crowds only when everybody reconnects.
const MAX_CONNECTIONS: usize = 2;

/// How long a replay may take, waiting for its turn included. Clients give up on a join after ten
/// seconds, and the question for permissions comes before.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Rights are checked before; a login that row-level security would hide rows from is to fail
/// instead of replaying less than there is.
const SESSION: &str = "set row_security = off; set statement_timeout = '4s'; \
                       set timezone = 'UTC'; set bytea_output = hex";

/// Whether the table has binary payloads, which one that Supabase made some time ago has not, and
/// messages that are kept for a time of their own, which one that Supabase made has not.
const COLUMNS: &str = "\
    select coalesce(bool_or(attname = 'binary_payload'), false), coalesce(bool_or(attname = 'expires_at'), false) \
    from pg_catalog.pg_attribute \
    where attrelid = 'realtime.messages'::regclass and not attisdropped";

/// The newest messages since a time, within a number of rows and of bytes, oldest first. Times of
/// the table are UTC without saying so. The minute's grace is for clocks that differ (4.7). Messages
/// of one transaction have one time; the place in the table is where they were written, which is in
/// their order as a rule.
const NEWEST: &str = "\
    with newest as materialized ( \
        select id, event, inserted_at, ctid as place, payload::text as payload, binary_payload \
        from realtime.messages \
        where topic = $1 and private is true and extension = 'broadcast' and event is not null \
            and inserted_at >= timestamp 'epoch' + $2 * interval '1 millisecond' \
            and inserted_at < (now() at time zone 'utc') + interval '1 minute' \
            and (expires_at is null or expires_at > (now() at time zone 'utc')) \
        order by inserted_at desc, ctid desc \
        limit $3), \
    measured as ( \
        select *, sum(octet_length(event) + coalesce(octet_length(payload), octet_length(binary_payload), 4)) \
            over (order by inserted_at desc, place desc) as bytes \
        from newest) \
    select id, event, payload, binary_payload from measured where bytes <= $4 order by inserted_at, place";

/// What a join asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayParams {
    /// Milliseconds since 1970.
    pub since_ms: i64,
    /// Messages at most.
    pub limit: i64,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedMessage {
    /// The row's id, by which clients recognize it.
    pub id: Uuid,
    /// The user's own event name.
    pub event: String,
    /// What was sent.
    pub payload: ReplayedPayload,
}

/// See [`ReplayedMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayedPayload {
    /// One JSON value.
    Json(String),
    /// Anything else.
    Binary(Vec<u8>),
}

/// Why there is no replay.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// No connection.
    #[error("The database cannot be reached")]
    Connect(#[from] ConnectError),
    /// The database refused, or the connection broke.
    #[error("Stored messages cannot be read")]
    Query(#[from] tokio_postgres::Error),
    /// It took too long.
    #[error("Reading stored messages took too long")]
    Late,
}

/// Reads stored messages. Clones share their connections.
#[derive(Clone)]
pub struct Replayer {
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
    newest: Statement,
}

impl Replayer {
    /// Opens nothing yet. The login of `connector` must own `realtime.messages`, or bypass its
    /// policies.
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

    /// The newest messages of a topic, which is named without `realtime:`, oldest first. Those that
    /// would make them more than `max_bytes` together are left out, the oldest of all.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn read(
        &self,
        topic: &str,
        params: ReplayParams,
        max_bytes: i64,
    ) -> Result<Vec<ReplayedMessage>, ReplayError> {
        let reading = self.inner.read(topic, params, max_bytes);
        tokio::time::timeout(TIMEOUT, reading)
            .await
            .unwrap_or(Err(ReplayError::Late))
    }
}

impl Inner {
    async fn read(
        &self,
        topic: &str,
        params: ReplayParams,
        max_bytes: i64,
    ) -> Result<Vec<ReplayedMessage>, ReplayError> {
        // Never closed: an error cannot be.
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| ReplayError::Late)?;
        let idle = self.idle().pop();
        let connection = match idle.filter(|connection| !connection.client.is_closed()) {
            Some(connection) => connection,
            None => Box::pin(self.open()).await?,
        };
        // 9999-12-31: beyond it lies no time that PostgreSQL prints as others do.
        let since = params.since_ms.clamp(0, 253_402_214_400_000) as f64;
        let rows = connection
            .client
            .query(
                &connection.newest,
                &[&topic, &since, &params.limit, &max_bytes],
            )
            .await?;
        // After an error or half-way a connection is not used again.
        self.idle().push(connection);
        rows.iter()
            .map(|row| {
                let binary: Option<Vec<u8>> = row.try_get(3)?;
                let json: Option<String> = row.try_get(2)?;
                Ok(ReplayedMessage {
                    id: row.try_get(0)?,
                    event: row.try_get(1)?,
                    payload: match binary {
                        Some(bytes) => ReplayedPayload::Binary(bytes),
                        None => ReplayedPayload::Json(json.unwrap_or_else(|| "null".to_owned())),
                    },
                })
            })
            .collect()
    }

    async fn open(&self) -> Result<Connection, ReplayError> {
        let client = self
            .connector
            .connect("rapport replay", &self.tasks)
            .await?;
        client.batch_execute(SESSION).await?;
        let columns = client.query_one(COLUMNS, &[]).await?;
        let mut newest = NEWEST.to_owned();
        if !columns.try_get::<_, bool>(0)? {
            let column = "payload::text as payload, binary_payload";
            let absent = "payload::text as payload, null::bytea as binary_payload";
            newest = newest.replace(column, absent);
        }
        if !columns.try_get::<_, bool>(1)? {
            let column = "and (expires_at is null or expires_at > (now() at time zone 'utc')) ";
            newest = newest.replace(column, "");
        }
        let newest = client.prepare(&newest).await?;
        Ok(Connection { client, newest })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
