//! The task of a socket. No other file reads a WebSocket, and other tasks write to one only through
//! [`Outbound`].
//!
//! Lifecycle: there is one task per socket, from the upgrade to the end of the TCP connection. The
//! task owns no buffer while it waits. Bytes are read into a buffer of the worker thread, and only
//! an unfinished frame is kept.

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

use super::super::channel::Holder;
use super::super::error::PresenceRefusal;
use super::super::hub::presence::TrackResult;
use super::super::protocol::{Serializer, ServerMessage};
use super::super::service::Realtime;
use super::super::session::{Effect, Session, Shared, TrackOrder};
use super::super::wire::close::CloseReason;
use super::super::wire::frame::{Frame, FrameError, FrameReader, Received};
use super::super::wire::outbound::Outbound;
use super::super::wire::sockets::SocketId;
use super::super::work::{Work, Workshop};
use crate::http::addresses::AddressShare;
use crate::http::heads::Connection;
use crate::limits::UnixMillis;
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::{CloseLabel, DropReason, Held, Limit};

/// The size of a worker thread's read buffer. One system call usually returns at most this many
/// bytes.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Maximum number of consecutive reads before other tasks of the thread run.
const MAX_READS_PER_TURN: usize = 16;

/// Maximum number of frames queued as a result of received messages before other tasks of the
/// thread run. Writing that many frames takes about ten milliseconds.
const MAX_FRAMES_PER_TURN: u64 = 2_048;

/// Maximum time for closing a socket, which includes writing queued frames and waiting for the peer
/// to close its side. If the connection were closed immediately while the peer is still sending,
/// the close frame would be lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice());
}

