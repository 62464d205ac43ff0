//! All open sockets, and the memory budgets for all of them together.
//!
//! Anyone with the public key can open sockets, so a limit per socket does not bound the total. The
//! memory that sockets hold is counted by kind (unfinished frames, queues, channels), and each kind
//! has a budget. When a budget is exceeded, the client whose sockets hold the most together loses
//! its largest sockets. A client with a few sockets is therefore not affected by one with many,
//! whatever their sizes.
//!
//! A queue releases its memory as soon as its socket starts to close. Memory that a socket's task
//! owns is released only when that task runs. Until then, all sockets pause reading if the budget
//! is exceeded: see [`Registry::is_congested`].
//!
//! A frame that a socket accepts immediately does not affect the budgets.

use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use dashmap::DashMap;
use prometheus_client::metrics::gauge::Gauge;

use super::queue::QueueLimits;
use crate::config::RealtimeConfig;
use crate::observability::metrics::{Held, HeldLabels, RealtimeMetrics};

/// Identifies an open socket, also in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub(in super::super) u64);

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a budget is exceeded, at least this fraction (1/n) of it is freed. Finding the largest
/// sockets requires a scan of all sockets. Freeing more than the excess makes scans rare, so that
/// their cost per counted byte is small.
const FREED_FRACTION: i64 = 8;

/// The methods of a socket that the registry uses. The only implementation is
/// [`Outbound`](super::outbound::Outbound), which in turn reports to the registry.
pub trait Evict {
    /// Returns the memory that the socket holds.
    fn holdings(&self) -> &Holdings;

    /// Returns the position of the client's address (see
    /// [`AddressShare::position`](crate::http::addresses::AddressShare::position)). `None` if the
    /// address is unknown. The socket then counts as a client of its own.
    fn address(&self) -> Option<u16>;

    /// Closes the socket because all sockets together hold too much memory of a kind. Returns the
    /// bytes that the socket's task will release. For queues this is zero, because they are freed
    /// immediately; if the socket was already closing, its connection is cut. For other kinds,
    /// returns `None` if the socket was already closing.
    fn evict(&self, held: Held) -> Option<i64>;
}

/// All open sockets.
#[derive(Debug)]
pub struct Registry<S> {
    open: DashMap<SocketId, Arc<S>>,
    budgets: [Budget; 3],
    /// The limits of each socket's queue. They are the same for all sockets and stored only here,
    /// because every idle socket would otherwise take memory for a copy.
    queue_limits: QueueLimits,
    /// Held while a task searches for the largest sockets. Tasks that find it locked skip their own
    /// search.
    search: Mutex<()>,
    metrics: RealtimeMetrics,
}

/// The memory budget for one kind, shared by all sockets.
#[derive(Debug)]
struct Budget {
    /// The limit in bytes.
    limit: i64,
    /// The bytes in use. This is the metric itself, so that counting is one addition.
    in_use: Gauge<i64, AtomicI64>,
    /// The bytes within `in_use` that closing sockets still hold and will release.
    pending_release: AtomicI64,
}

/// The memory that one socket holds, in bytes per kind. The registry uses these numbers to find the
/// largest sockets. Four bytes per kind suffice, because no setting allows one socket to hold more
/// than 4 GiB.
#[derive(Debug, Default)]
pub struct Holdings([AtomicU32; 3]);

impl Holdings {
    /// Returns the bytes of a kind.
    pub fn get(&self, held: Held) -> u32 {
        self.0[held as usize].load(Ordering::Relaxed)
    }

    /// Sets the bytes of a kind and returns the change.
    pub fn set(&self, held: Held, bytes: usize) -> i64 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = self.0[held as usize].swap(bytes, Ordering::Relaxed);
        i64::from(bytes) - i64::from(before)
    }
}

impl<S: Evict> Registry<S> {
    /// Creates a registry without sockets, with the configured limits.
    pub fn new(config: &RealtimeConfig, metrics: &RealtimeMetrics) -> Self {
        let registry = Self::with_limits(metrics, |held| match held {
            Held::Frames => config.all_frames_max_bytes,
            Held::Queues => config.all_queues_max_bytes,
            Held::Channels => config.all_channels_max_bytes,
        });
        registry.with_queue_limits(QueueLimits {
            frames: config.queue_max_frames,
            bytes: config.queue_max_bytes,
        })
    }

    /// Creates a registry without limits.
    pub fn unlimited(metrics: &RealtimeMetrics) -> Self {
        Self::with_limits(metrics, |_| usize::MAX)
    }

