//! The only file that reads and writes a WebSocket: the task of a socket.
//!
//! Lifecycle: one task per socket, from the upgrade to the end of the TCP connection. It owns no
//! buffer while it waits: bytes are read into one that the worker thread lends, and what is
//! kept of them is an unfinished frame.

pub mod drain;
pub mod handshake;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, Stream as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Sleep};
use tracing::Instrument as _;

use super::Realtime;
use super::channel::Holder;
use super::error::{CloseReason, PresenceRefusal};
use super::hub::SocketId;
use super::hub::presence::Tracked;
use super::protocol::{Serializer, ServerMessage};
use super::session::{Effect, Session, Shared, TrackOrder};
use super::wire::frame::{Frame, FrameError, FrameReader, Received};
use super::wire::outbound::{Outbound, QueueLimits};
use super::work::{Work, Workshop};
use crate::http::heads::Connection;
use crate::limits::UnixMillis;
use crate::observability::metrics::{CloseLabel, DropReason, Held, Limit};

/// The buffer a worker thread lends for reading: as much as one system call usually finds.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Reads in a row before other tasks of the thread get their turn.
const MAX_READS_PER_TURN: usize = 16;

/// Frames handed to sockets, for what was read, before other tasks of the thread get their turn:
/// writing that many takes some ten milliseconds.
const MAX_FRAMES_PER_TURN: u64 = 2_048;

/// How long the end of a socket may take: writing what is left, and waiting for the peer to
/// close its side. Closing at once would discard the close frame when the peer is still sending.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// Takes the stream out of hyper. The future is the socket, from here to its end.
pub fn open(
    realtime: &Realtime,
    serializer: Serializer,
    holder: Holder,
    headers: Arc<str>,
    request_id: Box<str>,
    upgraded: Upgraded,
) -> impl Future<Output = ()> + Send + use<> {
    let (stream, write, received) = match upgraded.downcast::<TokioIo<Connection>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner().into_stream();
            // Small messages are the rule, and each is to arrive at once.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY cannot be set");
            }
            let (read, write) = stream.into_split();
            (Stream::Tcp(read), Some(write), parts.read_buf)
        }
        Err(upgraded) => (
            Stream::Other(Box::new(TokioIo::new(upgraded))),
            None,
            bytes::Bytes::new(),
        ),
    };
    let now = UnixMillis::now();
    let session = Session::new(Arc::clone(&realtime.shared), holder, headers, now);
    let mut socket = Socket::new(realtime, serializer, session, (stream, write));
    let id = socket.id;
    // Only where somebody looks closely: a span that is kept takes memory, and there is one for
    // each idle socket.
    let span = tracing::debug_span!("socket", %id, %request_id);
    if !received.is_empty() {
        socket.receive(&mut received.to_vec());
    }
    // Even when it is empty it keeps the read buffer of the handshake alive, 16 KiB of it.
    drop(received);
    // The socket stays in the one place that this block has for it; a function that took it by
    // value would have two, for as long as the socket lives.
    async move { socket.run(&request_id).await }.instrument(span)
}

/// What the socket is read from.
enum Stream {
    /// A TCP connection: any task may write to it, over the other half.
    Tcp(OwnedReadHalf),
    /// Any other: only this task reads and writes.
    Other(Box<dyn Io>),
}

impl Stream {
    /// Reads once. A read that does not fill the buffer is known to have emptied the socket: there
    /// is no second system call to find that out.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(buffer);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut read),
            Self::Other(io) => Pin::new(&mut **io).poll_read(cx, &mut read),
        })?;
        Poll::Ready(Ok(read.filled().len()))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One open socket.
struct Socket {
    shared: Arc<Shared>,
    workshop: Arc<Workshop>,
    serializer: Serializer,
    stream: Stream,
    outbound: Arc<Outbound>,
    reader: FrameReader,
    session: Session,
    /// Work done aside; only there while there is some.
    work: Option<FuturesUnordered<Work>>,
    timer: Pin<Box<Sleep>>,
    /// The deadline that the timer was last set for.
    timer_for: Option<UnixMillis>,
    last_received: Instant,
    /// What the client has begun and not finished.
    unfinished: Option<Unfinished>,
    effects: Vec<Effect>,
    /// Frames that were handed to sockets in this turn.
    handed_over: u64,
    /// Its name in the hub, which knows it from the first moment on.
    id: SocketId,
}

/// Whatever ends the task, a panic or the end of the process among it: nobody stays listed who is
/// not there. A socket whose end is waited for is listed, because what waits for it still takes memory.
impl Drop for Socket {
    fn drop(&mut self) {
        self.retire();
        self.shared.hub.remove_socket(self.id);
    }
}

