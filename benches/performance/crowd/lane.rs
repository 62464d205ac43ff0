//! Receipts of a lane. A lane is the messages of one topic or writer, which have their own sequence
//! numbers.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// If another thread sends, a received sequence number may be at most this far above that of the
/// last known message. A larger distance means that the message belongs to another run.
const AHEAD: u32 = 100_000;

/// A message in flight.
struct Pending {
    receipts: u32,
    sent: Instant,
}

/// Counts receipts by sequence number.
pub(crate) struct Lane {
    /// Number of receipts that complete a message.
    receivers: u32,
    /// The number of the next message.
    pub(crate) next: u32,
    /// Number of messages that have not reached every receiver.
    pub(crate) outstanding: usize,
    /// The number of the first message in `pending`.
    base: u32,
    pending: VecDeque<Pending>,
    /// Expired messages, which may still arrive.
    expired: HashSet<u32>,
    /// Whether another thread sends. A receipt may then arrive before [`Lane::reach`] records its
    /// message.
    follows: bool,
}

/// The result of recording a receipt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// An expected receipt, but not the last one of its message.
    Counted,
    /// The last expected receipt of its message.
    Completed,
    /// A receipt beyond the expected number.
    Repeated,
    /// A receipt of an expired message.
    Late,
}

impl Lane {
    /// Creates a lane for messages that the caller sends, each to `receivers` receivers.
    pub(crate) fn new(receivers: u32) -> Self {
        Self {
            receivers,
            next: 0,
            outstanding: 0,
            base: 0,
            pending: VecDeque::new(),
            expired: HashSet::new(),
            follows: false,
        }
    }

    /// Creates a lane for messages that another thread sends.
    pub(crate) fn following(receivers: u32) -> Self {
        Self {
            follows: true,
            ..Self::new(receivers)
        }
    }

    /// Records that the next message was sent. Returns its number.
    pub(crate) fn sent(&mut self, now: Instant) -> u32 {
        let sequence = self.next;
        self.next += 1;
        self.outstanding += 1;
        let receipts = 0;
        self.pending.push_back(Pending {
            receipts,
            sent: now,
        });
        sequence
    }

    /// Records that all messages with numbers below `next` were sent.
    pub(crate) fn reach(&mut self, next: u32, now: Instant) {
        while self.next < next {
            self.sent(now);
        }
    }

    /// Records that a receiver got this message.
    #[inline]
    pub(crate) fn received(&mut self, sequence: u32) -> Receipt {
        if self.follows && sequence >= self.next && sequence - self.next < AHEAD {
            self.reach(sequence + 1, Instant::now());
        }
        let place = sequence.wrapping_sub(self.base) as usize;
        let Some(pending) = self.pending.get_mut(place) else {
            return match self.expired.contains(&sequence) {
                true => Receipt::Late,
                false => Receipt::Repeated,
            };
        };
        pending.receipts += 1;
        if pending.receipts > self.receivers {
            return Receipt::Repeated;
        }
        if pending.receipts < self.receivers {
            return Receipt::Counted;
        }
        self.outstanding -= 1;
        self.drop_completed();
        Receipt::Completed
    }

    /// Expires messages older than `age`. Returns their number.
    pub(crate) fn expire(&mut self, now: Instant, age: Duration) -> u64 {
        let mut lost = 0;
        self.drop_completed();
        while let Some(pending) = self.pending.front()
            && now.saturating_duration_since(pending.sent) > age
        {
            self.expired.insert(self.base);
            self.drop_first();
            self.outstanding -= 1;
            lost += 1;
            self.drop_completed();
        }
        lost
    }

    fn drop_completed(&mut self) {
        while let Some(pending) = self.pending.front()
            && pending.receipts >= self.receivers
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        self.pending.pop_front();
        self.base = self.base.wrapping_add(1);
    }
}