    /// Creates a registry with a memory limit for each kind and without limits for single queues.
    pub fn with_limits(metrics: &RealtimeMetrics, limit: impl Fn(Held) -> usize) -> Self {
        Self {
            open: DashMap::new(),
            budgets: Held::ALL.map(|held| Budget {
                limit: i64::try_from(limit(held)).unwrap_or(i64::MAX),
                in_use: metrics.held.get_or_create(&HeldLabels { held }).clone(),
                pending_release: AtomicI64::new(0),
            }),
            queue_limits: QueueLimits {
                frames: usize::MAX,
                bytes: usize::MAX,
            },
            search: Mutex::default(),
            metrics: metrics.clone(),
        }
    }

    /// Limits the queue of each socket.
    #[must_use]
    pub fn with_queue_limits(mut self, limits: QueueLimits) -> Self {
        self.queue_limits = limits;
        self
    }

    /// Returns the limits of each socket's queue.
    pub(super) fn queue_limits(&self) -> QueueLimits {
        self.queue_limits
    }

    /// Adds an open socket.
    pub fn insert(&self, id: SocketId, socket: &Arc<S>) {
        self.open.insert(id, Arc::clone(socket));
    }

    /// Removes a socket. Returns whether it was registered.
    pub fn remove(&self, id: SocketId) -> bool {
        self.open.remove(&id).is_some()
    }

    /// Returns all open sockets.
    pub fn all(&self) -> Vec<Arc<S>> {
        let sockets = self.open.iter();
        sockets.map(|socket| Arc::clone(&socket)).collect()
    }

    /// Returns the bytes of a kind that all sockets hold.
    pub fn in_use(&self, held: Held) -> i64 {
        self.budget(held).in_use.get()
    }

    /// Returns whether a budget is exceeded while closing sockets still hold memory that they will
    /// release. A socket that is about to read first lets the tasks of the closing sockets run.
    /// These tasks only have to be woken, so congestion is short.
    pub fn is_congested(&self) -> bool {
        self.budgets.iter().any(|budget| {
            budget.pending_release.load(Ordering::Relaxed) > 0 && budget.in_use.get() > budget.limit
        })
    }

    /// Adds `by` bytes, which may be negative. If this exceeds the budget, closes the largest
    /// sockets. The caller must not hold the lock of a queue or of the map of sockets.
    pub(super) fn adjust(&self, held: Held, by: i64) {
        let budget = self.budget(held);
        let now = budget.in_use.inc_by(by).saturating_add(by);
        let pending_release = budget.pending_release.load(Ordering::Relaxed);
        if by > 0 && now.saturating_sub(pending_release) > budget.limit {
            self.close_largest(held);
        }
    }

    /// Records that the task of a closing socket has released its memory.
    pub(super) fn note_released(&self, held: Held, bytes: i64) {
        self.budget(held)
            .pending_release
            .fetch_sub(bytes, Ordering::Relaxed);
    }

    fn budget(&self, held: Held) -> &Budget {
        &self.budgets[held as usize]
    }

    fn close_largest(&self, held: Held) {
        let Ok(_search) = self.search.try_lock() else {
            return;
        };
        let budget = self.budget(held);
        let target = budget.limit - budget.limit / FREED_FRACTION;
        let mut clients = self.clients_holding(held);
        // The largest client is on top.
        let mut totals: BinaryHeap<(u64, usize)> = clients
            .iter()
            .map(|sockets| sockets.iter().map(|(bytes, _)| u64::from(*bytes)).sum())
            .enumerate()
            .map(|(client, total)| (total, client))
            .collect();
        let mut closed = 0;
        while budget.in_use.get() - budget.pending_release.load(Ordering::Relaxed) > target {
            let Some((total, client)) = totals.pop() else {
                break;
            };
            let Some((bytes, socket)) = clients[client].pop() else {
                continue;
            };
            totals.push((total - u64::from(bytes), client));
            if let Some(pending_release) = socket.evict(held) {
                budget
                    .pending_release
                    .fetch_add(pending_release, Ordering::Relaxed);
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
                "memory budget for all sockets exceeded; closed sockets of the largest clients"
            );
        }
    }
    /// Returns the sockets of each client that hold memory of a kind, the largest last.
    fn clients_holding(&self, held: Held) -> Vec<Vec<(u32, Arc<S>)>> {
        let mut clients: HashMap<_, Vec<(u32, Arc<S>)>> = HashMap::new();
        for socket in &self.open {
            let bytes = socket.holdings().get(held);
            if bytes > 0 {
                let client = socket.address().ok_or(*socket.key());
                let sockets = clients.entry(client).or_default();
                sockets.push((bytes, Arc::clone(&socket)));
            }
        }
        let mut clients: Vec<_> = clients.into_values().collect();
        for sockets in &mut clients {
            sockets.sort_unstable_by_key(|(bytes, _)| *bytes);
        }
        clients
    }
}