/// Takes the stream out of hyper. Returns a future that runs the socket until its end.
pub(super) fn open(
    realtime: &Realtime,
    serializer: Serializer,
    holder: Holder,
    headers: Arc<str>,
    request_id: Box<str>,
    address_share: AddressShare,
    upgraded: Upgraded,
) -> impl Future<Output = ()> + Send + use<> {
    let (stream, write, received) = match upgraded.downcast::<TokioIo<Connection>>() {
        Ok(parts) => {
            let (read, write) = parts.io.into_inner().into_stream().into_split();
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
    let mut socket = Socket::new(
        realtime,
        serializer,
        session,
        (stream, write),
        request_id,
        address_share,
    );
    let (id, request_id) = (socket.id, &socket.request_id);
    // The span exists only at level debug, because it takes memory for each idle socket.
    let span = tracing::debug_span!("socket", %id, %request_id);
    if !received.is_empty() {
        socket.receive(&mut received.to_vec());
    }
    // Even an empty `received` keeps the handshake's read buffer of 16 KiB alive.
    drop(received);
    // Every idle socket occupies this future. It therefore consists of the socket and little else:
    // a function that took the socket by value, or variables that live across an await, would be
    // stored again next to it.
    async move {
        let end = poll_fn(|cx| socket.poll(cx)).await;
        socket.finish(end);
        if end == End::Closing {
            let closed = poll_fn(|cx| socket.poll_close(cx));
            // If the peer does not close its side in time, the connection is cut.
            let _ = Box::pin(tokio::time::timeout(CLOSE_TIMEOUT, closed)).await;
        }
    }
    .instrument(span)
}

/// The stream that the socket reads from.
enum Stream {
    /// A TCP connection. Any task may write to it through its other half.
    Tcp(OwnedReadHalf),
    /// Any other stream. Only the socket's task reads and writes it.
    Other(Box<dyn Io>),
}

impl Stream {
    /// Reads once. A read that does not fill the buffer has emptied the socket, so no second system
    /// call is needed to detect this.
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
    /// Work that runs concurrently with the socket, such as database queries. `None` if there is
    /// none.
    work: Option<FuturesUnordered<Work>>,
    timer: Pin<Box<Sleep>>,
    /// The deadline for which the timer was last set.
    timer_for: Option<UnixMillis>,
    last_received: Instant,
    /// The frame or message that the client has not finished, if any.
    unfinished: Option<Unfinished>,
    effects: Vec<Effect>,
    /// Number of frames queued for sockets in this turn, that is, in one call of [`Socket::poll`].
    queued_frames: u64,
    /// The id of the socket, under which the hub lists it.
    id: SocketId,
    /// When the socket was opened.
    opened: UnixMillis,
    /// The id of the handshake's request. It connects the log line about the end of the socket with
    /// the log line about the handshake.
    request_id: Box<str>,
    /// Counts the socket for its address.
    address_share: AddressShare,
}

/// Runs however the task ends, even after a panic, so that no socket stays listed after its end. A
/// socket that waits for its peer to close is still listed, because its queue takes memory.
impl Drop for Socket {
    fn drop(&mut self) {
        self.end_session();
        self.shared.hub.remove_socket(self.id);
    }
}

/// A frame, or a fragmented message, whose end has not arrived.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// The number of the frame; see [`FrameReader::unfinished`].
    frame: u64,
    /// The time by which the frame or message must be finished.
    ends: Instant,
}

/// The reason why reading and writing have ended.
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
        request_id: Box<str>,
        address_share: AddressShare,
    ) -> Self {
        let shared = Arc::clone(&realtime.shared);
        let config = &shared.config;
        let outbound = Outbound::new(write, shared.hub.sockets());
        let outbound = Arc::new(outbound.of_address(address_share.position()));
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
            queued_frames: 0,
            id: shared.hub.add_socket(&outbound),
            opened: UnixMillis::now(),
            request_id,
            address_share,
            outbound,
            shared,
        }
    }

    /// Ends the channels and reports the end of the socket. The channels end first, so that no more
    /// frames are queued for a socket that only waits to be closed.
    fn finish(&mut self, end: End) {
        self.end_session();
        let reason = match (end, self.outbound.closing()) {
            (End::Closing, Some(reason)) => reason.label(),
            _ => CloseLabel::Broken,
        };
        self.shared.hub.metrics().closed(reason).inc();
        let (socket, request_id) = (self.id, &self.request_id);
        let seconds = UnixMillis::now().since(self.opened).as_secs_f64();
        tracing::info!(%socket, %request_id, reason = reason.as_str(), seconds, "socket closed");
    }

    /// Ends the channels and releases everything except queued frames. A second call does nothing.
    fn end_session(&mut self) {
        self.session.end(&mut self.effects);
        self.work = None;
        self.run_effects();
        self.reader = FrameReader::default();
        self.outbound.release_all();
    }

    /// Handles the events of an open socket until it waits or ends, or until other tasks of the
    /// thread must run.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.outbound.register(cx.waker());
        self.queued_frames = 0;
        for _ in 0..MAX_READS_PER_TURN {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                tracing::debug!(%error, "cannot write to the socket");
                return Poll::Ready(End::Broken);
            }
            if self.outbound.closing().is_some() {
                return Poll::Ready(End::Closing);
            }
            self.poll_rechecks();
            self.poll_key_checks();
            self.poll_work(cx);
            // Deadlines may start new work. The work must be polled once, so that it registers this
            // task's waker.
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
                    tracing::debug!(%error, "cannot read from the socket");
                    return Poll::Ready(End::Broken);
                }
            }
            if self.queued_frames > MAX_FRAMES_PER_TURN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the frames that other tasks left for this one.
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
                        self.add_work(rest);
                    }
                    self.session
                        .complete(done.outcome, UnixMillis::now(), &mut self.effects);
                    self.run_effects();
                }
            }
        }
    }

    fn poll_rechecks(&mut self) {
        if self.outbound.take_recheck() {
            let hub = Arc::clone(&self.shared.hub);
            self.session
                .recheck(|channel| hub.take_recheck(channel), &mut self.effects);
            self.run_effects();
        }
    }

    fn poll_key_checks(&mut self) {
        if self.outbound.take_key_check() {
            self.session
                .keys_changed(UnixMillis::now(), &mut self.effects);
            self.run_effects();
        }
    }

    /// Handles the timer. Returns whether a deadline of the session was due.
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
                self.run_effects();
                return true;
            }
            self.set_timer();
        }
        false
    }

    /// Ensures that the timer does not fire too late. It may fire too early, which costs less than
    /// resetting it for every message.
    fn set_timer(&mut self) {
        let deadline = self.session.deadline();
        if deadline == std::mem::replace(&mut self.timer_for, deadline) {
            return;
        }
        let Some(deadline) = deadline else {
            return;
        };
        // One millisecond is added, because the wall clock is read in whole milliseconds.
        let wait = deadline.since(UnixMillis::now()) + Duration::from_millis(1);
        self.wake_by(Instant::now() + wait);
    }

    fn wake_by(&mut self, at: Instant) {
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    /// Reads once and handles the bytes. Returns their number, which is 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let count = ready!(self.stream.poll_read(cx, buffer))?;
            self.receive(&mut buffer[..count]);
            Poll::Ready(Ok(count))
        })
    }

    /// Handles every message that the received bytes complete. The resulting frames are then
    /// written together.
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
        self.run_effects();
        if let Err(error) = result {
            self.close_for_error(error);
        }
    }

    /// Records the memory and the deadline of an unfinished frame.
    fn note_unfinished(&mut self) {
        self.outbound
            .set_held(Held::Frames, self.reader.held_bytes());
        let frame = self.reader.unfinished();
        if frame != self.unfinished.map(|it| it.frame) {
            let ends = self.last_received + self.shared.config.frame_timeout;
            self.unfinished = frame.map(|frame| Unfinished { frame, ends });
            if frame.is_some() {
                self.wake_by(ends);
            }
        }
    }

    /// Returns the maximum size of a message that the client may send now, in bytes.
    fn frame_limit(&self) -> usize {
        let config = &self.shared.config;
        let limit = config.max_frame_bytes;
        if self.session.has_joined() {
            limit
        } else {
            limit.min(config.max_frame_bytes_before_join)
        }
    }

    /// Handles one message. Returns the maximum size of the next message.
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
                self.run_effects();
                self.outbound.close(CloseReason::Peer(*code));
                return ControlFlow::Break(());
            }
        };
        match message {
            Ok(message) => self.session.receive(&message, now, &mut self.effects),
            // A malformed message is dropped silently, as in Supabase Realtime (protocol 2.3).
            Err(_) => metrics.dropped(DropReason::Malformed),
        }
        ControlFlow::Continue(self.frame_limit())
    }

    fn close_for_error(&self, error: FrameError) {
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

    /// Executes the session's effects. Frames for this socket are written at the end, in one system
    /// call.
    fn run_effects(&mut self) {
        self.set_timer();
        self.outbound
            .set_held(Held::Channels, self.session.held_bytes());
        if self.effects.is_empty() {
            return;
        }
        let hub = Arc::clone(&self.shared.hub);
        let mut deliveries = hub.deliveries();
        // The vector is taken together with its allocation, because an idle socket owns no buffers.
        for effect in std::mem::take(&mut self.effects) {
            // Consecutive broadcasts are delivered together. All other effects are executed in
            // order.
            if !matches!(effect, Effect::Broadcast(_)) {
                deliveries.flush_batch();
            }
            match effect {
                Effect::Send(message) => {
                    deliveries.send(&self.outbound, self.serializer.encode(&message));
                }
                Effect::Close(reason) => self.outbound.close(reason),
                Effect::Broadcast(order) => {
                    let (message, except) = (order.message.borrow(), order.except);
                    if let Err(error) = deliveries.broadcast(&order.topic, &message, except) {
                        // The session has checked the broadcast, so this is a bug in the server.
                        tracing::error!(error = %Excerpt(&error), "cannot encode an accepted broadcast; dropping it");
                    }
                    if let Some(reply) = order.reply {
                        deliveries.acknowledge(&self.outbound, self.serializer.encode(&reply));
                    }
                }
                Effect::Attach(channel, spec) => {
                    hub.attach(channel, spec, self.serializer, &self.outbound);
                }
                Effect::SetReadPermissions(channel, read) => {
                    hub.set_read_permissions(channel, read)
                }
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
                    let work = self
                        .workshop
                        .subscribe(order, self.address_share.position());
                    self.add_work(work);
                }
                Effect::Authorize(order) => {
                    let work = self.workshop.authorize(order);
                    self.add_work(work);
                }
                Effect::Recheck(order) => {
                    let work = self.workshop.recheck(order);
                    self.add_work(work);
                }
                Effect::ReadStored(order) => {
                    let work = self.workshop.read_stored(order);
                    self.add_work(work);
                }
                Effect::Replay(channel, messages) => deliveries.replay(channel, &messages),
                Effect::Persist(order) => {
                    let work = self.workshop.persist(order);
                    self.add_work(work);
                }
                Effect::AwaitMessages(channel, topic) => {
                    let work = self.workshop.await_messages(channel, topic);
                    self.add_work(work);
                }
            }
        }
        deliveries.flush();
        self.queued_frames += deliveries.frames();
    }

    /// Adds a channel to the presence of its topic. Returns the reply.
    fn track(&self, order: TrackOrder) -> ServerMessage {
        let hub = &self.shared.hub;
        let limit = self.shared.config.max_presence_state_bytes;
        let mut reply = order.reply;
        match hub.track(order.channel, &order.key, order.payload, limit) {
            TrackResult::Changed | TrackResult::Unchanged => {}
            TrackResult::Full => {
                let refusal = PresenceRefusal::PresenceFull(limit);
                refusal.count(hub.metrics());
                reply.replace_reply(refusal.reply());
            }
        }
        reply
    }

    fn add_work(&mut self, work: Work) {
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
            // The peer closed first, so there is nothing more to wait for.
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