/// A frame, or a message in fragments, whose end has not come.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// Its name, see [`FrameReader::unfinished`].
    frame: u64,
    /// When it must have come.
    ends: Instant,
}

/// What ended the reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The connection is gone.
    Broken,
    /// A close frame is queued.
    Closing,
}

impl Socket {
    fn new(
        realtime: &Realtime,
        serializer: Serializer,
        session: Session,
        (stream, write): (Stream, Option<OwnedWriteHalf>),
    ) -> Self {
        let shared = Arc::clone(&realtime.shared);
        let config = &shared.config;
        let limits = QueueLimits {
            frames: config.queue_max_frames,
            bytes: config.queue_max_bytes,
        };
        let outbound = Arc::new(Outbound::new(write, limits, shared.hub.sockets()));
        let now = Instant::now();
        Self {
            workshop: Arc::clone(&realtime.workshop),
            serializer,
            stream,
            reader: FrameReader::default(),
            session,
            work: None,
            timer: Box::pin(tokio::time::sleep_until(now + config.idle_timeout)),
            timer_for: None,
            last_received: now,
            unfinished: None,
            effects: Vec::new(),
            handed_over: 0,
            id: shared.hub.add_socket(&outbound),
            outbound,
            shared,
        }
    }

    /// From here to the end. The request's id leads from the log's line about the end to that
    /// about the handshake.
    async fn run(&mut self, request_id: &str) {
        let opened = Instant::now();
        let end = poll_fn(|cx| self.poll(cx)).await;
        // Channels go first: nobody fills the queue of a socket that only waits to be closed.
        self.retire();
        let reason = match (end, self.outbound.closing()) {
            (End::Closing, Some(reason)) => reason.label(),
            _ => CloseLabel::Broken,
        };
        self.shared.hub.metrics().closed(reason).inc();
        let (socket, seconds) = (self.id, opened.elapsed().as_secs_f64());
        tracing::info!(%socket, %request_id, reason = reason.as_str(), seconds, "socket closed");
        if end == End::Closing {
            let farewell = poll_fn(|cx| self.poll_close(cx));
            // A peer that does not close its side in time is cut off.
            let _ = Box::pin(tokio::time::timeout(CLOSE_TIMEOUT, farewell)).await;
        }
    }

    /// Ends the channels and lets go of everything but what waits to be written. The second time nothing is left to do.
    fn retire(&mut self) {
        self.session.end(&mut self.effects);
        self.work = None;
        self.carry_out();
        self.reader = FrameReader::default();
        self.outbound.let_go();
    }

