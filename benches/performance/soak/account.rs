//! Tracks which clients must receive each message, and which have received it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Time after which a message counts as lost. It is generous for busy machines.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// How long messages are remembered in order to detect duplicates.
const REMEMBERED: Duration = Duration::from_secs(60);

/// If a sender loses its connection within this time after sending, the message may be lost too.
/// Closing a socket with unread data resets the connection, which discards the most recently sent
/// data.
const SAFE_AFTER: Duration = Duration::from_secs(2);

/// Lane and sequence number of a message, as in its marker (`client/marker.rs`).
pub(super) type Key = (usize, u32);

/// Index of a client.
pub(super) type ClientId = usize;

struct Pending {
    sent: Instant,
    sender: Option<ClientId>,
    /// Clients that have been joined since the message was sent and have not received it yet.
    awaited: HashSet<ClientId>,
    received: HashSet<ClientId>,
}

/// The number of wrong deliveries of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WrongDeliveries {
    /// Missing deliveries.
    pub(super) lost: u64,
    /// Duplicate deliveries.
    pub(super) repeated: u64,
    /// Deliveries to clients that were not joined, must not see the row, or sent the message.
    pub(super) misdelivered: u64,
    /// Deliveries of messages older than [`REMEMBERED`].
    pub(super) late: u64,
}

/// All messages in flight.
#[derive(Default)]
pub(super) struct Account {
    pending: HashMap<Key, Pending>,
    pub(super) wrong: WrongDeliveries,
    /// Number of messages sent.
    pub(super) sent: u64,
    /// Number of required deliveries.
    pub(super) awaited: u64,
    /// Number of deliveries, including wrong ones.
    pub(super) delivered: u64,
}

impl Account {
    /// Records that a message is about to be sent to these clients.
    pub(super) fn expect(&mut self, key: Key, sender: Option<ClientId>, to: HashSet<ClientId>) {
        self.sent += 1;
        self.awaited += to.len() as u64;
        let pending = Pending {
            sent: Instant::now(),
            sender,
            awaited: to,
            received: HashSet::new(),
        };
        self.pending.insert(key, pending);
    }

    /// Records a receipt. `is_entitled` states whether the receiver was joined while the message
    /// was in flight, and may see it.
    pub(super) fn receive(&mut self, key: Key, client: ClientId, is_entitled: bool) {
        self.delivered += 1;
        let Some(pending) = self.pending.get_mut(&key) else {
            self.wrong.late += 1;
            return;
        };
        pending.awaited.remove(&client);
        if !pending.received.insert(client) {
            self.wrong.repeated += 1;
        } else if !is_entitled || pending.sender == Some(client) {
            self.wrong.misdelivered += 1;
        }
    }

    /// Records that this client leaves this lane. Messages in flight may or may not reach it.
    pub(super) fn excuse(&mut self, client: ClientId, lane: usize) {
        for (key, pending) in &mut self.pending {
            if key.0 == lane && pending.awaited.remove(&client) {
                self.awaited -= 1;
            }
        }
    }

    /// Records that this client loses its connection, perhaps together with the messages that it
    /// has just sent.
    pub(super) fn excuse_sender(&mut self, client: ClientId) {
        let now = Instant::now();
        for pending in self.pending.values_mut() {
            if pending.sender == Some(client) && now - pending.sent < SAFE_AFTER {
                self.awaited -= pending.awaited.len() as u64;
                pending.awaited.clear();
            }
        }
    }

    /// Counts overdue deliveries as lost and removes old messages.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let lost = &mut self.wrong.lost;
        self.pending.retain(|_, pending| {
            let age = now - pending.sent;
            if age > LOST_AFTER {
                *lost += pending.awaited.len() as u64;
                pending.awaited.clear();
            }
            age < REMEMBERED
        });
    }

    /// Returns the number of required deliveries that have not arrived yet.
    pub(super) fn outstanding(&self) -> usize {
        self.pending
            .values()
            .map(|pending| pending.awaited.len())
            .sum()
    }

    /// Counts all missing deliveries as lost.
    pub(super) fn close(&mut self) {
        self.wrong.lost += self.outstanding() as u64;
        self.pending.clear();
    }
}
