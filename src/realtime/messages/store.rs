//! Stores broadcasts of clients in `realtime.messages` on behalf of their senders, and then sends
//! them (protocol 4.8).
//!
//! Guarantees: a message is either stored under the sender's role, claims and policies, or not sent
//! at all. Once storing has started, it is completed even if the sender's connection ends. A client
//! that joins receives the message either by replay or live, never both. Memory and connections are
//! bounded: see [`MAX_PENDING_KIB`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::channel::authorize::AuthorizeError;
use super::super::hub::{Hub, TopicKey};
use super::super::protocol::{Broadcast, Persist, UserPayload};
use crate::auth::Claims;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;
use crate::visibility::ChannelId;

/// Maximum number of connections. Each stores a few hundred messages per second, because it waits
/// for the disk after every message.
const MAX_CONNECTIONS: usize = 4;

/// Maximum memory for messages that are being stored or wait for a connection, in KiB. Each message
/// counts as its payload plus one KiB. Messages beyond this limit are refused.
const MAX_PENDING_KIB: usize = 64 << 10;

/// Maximum time that a message waits for a connection. Together with the time for its statements,
/// this stays below the ten seconds after which clients give up.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of the connection. PostgreSQL stops a statement that a policy delays. Rapport itself
/// has no timeout that could interrupt a commit, because the result of the commit would then be
/// unknown.
const CONNECTION_SETTINGS: &str = "\
    set statement_timeout = '3s'; set timezone = 'UTC'; set datestyle = 'ISO'; \
    set idle_in_transaction_session_timeout = '30s'";

/// Assumes a role and its claims for one transaction. The claims are set in both forms that
/// PostgREST has used: as one object, and one by one. Returns whether a policy for INSERT mentions
/// the extension `persistence`, which stands for the right to store. The policies of Supabase do.
const ASSUME_ROLE: &str = "\
    select \
        exists ( \
            select from pg_catalog.pg_policy p \
            where p.polrelid = 'realtime.messages'::regclass and p.polcmd in ('a', '*') \
                and pg_get_expr(coalesce(p.polwithcheck, p.polqual), p.polrelid) like '%''persistence''%'), \
        set_config('realtime.topic', $1, true), \
        set_config('request.jwt.claims', $2, true), \
        set_config('request.jwt.claim.sub', $3, true), \
        set_config('request.jwt.claim.role', $4, true), \
        set_config('request.headers', $5, true), \
        set_config('role', $4, true)";

/// Checks the right to store, if a policy mentions it. The insertion is rolled back.
const CHECK_RIGHT: &str = "\
    insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
    values ($1, $2, 'persistence', now(), now())";

/// Inserts the message. The role is compared again, so that nothing is ever written with the rights
/// of the login.
const INSERT: &str = "\
    insert into realtime.messages (id, topic, extension, event, private, {columns}) \
    select $1, $2, 'broadcast', $3, true, {values} \
    where current_user = $4";

/// The role name that `set_config` treats as a reset, after which the rights of the login would
/// apply.
const NO_ROLE: &str = "none";

/// The SQLSTATE for a row that violates `with check`, and for a missing grant.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The SQLSTATE for a column that a table does not have.
const UNDEFINED_COLUMN: &str = "42703";

/// A broadcast to be stored and sent.
#[derive(Debug)]
pub struct StoreOrder {
    /// The private topic.
    pub topic: TopicKey,
    /// The user's own event name.
    pub event: Box<str>,
    /// The payload.
    pub payload: StorePayload,
    /// How long to keep the message.
    pub persist: Persist,
    /// The sender's channel, if it does not receive its own broadcasts.
    pub except: Option<ChannelId>,
    /// The claims of the sender.
    pub claims: Arc<Claims>,
    /// The value of `request.headers` in policies: the text of a JSON object.
    pub headers: Arc<str>,
}

/// The payload of a [`StoreOrder`].
#[derive(Debug)]
pub enum StorePayload {
    /// One JSON value.
    Json(Box<str>),
    /// Arbitrary bytes.
    Binary(Box<[u8]>),
}

