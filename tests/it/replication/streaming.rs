//! A running stream whose events a test can wait for. The order of the events is checked as they
//! arrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rapport::change::{
    Action, ChangeEvent, ChangeTransaction, ColumnValue, InsertedMessages, Lsn, OldRow, Row,
    RowChange, StreamEvent,
};
use rapport::config::ReplicationConfig;
use rapport::db::connect::Connector;
use rapport::observability::metrics::ReplicationMetrics;
use rapport::observability::readiness::Readiness;
use rapport::replication::{Replication, Sinks};
use rapport::shutdown::Tasks;
use tokio::sync::{mpsc, watch};
use tokio_postgres::Client;

/// Long enough that no test fails only because the machine is busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A change in a form that tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub commit_lsn: Lsn,
    pub ordinal: u64,
    pub event: ChangeEvent,
}

impl Seen {
    /// Returns the change as text, such as `INSERT note new(id=1,title=x)`, and likewise with `old`
    /// and `key`.
    pub(super) fn line(&self) -> String {
        let relation = &self.event.relation;
        let row = |label: &str, row: &Row| {
            let values: Vec<String> = relation
                .columns
                .iter()
                .zip(&row.0)
                .map(|(column, value)| format!("{}={}", column.name, text(value)))
                .collect();
            format!(" {label}({})", values.join(","))
        };
        let old = |old: &OldRow| match old {
            OldRow::Key(image) => row("key", image),
            OldRow::Full(image) => row("old", image),
        };
        let images = match &self.event.row {
            RowChange::Insert { new } => row("new", new),
            RowChange::Update { old: before, new } => {
                before.as_ref().map(old).unwrap_or_default() + &row("new", new)
            }
            RowChange::Delete { old: before } => old(before),
        };
        format!(
            "{} {}{images}",
            self.event.action().as_str(),
            relation.table.name
        )
    }

    /// Returns the first column of the inserted row as a number.
    pub(super) fn inserted_id(&self) -> i64 {
        assert_eq!(self.event.action(), Action::Insert);
        let RowChange::Insert { new } = &self.event.row else {
            unreachable!()
        };
        text(&new.0[0]).parse().unwrap()
    }
}

/// Returns a value as text: `~` for null, `…` for unchanged.
pub(super) fn text(value: &ColumnValue) -> &str {
    match value {
        ColumnValue::Null => "~",
        ColumnValue::Unchanged => "…",
        ColumnValue::Text(bytes) => std::str::from_utf8(bytes).unwrap(),
    }
}

/// The events of the stream that are not changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Live,
    Interrupted,
    Gap,
}

/// An event that the listener received.
#[derive(Clone, Debug)]
pub(super) enum Received {
    Changes(Arc<ChangeTransaction>),
    Signal(Signal),
}

/// The stream and its listener.
pub(super) struct Streaming {
    pub replication: Replication,
    pub metrics: ReplicationMetrics,
    pub readiness: Readiness,
    pub listener: Listener,
    /// Inserted rows of `realtime.messages`.
    pub messages: mpsc::Receiver<InsertedMessages>,
    /// Whether the stream is reading messages.
    pub messages_live: watch::Receiver<bool>,
    tasks: Tasks,
}

/// Receives events, and checks that nothing repeats, that nothing is missing within a transaction,
/// and that commits are in order.
pub(super) struct Listener {
    events: mpsc::Receiver<StreamEvent>,
    /// The last commit, the next expected ordinal, and whether the transaction has ended.
    last: Option<(Lsn, u64, bool)>,
    pub signals: Vec<Signal>,
    pub chunk_sizes: Vec<usize>,
}

impl Streaming {
    /// Starts streaming with queues for `capacity` events. Does not wait until the stream is live.
    pub(super) fn begin(url: &str, config: &ReplicationConfig, capacity: usize) -> Self {
        let (sink, events) = mpsc::channel(capacity);
        let (message_sink, messages) = mpsc::channel(capacity);
        let (live_sender, messages_live) = watch::channel(false);
        let metrics = ReplicationMetrics::default();
        let readiness = Readiness::new();
        let tasks = Tasks::new();
        let replication = Replication::start(
            &Connector::new(url).unwrap(),
            config,
            Sinks {
                changes: sink,
                messages: message_sink,
                messages_live: live_sender,
            },
            metrics.clone(),
            readiness.clone(),
            &tasks,
        )
        .unwrap();
        let listener = Listener {
            events,
            last: None,
            signals: Vec::new(),
            chunk_sizes: Vec::new(),
        };
        Self {
            replication,
            metrics,
            readiness,
            listener,
            messages,
            messages_live,
            tasks,
        }
    }

