//! Limits the time and the total memory of responses that their clients do not read.
//!
//! A response stays in memory until its last byte is in the kernel's buffer. Only responses that do
//! not fit into this buffer at once are counted here, so the usual small ones cost nothing.
//!
//! Beyond the limit, the client whose responses take the most memory together loses responses. A
//! client with a few responses is therefore not affected by one with many, whatever their sizes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Request;
use futures_util::task::AtomicWaker;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};

use super::addresses::Positions;
use super::peer::TrustedProxies;
use crate::observability::metrics::HttpMetrics;

/// How long a client may accept no byte of a response. On Linux, the kernel accepts further bytes
/// only after the client has received half of the 128 KiB that the kernel holds. A client must
/// therefore read about 2 kB/s, which is slower than any mobile network in use.
pub const READ_DEADLINE: Duration = Duration::from_secs(30);

/// Marks a response whose body all clients share, for instance an embedded file. Set it as a
/// response extension. The body takes no memory for each client, so only its deadline applies.
#[derive(Clone, Copy, Debug)]
pub struct SharedBody;

/// The limits of all responses. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Responses {
    deadline: Duration,
    max_bytes: usize,
    proxies: TrustedProxies,
    positions: Arc<Positions>,
    bytes: Gauge<i64, AtomicI64>,
    closed: Counter,
    /// A standard mutex, because it is never held across an await.
    unread: Arc<Mutex<Registry>>,
}

/// The responses that wait for their clients. Shared bodies are not among them.
#[derive(Debug, Default)]
struct Registry {
    bytes: usize,
    next: u64,
    clients: HashMap<Client, ClientResponses>,
    /// The clients, sorted by the bytes of all their responses.
    by_bytes: BTreeSet<(usize, Client)>,
}

/// The position of a client's address.
type Client = u16;

