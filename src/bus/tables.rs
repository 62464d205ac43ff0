//! Publishes committed changes of some tables to listeners that must not delay the delivery of row
//! changes.
//!
//! A listener receives changes in commit order, each once, and the publisher never waits. If a
//! listener falls behind, its queue is cleared and it receives `Missed`. It must then read the
//! tables anyway, and old events would only delay it further.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::change::{ChangeTransaction, StreamEvent, TableName};
use crate::observability::metrics::BusMetrics;

/// Maximum number of events in a listener's queue. A listener needs microseconds per event, except
/// while it waits for the database. The queue covers such a wait of some seconds while the WAL is
/// busy.
const MAX_EVENTS: usize = 4_096;

/// Maximum size of the changes in a listener's queue, in bytes. A single event may be larger.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An event for listeners of some tables.
#[derive(Clone, Debug)]
pub enum TableEvent {
    /// Changes of one transaction or of a chunk of it. At least one of them belongs to a table of
    /// the listener; the others may belong to any table. Changes appear in the WAL shortly before
    /// other transactions can see them ([`crate::db::Snapshot`]).
    Changes(Arc<ChangeTransaction>),
    /// Changes were missed, because the stream had a gap or the listener was too slow. The listener
    /// must read the tables.
    Missed,
    /// Changes committed from now on are delivered.
    Live,
    /// The replication connection is down. Nothing is lost, because changes committed during the
    /// outage follow later.
    Interrupted,
}

/// All listeners.
#[derive(Debug)]
pub(super) struct Tables {
    /// A standard mutex, because it is held only while an event is queued for the listeners, which
    /// never blocks.
    state: Mutex<State>,
    metrics: BusMetrics,
}

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Weak<Queue>>,
    is_live: bool,
}

/// The receiving end for the changes of some tables.
#[derive(Debug)]
pub struct TableListener {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    tables: Vec<TableName>,
    /// A standard mutex, because it is held only to add or take one event.
    waiting: Mutex<Waiting>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<TableEvent>,
    bytes: usize,
}

impl Tables {
    pub(super) fn new(metrics: BusMetrics) -> Self {
        Self {
            state: Mutex::default(),
            metrics,
        }
    }

    /// Returns a listener that receives the changes of these tables from now on.
    pub(super) fn listen(&self, tables: Vec<TableName>) -> TableListener {
        let queue = Arc::new(Queue {
            tables,
            waiting: Mutex::default(),
            notify: Notify::new(),
        });
        let mut state = self.lock();
        if state.is_live {
            queue.push(TableEvent::Live);
        }
        state.listeners.push(Arc::downgrade(&queue));
        TableListener { queue }
    }

