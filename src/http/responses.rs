//! Limits the time and the total memory of responses that their clients do not read.
//!
//! A response stays in memory until its last byte is in the kernel's buffer. Only responses that do
//! not fit into this buffer at once are counted here, so the usual small ones cost nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};

use crate::observability::metrics::HttpMetrics;

/// How long a client may accept no byte of a response. On Linux, the kernel accepts further bytes
/// only after the client has received half of the 128 KiB that the kernel holds. A client must
/// therefore read about 2 kB/s, which is slower than any mobile network in use.
pub const READ_DEADLINE: Duration = Duration::from_secs(30);

/// The limits of all responses. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Responses {
    deadline: Duration,
    max_bytes: usize,
    bytes: Gauge<i64, AtomicI64>,
    closed: Counter,
    /// A standard mutex, because it is never held across an await.
    unread: Arc<Mutex<Registry>>,
}

/// The responses that wait for their clients.
#[derive(Debug, Default)]
struct Registry {
    bytes: usize,
    next: u64,
    /// Sorted by size, then by age, so that the last entry is the oldest of the largest.
    responses: BTreeMap<Key, Arc<Slot>>,
}

/// The size of a response, and its number.
type Key = (usize, Reverse<u64>);

/// Connects a response with the task of its connection.
#[derive(Debug, Default)]
struct Slot {
    is_refused: AtomicBool,
    waker: AtomicWaker,
}

/// Why the connection of a response was closed.
#[derive(Clone, Copy, Debug, Error)]
enum Refused {
    #[error("the client does not read the response")]
    Deadline,
    #[error("too many responses are not read")]
    Memory,
}

impl Responses {
    /// Closes the connection of a client that accepts no byte for `deadline`. If the responses that
    /// wait for their clients together exceed `max_bytes`, closes the connections with the largest
    /// ones.
    pub fn new(deadline: Duration, max_bytes: usize, metrics: &HttpMetrics) -> Self {
        Self {
            deadline,
            max_bytes,
            bytes: metrics.responses_bytes.clone(),
            closed: metrics.responses_closed.clone(),
            unread: Arc::default(),
        }
    }

    /// Counts a response whose client must read before more bytes can be written.
    pub(super) fn wait(&self, bytes: usize) -> Unread {
        let slot = Arc::new(Slot::default());
        let mut unread = self.lock();
        let key = (bytes, Reverse(unread.next));
        unread.next += 1;
        unread.bytes = unread.bytes.saturating_add(bytes);
        unread.responses.insert(key, Arc::clone(&slot));
        while unread.bytes > self.max_bytes {
            let Some(((bytes, _), largest)) = unread.responses.pop_last() else {
                break;
            };
            unread.bytes = unread.bytes.saturating_sub(bytes);
            largest.is_refused.store(true, Ordering::Release);
            largest.waker.wake();
        }
        self.report(&unread);
        drop(unread);
        Unread {
            responses: self.clone(),
            key,
            slot,
            deadline: Box::pin(sleep(self.deadline)),
        }
    }

    fn report(&self, unread: &Registry) {
        self.bytes
            .set(i64::try_from(unread.bytes).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // A panic never leaves the registry inconsistent, so a poisoned mutex can still be used.
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response that waits for its client. It is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Unread {
    responses: Responses,
    key: Key,
    slot: Arc<Slot>,
    deadline: Pin<Box<Sleep>>,
}

impl Unread {
    /// Waits until the connection must be closed, and returns the reason.
    pub(super) fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.slot.waker.register(cx.waker());
        let refused = if self.slot.is_refused.load(Ordering::Acquire) {
            Refused::Memory
        } else {
            ready!(self.deadline.as_mut().poll(cx));
            Refused::Deadline
        };
        self.responses.closed.inc();
        Poll::Ready(io::Error::other(refused))
    }

    /// Starts the deadline again, because the client has accepted bytes.
    pub(super) fn progress(&mut self) {
        let deadline = Instant::now() + self.responses.deadline;
        self.deadline.as_mut().reset(deadline);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let mut unread = self.responses.lock();
        if unread.responses.remove(&self.key).is_some() {
            unread.bytes = unread.bytes.saturating_sub(self.key.0);
        }
        self.responses.report(&unread);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;

    use super::*;

    async fn reason(unread: &mut Unread) -> String {
        poll_fn(|cx| unread.poll_refused(cx)).await.to_string()
    }

    #[tokio::test]
    async fn the_largest_responses_are_refused_beyond_the_budget() {
        let metrics = HttpMetrics::default();
        let responses = Responses::new(READ_DEADLINE, 1_000, &metrics);
        let mut small = responses.wait(100);
        let mut large = responses.wait(500);
        let mut later = responses.wait(400);
        assert_eq!(reason(&mut large).now_or_never(), None);
        let mut third = responses.wait(100);
        assert_eq!(reason(&mut large).await, Refused::Memory.to_string());
        assert_eq!(metrics.responses_bytes.get(), 600);
        for kept in [&mut small, &mut later, &mut third] {
            assert_eq!(reason(kept).now_or_never(), None);
        }
        drop((small, large, later, third));
        assert_eq!(metrics.responses_bytes.get(), 0);
    }

    #[tokio::test]
    async fn the_deadline_starts_again_when_the_client_reads() {
        let deadline = Duration::from_millis(20);
        let responses = Responses::new(deadline, 1_000, &HttpMetrics::default());
        let begun = Instant::now();
        let mut unread = responses.wait(1);
        for step in 1..=3 {
            assert_eq!(reason(&mut unread).await, Refused::Deadline.to_string());
            assert!(begun.elapsed() >= deadline * step);
            unread.progress();
        }
    }
}