    /// Starts streaming and waits until the stream is live.
    pub(super) async fn start(url: &str, config: &ReplicationConfig) -> Self {
        let mut streaming = Self::begin(url, config, 64);
        streaming.listener.until(Signal::Live).await;
        streaming.ready().await;
        streaming
    }

    /// Waits until the stream is live.
    pub(super) async fn ready(&self) {
        tokio::time::timeout(DEADLINE, self.replication.ready())
            .await
            .expect("a stream within a minute")
            .unwrap();
    }

    /// Receives the next `count` changes.
    pub(super) async fn changes(&mut self, count: usize) -> Vec<Seen> {
        self.listener.changes(count).await
    }

    /// Receives the next `count` changes as lines.
    pub(super) async fn lines(&mut self, count: usize) -> Vec<String> {
        self.changes(count).await.iter().map(Seen::line).collect()
    }

    /// Stops cleanly and waits until every task has ended.
    pub(super) async fn stop(self) -> Listener {
        self.replication.stop().await;
        self.tasks.stop();
        assert!(self.tasks.finished(DEADLINE).await, "a task still runs");
        self.listener
    }
}

impl Listener {
    /// Receives the next event. Returns `None` when the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Received> {
        let event = tokio::time::timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event within a minute")?;
        let signal = match event {
            StreamEvent::Changes(chunk) => {
                self.check(&chunk);
                return Some(Received::Changes(chunk));
            }
            StreamEvent::Live => Signal::Live,
            StreamEvent::Interrupted => Signal::Interrupted,
            StreamEvent::Gap => {
                // A transaction of which only a part was handed over may remain incomplete.
                self.last = None;
                Signal::Gap
            }
        };
        self.signals.push(signal);
        Some(Received::Signal(signal))
    }

    fn check(&mut self, chunk: &ChangeTransaction) {
        let expected = match self.last {
            Some((commit_lsn, next, false)) => {
                assert_eq!(
                    chunk.commit_lsn, commit_lsn,
                    "a transaction ends before the next"
                );
                next
            }
            Some((commit_lsn, _, true)) => {
                assert!(
                    chunk.commit_lsn > commit_lsn,
                    "commits come in order and once"
                );
                0
            }
            None => 0,
        };
        assert_eq!(
            chunk.first_ordinal, expected,
            "no change is missing or repeated"
        );
        let next = chunk.first_ordinal + chunk.changes.len() as u64;
        self.last = Some((chunk.commit_lsn, next, chunk.is_last));
        self.chunk_sizes.push(chunk.changes.len());
    }

    /// Receives changes until there are `count`. Signals are recorded.
    pub(super) async fn changes(&mut self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::with_capacity(count);
        let begun = Instant::now();
        while seen.len() < count {
            assert!(begun.elapsed() < DEADLINE, "only {} of {count}", seen.len());
            match self.next().await.expect("the stream continues") {
                Received::Changes(chunk) => seen.extend(flatten(&chunk)),
                Received::Signal(_) => {}
            }
        }
        assert_eq!(seen.len(), count, "more than expected: {seen:#?}");
        seen
    }

    /// Waits for `signal` and returns the changes before it.
    pub(super) async fn until(&mut self, signal: Signal) -> Vec<Seen> {
        let mut seen = Vec::new();
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < DEADLINE, "{signal:?} did not arrive");
            match self.next().await.expect("the stream continues") {
                Received::Changes(chunk) => seen.extend(flatten(&chunk)),
                Received::Signal(received) if received == signal => return seen,
                Received::Signal(_) => {}
            }
        }
    }
}

/// Returns the changes of a chunk, one by one.
pub(super) fn flatten(chunk: &ChangeTransaction) -> Vec<Seen> {
    chunk
        .changes
        .iter()
        .enumerate()
        .map(|(index, event)| Seen {
            commit_lsn: chunk.commit_lsn,
            ordinal: chunk.first_ordinal + index as u64,
            event: event.clone(),
        })
        .collect()
}

/// Creates a table `note (id, title)` and publishes it.
pub(super) async fn publish_note(client: &Client) {
    client
        .batch_execute(
            "create table note (id bigint primary key, title text);
             create publication supabase_realtime for table note;",
        )
        .await
        .unwrap();
}

/// Asserts that `seen` contains the inserts of 1 to `count`, once each.
pub(super) fn assert_each_once(seen: &[Seen], count: i64) {
    let mut times = BTreeMap::new();
    for change in seen {
        *times.entry(change.inserted_id()).or_insert(0) += 1;
    }
    let wrong: Vec<_> = (1..=count)
        .filter(|id| times.get(id) != Some(&1))
        .map(|id| (id, times.get(&id).copied().unwrap_or(0)))
        .collect();
    assert!(wrong.is_empty(), "missing or repeated: {wrong:?}");
    assert_eq!(times.len(), usize::try_from(count).unwrap());
}
