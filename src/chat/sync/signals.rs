//! Tells requests that wait when something was committed that may concern them.
//!
//! One task reads the change stream for all of them; a waiting request holds no connection to the database and asks
//! it only when it was told. While the stream is away nobody is told, and requests end at their time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::Bus;
use crate::bus::tables::{TableEvent, TableListener};
use crate::change::{ChangeEvent, ChangeTransaction, TableName};
use crate::chat::at_once::{AtOnce, GoingOn};
use crate::http::ApiError;
use crate::observability::metrics::ChatMetrics;
use crate::shutdown::Tasks;

/// The tables of which every change that `/sync` tells moves a row: a message moves its conversation, and what somebody
/// keeps to themselves their membership. With the column that says whom it concerns.
const TABLES: [(&str, &str); 3] = [
    ("user_conversations", "id"),
    ("user_conversation_members", "user_id"),
    ("conversation_receipts", "conversation_id"),
];

/// Commits that a waiting request is told by number. It looks at once, so that more only gather while the database is
/// slow; then the older ones have long been there.
const MAX_COMMITS: usize = 256;

/// Over how long those who wait are told that something was missed: all of them then ask the database.
const SPREAD_MS: std::ops::Range<u64> = 0..1000;

/// Requests of one person that may wait: their tabs and devices.
const MAX_WAITING: usize = 8;

/// Requests that were told something and may ask the database at once. The others come in turn: a pool for everybody
/// is not theirs alone.
const MAX_LOOKING: usize = 4;

/// Whom a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Person(Uuid),
    Conversation(Uuid),
}

/// Where requests wait. Cheap to clone.
#[derive(Clone)]
pub(in crate::chat) struct Signals {
    registry: Arc<Registry>,
    metrics: ChatMetrics,
    stop: CancellationToken,
    people: AtOnce,
    looking: Arc<Semaphore>,
}

/// A request that waits, until it is dropped.
pub(super) struct Waiting {
    registry: Arc<Registry>,
    metrics: ChatMetrics,
    subjects: Vec<Subject>,
    slot: Arc<Slot>,
    _going_on: GoingOn,
}

#[derive(Default)]
struct Registry {
    /// A std mutex: held to change or to walk some entries, never across an await.
    slots: Mutex<HashMap<Subject, Vec<Arc<Slot>>>>,
}

#[derive(Default)]
struct Slot {
    news: Notify,
    /// A std mutex: held to add or to take a few numbers.
    told: Mutex<Told>,
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    commits: VecDeque<u32>,
    has_missed: bool,
}

