//! Reads the stored messages of a private topic for a channel that joins (protocol 4.7).
//!
//! Only rows of `realtime.messages` can be replayed: broadcasts from the database, and broadcasts
//! that clients have stored. The caller's permission is checked beforehand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Statement};

use super::super::channel::ReplayParams;
use super::super::hub::{ReplayedMessage, ReplayedPayload};
use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// Maximum number of connections. Many replays happen at once only when all clients reconnect.
const MAX_CONNECTIONS: usize = 2;

/// Maximum time for a replay, including the wait for a connection. Clients give up on a join after
/// ten seconds, and the permission check comes first.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Settings of the connection. The rights of callers are checked beforehand. If row-level security
/// would hide rows from the login, the query must fail instead of replaying only some of the
/// messages.
const CONNECTION_SETTINGS: &str = "\
    set row_security = off; set statement_timeout = '4s'; \
    set timezone = 'UTC'; set bytea_output = hex";

/// Reads which optional columns the table has. Older tables of Supabase lack binary payloads. All
/// tables of Supabase lack the expiry time of a message.
const COLUMNS: &str = "\
    select coalesce(bool_or(attname = 'binary_payload'), false), coalesce(bool_or(attname = 'expires_at'), false) \
    from pg_catalog.pg_attribute \
    where attrelid = 'realtime.messages'::regclass and not attisdropped";

/// Reads the newest messages since a time, oldest first, limited by number and bytes (protocol
/// 4.7). The table stores UTC without a time zone. Messages with a time up to one minute in the
/// future are included, because clocks differ. Messages of one transaction have the same time. They
/// are ordered by their position in the table, which usually follows the order of insertion.
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

/// The reason why a replay failed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The database cannot be reached.
    #[error("The database cannot be reached")]
    Connect(#[from] ConnectError),
    /// The database refused the query, or the connection broke.
    #[error("Stored messages cannot be read")]
    Query(#[from] tokio_postgres::Error),
    /// The replay took too long.
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
    /// Unused connections. A plain mutex, held for a push or a pop.
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Client,
    newest: Statement,
}

impl Replayer {
    /// Creates a replayer without opening a connection. The login of `connector` must own
    /// `realtime.messages` or bypass its policies.
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

    /// Reads the newest messages of a topic, whose name is given without `realtime:`. Returns them
    /// oldest first. If their total size exceeds `max_bytes`, the oldest ones are omitted.
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
        // The semaphore is never closed, so `acquire` cannot fail.
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
        // The maximum is 9999-12-31, because PostgreSQL cannot represent every time that a client
        // may send.
        let since = params.since_ms.clamp(0, 253_402_214_400_000) as f64;
        let rows = connection
            .client
            .query(
                &connection.newest,
                &[&topic, &since, &params.limit, &max_bytes],
            )
            .await?;
        // Connections with an error or an unfinished query do not get here, so they are not reused.
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
        client.batch_execute(CONNECTION_SETTINGS).await?;
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
