//! The messages of one topic, or of one writer, that are not yet at every receiver.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How far ahead of what is known a receipt may be when another thread sends. Beyond, it is of
/// another run.
const AHEAD: u32 = 100_000;

/// One message under way.
struct Pending {
    receipts: u32,
    sent: Instant,
}

/// Counts receipts by sequence number.
pub(crate) struct Lane {
    /// Receipts that complete a message.
    receivers: u32,
    /// The number of the next message.
    pub(crate) next: u32,
    /// Messages that have not reached everybody.
    pub(crate) outstanding: usize,
    /// The number of the first message in `pending`.
    base: u32,
    pending: VecDeque<Pending>,
    /// Messages that were given up, and may still come.
    given_up: HashSet<u32>,
    /// Another thread sends, so a receipt may come before [`Lane::reach`] was told of its message.
    follows: bool,
}

/// What a receipt was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    /// One of several.
    Counted,
    /// The last one of its message.
    Completed,
    /// One too many.
    Repeated,
    /// Of a message that was given up.
    Late,
}

impl Lane {
    /// Messages that the caller sends, each to this many receivers.
    pub(crate) fn new(receivers: u32) -> Self {
        Self {
            receivers,
            next: 0,
            outstanding: 0,
            base: 0,
            pending: VecDeque::new(),
            given_up: HashSet::new(),
            follows: false,
        }
    }

    /// Messages that another thread sends.
    pub(crate) fn following(receivers: u32) -> Self {
        Self {
            follows: true,
            ..Self::new(receivers)
        }
    }

    /// One more message is on its way; returns its number.
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

    /// All messages below `next` are on their way.
    pub(crate) fn reach(&mut self, next: u32, now: Instant) {
        while self.next < next {
            self.sent(now);
        }
    }

    /// A receiver has got this message.
    #[inline]
    pub(crate) fn received(&mut self, sequence: u32) -> Receipt {
        if self.follows && sequence >= self.next && sequence - self.next < AHEAD {
            self.reach(sequence + 1, Instant::now());
        }
        let place = sequence.wrapping_sub(self.base) as usize;
        let Some(pending) = self.pending.get_mut(place) else {
            return match self.given_up.contains(&sequence) {
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

    /// Gives up on messages older than `age` and returns how many there were.
    pub(crate) fn expire(&mut self, now: Instant, age: Duration) -> u64 {
        let mut lost = 0;
        self.drop_completed();
        while let Some(pending) = self.pending.front()
            && now.saturating_duration_since(pending.sent) > age
        {
            self.given_up.insert(self.base);
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
