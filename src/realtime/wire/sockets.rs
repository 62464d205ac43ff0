//! Every open socket, and how much memory all of them together may make the server hold.
//!
//! Anybody with the public key may open sockets, so a limit for each bounds nothing. What they hold
//! is counted by kind, and each kind has a budget. Over it the sockets that hold most are closed, so
//! that the many who hold little are not disturbed.
//!
//! A queue lets go of its memory when its socket is told to close. What a socket's task owns goes
//! when that task runs, and until then no socket reads any more: see [`Sockets::is_congested`].
//!
//! Nothing here is touched by a frame that a socket takes at once.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use prometheus_client::metrics::gauge::Gauge;

use super::outbound::Outbound;
use crate::config::RealtimeConfig;
use crate::observability::metrics::{Held, HeldLabels, RealtimeMetrics};

/// Names an open socket, also in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub(in super::super) u64);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What part of a budget is made free at least when it is exceeded. All sockets are looked through
/// for the largest; with this pause between two looks they cost little for each byte received.
const FREED_PART: i64 = 8;

/// All open sockets.
#[derive(Debug)]
pub struct Sockets {
    open: DashMap<SocketId, Arc<Outbound>>,
    budgets: [Budget; 3],
    /// Held by the one who looks for the largest. Others go on: the sizes that they add are seen.
    looking: Mutex<()>,
    metrics: RealtimeMetrics,
}

/// What all sockets may hold of one kind.
#[derive(Debug)]
struct Budget {
    /// Bytes.
    limit: i64,
    /// Bytes that are held; the metric itself, so that counting is one addition.
    in_use: Gauge<i64, AtomicI64>,
    /// Of these, what sockets hold that have been told to go and have not yet let go.
    leaving: AtomicI64,
}

/// What one socket holds of each kind, in bytes: how the largest are found.
#[derive(Debug, Default)]
pub struct Holdings([AtomicUsize; 3]);

impl Holdings {
    /// Bytes of a kind.
    pub fn get(&self, held: Held) -> usize {
        self.0[held as usize].load(Ordering::Relaxed)
    }

    /// Sets the bytes of a kind and returns what they were.
    pub fn set(&self, held: Held, bytes: usize) -> usize {
        self.0[held as usize].swap(bytes, Ordering::Relaxed)
    }
}

impl Sockets {
    /// No sockets yet.
    pub fn new(config: &RealtimeConfig, metrics: &RealtimeMetrics) -> Self {
        Self::with_limits(metrics, |held| match held {
            Held::Frames => config.all_frames_max_bytes,
            Held::Queues => config.all_queues_max_bytes,
            Held::Channels => config.all_channels_max_bytes,
        })
    }

    /// The same, with as much memory as they want.
    pub fn unlimited(metrics: &RealtimeMetrics) -> Self {
        Self::with_limits(metrics, |_| usize::MAX)
    }

    /// The same, with a limit for each kind.
    pub fn with_limits(metrics: &RealtimeMetrics, limit: impl Fn(Held) -> usize) -> Self {
        Self {
            open: DashMap::new(),
            budgets: Held::ALL.map(|held| Budget {
                limit: i64::try_from(limit(held)).unwrap_or(i64::MAX),
                in_use: metrics.held.get_or_create(&HeldLabels { held }).clone(),
                leaving: AtomicI64::new(0),
            }),
            looking: Mutex::default(),
            metrics: metrics.clone(),
        }
    }

    /// A socket is open from now on.
    pub fn insert(&self, id: SocketId, socket: &Arc<Outbound>) {
        self.open.insert(id, Arc::clone(socket));
    }

    /// A socket is gone. Whether it was there.
    pub fn remove(&self, id: SocketId) -> bool {
        self.open.remove(&id).is_some()
    }

    /// Every open socket.
    pub fn all(&self) -> Vec<Arc<Outbound>> {
        let sockets = self.open.iter();
        sockets.map(|socket| Arc::clone(&socket)).collect()
    }

    /// Bytes of a kind that are held.
    pub fn in_use(&self, held: Held) -> i64 {
        self.budget(held).in_use.get()
    }

    /// Whether sockets that were told to go still hold what others have taken since. Whoever is about
    /// to read lets them run first; they only have to be woken, so it does not last.
    pub fn is_congested(&self) -> bool {
        self.budgets.iter().any(|budget| {
            budget.leaving.load(Ordering::Relaxed) > 0 && budget.in_use.get() > budget.limit
        })
    }

    /// A socket holds so many bytes more, or less. Closes the largest when that is too much. Not to be
    /// called with a lock of a queue or of the map of sockets held.
    pub(super) fn change(&self, held: Held, by: i64) {
        let budget = self.budget(held);
        let now = budget.in_use.inc_by(by).saturating_add(by);
        let leaving = budget.leaving.load(Ordering::Relaxed);
        if by > 0 && now.saturating_sub(leaving) > budget.limit {
            self.close_largest(held);
        }
    }

    /// A socket that was told to go has let go of so many bytes.
    pub(super) fn has_left(&self, held: Held, bytes: i64) {
        self.budget(held)
            .leaving
            .fetch_sub(bytes, Ordering::Relaxed);
    }

    fn budget(&self, held: Held) -> &Budget {
        &self.budgets[held as usize]
    }

    fn close_largest(&self, held: Held) {
        let Ok(_looking) = self.looking.try_lock() else {
            return;
        };
        let budget = self.budget(held);
        let target = budget.limit - budget.limit / FREED_PART;
        let mut sockets: Vec<(usize, Arc<Outbound>)> = self
            .open
            .iter()
            .map(|socket| (socket.holdings().get(held), Arc::clone(&socket)))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        sockets.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let mut closed = 0;
        for (_, socket) in sockets {
            if budget.in_use.get() - budget.leaving.load(Ordering::Relaxed) <= target {
                break;
            }
            if let Some(leaving) = socket.evict(held) {
                budget.leaving.fetch_add(leaving, Ordering::Relaxed);
                self.metrics.limited(held.limit());
                closed += 1;
            }
        }
        if closed > 0 {
            let (held, limit) = (held.as_str(), budget.limit);
            tracing::warn!(
                held,
                limit,
                closed,
                "sockets held too much memory together; the largest are closed"
            );
        }
    }
}