/// The responses that one client does not read.
#[derive(Debug, Default)]
struct ClientResponses {
    bytes: usize,
    /// The size of each response, by its number. A response gets a new number whenever the client
    /// accepts bytes of it, so the first one has waited longest.
    responses: BTreeMap<u64, (usize, Arc<Slot>)>,
}

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
    /// Closes the connection of a client that accepts no byte for `deadline`. While the responses
    /// that wait for their clients together exceed `max_bytes`, closes connections of the client
    /// whose responses take the most, beginning with those that have waited longest.
    ///
    /// The address of the request identifies the client, or `X-Forwarded-For` if the request comes
    /// from one of the `proxies`.
    pub fn new(
        deadline: Duration,
        max_bytes: usize,
        proxies: TrustedProxies,
        metrics: &HttpMetrics,
    ) -> Self {
        Self {
            deadline,
            max_bytes,
            proxies,
            positions: Arc::default(),
            bytes: metrics.responses_bytes.clone(),
            closed: metrics.responses_closed.clone(),
            unread: Arc::default(),
        }
    }

    /// Returns the client of a request that arrived from `peer`.
    pub(super) fn client<B>(&self, peer: IpAddr, request: &Request<B>) -> Client {
        let client = self.proxies.client(request.extensions(), request.headers());
        self.positions.of(client.unwrap_or(peer))
    }

    /// Counts a response whose client must read before more bytes can be written.
    pub(super) fn wait(&self, client: Client, bytes: usize) -> Unread {
        let slot = Arc::new(Slot::default());
        let mut unread = self.lock();
        let number = unread.insert(client, bytes, &slot);
        while unread.bytes > self.max_bytes {
            let Some(refused) = unread.remove_longest_of_largest() else {
                break;
            };
            refused.is_refused.store(true, Ordering::Release);
            refused.waker.wake();
        }
        self.report(&unread);
        drop(unread);
        Unread {
            responses: self.clone(),
            client,
            number,
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

impl Registry {
    /// Adds a response and returns its number. A response without bytes of its own is not stored,
    /// because closing its connection would release nothing.
    fn insert(&mut self, client: Client, bytes: usize, slot: &Arc<Slot>) -> u64 {
        let number = self.take_number();
        if bytes > 0 {
            let of_client = self.clients.entry(client).or_default();
            let before = of_client.bytes;
            of_client.bytes = before.saturating_add(bytes);
            let responses = &mut of_client.responses;
            responses.insert(number, (bytes, Arc::clone(slot)));
            self.by_bytes.remove(&(before, client));
            self.by_bytes.insert((of_client.bytes, client));
            self.bytes = self.bytes.saturating_add(bytes);
        }
        number
    }

    /// Removes a response, unless it was refused.
    fn remove(&mut self, client: Client, number: u64) -> Option<Arc<Slot>> {
        let of_client = self.clients.get_mut(&client)?;
        let (bytes, slot) = of_client.responses.remove(&number)?;
        self.by_bytes.remove(&(of_client.bytes, client));
        of_client.bytes = of_client.bytes.saturating_sub(bytes);
        if of_client.responses.is_empty() {
            self.clients.remove(&client);
        } else {
            self.by_bytes.insert((of_client.bytes, client));
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(slot)
    }

    /// Removes a response of the client with the most bytes: the one that has waited longest.
    fn remove_longest_of_largest(&mut self) -> Option<Arc<Slot>> {
        let (_, client) = *self.by_bytes.last()?;
        let (number, _) = self.clients.get(&client)?.responses.first_key_value()?;
        let number = *number;
        self.remove(client, number)
    }

    /// Records that the client has accepted bytes of a response. Returns its new number.
    fn note_progress(&mut self, client: Client, number: u64) -> u64 {
        let next = self.take_number();
        if let Some(of_client) = self.clients.get_mut(&client)
            && let Some(response) = of_client.responses.remove(&number)
        {
            of_client.responses.insert(next, response);
        }
        next
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

/// A response that waits for its client. It is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Unread {
    responses: Responses,
    client: Client,
    number: u64,
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
        let mut unread = self.responses.lock();
        self.number = unread.note_progress(self.client, self.number);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let mut unread = self.responses.lock();
        unread.remove(self.client, self.number);
        self.responses.report(&unread);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::future::poll_fn;
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::Network;

    async fn reason(unread: &mut Unread) -> String {
        poll_fn(|cx| unread.poll_refused(cx)).await.to_string()
    }

    fn limited_to(max_bytes: usize, deadline: Duration, metrics: &HttpMetrics) -> Responses {
        Responses::new(deadline, max_bytes, TrustedProxies::default(), metrics)
    }

    #[tokio::test]
    async fn the_client_with_the_most_bytes_loses_what_has_waited_longest() {
        let metrics = HttpMetrics::default();
        let responses = limited_to(1_000, READ_DEADLINE, &metrics);
        // The largest response belongs to another client.
        let mut of_other = responses.wait(2, 450);
        let mut of_many: Vec<_> = (0..5).map(|_| responses.wait(1, 100)).collect();
        of_many[0].progress();
        assert_eq!(metrics.responses_bytes.get(), 950);
        let mut sixth = responses.wait(1, 100);
        assert_eq!(
            reason(&mut of_many[1]).await,
            Refused::Memory.to_string(),
            "the one without progress"
        );
        assert_eq!(metrics.responses_bytes.get(), 950);
        let (others, rest) = of_many.split_at_mut(1);
        let kept = others.iter_mut().chain(&mut rest[1..]);
        for kept in kept.chain([&mut of_other, &mut sixth]) {
            assert_eq!(reason(kept).now_or_never(), None);
        }
        // The other client now has the most.
        let mut second_of_other = responses.wait(2, 300);
        assert_eq!(reason(&mut of_other).await, Refused::Memory.to_string());
        assert_eq!(reason(&mut second_of_other).now_or_never(), None);
        drop((of_other, of_many, sixth, second_of_other));
        assert_eq!(metrics.responses_bytes.get(), 0);
        let unread = responses.lock();
        assert!(unread.clients.is_empty() && unread.by_bytes.is_empty());
    }

    #[tokio::test]
    async fn shared_bodies_use_no_memory_and_are_not_closed_for_it() {
        let metrics = HttpMetrics::default();
        let responses = limited_to(1_000, READ_DEADLINE, &metrics);
        let mut shared = responses.wait(1, 0);
        let mut large = responses.wait(1, 2_000);
        assert_eq!(reason(&mut large).await, Refused::Memory.to_string());
        assert_eq!(reason(&mut shared).now_or_never(), None);
        assert_eq!(metrics.responses_bytes.get(), 0);
    }

    #[test]
    fn a_trusted_proxy_names_the_client() {
        let proxies = TrustedProxies::new(&[Network::parse("10.0.0.0/8").unwrap()]);
        let responses = Responses::new(READ_DEADLINE, 0, proxies, &HttpMetrics::default());
        let client = |peer: &str, forwarded: &str| {
            let peer: SocketAddr = peer.parse().unwrap();
            let request = Request::builder()
                .header("x-forwarded-for", forwarded)
                .extension(ConnectInfo(peer));
            responses.client(peer.ip(), &request.body(()).unwrap())
        };
        // Two addresses may have the same position, but not all of these.
        let named: HashSet<_> = (0..20)
            .map(|last| client("10.0.0.1:1", &format!("1.1.1.{last}")))
            .collect();
        assert!(named.len() > 10);
        let claimed: HashSet<_> = (0..20)
            .map(|last| client("2.2.2.2:1", &format!("1.1.1.{last}")))
            .collect();
        assert_eq!(claimed.len(), 1);
    }

    #[tokio::test]
    async fn the_deadline_starts_again_when_the_client_reads() {
        let deadline = Duration::from_millis(20);
        let responses = limited_to(1_000, deadline, &HttpMetrics::default());
        let begun = Instant::now();
        let mut unread = responses.wait(1, 1);
        for step in 1..=3 {
            assert_eq!(reason(&mut unread).await, Refused::Deadline.to_string());
            assert!(begun.elapsed() >= deadline * step);
            unread.progress();
        }
    }
}