/// The reason why a broadcast is neither stored nor sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The policies do not let this caller store a message of the topic.
    #[error("The policies do not let the sender store the message")]
    Forbidden,
    /// `jsonb` cannot represent the payload.
    #[error("The payload cannot be stored: {sqlstate}")]
    Payload {
        /// The SQLSTATE of PostgreSQL.
        sqlstate: String,
    },
    /// The table lacks a column that the message needs, because Supabase or an older version
    /// created the table.
    #[error("The table of messages lacks a required column")]
    Unsupported,
    /// The permission check failed, or the database could not be queried.
    #[error(transparent)]
    CheckFailed(#[from] AuthorizeError),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let sqlstate = error.as_db_error().map(|error| error.code().code());
        match sqlstate {
            Some(INSUFFICIENT_PRIVILEGE) => Self::Forbidden,
            _ => Self::CheckFailed(error.into()),
        }
    }
}

/// Stores broadcasts. Clones share their connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    tasks: Tasks,
    hub: Arc<Hub>,
    /// One permit per KiB of [`MAX_PENDING_KIB`].
    memory: Arc<Semaphore>,
    /// One permit per connection.
    permits: Semaphore,
    /// Unused connections. A plain mutex, held for a push or a pop.
    idle: Mutex<Vec<Client>>,
}

impl Store {
    /// Creates a store without opening a connection. The login of `connector` must be allowed to
    /// assume the roles of tokens.
    pub fn new(connector: Connector, hub: Arc<Hub>, tasks: &Tasks) -> Self {
        Self {
            inner: Arc::new(Inner {
                connector,
                tasks: tasks.clone(),
                hub,
                memory: Arc::new(Semaphore::new(MAX_PENDING_KIB)),
                permits: Semaphore::new(MAX_CONNECTIONS),
                idle: Mutex::default(),
            }),
        }
    }

    /// Stores a broadcast and sends it to the members of its topic. Returns the id of its row.
    ///
    /// # Errors
    /// See [`StoreError`]. On an error the broadcast is not sent.
    pub async fn send(&self, order: StoreOrder) -> Result<Uuid, StoreError> {
        let metrics = self.inner.hub.metrics();
        let result = self.store_in_task(order).await;
        match &result {
            Ok(_) => {
                metrics.broadcasts_stored.inc();
            }
            Err(error) => {
                metrics.broadcasts_not_stored.inc();
                if let StoreError::CheckFailed(error) = error {
                    tracing::warn!(%error, "broadcast was neither stored nor sent");
                }
            }
        }
        result
    }

    async fn store_in_task(&self, order: StoreOrder) -> Result<Uuid, StoreError> {
        let kib = u32::try_from(order.payload.bytes() / 1024 + 1).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.inner.memory)
            .try_acquire_many_owned(kib)
            .map_err(|_| AuthorizeError::PoolExhausted)?;
        let inner = Arc::clone(&self.inner);
        // Storing runs in its own task. Otherwise, if the sender disconnected, a message could be
        // stored without being sent.
        let task = self.inner.tasks.spawn("stored broadcast", async move {
            let result = inner.store_and_send(&order).await;
            drop(memory);
            result
        });
        task.await
            .unwrap_or(Err(AuthorizeError::Unavailable.into()))
    }
}

