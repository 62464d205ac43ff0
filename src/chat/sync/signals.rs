//! Wakes waiting requests when a commit may affect them.
//!
//! One task reads the change stream for all waiting requests. A waiting request holds no database
//! connection and queries the database only when it is woken. While the stream is interrupted, no
//! request is woken, and requests end at their timeout.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::Bus;
use crate::bus::tables::{TableEvent, TableListener};
use crate::change::{ChangeEvent, ChangeTransaction, TableName};
use crate::http::ApiError;
use crate::observability::metrics::ChatMetrics;
use crate::requests::{ConcurrencyLimit, Permit};
use crate::shutdown::Tasks;

/// Tables whose changes wake requests, with the column that contains the id of the user or
/// conversation. Every change that `/sync` returns updates a row of one of these tables: a message
/// updates its conversation, and a private setting updates the membership.
const TABLES: [(&str, &str); 3] = [
    ("user_conversations", "id"),
    ("user_conversation_members", "user_id"),
    ("conversation_receipts", "conversation_id"),
];

/// Maximum number of commits queued for a waiting request. A request handles them immediately, so
/// more accumulate only while the database is slow. By then, the older commits are visible.
const MAX_COMMITS: usize = 256;

/// After missed changes, all waiting requests query the database. They do so at random times within
/// this interval, in milliseconds.
const SPREAD_MS: std::ops::Range<u64> = 0..1000;

/// Maximum number of waiting requests per user, for their tabs and devices.
const MAX_WAITING: usize = 8;

/// Maximum number of signalled requests that query the database simultaneously. The rest wait,
/// because other requests need the pool, too.
const MAX_QUERIES: usize = 4;

/// What a request waits for: changes of a user, or of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WakeKey {
    Person(Uuid),
    Conversation(Uuid),
}

/// The registry of waiting requests. Cheap to clone.
#[derive(Clone)]
pub(in crate::chat) struct Signals {
    registry: Arc<Registry>,
    metrics: ChatMetrics,
    stop: CancellationToken,
    per_user: ConcurrencyLimit,
    queries: Arc<Semaphore>,
}

/// A waiting request, registered until it is dropped.
pub(super) struct Waiting {
    registry: Arc<Registry>,
    metrics: ChatMetrics,
    keys: Vec<WakeKey>,
    mailbox: Arc<Mailbox>,
    _permit: Permit,
}

#[derive(Default)]
struct Registry {
    /// A standard mutex, held to change or iterate over some entries and never across an await.
    mailboxes: Mutex<HashMap<WakeKey, Vec<Arc<Mailbox>>>>,
}

#[derive(Default)]
struct Mailbox {
    news: Notify,
    /// A standard mutex, held to add or take a few numbers.
    pending: Mutex<Pending>,
}

#[derive(Debug, Default, PartialEq)]
struct Pending {
    commits: VecDeque<u32>,
    has_missed: bool,
}

impl Signals {
    /// Starts the task that reads the changes. The task and all waiting requests end with `tasks`.
    pub(in crate::chat) fn start(bus: &Bus, metrics: ChatMetrics, tasks: &Tasks) -> Self {
        let refusals = metrics.rate_limited.clone();
        let signals = Self {
            registry: Arc::default(),
            stop: tasks.token().clone(),
            per_user: ConcurrencyLimit::new(MAX_WAITING, "sync_waiting", refusals),
            metrics,
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
        };
        let tables = TABLES.map(|(name, _)| TableName::new("public", name));
        let listener = bus.listen_to_tables(tables.into());
        let registry = Arc::clone(&signals.registry);
        tasks.spawn(
            "sync signals",
            run(listener, registry, signals.stop.clone()),
        );
        signals
    }

    /// Registers a request for changes to these conversations and to the user's own rows. Fails if
    /// the user has too many waiting requests.
    pub(super) fn register(
        &self,
        person: Uuid,
        conversations: &[Uuid],
    ) -> Result<Waiting, ApiError> {
        let permit = self.per_user.acquire(person)?;
        let conversations = conversations.iter().copied().map(WakeKey::Conversation);
        let keys: Vec<WakeKey> = std::iter::once(WakeKey::Person(person))
            .chain(conversations)
            .collect();
        let mailbox = Arc::new(Mailbox::default());
        let mut mailboxes = self.registry.lock();
        for key in &keys {
            mailboxes
                .entry(*key)
                .or_default()
                .push(Arc::clone(&mailbox));
        }
        drop(mailboxes);
        self.metrics.sync_waiting.inc();
        Ok(Waiting {
            registry: Arc::clone(&self.registry),
            metrics: self.metrics.clone(),
            keys,
            mailbox,
            _permit: permit,
        })
    }