    /// Queues an event of the change stream for all listeners that it concerns.
    pub(super) fn publish(&self, event: &StreamEvent) {
        let mut state = self.lock();
        let event = match event {
            StreamEvent::Changes(transaction) => TableEvent::Changes(Arc::clone(transaction)),
            StreamEvent::Gap => TableEvent::Missed,
            StreamEvent::Live => TableEvent::Live,
            StreamEvent::Interrupted => TableEvent::Interrupted,
        };
        match event {
            TableEvent::Live => state.is_live = true,
            TableEvent::Interrupted => state.is_live = false,
            TableEvent::Changes(_) | TableEvent::Missed => {}
        }
        state.listeners.retain(|listener| {
            let Some(queue) = listener.upgrade() else {
                return false;
            };
            if queue.matches(&event) {
                self.metrics
                    .changes_missed
                    .inc_by(queue.push(event.clone()));
            }
            true
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // If a thread panics while it holds the mutex, the list is still complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn matches(&self, event: &TableEvent) -> bool {
        let TableEvent::Changes(transaction) = event else {
            return true;
        };
        let mut last: Option<&Arc<_>> = None;
        transaction.changes.iter().any(|change| {
            // Most changes of a transaction belong to the same table as the previous change.
            if last.is_some_and(|last| Arc::ptr_eq(last, &change.relation)) {
                return false;
            }
            last = Some(&change.relation);
            self.tables.contains(&change.relation.table)
        })
    }

    /// Adds an event. Returns the number of changes that were dropped to make room for it.
    fn push(&self, event: TableEvent) -> u64 {
        let mut missed = 0;
        let mut waiting = self.lock();
        let bytes = event.bytes();
        if waiting.events.len() >= MAX_EVENTS
            || (waiting.bytes + bytes > MAX_BYTES && !waiting.events.is_empty())
        {
            missed = waiting.events.iter().map(TableEvent::changes).sum();
            let state = waiting
                .events
                .iter()
                .rfind(|event| matches!(event, TableEvent::Live | TableEvent::Interrupted))
                .cloned();
            *waiting = Waiting::default();
            waiting.events.push_back(TableEvent::Missed);
            waiting.events.extend(state);
        }
        waiting.bytes += bytes;
        waiting.events.push_back(event);
        drop(waiting);
        self.notify.notify_one();
        missed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TableEvent {
    fn bytes(&self) -> usize {
        match self {
            Self::Changes(transaction) => transaction.bytes,
            _ => 0,
        }
    }

    fn changes(&self) -> u64 {
        match self {
            Self::Changes(transaction) => transaction.changes.len() as u64,
            _ => 0,
        }
    }
}

impl TableListener {
    /// Waits for the next event. Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> TableEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.queue.notify.notified().await;
        }
    }

    /// Returns the next event, if one is queued.
    pub fn try_next(&mut self) -> Option<TableEvent> {
        let mut waiting = self.queue.lock();
        let event = waiting.events.pop_front()?;
        waiting.bytes -= event.bytes();
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{ChangeEvent, Relation, ReplicaIdentity, Row, RowChange};

    fn transaction(xid: u32, table: &str, bytes: usize) -> StreamEvent {
        let relation = Arc::new(Relation {
            oid: 1,
            table: TableName::new("public", table),
            identity: ReplicaIdentity::Full,
            columns: Vec::new(),
        });
        let row = RowChange::Insert {
            new: Row(Vec::new()),
        };
        StreamEvent::Changes(Arc::new(ChangeTransaction {
            bytes,
            ..ChangeTransaction::whole(xid, vec![ChangeEvent { relation, row }])
        }))
    }

    /// Takes the queued events and returns them in short form: the `xid` of a transaction, or the
    /// name of another event.
    fn waiting(listener: &mut TableListener) -> String {
        let mut found = Vec::new();
        while let Some(event) = listener.try_next() {
            found.push(match event {
                TableEvent::Changes(transaction) => transaction.xid.to_string(),
                TableEvent::Missed => "missed".to_owned(),
                TableEvent::Live => "live".to_owned(),
                TableEvent::Interrupted => "interrupted".to_owned(),
            });
        }
        found.join(" ")
    }

    fn listened(names: &[&str]) -> Vec<TableName> {
        names
            .iter()
            .map(|name| TableName::new("public", *name))
            .collect()
    }

    #[test]
    fn listeners_receive_their_tables_and_stream_events_in_order() {
        let tables = Tables::new(BusMetrics::default());
        let mut early = tables.listen(listened(&["a"]));
        tables.publish(&StreamEvent::Live);
        let mut late = tables.listen(listened(&["a", "b"]));
        tables.publish(&transaction(1, "a", 10));
        tables.publish(&transaction(2, "b", 10));
        tables.publish(&StreamEvent::Interrupted);
        tables.publish(&StreamEvent::Gap);
        tables.publish(&StreamEvent::Live);
        tables.publish(&transaction(3, "a", 10));
        assert_eq!(waiting(&mut early), "live 1 interrupted missed live 3");
        assert_eq!(waiting(&mut late), "live 1 2 interrupted missed live 3");
    }

    #[test]
    fn a_listener_whose_queue_is_full_receives_missed() {
        let metrics = BusMetrics::default();
        let tables = Tables::new(metrics.clone());
        let mut slow = tables.listen(listened(&["a"]));
        tables.publish(&StreamEvent::Live);
        let capacity = u32::try_from(MAX_EVENTS).unwrap();
        for xid in 1..=capacity {
            tables.publish(&transaction(xid, "a", 10));
        }
        assert_eq!(waiting(&mut slow), format!("missed live {capacity}"));
        assert_eq!(metrics.changes_missed.get(), u64::from(capacity) - 1);

        let mut bytes = tables.listen(listened(&["a"]));
        tables.publish(&transaction(1, "a", MAX_BYTES - 1));
        tables.publish(&transaction(2, "a", 1));
        tables.publish(&transaction(3, "a", 1));
        assert_eq!(waiting(&mut bytes), "missed live 3");
        // An event larger than the byte limit is still delivered.
        tables.publish(&transaction(4, "a", 2 * MAX_BYTES));
        assert_eq!(waiting(&mut bytes), "4");
    }

    #[test]
    fn a_dropped_listener_receives_nothing() {
        let tables = Tables::new(BusMetrics::default());
        drop(tables.listen(listened(&["a"])));
        tables.publish(&transaction(1, "a", 10));
        assert!(tables.lock().listeners.is_empty());
    }
}
