//! Limits the time and the total memory of incomplete request heads, and applies the limits of
//! unread responses ([`super::responses`]).
//!
//! Any client may open a connection and send a head byte by byte, before any token is checked.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Share};
use super::idle::{Idle, Place};
use super::peer::TrustedProxies;
use super::responses::{READ_DEADLINE, Responses, SharedBody, Unread};
use crate::observability::metrics::HttpMetrics;

/// Timeout for a request head, counted from the opening of the connection or the end of the
/// previous request. It exceeds the time for which load balancers keep an idle connection (60
/// seconds for nginx and AWS). The load balancer must be the side that closes the connection.
/// Otherwise it may send a request on a connection that was just closed.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(90);

/// Maximum size in bytes of an incomplete head. While a head is smaller, the server continues to
/// read it. This is the largest size that AWS's load balancers forward. A larger head results in
/// 431, unless its end arrived with the last read, which has at most the same size.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Size of a head that is allowed regardless of how many other heads are incomplete. The heads of
/// ordinary clients are smaller. The buffer of a connection has this size from the first byte on.
const MODEST_HEAD_BYTES: usize = 8 * 1024;

/// Bytes of a body that make its connection the youngest of those that wait for their client. An
/// upload over a slow mobile network sends them within a few seconds.
const PROGRESS_BYTES: usize = 64 * 1024;

/// The limits of all connections. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Heads {
    deadline: Duration,
    budget: Budget,
    refused: Counter,
    responses: Responses,
    idle: Idle,
}

impl Heads {
    /// Limits the time of each head to `deadline`, and the memory of all incomplete heads together
    /// to `max_bytes`.
    pub fn new(deadline: Duration, max_bytes: usize, metrics: &HttpMetrics) -> Self {
        Self {
            deadline,
            budget: Budget::new(max_bytes, MODEST_HEAD_BYTES, &metrics.heads_bytes),
            refused: metrics.heads_refused.clone(),
            responses: Responses::new(
                READ_DEADLINE,
                usize::MAX,
                TrustedProxies::default(),
                metrics,
            ),
            idle: Idle::new(usize::MAX, usize::MAX, TrustedProxies::default(), metrics),
        }
    }

    /// Sets the limits of responses. Otherwise, their memory is unlimited.
    #[must_use]
    pub fn with_responses(mut self, responses: Responses) -> Self {
        self.responses = responses;
        self
    }

    /// Sets the limits of connections that wait for their client. Otherwise, their number is
    /// unlimited.
    #[must_use]
    pub fn with_idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }

    /// Returns the timeout of a head.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// The state of one connection: the head that it receives, the request in progress and the last
/// response.
#[derive(Debug)]
pub(super) struct Head {
    share: Share,
    refused: Counter,
    responses: Responses,
    /// Size of the last response. The whole response stays in memory until all of it is written.
    response_bytes: AtomicUsize,
    /// Whether all clients share the body of the last response.
    response_is_shared: AtomicBool,
    /// The client of the last response, as the position of its address.
    client: AtomicU16,
    /// Whether the head is complete and its request in progress. Arriving bytes then belong to the
    /// body.
    is_whole: AtomicBool,
    /// Whether the client must read before more bytes of a response can be written. Until then, the
    /// next request is not carried out, even if it has already arrived.
    is_stalled: AtomicBool,
    /// Whether the client must send more of the body before the request can go on.
    awaits_body: AtomicBool,
    /// Bytes of all bodies of the connection.
    body_bytes: AtomicUsize,
    /// The value of `body_bytes` when the connection last became the youngest because of a body.
    touched_at_bytes: AtomicUsize,
    place: Place,
}

