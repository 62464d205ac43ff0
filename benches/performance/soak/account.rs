//! Who must receive which message, and who has.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long a message may take on a machine that is busy with other things.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// How long a message is remembered, so that a second copy of it is noticed.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A sender that goes away this soon after it sent may have taken the message with it: a socket that is
/// closed with something unread is reset, and what it sent last is thrown away.
const SAFE_AFTER: Duration = Duration::from_secs(2);

/// Lane and sequence number of a message.
pub(super) type Key = (usize, u32);

/// Place of a client.
pub(super) type ClientId = usize;

struct Pending {
    sent: Instant,
    sender: Option<ClientId>,
    /// Who was joined when it was sent, has been since, and has not received it.
    awaited: HashSet<ClientId>,
    received: HashSet<ClientId>,
}

/// What went wrong, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrongs {
    /// Deliveries that did not come.
    pub(super) lost: u64,
    /// Deliveries that came again.
    pub(super) repeated: u64,
    /// Deliveries to somebody who was not joined, or must not see the row.
    pub(super) misdelivered: u64,
    /// Deliveries after [`REMEMBERED`].
    pub(super) late: u64,
}

/// All messages under way.
#[derive(Default)]
pub(super) struct Account {
    pending: HashMap<Key, Pending>,
    pub(super) wrongs: Wrongs,
    /// Messages sent, deliveries that had to come, and deliveries that came.
    pub(super) sent: u64,
    pub(super) awaited: u64,
    pub(super) delivered: u64,
}

impl Account {
    /// A message is about to be sent to these.
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

    /// A message has come. `is_entitled`: the receiver is joined, or was while it was under way.
    pub(super) fn receive(&mut self, key: Key, client: ClientId, is_entitled: bool) {
        self.delivered += 1;
        let Some(pending) = self.pending.get_mut(&key) else {
            self.wrongs.late += 1;
            return;
        };
        pending.awaited.remove(&client);
        if !pending.received.insert(client) {
            self.wrongs.repeated += 1;
        } else if !is_entitled || pending.sender == Some(client) {
            self.wrongs.misdelivered += 1;
        }
    }

    /// This client leaves this lane: what is under way may reach it or not.
    pub(super) fn excuse(&mut self, client: ClientId, lane: usize) {
        for (key, pending) in &mut self.pending {
            if key.0 == lane && pending.awaited.remove(&client) {
                self.awaited -= 1;
            }
        }
    }

    /// This client loses its connection: what it sent a moment ago may be lost with it.
    pub(super) fn excuse_sender(&mut self, client: ClientId) {
        let now = Instant::now();
        for pending in self.pending.values_mut() {
            if pending.sender == Some(client) && now - pending.sent < SAFE_AFTER {
                self.awaited -= pending.awaited.len() as u64;
                pending.awaited.clear();
            }
        }
    }

    /// Counts what should have come by now as lost and forgets what is long done.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let lost = &mut self.wrongs.lost;
        self.pending.retain(|_, pending| {
            let age = now - pending.sent;
            if age > LOST_AFTER {
                *lost += pending.awaited.len() as u64;
                pending.awaited.clear();
            }
            age < REMEMBERED
        });
    }

    /// Deliveries that are still to come.
    pub(super) fn outstanding(&self) -> usize {
        self.pending
            .values()
            .map(|pending| pending.awaited.len())
            .sum()
    }

    /// Counts everything that has not come as lost.
    pub(super) fn close(&mut self) {
        self.wrongs.lost += self.outstanding() as u64;
        self.pending.clear();
    }
}
