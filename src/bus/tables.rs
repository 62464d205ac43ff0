//! Committed changes of some tables, for those who must not hold up the delivery of row changes.
//!
//! Guarantees: what a listener gets is in commit order, each change once, and whoever hands it over
//! waits for nobody. A listener that falls behind loses what waits for it, all at once, and is told so in
//! its place: it has to read again anyway, and what is old would only keep it behind.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::change::{ChangeTransaction, StreamEvent, TableName};
use crate::observability::metrics::BusMetrics;

/// Events that may wait for one listener, and the bytes of their changes. A listener takes microseconds for an
/// event as long as it does not wait for the database, so this is some seconds of a busy log.
const MAX_EVENTS: usize = 4_096;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a listener is told.
#[derive(Clone, Debug)]
pub enum TableEvent {
    /// Changes of one transaction, or of a piece of it: at least one is of a table that is listened to,
    /// others may be of any. The log shows them a moment before others see them
    /// ([`crate::db::Snapshot`]).
    Changes(Arc<ChangeTransaction>),
    /// Changes were missed: the log had a gap, or the listener was too slow. What it needs it has to read
    /// from the tables.
    Missed,
    /// What is committed is told from here on.
    Live,
    /// The connection to the log is down; nothing is lost, what is committed meanwhile is told later.
    Interrupted,
}

/// Everybody who listens.
#[derive(Debug)]
pub(super) struct Tables {
    /// A plain mutex: held to hand an event over, which waits for nothing.
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
    /// A plain mutex: held to add or to take one event.
    waiting: Mutex<Waiting>,
    news: Notify,
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

    /// A listener that is told of these tables from now on.
    pub(super) fn listen(&self, tables: Vec<TableName>) -> TableListener {
        let queue = Arc::new(Queue {
            tables,
            waiting: Mutex::default(),
            news: Notify::new(),
        });
        let mut state = self.lock();
        if state.is_live {
            queue.push(TableEvent::Live);
        }
        state.listeners.push(Arc::downgrade(&queue));
        TableListener { queue }
    }

    /// Tells the listeners of what came from the log.
    pub(super) fn tell(&self, event: &StreamEvent) {
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
            if queue.is_concerned(&event) {
                self.metrics
                    .changes_missed
                    .inc_by(queue.push(event.clone()));
            }
            true
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves a list that is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_concerned(&self, event: &TableEvent) -> bool {
        let TableEvent::Changes(transaction) = event else {
            return true;
        };
        let mut last: Option<&Arc<_>> = None;
        transaction.changes.iter().any(|change| {
            // Most changes of a transaction are of the table that the one before was of.
            if last.is_some_and(|last| Arc::ptr_eq(last, &change.relation)) {
                return false;
            }
            last = Some(&change.relation);
            self.tables.contains(&change.relation.table)
        })
    }

    /// Adds an event; tells how many changes are lost by it.
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
        self.news.notify_one();
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
    /// Waits for the next event. Nothing is lost when the future is dropped before it is done.
    pub async fn next(&mut self) -> TableEvent {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.queue.news.notified().await;
        }
    }

    /// The next event, if one waits.
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
    use crate::change::{
        ChangeEvent, Lsn, Relation, ReplicaIdentity, Row, RowChange, TimestampMicros,
    };

    fn transaction(xid: u32, table: &str, bytes: usize) -> StreamEvent {
        let relation = Arc::new(Relation {
            oid: 1,
            table: TableName::new("public", table),
            identity: ReplicaIdentity::Full,
            columns: Vec::new(),
        });
        StreamEvent::Changes(Arc::new(ChangeTransaction {
            commit_lsn: Lsn(u64::from(xid)),
            xid,
            committed_at: TimestampMicros(0),
            first_ordinal: 0,
            changes: vec![ChangeEvent {
                relation,
                row: RowChange::Insert {
                    new: Row(Vec::new()),
                },
            }],
            is_last: true,
            bytes,
        }))
    }

    /// What waits, in short: the number of a transaction, or the first letter of what else it is.
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
    fn listeners_hear_of_their_tables_and_of_the_stream_in_order() {
        let tables = Tables::new(BusMetrics::default());
        let mut early = tables.listen(listened(&["a"]));
        tables.tell(&StreamEvent::Live);
        let mut late = tables.listen(listened(&["a", "b"]));
        tables.tell(&transaction(1, "a", 10));
        tables.tell(&transaction(2, "b", 10));
        tables.tell(&StreamEvent::Interrupted);
        tables.tell(&StreamEvent::Gap);
        tables.tell(&StreamEvent::Live);
        tables.tell(&transaction(3, "a", 10));
        assert_eq!(waiting(&mut early), "live 1 interrupted missed live 3");
        assert_eq!(waiting(&mut late), "live 1 2 interrupted missed live 3");
    }

    #[test]
    fn a_slow_listener_is_told_that_it_missed_something_and_the_others_lose_nothing() {
        let metrics = BusMetrics::default();
        let tables = Tables::new(metrics.clone());
        let mut slow = tables.listen(listened(&["a"]));
        tables.tell(&StreamEvent::Live);
        let capacity = u32::try_from(MAX_EVENTS).unwrap();
        for xid in 1..=capacity {
            tables.tell(&transaction(xid, "a", 10));
        }
        assert_eq!(waiting(&mut slow), format!("missed live {capacity}"));
        assert_eq!(metrics.changes_missed.get(), u64::from(capacity) - 1);

        let mut bytes = tables.listen(listened(&["a"]));
        tables.tell(&transaction(1, "a", MAX_BYTES - 1));
        tables.tell(&transaction(2, "a", 1));
        tables.tell(&transaction(3, "a", 1));
        assert_eq!(waiting(&mut bytes), "missed live 3");
        // One that is larger than all that may wait comes alone.
        tables.tell(&transaction(4, "a", 2 * MAX_BYTES));
        assert_eq!(waiting(&mut bytes), "4");
    }

    #[test]
    fn nobody_is_told_who_listens_no_more() {
        let tables = Tables::new(BusMetrics::default());
        drop(tables.listen(listened(&["a"])));
        tables.tell(&transaction(1, "a", 10));
        assert!(tables.lock().listeners.is_empty());
    }
}
