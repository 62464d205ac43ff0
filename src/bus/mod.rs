//! The bus, which carries events between parts of the process that must not depend on each other.
//!
//! What replication reads travels through bounded queues. While a queue is full, replication waits,
//! so a slow visibility check slows the reading of the WAL instead of filling memory. Row changes
//! and rows of `realtime.messages` have separate queues. So visibility checks of row changes do not
//! delay broadcasts from the database, as long as the queue of row changes has room. Other parts
//! can listen to the changes of some tables ([`tables`]); nothing ever waits for such listeners. In
//! the other direction, the bus carries broadcasts of the server ([`broadcasts`]), the users with
//! sockets ([`people`]), the messages delivered to them ([`deliveries`]), and the channels whose
//! permissions must be checked again ([`rechecks`]).

pub mod broadcasts;
pub mod deliveries;
pub mod people;
pub mod rechecks;
pub mod tables;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use self::broadcasts::{BroadcastListener, Broadcasts};
use self::deliveries::Delivered;
use self::people::People;
use self::rechecks::Rechecks;
use self::tables::{TableListener, Tables};
use crate::change::{InsertedMessages, StreamEvent, TableName};
use crate::observability::metrics::BusMetrics;

/// The bus of one process, from which each part obtains its end of a queue or its registry.
#[derive(Clone, Debug)]
pub struct Bus {
    changes: mpsc::Sender<StreamEvent>,
    messages: mpsc::Sender<InsertedMessages>,
    messages_live: watch::Sender<bool>,
    tables: Arc<Tables>,
    broadcasts: Broadcasts,
    people: People,
    delivered: Delivered,
    rechecks: Rechecks,
}

/// The receiving end for row changes. There is only one, because changes are processed in commit
/// order.
#[derive(Debug)]
pub struct Listener {
    changes: mpsc::Receiver<StreamEvent>,
    tables: Arc<Tables>,
    /// The receiving end for rows of `realtime.messages`, until it is taken.
    messages: Option<MessageListener>,
    /// The receiving end for the server's own broadcasts, until it is taken.
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
    /// Creates a bus. `capacity` is the maximum length of two of its queues: the one for row
    /// changes, and the one for rows of `realtime.messages`.
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
            rechecks: Rechecks::default(),
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

    /// Returns the sending end for the change stream.
    pub fn change_sink(&self) -> mpsc::Sender<StreamEvent> {
        self.changes.clone()
    }

    /// Returns the sending end for rows of `realtime.messages`.
    pub fn message_sink(&self) -> mpsc::Sender<InsertedMessages> {
        self.messages.clone()
    }

    /// Returns the sender that reports whether rows of `realtime.messages` are delivered as they
    /// are committed.
    pub fn messages_live(&self) -> watch::Sender<bool> {
        self.messages_live.clone()
    }

    /// Listens to the changes of these tables from now on. The returned listener receives an event
    /// when [`Listener`] takes it from the queue. If [`Listener`] is blocked for a long time, the
    /// event is delayed as well.
    pub fn listen_to_tables(&self, tables: Vec<TableName>) -> TableListener {
        self.tables.listen(tables)
    }

    /// Returns the sending end for the server's own broadcasts.
    pub fn broadcasts(&self) -> &Broadcasts {
        &self.broadcasts
    }

    /// Returns the users with sockets in this process.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// Returns the record of delivered messages.
    pub fn delivered(&self) -> &Delivered {
        &self.delivered
    }

    /// Returns the channels whose permissions must be checked again.
    pub fn rechecks(&self) -> &Rechecks {
        &self.rechecks
    }
}

impl Listener {
    /// Waits for the next event. Returns `None` once all publishers are gone. Cancel-safe: dropping
    /// the future loses nothing.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        let event = self.changes.recv().await?;
        self.tables.publish(&event);
        Some(event)
    }

    /// Returns the next event, if one is queued.
    pub fn try_next(&mut self) -> Option<StreamEvent> {
        let event = self.changes.try_recv().ok()?;
        self.tables.publish(&event);
        Some(event)
    }

    /// Returns the receiving end for rows of `realtime.messages`, or `None` if it was taken before.
    pub fn take_messages(&mut self) -> Option<MessageListener> {
        self.messages.take()
    }

    /// Returns the receiving end for the server's own broadcasts, or `None` if it was taken before.
    pub fn take_broadcasts(&mut self) -> Option<BroadcastListener> {
        self.broadcasts.take()
    }

    /// Returns the registry of users with sockets.
    pub fn people(&self) -> People {
        self.people.clone()
    }

    /// Returns the record of delivered messages.
    pub fn delivered(&self) -> Delivered {
        self.delivered.clone()
    }
}

impl MessageListener {
    /// Waits for the next rows. Returns `None` once all publishers are gone. Cancel-safe: dropping
    /// the future loses nothing.
    pub async fn next(&mut self) -> Option<InsertedMessages> {
        self.messages.recv().await
    }

    /// Returns the next rows, if some are queued.
    pub fn try_next(&mut self) -> Option<InsertedMessages> {
        self.messages.try_recv().ok()
    }

    /// Returns a receiver that shows whether rows are delivered as they are committed.
    pub fn watch_live(&self) -> watch::Receiver<bool> {
        self.live.clone()
    }
}
