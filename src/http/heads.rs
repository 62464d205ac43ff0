//! Request heads that have begun to arrive and are not whole: how long one may take, and how much memory all of them
//! may.
//!
//! Anybody may open a connection and send a head byte by byte, before any token is looked at.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::budget::{Budget, Share};
use crate::observability::metrics::HttpMetrics;

/// How long a request's head may take, counted from the end of the request before. Longer than
/// balancers keep an idle connection (60 seconds at nginx and at AWS): the side that sends must
/// be the one that closes, or a request meets a closed connection.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(90);

/// Bytes of a head beyond which no more of it is read: as much as AWS's balancers pass on. A larger one is answered 431,
/// unless the rest came with the last read, which brings as much again at most.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Bytes that a head may have however many others are unfinished: those of honest clients have less. The buffer
/// of a connection has this size from its first byte on.
const MODEST_HEAD_BYTES: usize = 8 * 1024;

/// What all connections share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heads {
    deadline: Duration,
    budget: Budget,
    refused: Counter,
}

impl Heads {
    /// Each may take `deadline`, and all of them `max_bytes` of memory.
    pub fn new(deadline: Duration, max_bytes: usize, metrics: &HttpMetrics) -> Self {
        Self {
            deadline,
            budget: Budget::new(max_bytes, MODEST_HEAD_BYTES, &metrics.heads_bytes),
            refused: metrics.heads_refused.clone(),
        }
    }

    /// How long a head may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// The head that a connection is receiving.
#[derive(Debug)]
pub(super) struct Head {
    share: Share,
    refused: Counter,
    /// It is whole and its request under way: what arrives is the request's body.
    is_whole: AtomicBool,
}

impl Head {
    pub(super) fn new(heads: &Heads) -> Arc<Self> {
        Arc::new(Self {
            share: heads.budget.share(),
            refused: heads.refused.clone(),
            is_whole: AtomicBool::new(false),
        })
    }

    /// The request's head is there.
    pub(super) fn end(&self) {
        self.is_whole.store(true, Ordering::Relaxed);
        self.share.clear();
    }

    /// The request is answered: what arrives is the next one's head.
    pub(super) fn begin(&self) {
        self.is_whole.store(false, Ordering::Relaxed);
    }

    /// So many bytes have arrived.
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

/// A connection, which counts the bytes of heads.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    head: Arc<Head>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, head: &Arc<Head>) -> Self {
        Self {
            stream,
            head: Arc::clone(head),
        }
    }

    /// The stream, when no more requests come.
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
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