impl Signals {
    /// Starts the task that reads the changes. It and whoever waits end with `tasks`.
    pub(in crate::chat) fn start(bus: &Bus, metrics: ChatMetrics, tasks: &Tasks) -> Self {
        let signals = Self {
            registry: Arc::default(),
            stop: tasks.token().clone(),
            people: AtOnce::new(MAX_WAITING, "sync_waiting", metrics.clone()),
            metrics,
            looking: Arc::new(Semaphore::new(MAX_LOOKING)),
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

    /// From now on whoever calls is told of changes in these conversations and in what concerns them alone; or has too
    /// many requests that wait, which is refused.
    pub(super) fn enter(&self, person: Uuid, conversations: &[Uuid]) -> Result<Waiting, ApiError> {
        let going_on = self.people.begin(person)?;
        let conversations = conversations.iter().copied().map(Subject::Conversation);
        let subjects: Vec<Subject> = std::iter::once(Subject::Person(person))
            .chain(conversations)
            .collect();
        let slot = Arc::new(Slot::default());
        let mut slots = self.registry.lock();
        for subject in &subjects {
            slots.entry(*subject).or_default().push(Arc::clone(&slot));
        }
        drop(slots);
        self.metrics.sync_waiting.inc();
        Ok(Waiting {
            registry: Arc::clone(&self.registry),
            metrics: self.metrics.clone(),
            subjects,
            slot,
            _going_on: going_on,
        })
    }

    /// Waits for a turn to ask the database, which ends when this is dropped. None when the server stops.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            permit = self.looking.acquire() => permit.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    /// Whether the server stops, so that nobody should wait.
    pub(super) fn has_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for that.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Waiting {
    /// Waits until something was committed that may concern the request, and tells the transactions' numbers. Nothing
    /// is lost when the future is dropped before it is done, but that changes were missed, for whose
    /// sake it is looked once more at the latest at the end.
    pub(super) async fn news(&self) -> VecDeque<u32> {
        loop {
            let told = std::mem::take(&mut *self.slot.lock());
            if told.has_missed {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(SPREAD_MS))).await;
                return told.commits;
            }
            if !told.commits.is_empty() {
                return told.commits;
            }
            self.slot.news.notified().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.sync_waiting.dec();
        let mut slots = self.registry.lock();
        for subject in &self.subjects {
            if let Some(waiting) = slots.get_mut(subject) {
                waiting.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
                if waiting.is_empty() {
                    slots.remove(subject);
                }
            }
        }
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Arc<Slot>>>> {
        // A panic while it was held leaves entries that are whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, transaction: &ChangeTransaction) {
        if self.lock().is_empty() {
            return;
        }
        let subjects: HashSet<Subject> = transaction.changes.iter().filter_map(subject).collect();
        let slots = self.lock();
        for slot in subjects
            .iter()
            .filter_map(|subject| slots.get(subject))
            .flatten()
        {
            slot.tell(transaction.xid);
        }
    }

    fn tell_missed(&self) {
        for slot in self.lock().values().flatten() {
            slot.lock().has_missed = true;
            slot.news.notify_one();
        }
    }
}

impl Slot {
    fn tell(&self, xid: u32) {
        let mut told = self.lock();
        if told.commits.back() != Some(&xid) {
            if told.commits.len() >= MAX_COMMITS {
                told.commits.pop_front();
            }
            told.commits.push_back(xid);
        }
        drop(told);
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a change concerns, if it is of a table that tells.
fn subject(change: &ChangeEvent) -> Option<Subject> {
    let table = &change.relation.table;
    let (name, column) = TABLES
        .iter()
        .find(|(name, _)| table.name == *name && table.schema == "public")?;
    let id = change.image().text(column)?.parse().ok()?;
    Some(match *name {
        "user_conversation_members" => Subject::Person(id),
        _ => Subject::Conversation(id),
    })
}

async fn run(mut listener: TableListener, registry: Arc<Registry>, stop: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = listener.next() => event,
        };
        match event {
            TableEvent::Changes(transaction) => registry.tell(&transaction),
            TableEvent::Missed => registry.tell_missed(),
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
    async fn only_those_whom_a_change_concerns_are_told() {
        let (bus, mut listener) = Bus::new(8, BusMetrics::default());
        let tasks = Tasks::new();
        let signals = Signals::start(&bus, ChatMetrics::default(), &tasks);
        let [ana, ben, shared, other] = [1, 2, 3, 4].map(Uuid::from_u128);
        let of_ana = signals.enter(ana, &[shared]).expect("room");
        let of_ben = signals.enter(ben, &[shared, other]).expect("room");
        for (xid, table, column, id) in [
            (7, "user_conversation_members", "user_id", ben),
            (8, "user_conversations", "id", other),
            (9, "conversation_receipts", "conversation_id", shared),
            // Of another table, whoever it names.
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
        // The last one is told to both: nothing comes after it.
        let mut told = [Vec::new(), Vec::new()];
        for (waiting, told) in [&of_ana, &of_ben].into_iter().zip(&mut told) {
            while told.last() != Some(&12) {
                told.extend(waiting.news().await);
            }
        }
        assert_eq!(told, [vec![9, 12], vec![7, 8, 9, 12]]);
        drop((of_ana, of_ben));
        assert!(signals.registry.lock().is_empty());

        let waiting = signals.enter(ana, &[shared]).expect("room");
        let sent = bus.change_sink().send(StreamEvent::Gap).await;
        sent.expect("there is room");
        listener.next().await.expect("an event");
        assert!(waiting.news().await.is_empty(), "something was missed");
        tasks.stop();
        assert!(signals.has_stopped());
    }
}