    /// Waits until the request may query the database. It may do so until the returned permit is
    /// dropped. Returns `None` if the server stops.
    pub(super) async fn acquire_query(&self) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            permit = self.queries.acquire() => permit.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    /// Returns whether the server is stopping, so that no request should wait.
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the server stops.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Waiting {
    /// Waits for commits that may affect the request, and returns their transaction ids. After
    /// missed changes, the list may be empty. If the future is dropped early, no commits are lost
    /// unless changes were missed. In that case, the notice of missed changes may be lost as well,
    /// but the request reads the page again when it ends anyway.
    pub(super) async fn commits(&self) -> VecDeque<u32> {
        loop {
            let pending = std::mem::take(&mut *self.mailbox.lock());
            if pending.has_missed {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(SPREAD_MS))).await;
                return pending.commits;
            }
            if !pending.commits.is_empty() {
                return pending.commits;
            }
            self.mailbox.news.notified().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.sync_waiting.dec();
        let mut mailboxes = self.registry.lock();
        for key in &self.keys {
            if let Some(waiting) = mailboxes.get_mut(key) {
                waiting.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
                if waiting.is_empty() {
                    mailboxes.remove(key);
                }
            }
        }
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<WakeKey, Vec<Arc<Mailbox>>>> {
        // A panic while the lock is held leaves consistent entries, so a poisoned mutex can still
        // be used.
        self.mailboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, transaction: &ChangeTransaction) {
        if self.lock().is_empty() {
            return;
        }
        let keys: HashSet<WakeKey> = transaction.changes.iter().filter_map(key_of).collect();
        let mailboxes = self.lock();
        for mailbox in keys.iter().filter_map(|key| mailboxes.get(key)).flatten() {
            mailbox.signal(transaction.xid);
        }
    }

    fn signal_missed(&self) {
        for mailbox in self.lock().values().flatten() {
            mailbox.lock().has_missed = true;
            mailbox.news.notify_one();
        }
    }
}

impl Mailbox {
    fn signal(&self, xid: u32) {
        let mut pending = self.lock();
        if pending.commits.back() != Some(&xid) {
            if pending.commits.len() >= MAX_COMMITS {
                pending.commits.pop_front();
            }
            pending.commits.push_back(xid);
        }
        drop(pending);
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the key of a change, if its table is one of [`TABLES`].
fn key_of(change: &ChangeEvent) -> Option<WakeKey> {
    let table = &change.relation.table;
    let (name, column) = TABLES
        .iter()
        .find(|(name, _)| table.name == *name && table.schema == "public")?;
    let id = change.image().text(column)?.parse().ok()?;
    Some(match *name {
        "user_conversation_members" => WakeKey::Person(id),
        _ => WakeKey::Conversation(id),
    })
}

async fn run(mut listener: TableListener, registry: Arc<Registry>, stop: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = listener.next() => event,
        };
        match event {
            TableEvent::Changes(transaction) => registry.signal(&transaction),
            TableEvent::Missed => registry.signal_missed(),
            TableEvent::Live | TableEvent::Interrupted => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{ColumnValue, Relation, ReplicaIdentity, Row, RowChange, StreamEvent};
    use crate::observability::metrics::BusMetrics;

    fn transaction(xid: u32, table: &str, column: &str, id: Uuid) -> StreamEvent {
        let relation = Arc::new(Relation {
            oid: 1,
            table: TableName::new("public", table),
            identity: ReplicaIdentity::Full,
            columns: vec![crate::change::Column {
                name: column.to_owned(),
                type_oid: 2950,
                type_modifier: -1,
                is_identity: true,
            }],
        });
        let row = RowChange::Insert {
            new: Row(vec![ColumnValue::Text(id.to_string().into())]),
        };
        StreamEvent::Changes(Arc::new(ChangeTransaction {
            bytes: 1,
            ..ChangeTransaction::whole(xid, vec![ChangeEvent { relation, row }])
        }))
    }

    #[tokio::test]
    async fn only_requests_that_a_change_concerns_are_signalled() {
        let (bus, mut listener) = Bus::new(8, BusMetrics::default());
        let tasks = Tasks::new();
        let signals = Signals::start(&bus, ChatMetrics::default(), &tasks);
        let [ana, ben, shared, other] = [1, 2, 3, 4].map(Uuid::from_u128);
        let for_ana = signals.register(ana, &[shared]).expect("room");
        let for_ben = signals.register(ben, &[shared, other]).expect("room");
        for (xid, table, column, id) in [
            (7, "user_conversation_members", "user_id", ben),
            (8, "user_conversations", "id", other),
            (9, "conversation_receipts", "conversation_id", shared),
            // Another table, with a matching id.
            (10, "user_messages", "id", shared),
            (11, "user_conversations", "id", ana),
            (12, "user_conversations", "id", shared),
        ] {
            let sent = bus
                .change_sink()
                .send(transaction(xid, table, column, id))
                .await;
            sent.expect("there is room");
            listener.next().await.expect("an event");
        }
        // The last commit is signalled to both, and nothing follows it.
        let mut pending = [Vec::new(), Vec::new()];
        for (waiting, pending) in [&for_ana, &for_ben].into_iter().zip(&mut pending) {
            while pending.last() != Some(&12) {
                pending.extend(waiting.commits().await);
            }
        }
        assert_eq!(pending, [vec![9, 12], vec![7, 8, 9, 12]]);
        drop((for_ana, for_ben));
        assert!(signals.registry.lock().is_empty());

        let waiting = signals.register(ana, &[shared]).expect("room");
        let sent = bus.change_sink().send(StreamEvent::Gap).await;
        sent.expect("there is room");
        listener.next().await.expect("an event");
        assert!(waiting.commits().await.is_empty(), "something was missed");
        tasks.stop();
        assert!(signals.is_stopping());
    }
}