impl Head {
    /// Creates the head of a connection from `peer`. `stop` is cancelled if the connection must be
    /// closed because there are too many.
    pub(super) fn new(heads: &Heads, peer: IpAddr, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            share: heads.budget.share(heads.idle.client(peer)),
            refused: heads.refused.clone(),
            responses: heads.responses.clone(),
            response_bytes: AtomicUsize::new(0),
            response_is_shared: AtomicBool::new(false),
            client: AtomicU16::new(0),
            is_whole: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            awaits_body: AtomicBool::new(false),
            body_bytes: AtomicUsize::new(0),
            touched_at_bytes: AtomicUsize::new(0),
            place: heads.idle.open(peer, stop),
        })
    }

    /// Marks the head as complete.
    pub(super) fn end(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
        self.share.clear();
        self.place.touch();
        self.recount();
    }

    /// Records whether the client must send more of the body.
    pub(super) fn set_awaiting_body(&self, awaits_body: bool) {
        if self.awaits_body.swap(awaits_body, Ordering::Relaxed) != awaits_body {
            self.recount();
        }
    }

    /// Records bytes of the body. A client that sends only a few from time to time does not become
    /// the youngest.
    pub(super) fn receive_body(&self, count: usize) {
        let bytes = self.body_bytes.fetch_add(count, Ordering::Relaxed) + count;
        if bytes - self.touched_at_bytes.load(Ordering::Relaxed) >= PROGRESS_BYTES {
            self.touched_at_bytes.store(bytes, Ordering::Relaxed);
            self.place.touch();
        }
    }

    /// Returns the number of bytes of all bodies that have arrived over the connection.
    pub(super) fn body_bytes(&self) -> usize {
        self.body_bytes.load(Ordering::Relaxed)
    }

    /// Returns the client of a request that arrived from `peer`.
    pub(super) fn client_of<B>(&self, peer: IpAddr, request: &Request<B>) -> u16 {
        self.responses.client(peer, request)
    }

    /// Records the response that is written next, and the client that requested it. hyper begins no
    /// further response before this one is written.
    pub(super) fn respond<B: HttpBody>(&self, client: u16, response: &Response<B>) {
        // A stream has no exact size. It holds one part at a time.
        let bytes = response.size_hint().exact().unwrap_or(0);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.response_bytes.store(bytes, Ordering::Relaxed);
        let is_shared = response.extensions().get::<SharedBody>().is_some();
        self.response_is_shared.store(is_shared, Ordering::Relaxed);
        self.client.store(client, Ordering::Relaxed);
    }

    /// Counts the last response, of which `offered` bytes cannot be written yet.
    fn wait_for_client(&self, offered: usize) -> Unread {
        let bytes = if self.response_is_shared.load(Ordering::Relaxed) {
            0
        } else {
            self.response_bytes.load(Ordering::Relaxed).max(offered)
        };
        self.responses
            .wait(self.client.load(Ordering::Relaxed), bytes)
    }

    /// Marks the request as received and answered, so that arriving bytes belong to the next head.
    pub(super) fn begin(&self) {
        self.is_whole.store(false, Ordering::Relaxed);
        // The response is not written yet, so this connection must not be among the oldest.
        self.place.touch();
        self.place.idle();
    }

    /// Returns whether a request is in progress that does not wait for its client: its head is
    /// complete, it needs no more of its body now, and its response does not wait to be read.
    pub(super) fn is_busy(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
            && !self.is_stalled.load(Ordering::Relaxed)
            && !self.awaits_body.load(Ordering::Relaxed)
    }

    /// Returns the place among the connections that wait for their client.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Records whether the client must read before more bytes can be written.
    fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::Relaxed);
        self.recount();
    }

    fn recount(&self) {
        if self.is_busy() {
            self.place.busy();
        } else {
            self.place.idle();
        }
    }

    /// Counts bytes that have arrived, unless they belong to a body.
    fn add(&self, count: usize) -> io::Result<()> {
        if self.is_whole.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.share.take(count).map_err(|error| {
            self.refused.inc();
            error.into()
        })
    }
}

/// A connection that counts the bytes of request heads and unread responses.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    head: Arc<Head>,
    /// The response for which the kernel accepts no more bytes now. Boxed because it is rare.
    unread: Option<Box<Unread>>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, head: &Arc<Head>) -> Self {
        Self {
            stream,
            head: Arc::clone(head),
            unread: None,
        }
    }

    /// Counts the response as unread while the kernel accepts none of the `offered` bytes, and
    /// fails if the connection must be closed for that.
    fn note_write(
        &mut self,
        cx: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.head.place.touch();
        }
        match &written {
            Poll::Pending => {
                let head = &self.head;
                let unread = self.unread.get_or_insert_with(|| {
                    head.set_stalled(true);
                    Box::new(head.wait_for_client(offered))
                });
                return unread.poll_refused(cx).map(Err);
            }
            Poll::Ready(Ok(count)) if *count < offered => {
                if let Some(unread) = &mut self.unread {
                    unread.progress();
                }
            }
            Poll::Ready(_) => {
                if self.unread.take().is_some() {
                    self.head.set_stalled(false);
                }
            }
        }
        written
    }

    /// Returns the TCP stream. Call it only when no more requests follow.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.head.add(buffer.filled().len() - before))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(cx, bytes.len(), written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_write(cx, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