    /// Everything that happens on an open socket.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.outbound.register(cx.waker());
        self.handed_over = 0;
        for _ in 0..MAX_READS_PER_TURN {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                tracing::debug!(%error, "a socket cannot be written to");
                return Poll::Ready(End::Broken);
            }
            if self.outbound.closing().is_some() {
                return Poll::Ready(End::Closing);
            }
            self.poll_rechecks();
            self.poll_work(cx);
            // A timer may start new work, which must be polled once to register this task's waker.
            while self.poll_timer(cx) {
                self.poll_work(cx);
            }
            if self.shared.hub.sockets().is_congested() {
                break;
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) => return Poll::Ready(End::Broken),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a socket cannot be read");
                    return Poll::Ready(End::Broken);
                }
            }
            if self.handed_over > MAX_FRAMES_PER_TURN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what others left to this task.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outbound.is_blocked() {
            match &mut self.stream {
                Stream::Tcp(stream) => {
                    let stream: &TcpStream = stream.as_ref();
                    ready!(stream.poll_write_ready(cx))?;
                    self.outbound
                        .drain(|slices| stream.try_write_vectored(slices))?;
                }
                Stream::Other(io) => {
                    let mut is_pending = false;
                    self.outbound.drain(|slices| {
                        match Pin::new(&mut **io).poll_write_vectored(cx, slices) {
                            Poll::Ready(result) => result,
                            Poll::Pending => {
                                is_pending = true;
                                Err(ErrorKind::WouldBlock.into())
                            }
                        }
                    })?;
                    if is_pending {
                        return Poll::Pending;
                    }
                }
            }
        }
        if let Stream::Other(io) = &mut self.stream {
            return Pin::new(&mut **io).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) {
        while let Some(work) = &mut self.work {
            match Pin::new(work).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.work = None,
                Poll::Ready(Some(done)) => {
                    if let Some(rest) = done.rest {
                        self.do_aside(rest);
                    }
                    self.session
                        .complete(done.outcome, UnixMillis::now(), &mut self.effects);
                    self.carry_out();
                }
            }
        }
    }

    fn poll_rechecks(&mut self) {
        if self.outbound.take_recheck() {
            let hub = Arc::clone(&self.shared.hub);
            self.session
                .recheck(|channel| hub.take_recheck(channel), &mut self.effects);
            self.carry_out();
        }
    }

    /// Returns whether a deadline of the session was due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let idle_at = self.last_received + self.shared.config.idle_timeout;
            if idle_at <= now {
                self.outbound.close(CloseReason::Idle);
                return false;
            }
            if self.unfinished.is_some_and(|it| it.ends <= now) {
                self.shared.hub.metrics().limited(Limit::FrameTime);
                self.outbound.close(CloseReason::Unfinished);
                return false;
            }
            let ends = self.unfinished.map_or(idle_at, |it| it.ends);
            self.timer.as_mut().reset(idle_at.min(ends));
            self.timer_for = None;
            let time = UnixMillis::now();
            if self.session.deadline().is_some_and(|at| at <= time) {
                self.session.tick(time, &mut self.effects);
                self.carry_out();
                return true;
            }
            self.set_timer();
        }
        false
    }

    /// Makes sure that the timer does not fire too late. It may fire too early: that is cheaper
    /// than moving it with every message.
    fn set_timer(&mut self) {
        let deadline = self.session.deadline();
        if deadline == std::mem::replace(&mut self.timer_for, deadline) {
            return;
        }
        let Some(deadline) = deadline else {
            return;
        };
        // One millisecond more, because the clock of the day is read in whole ones.
        let wait = deadline.since(UnixMillis::now()) + Duration::from_millis(1);
        self.wake_by(Instant::now() + wait);
    }

    fn wake_by(&mut self, at: Instant) {
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    /// Reads once and handles what came. The number of bytes; 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let count = ready!(self.stream.poll_read(cx, buffer))?;
            self.receive(&mut buffer[..count]);
            Poll::Ready(Ok(count))
        })
    }

    /// Handles received bytes: every message they complete, then everything that follows from
    /// them is written together.
    fn receive(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        self.last_received = Instant::now();
        let now = UnixMillis::now();
        let limit = self.frame_limit();
        let mut reader = std::mem::take(&mut self.reader);
        let result = reader.read(bytes, limit, |received| self.handle(received, now));
        self.reader = reader;
        self.note_unfinished();
        self.carry_out();
        if let Err(error) = result {
            self.fault(error);
        }
    }

    /// Keeps account of what the client has begun and not finished.
    fn note_unfinished(&mut self) {
        self.outbound
            .note_held(Held::Frames, self.reader.held_bytes());
        let frame = self.reader.unfinished();
        if frame != self.unfinished.map(|it| it.frame) {
            let ends = self.last_received + self.shared.config.frame_timeout;
            self.unfinished = frame.map(|frame| Unfinished { frame, ends });
            if frame.is_some() {
                self.wake_by(ends);
            }
        }
    }

    /// The largest message that the client may send now.
    fn frame_limit(&self) -> usize {
        let config = &self.shared.config;
        let limit = config.max_frame_bytes;
        if self.session.has_joined() {
            limit
        } else {
            limit.min(config.max_frame_bytes_before_join)
        }
    }

    /// Handles one message. Goes on with the largest that may come after it.
    fn handle(&mut self, received: Received<'_>, now: UnixMillis) -> ControlFlow<(), usize> {
        let metrics = self.shared.hub.metrics();
        metrics.frames_received.inc();
        let message = match &received {
            Received::Text(text) => self.serializer.decode_text(text),
            Received::Binary(data) => self.serializer.decode_binary(data),
            Received::Ping(payload) => {
                self.queue(Frame::pong(payload));
                return ControlFlow::Continue(self.frame_limit());
            }
            Received::Pong => return ControlFlow::Continue(self.frame_limit()),
            Received::Close(code) => {
                self.carry_out();
                self.outbound.close(CloseReason::Peer(*code));
                return ControlFlow::Break(());
            }
        };
        match message {
            Ok(message) => self.session.receive(&message, now, &mut self.effects),
            // Dropped without a word, as the original does (protocol 2.3).
            Err(_) => metrics.dropped(DropReason::Malformed),
        }
        ControlFlow::Continue(self.frame_limit())
    }

    fn fault(&self, error: FrameError) {
        if error == FrameError::TooBig {
            let is_joined = self.session.has_joined();
            self.shared.hub.metrics().limited(match is_joined {
                true => Limit::Frame,
                false => Limit::FrameBeforeJoin,
            });
        }
        self.outbound.close(CloseReason::Frame(error));
    }

    fn queue(&self, frame: Frame) {
        let hub = &self.shared.hub;
        hub.deliveries().send(&self.outbound, frame);
    }

    /// Does what the session decided. What it says is written at the end, in one system call.
    fn carry_out(&mut self) {
        self.set_timer();
        self.outbound
            .note_held(Held::Channels, self.session.held_bytes());
        if self.effects.is_empty() {
            return;
        }
        let hub = Arc::clone(&self.shared.hub);
        let mut deliveries = hub.deliveries();
        // Their places are not kept: an idle socket owns no buffers.
        for effect in std::mem::take(&mut self.effects) {
            // Broadcasts in a row are handed over together; everything else keeps its place.
            if !matches!(effect, Effect::Broadcast(_)) {
                deliveries.settle();
            }
            match effect {
                Effect::Send(message) => {
                    deliveries.send(&self.outbound, self.serializer.encode(&message));
                }
                Effect::Close(reason) => self.outbound.close(reason),
                Effect::Broadcast(order) => {
                    let (message, except) = (order.message.borrow(), order.except);
                    if let Err(error) = deliveries.broadcast(&order.topic, &message, except) {
                        // The session has checked it: this is a fault of the server.
                        tracing::error!(%error, "a broadcast that was accepted cannot be sent");
                    }
                    if let Some(reply) = order.reply {
                        deliveries.acknowledge(&self.outbound, self.serializer.encode(&reply));
                    }
                }
                Effect::Attach(channel, spec) => {
                    hub.attach(channel, spec, self.serializer, &self.outbound);
                }
                Effect::Permit(channel, read) => hub.permit(channel, read),
                Effect::Open(channel) => hub.open(channel),
                Effect::PresenceState(channel) => deliveries.presence_state(channel),
                Effect::Track(order) => {
                    let reply = self.track(order);
                    deliveries.send(&self.outbound, self.serializer.encode(&reply));
                }
                Effect::Untrack(channel) => hub.untrack(channel),
                Effect::Detach(channel) => {
                    hub.detach(channel);
                    self.workshop.visibility.unsubscribe(channel);
                }
                Effect::Subscribe(order) => {
                    let work = self.workshop.subscribe(order);
                    self.do_aside(work);
                }
                Effect::Authorize(order) => {
                    let work = self.workshop.authorize(order);
                    self.do_aside(work);
                }
                Effect::Recheck(order) => {
                    let work = self.workshop.recheck(order);
                    self.do_aside(work);
                }
                Effect::ReadStored(order) => {
                    let work = self.workshop.read_stored(order);
                    self.do_aside(work);
                }
                Effect::Replay(channel, messages) => deliveries.replay(channel, &messages),
                Effect::Persist(order) => {
                    let work = self.workshop.persist(order);
                    self.do_aside(work);
                }
                Effect::AwaitMessages(channel, topic) => {
                    let work = self.workshop.await_messages(channel, topic);
                    self.do_aside(work);
                }
            }
        }
        deliveries.flush();
        self.handed_over += deliveries.frames();
    }

    /// Lists a channel, and what it is answered.
    fn track(&self, order: TrackOrder) -> ServerMessage {
        let hub = &self.shared.hub;
        let limit = self.shared.config.max_presence_state_bytes;
        let mut answer = order.reply;
        match hub.track(order.channel, &order.key, order.payload, limit) {
            Tracked::Changed | Tracked::Unchanged => {}
            Tracked::Full => {
                let refusal = PresenceRefusal::TopicFull(limit);
                refusal.count(hub.metrics());
                answer.replace_reply(refusal.reply());
            }
        }
        answer
    }

    fn do_aside(&mut self, work: Work) {
        self.work.get_or_insert_default().push(work);
    }

    /// Writes the close frame and waits until the peer closes.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbound.register(cx.waker());
        if self.outbound.is_cut() {
            return Poll::Ready(());
        }
        match self.poll_write(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) => {}
        }
        if let Some(CloseReason::Peer(_)) = self.outbound.closing() {
            // The peer began, so its side is done.
            return Poll::Ready(());
        }
        READ_BUFFER.with_borrow_mut(|buffer| {
            loop {
                let Ok(1..) = ready!(self.stream.poll_read(cx, buffer)) else {
                    return Poll::Ready(());
                };
            }
        })
    }
}
