//! Limits the connections that wait for their client.
//!
//! These are new connections, connections with an incomplete head or body, those between two
//! requests, and those whose client does not read a response. Anyone can open such a connection,
//! and each takes a file descriptor. Beyond the limit, the oldest are closed, so a client that
//! sends its request after connecting is always served.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::process::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

use super::addresses::{POSITIONS, Positions};
use super::peer::TrustedProxies;
use crate::observability::metrics::HttpMetrics;

/// Maximum connections that wait for their client. All clients may reconnect at once after a
/// restart, and each is counted until its request arrives. With 10 KiB for each, they take 200 MB.
const MAX_ALL: usize = 20_000;

/// Share (1/n) of the files that the process may open, for connections that wait for their client.
/// Sockets need most of the others.
const FILES: u64 = 4;

/// One address may hold the limit divided by this number, so that it does not close the connections
/// of others. Its share is large, because all users may be behind one router.
const ADDRESSES: usize = 2;

/// When a limit is exceeded, at least this fraction of it (1/n) is closed. Finding the oldest takes
/// time in proportion to the number of connections, so it must not happen for every connection.
const CLOSED_AT_ONCE: usize = 16;

/// The limits of all connections. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Idle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_all: usize,
    max_per_address: usize,
    proxies: TrustedProxies,
    positions: Positions,
    /// The connections that wait for their client. This is the metric itself.
    all: Gauge<i64, AtomicI64>,
    /// The same connections, by the position of their address.
    per_address: Box<[AtomicUsize]>,
    closed: Counter,
    started: Instant,
    next: AtomicU64,
    /// Every open connection. A standard mutex, because it is never held across an await.
    connections: Mutex<HashMap<u64, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// The position in `per_address`, unless the peer is a trusted proxy.
    position: Option<usize>,
    is_counted: AtomicBool,
    /// Milliseconds from [`Inner::started`] until the last call of [`Place::touch`], or until the
    /// connection was opened.
    since: AtomicU64,
    /// Stops the connection.
    stop: CancellationToken,
    is_refused: AtomicBool,
}

/// One open connection. It counts as one that waits for its client, except between [`Place::busy`]
/// and [`Place::idle`].
#[derive(Debug)]
pub(super) struct Place {
    limits: Idle,
    entry: Arc<Entry>,
}

impl Idle {
    /// Allows `max_all` connections that wait for their client, and `max_per_address` of each
    /// address that is not one of the `proxies`.
    pub fn new(
        max_all: usize,
        max_per_address: usize,
        proxies: TrustedProxies,
        metrics: &HttpMetrics,
    ) -> Self {
        Self(Arc::new(Inner {
            max_all,
            max_per_address,
            proxies,
            positions: Positions::default(),
            all: metrics.connections_idle.clone(),
            per_address: std::iter::repeat_with(AtomicUsize::default)
                .take(POSITIONS)
                .collect(),
            closed: metrics.connections_closed.clone(),
            started: Instant::now(),
            next: AtomicU64::new(0),
            connections: Mutex::default(),
        }))
    }

    /// Derives the limits from the number of files that this process may open.
    pub fn of_process(proxies: TrustedProxies, metrics: &HttpMetrics) -> Self {
        // `None` means unlimited.
        let files = getrlimit(Resource::Nofile).current;
        let share = files.map(|files| usize::try_from(files / FILES).unwrap_or(MAX_ALL));
        let max_all = share.unwrap_or(MAX_ALL).clamp(1, MAX_ALL);
        Self::new(max_all, max_all.div_ceil(ADDRESSES), proxies, metrics)
    }

    /// Returns the address of the client of a connection, or `None` if the peer is a trusted proxy,
    /// which serves several clients.
    pub(super) fn client(&self, peer: IpAddr) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        (!self.0.proxies.trusts(peer)).then_some(peer)
    }

    /// Counts a new connection. `stop` is cancelled if it must be closed.
    pub(super) fn open(&self, peer: IpAddr, stop: CancellationToken) -> Place {
        let inner = &self.0;
        let client = self.client(peer);
        let position = client.map(|address| usize::from(inner.positions.of(address)));
        let entry = Arc::new(Entry {
            number: inner.next.fetch_add(1, Ordering::Relaxed),
            position,
            is_counted: AtomicBool::new(false),
            since: AtomicU64::new(inner.now()),
            stop,
            is_refused: AtomicBool::new(false),
        });
        inner.lock().insert(entry.number, Arc::clone(&entry));
        let place = Place {
            limits: self.clone(),
            entry,
        };
        place.idle();
        place
    }
}

