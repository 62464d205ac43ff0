//! What carries events between the parts of this process that must not know each other.
//!
//! In one process it is bounded queues: whoever publishes faster than the listener works
//! waits, so that a slow database check slows the reading of the log instead of filling memory.
//! Row changes and the rows of `realtime.messages` have a queue each: what has to be decided about
//! the former must not delay the latter, as long as the queue of changes has room. Others may listen to
//! the changes of some tables ([`tables`]): nobody ever waits for them. The other way pass broadcasts of the
//! server ([`broadcasts`]), and which people have sockets and what was delivered to them ([`people`]).

pub mod broadcasts;
pub mod people;
pub mod tables;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use self::broadcasts::{BroadcastListener, Broadcasts};
use self::people::{Delivered, People};
use self::tables::{TableListener, Tables};
use crate::change::{InsertedMessages, StreamEvent, TableName};
use crate::observability::metrics::BusMetrics;

/// The bus of one process. Replication publishes, the change feed listens.
#[derive(Clone, Debug)]
pub struct Bus {
    changes: mpsc::Sender<StreamEvent>,
    messages: mpsc::Sender<InsertedMessages>,
    messages_live: watch::Sender<bool>,
    tables: Arc<Tables>,
    broadcasts: Broadcasts,
    people: People,
    delivered: Delivered,
}

/// The receiving end, of which there is one: changes are worked on in commit order.
#[derive(Debug)]
pub struct Listener {
    changes: mpsc::Receiver<StreamEvent>,
    tables: Arc<Tables>,
    /// Until it is taken out.
    messages: Option<MessageListener>,
    /// Until it is taken out.
    broadcasts: Option<BroadcastListener>,
    people: People,
    delivered: Delivered,
}

/// The receiving end for rows of `realtime.messages`.
#[derive(Debug)]
pub struct MessageListener {
    messages: mpsc::Receiver<InsertedMessages>,
    live: watch::Receiver<bool>,
}

impl Bus {
    /// A bus that holds at most `capacity` events of each kind that the listener has not taken yet.
    pub fn new(capacity: usize, metrics: BusMetrics) -> (Self, Listener) {
        let (changes, change_receiver) = mpsc::channel(capacity);
        let (messages, message_receiver) = mpsc::channel(capacity);
        let (messages_live, live) = watch::channel(false);
        let tables = Arc::new(Tables::new(metrics.clone()));
        let (broadcasts, broadcast_listener) = Broadcasts::new(metrics.clone());
        let people = People::default();
        let delivered = Delivered::new(metrics);
        let bus = Self {
            changes,
            messages,
            messages_live,
            tables: Arc::clone(&tables),
            broadcasts,
            people: people.clone(),
            delivered: delivered.clone(),
        };
        let listener = Listener {
            changes: change_receiver,
            tables,
            messages: Some(MessageListener {
                messages: message_receiver,
                live,
            }),
            broadcasts: Some(broadcast_listener),
            people,
            delivered,
        };
        (bus, listener)
    }

    /// Where the change stream is handed over.
    pub fn change_sink(&self) -> mpsc::Sender<StreamEvent> {
        self.changes.clone()
    }

    /// Where rows of `realtime.messages` are handed over.
    pub fn message_sink(&self) -> mpsc::Sender<InsertedMessages> {
        self.messages.clone()
    }

    /// Where is said whether such rows are handed over as they are committed.
    pub fn messages_live(&self) -> watch::Sender<bool> {
        self.messages_live.clone()
    }

    /// Listens to the changes of these tables from now on, beside the one listener whom replication
    /// waits for. They are told as that one takes them: when it is held up for long, so is the log.
    pub fn listen_to_tables(&self, tables: Vec<TableName>) -> TableListener {
        self.tables.listen(tables)
    }

    /// Where the server's own broadcasts are sent.
    pub fn broadcasts(&self) -> &Broadcasts {
        &self.broadcasts
    }

    /// Which people have sockets.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// How far messages were delivered.
    pub fn delivered(&self) -> &Delivered {
        &self.delivered
    }
}

impl Listener {
    /// Waits for the next event; `None` when every publisher is gone. Nothing is lost when the
    /// future is dropped before it is done.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        let event = self.changes.recv().await?;
        self.tables.tell(&event);
        Some(event)
    }

    /// The next event, if one waits.
    pub fn try_next(&mut self) -> Option<StreamEvent> {
        let event = self.changes.try_recv().ok()?;
        self.tables.tell(&event);
        Some(event)
    }

    /// The end for rows of `realtime.messages`, of which there is one: `None` when it was taken.
    pub fn take_messages(&mut self) -> Option<MessageListener> {
        self.messages.take()
    }

    /// The end for the server's own broadcasts, of which there is one: `None` when it was taken.
    pub fn take_broadcasts(&mut self) -> Option<BroadcastListener> {
        self.broadcasts.take()
    }

    /// Where is said which people have sockets.
    pub fn people(&self) -> People {
        self.people.clone()
    }

    /// Where is said what was delivered.
    pub fn delivered(&self) -> Delivered {
        self.delivered.clone()
    }
}

impl MessageListener {
    /// Waits for the next rows; `None` when every publisher is gone. Nothing is lost when the
    /// future is dropped before it is done.
    pub async fn next(&mut self) -> Option<InsertedMessages> {
        self.messages.recv().await
    }

    /// The next rows, if some wait.
    pub fn try_next(&mut self) -> Option<InsertedMessages> {
        self.messages.try_recv().ok()
    }

    /// Whether rows come as they are committed, and when that changes.
    pub fn watch_live(&self) -> watch::Receiver<bool> {
        self.live.clone()
    }
}