impl Inner {
    async fn store_and_send(&self, order: &StoreOrder) -> Result<Uuid, StoreError> {
        if order.claims.role == NO_ROLE {
            return Err(StoreError::Forbidden);
        }
        // The semaphore is never closed, so the only error is the timeout.
        let _permit = tokio::time::timeout(QUEUE_TIMEOUT, self.permits.acquire())
            .await
            .map_err(|_| AuthorizeError::PoolExhausted)?;
        let idle = self.lock_idle().pop();
        let client = match idle.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.open().await?,
        };
        let id = self.hub.own_ids().next();
        let stored = store(&client, id, order).await;
        // Ends the transaction of a refused message. After a commit, `rollback` would only cause a
        // warning on the server, so it is not sent.
        let is_ended = stored.is_ok() || client.batch_execute("rollback").await.is_ok();
        if is_ended {
            self.lock_idle().push(client);
        }
        stored?;
        self.deliver(id, order);
        Ok(id)
    }

    async fn open(&self) -> Result<Client, AuthorizeError> {
        let client = self
            .connector
            .connect("rapport stored broadcasts", &self.tasks)
            .await?;
        client.batch_execute(CONNECTION_SETTINGS).await?;
        Ok(client)
    }

    /// Sends a stored message to the members of its topic.
    fn deliver(&self, id: Uuid, order: &StoreOrder) {
        let metadata = format!("{{\"id\":\"{id}\"}}");
        let broadcast = Broadcast::User {
            event: &order.event,
            metadata: &metadata,
            payload: match &order.payload {
                StorePayload::Json(text) => UserPayload::Json(text),
                StorePayload::Binary(bytes) => UserPayload::Binary(bytes),
            },
        };
        let mut deliveries = self.hub.deliveries();
        if let Err(error) = deliveries.row(&order.topic, &broadcast, id, order.except) {
            // The caller has checked the broadcast, so this is a bug in the server.
            tracing::error!(%error, "cannot encode a stored broadcast; dropping it");
        }
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores a message on behalf of its sender. Nothing is written until the transaction is open and
/// the role is assumed.
async fn store(client: &Client, id: Uuid, order: &StoreOrder) -> Result<(), StoreError> {
    let claims = &order.claims;
    let topic = order.topic.sub_topic();
    let (began, assumed) = join(
        client.batch_execute("begin"),
        client.query_typed_one(
            ASSUME_ROLE,
            &[
                (&topic, Type::TEXT),
                (&&*claims.json, Type::TEXT),
                (&claims.subject.as_deref().unwrap_or_default(), Type::TEXT),
                (&claims.role, Type::TEXT),
                (&&*order.headers, Type::TEXT),
            ],
        ),
    )
    .await;
    began?;
    let must_check_right: bool = assumed?.try_get(0)?;
    if must_check_right {
        client.batch_execute("savepoint right_check").await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&Uuid::new_v4(), Type::UUID), (&topic, Type::TEXT)];
        client.execute_typed(CHECK_RIGHT, &parameters).await?;
        client
            .batch_execute("rollback to savepoint right_check")
            .await?;
    }
    if insert(client, id, order).await? != 1 {
        return Err(AuthorizeError::Unavailable.into());
    }
    client.batch_execute("commit").await?;
    Ok(())
}

/// Inserts the row. Returns the number of inserted rows.
async fn insert(client: &Client, id: Uuid, order: &StoreOrder) -> Result<u64, StoreError> {
    let topic = order.topic.sub_topic();
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![
        (&id, Type::UUID),
        (&topic, Type::TEXT),
        (&order.event, Type::TEXT),
        (&order.claims.role, Type::TEXT),
    ];
    let (json, bytes);
    let (mut columns, mut values) = match &order.payload {
        StorePayload::Json(text) => {
            json = &**text;
            parameters.push((&json, Type::TEXT));
            ("payload".to_owned(), "$5::jsonb".to_owned())
        }
        StorePayload::Binary(payload) => {
            bytes = &**payload;
            parameters.push((&bytes, Type::BYTEA));
            ("binary_payload".to_owned(), "$5".to_owned())
        }
    };
    if let Some(seconds) = &order.persist.ttl_seconds {
        parameters.push((seconds, Type::INT4));
        columns.push_str(", expires_at");
        values.push_str(", (now() at time zone 'utc') + $6 * interval '1 second'");
    }
    let sql = INSERT
        .replace("{columns}", &columns)
        .replace("{values}", &values);
    client
        .execute_typed(&sql, &parameters)
        .await
        .map_err(|error| {
            let sqlstate = error.as_db_error().map(|error| error.code().code());
            match sqlstate {
                Some(UNDEFINED_COLUMN) => StoreError::Unsupported,
                // The column type does not accept the value: U+0000, half of a surrogate pair, a
                // number that is too large, or too many levels of nesting.
                Some(sqlstate) if sqlstate.starts_with("22") || sqlstate.starts_with("54") => {
                    StoreError::Payload {
                        sqlstate: sqlstate.to_owned(),
                    }
                }
                _ => error.into(),
            }
        })
}

impl StorePayload {
    /// Returns the size of the payload in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}