impl Place {
    /// Marks the connection as one that waits for its client. If there are too many, closes the
    /// oldest.
    pub(super) fn idle(&self) {
        let inner = &self.limits.0;
        if self.entry.is_refused.load(Ordering::Relaxed)
            || self.entry.is_counted.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let all = usize::try_from(inner.all.inc() + 1).unwrap_or(0);
        let of_address = self.entry.position.map_or(0, |position| {
            inner.per_address[position].fetch_add(1, Ordering::Relaxed) + 1
        });
        if of_address > inner.max_per_address {
            inner.close_oldest(self.entry.position, inner.max_per_address);
        } else if all > inner.max_all {
            inner.close_oldest(None, inner.max_all);
        }
    }

    /// Marks the connection as one that does not wait for its client.
    pub(super) fn busy(&self) {
        self.limits.0.uncount(&self.entry);
    }

    /// Makes the connection the youngest: a request has begun or ended, or the client has accepted
    /// bytes or sent a large part of a body.
    pub(super) fn touch(&self) {
        let now = self.limits.0.now();
        self.entry.since.store(now, Ordering::Relaxed);
    }

    /// Returns a value that changes with [`Place::touch`].
    pub(super) fn touched(&self) -> u64 {
        self.entry.since.load(Ordering::Relaxed)
    }

    /// Returns whether the connection must be closed because of the limits.
    pub(super) fn is_refused(&self) -> bool {
        self.entry.is_refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.busy();
        self.limits.0.lock().remove(&self.entry.number);
    }
}

impl Inner {
    /// Closes the oldest connections that wait for their client, of one position or of all.
    fn close_oldest(&self, position: Option<usize>, limit: usize) {
        let connections = self.lock();
        let is_candidate = |entry: &&Arc<Entry>| {
            entry.is_counted.load(Ordering::Relaxed)
                && (position.is_none() || entry.position == position)
        };
        let mut oldest: Vec<_> = connections.values().filter(is_candidate).collect();
        let count = (limit / CLOSED_AT_ONCE).max(1).min(oldest.len());
        if count == 0 {
            return;
        }
        oldest.select_nth_unstable_by_key(count - 1, |entry| {
            (entry.since.load(Ordering::Relaxed), entry.number)
        });
        for entry in &oldest[..count] {
            // It is uncounted now, and not only when its task ends. Otherwise the next connection
            // would close further ones.
            if self.uncount(entry) {
                entry.is_refused.store(true, Ordering::Relaxed);
                entry.stop.cancel();
                self.closed.inc();
            }
        }
    }

    /// Returns whether the connection was counted.
    fn uncount(&self, entry: &Entry) -> bool {
        let was_counted = entry.is_counted.swap(false, Ordering::Relaxed);
        if was_counted {
            self.all.dec();
            if let Some(position) = entry.position {
                self.per_address[position].fetch_sub(1, Ordering::Relaxed);
            }
        }
        was_counted
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        // A panic never leaves the map inconsistent, so a poisoned mutex can still be used.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    fn open(idle: &Idle, address: &str) -> Place {
        idle.open(address.parse().unwrap(), CancellationToken::new())
    }

    fn refused<const N: usize>(places: [&Place; N]) -> [bool; N] {
        places.map(Place::is_refused)
    }

    #[test]
    fn the_oldest_connections_without_a_request_are_closed() {
        let metrics = HttpMetrics::default();
        let idle = Idle::new(3, 3, TrustedProxies::default(), &metrics);
        let [first, second, third] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|a| open(&idle, a));
        first.busy();
        let fourth = open(&idle, "10.0.0.4");
        assert_eq!(refused([&first, &second, &third, &fourth]), [false; 4]);
        let fifth = open(&idle, "10.0.0.5");
        let all = [&first, &second, &third, &fourth, &fifth];
        assert_eq!(refused(all), [false, true, false, false, false]);
        // The request of the first ends. Its connection was opened before the others.
        first.idle();
        assert_eq!(refused(all), [true, true, false, false, false]);
        assert!(first.entry.stop.is_cancelled());
        assert_eq!(metrics.connections_idle.get(), 3);
        assert_eq!(metrics.connections_closed.get(), 2);
        drop((first, second, third, fourth, fifth));
        assert_eq!(metrics.connections_idle.get(), 0);
        assert!(idle.0.lock().is_empty());
    }

    #[test]
    fn one_address_closes_only_its_own_connections() {
        let network = Network::parse("10.9.0.0/16").unwrap();
        let proxies = TrustedProxies::new(&[network]);
        let idle = Idle::new(100, 2, proxies, &HttpMetrics::default());
        let other = open(&idle, "2001:db8::1");
        let behind_proxy: Vec<_> = (0..5).map(|_| open(&idle, "10.9.0.1")).collect();
        // IPv6 addresses of one subscriber count together.
        let hostile: Vec<_> = (1..=5)
            .map(|last| open(&idle, &format!("2001:db8:1:{last}::1")))
            .collect();
        let closed: Vec<_> = hostile.iter().map(Place::is_refused).collect();
        assert_eq!(closed, [true, true, true, false, false]);
        assert!(!other.is_refused());
        assert!(!behind_proxy.iter().any(Place::is_refused));
    }
}
