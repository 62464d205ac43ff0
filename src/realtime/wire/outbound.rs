//! The outgoing side of one socket: its queue of frames, and how they are written.
//!
//! Guarantees: frames are written whole and in the order in which they were queued. The queue is
//! bounded, and a socket whose client does not read in time is closed instead of filling memory.
//! The task that queues a frame also writes it if the socket accepts it. The socket's own task
//! writes the rest.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::net::tcp::OwnedWriteHalf;
use uuid::Uuid;

use super::body::Body;
use super::close::CloseReason;
use super::frame::Frame;
pub use super::queue::QueueLimits;
use super::queue::{EAGER_FLUSH_FRAMES, MAX_CLOSING_BYTES, PendingRelease, Queue, retain};
use super::sockets::{Evict, Holdings, Registry};
use crate::observability::metrics::Held;

/// All open sockets of the process.
pub type Sockets = Registry<Outbound>;

/// The outgoing side of one socket.
#[derive(Debug)]
pub struct Outbound {
    /// The stream, if every task may write to it. If `None`, only the socket's own task writes.
    stream: Option<OwnedWriteHalf>,
    /// A plain mutex. It is held for a push or one non-blocking system call, never across an await.
    /// The system call is made under the lock, because bytes must be written in the order in which
    /// tasks took the lock. Otherwise two writers could interleave their frames.
    queue: Mutex<Queue>,
    /// Wakes the socket's task when something is left for it to do.
    task: AtomicWaker,
    /// The position of the client's address, if the address is known (see [`Evict::address`]).
    address: Option<u16>,
    /// The memory that this socket holds.
    holdings: Holdings,
    /// The registry that contains this socket while it is open. Changes of `holdings` are also
    /// reported to it.
    sockets: Arc<Sockets>,
    /// Set when the permissions of some of the socket's channels must be rechecked.
    needs_recheck: AtomicBool,
    /// Set when the keys of the socket's tokens must be checked.
    needs_key_check: AtomicBool,
}

/// The result of queueing a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The frame has been written.
    Written,
    /// The frame is queued, and the caller must flush.
    ToFlush,
    /// The frame is queued or held back, and the caller need not flush.
    Pending,
    /// The frame contains a row that the channel has received by replay, so it was dropped.
    AlreadyReplayed,
    /// The frame was dropped because the socket is closing or the channel has left.
    Refused,
    /// The queue was full, so the socket is now closing.
    Overflowed,
}

/// The gate of a channel. It holds back deliveries until the join is answered, then lets them
/// through, and drops them once the channel has left. Its state changes only under the lock of the
/// channel's [`Outbound`], so deliveries always follow the reply to the join.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    /// Locked only while the lock of the [`Outbound`] is held, so it is never contended.
    contents: Mutex<GateContents>,
}

#[derive(Debug, Default)]
struct GateContents {
    /// Deliveries that arrived before the join was answered. A delivery of a row has the row's id.
    held: Vec<(Option<Uuid>, Frame)>,
    /// Ids of messages that were replayed and whose rows have not arrived since. Searched from the
    /// start, because there are at most a few hundred.
    replayed: Vec<Uuid>,
}

impl GateContents {
    /// Returns whether the row was replayed. If so, removes its id, because a row arrives only
    /// once.
    fn take_replayed(&mut self, id: Option<Uuid>) -> bool {
        let place = id.and_then(|id| self.replayed.iter().position(|replayed| *replayed == id));
        place
            .map(|place| self.replayed.swap_remove(place))
            .is_some()
    }
}

impl Gate {
    const HELD: u8 = 0;
    const OPEN: u8 = 1;
    const CLOSED: u8 = 2;
}

/// The sockets for which a task has queued frames in one turn, that is, without awaiting in
/// between. At the end of the turn, everything queued for a socket is written in one system call.
/// Dropping this value flushes it.
#[derive(Debug, Default)]
pub struct Fanout {
    to_flush: Vec<Arc<Outbound>>,
}

impl Outbound {
    /// Creates the outgoing side of a socket that writes to `stream`. If `stream` is `None`, only
    /// the socket's task writes.
    pub fn new(stream: Option<OwnedWriteHalf>, sockets: &Arc<Sockets>) -> Self {
        Self {
            stream,
            queue: Mutex::default(),
            task: AtomicWaker::new(),
            address: None,
            holdings: Holdings::default(),
            sockets: Arc::clone(sockets),
            needs_recheck: AtomicBool::new(false),
            needs_key_check: AtomicBool::new(false),
        }
    }

    /// Sets the position of the client's address (see [`Evict::address`]).
    #[must_use]
    pub fn of_address(mut self, position: Option<u16>) -> Self {
        self.address = position;
        self
    }

    /// Wakes the socket's task to recheck its marked channels.
    pub fn request_recheck(&self) {
        self.needs_recheck.store(true, Ordering::SeqCst);
        self.task.wake();
    }

    /// Returns whether a recheck was requested since the last call.
    pub fn take_recheck(&self) -> bool {
        self.needs_recheck.load(Ordering::Relaxed)
            && self.needs_recheck.swap(false, Ordering::SeqCst)
    }

    /// Wakes the socket's task to check the keys of its tokens.
    pub fn request_key_check(&self) {
        self.needs_key_check.store(true, Ordering::SeqCst);
        self.task.wake();
    }

    /// Returns whether a check of the keys was requested since the last call.
    pub fn take_key_check(&self) -> bool {
        self.needs_key_check.load(Ordering::Relaxed)
            && self.needs_key_check.swap(false, Ordering::SeqCst)
    }

    /// Sets how much memory of the kind `held` the socket's task holds.
    pub fn set_held(&self, held: Held, bytes: usize) {
        if self.holdings.get(held) as usize != bytes {
            self.sockets.adjust(held, self.holdings.set(held, bytes));
        }
    }

    /// Records that the socket's task has released all its memory.
    pub fn release_all(&self) {
        self.set_held(Held::Frames, 0);
        self.set_held(Held::Channels, 0);
        if let Some(pending) = self.lock().pending_release.take() {
            self.sockets.note_released(pending.held, pending.bytes);
        }
    }

    /// Returns whether the connection is to be cut without sending anything more.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Registers the task to wake when something is left for it to do.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Returns why the socket is closing, or `None` if it is not.
    pub fn closing(&self) -> Option<CloseReason> {
        self.lock().closing
    }

    /// Closes the socket with a close frame. If the reason is a slow reader or the memory of
    /// queues, queued frames are dropped, except one that is partly written. Otherwise they are
    /// written first. Only the first reason counts.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.lock();
        queue.begin_close(reason);
        self.unlock_and_report(queue);
        self.task.wake();
    }

    /// Lets a channel's deliveries through from now on, starting with those that were held back.
    pub fn open_gate(&self, gate: &Gate) {
        let mut queue = self.lock();
        if gate.state.load(Ordering::Relaxed) == Gate::HELD {
            gate.state.store(Gate::OPEN, Ordering::Relaxed);
            let mut contents = gate.lock();
            let held = std::mem::take(&mut contents.held);
            queue.release(&held);
            for (id, frame) in held {
                if queue.closing.is_none() && !contents.take_replayed(id) {
                    queue.push(frame);
                }
            }
        }
        drop(queue);
        self.flush();
    }

    /// Drops all further deliveries to a channel.
    pub fn close_gate(&self, gate: &Gate) {
        let mut queue = self.lock();
        gate.state.store(Gate::CLOSED, Ordering::Relaxed);
        let contents = std::mem::take(&mut *gate.lock());
        queue.release(&contents.held);
        self.unlock_and_report(queue);
    }

    /// Records the ids of messages that were replayed to a channel, so that the channel does not
    /// receive them again as rows.
    pub fn note_replayed(&self, gate: &Gate, ids: Vec<Uuid>) {
        let _order = self.lock();
        gate.lock().replayed = ids;
    }

    /// Returns whether the queue contains frames that the socket did not accept.
    pub fn is_blocked(&self) -> bool {
        let queue = self.lock();
        queue.is_blocked && !queue.frames.is_empty()
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Writes as many queued frames as the socket accepts now. The socket's task writes the rest.
    pub fn flush(&self) {
        let mut queue = self.lock();
        queue.awaits_flush = false;
        if queue.frames.is_empty() {
            self.unlock_and_report(queue);
            return;
        }
        if let Some(stream) = &self.stream
            && !queue.is_blocked
        {
            // The socket's task receives the same error and ends the socket.
            let _ = queue.write(|slices| stream.try_write_vectored(slices));
        }
        let has_remainder = !queue.frames.is_empty();
        queue.is_blocked = has_remainder;
        queue.count();
        self.unlock_and_report(queue);
        if has_remainder {
            self.task.wake();
        }
    }

    /// Writes queued frames with `write`, which returns `WouldBlock` when the socket accepts no
    /// more bytes. Called by the socket's own task once the socket is writable.
    ///
    /// # Errors
    /// The errors of `write`, except `WouldBlock`.
    pub fn drain(&self, write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()> {
        let mut queue = self.lock();
        let result = queue.write(write);
        queue.is_blocked = !queue.frames.is_empty();
        queue.count();
        self.unlock_and_report(queue);
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    /// Writes `frames` immediately if the socket is not closing, the gate is open, the queue is
    /// empty and every task may write to the stream. Bytes that the socket does not accept are
    /// queued. In all other cases, works like [`Self::enqueue`].
    fn write(&self, gate: &Gate, frames: &Body) -> Queued {
        let mut queue = self.lock();
        if queue.closing.is_none()
            && queue.frames.is_empty()
            && gate.state.load(Ordering::Relaxed) == Gate::OPEN
            && let Some(stream) = &self.stream
        {
            // `send` is called without consulting the runtime's record of whether the socket is
            // writable. Reading that record costs one cache miss per receiver, which is 5 % of the
            // time of a broadcast to a thousand receivers, and the kernel knows the answer anyway.
            // The socket's task receives the same error and ends the socket.
            let written = SockRef::from(stream.as_ref()).send(frames).unwrap_or(0);
            if written == frames.len() {
                return Queued::Written;
            }
            queue.push(Frame::shared(frames.clone()));
            queue.bytes -= written;
            queue.written = written;
            queue.is_blocked = true;
            queue.count();
            self.unlock_and_report(queue);
            self.task.wake();
            return Queued::Pending;
        }
        drop(queue);
        self.enqueue(Some((gate, None)), Frame::shared(frames.clone()))
    }

    /// Queues `frame`. If a gate is given, the frame is held back or dropped according to its
    /// state. The id is given if the frame contains a row.
    fn enqueue(&self, gate: Option<(&Gate, Option<Uuid>)>, frame: Frame) -> Queued {
        let mut queue = self.lock();
        if queue.closing.is_some() {
            return Queued::Refused;
        }
        if let Some((gate, id)) = gate {
            match gate.state.load(Ordering::Relaxed) {
                Gate::OPEN if id.is_some() && gate.lock().take_replayed(id) => {
                    return Queued::AlreadyReplayed;
                }
                Gate::OPEN => {}
                Gate::HELD => return self.hold_back(gate, id, frame, queue),
                _ => return Queued::Refused,
            }
        }
        if queue.is_full(&frame, self.sockets.queue_limits()) {
            return self.overflow(queue);
        }
        queue.push(frame);
        if queue.is_blocked {
            queue.count();
            self.unlock_and_report(queue);
            return Queued::Pending;
        }
        if queue.frames.len() >= EAGER_FLUSH_FRAMES
            && let Some(stream) = &self.stream
        {
            let _ = queue.write(|slices| stream.try_write_vectored(slices));
            queue.count();
        }
        let queued = if std::mem::replace(&mut queue.awaits_flush, true) {
            Queued::Pending
        } else {
            Queued::ToFlush
        };
        self.unlock_and_report(queue);
        queued
    }

    fn hold_back(
        &self,
        gate: &Gate,
        id: Option<Uuid>,
        frame: Frame,
        mut queue: MutexGuard<'_, Queue>,
    ) -> Queued {
        if queue.is_full(&frame, self.sockets.queue_limits()) {
            return self.overflow(queue);
        }
        queue.held.frames += 1;
        queue.held.bytes += frame.wire_len();
        queue.budget_delta += retain(&frame);
        gate.lock().held.push((id, frame));
        self.unlock_and_report(queue);
        Queued::Pending
    }

    fn overflow(&self, mut queue: MutexGuard<'_, Queue>) -> Queued {
        queue.begin_close(CloseReason::SlowConsumer);
        self.unlock_and_report(queue);
        self.task.wake();
        Queued::Overflowed
    }

    /// Releases the lock of the queue, and reports a change in memory to the registry.
    fn unlock_and_report(&self, mut queue: MutexGuard<'_, Queue>) {
        let budget_delta = std::mem::take(&mut queue.budget_delta);
        if budget_delta != 0 {
            self.holdings.set(Held::Queues, queue.waiting_bytes());
            drop(queue);
            self.sockets.adjust(Held::Queues, budget_delta);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent even if a panic occurred while the lock was held, because every
        // change to it is complete before anything that can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let queue = self.queue.get_mut();
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.truncate(0);
        self.sockets.adjust(Held::Queues, queue.budget_delta);
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateContents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evict for Outbound {
    fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    fn address(&self) -> Option<u16> {
        self.address
    }

    fn evict(&self, held: Held) -> Option<i64> {
        let mut queue = self.lock();
        let was_closing = queue.closing.is_some();
        let mut bytes = 0;
        if held == Held::Queues {
            queue.begin_close(CloseReason::Memory(held));
            if was_closing || queue.bytes > MAX_CLOSING_BYTES {
                queue.cut();
            }
        } else if was_closing {
            return None;
        } else {
            bytes = i64::from(self.holdings.get(held));
            queue.pending_release = Some(Box::new(PendingRelease { held, bytes }));
            queue.begin_close(CloseReason::Memory(held));
        }
        self.unlock_and_report(queue);
        self.task.wake();
        Some(bytes)
    }
}

impl Fanout {
    /// Queues `frame` for a socket.
    pub fn send(&mut self, outbound: &Arc<Outbound>, frame: Frame) -> Queued {
        self.schedule_flush(outbound, outbound.enqueue(None, frame))
    }

    /// Queues `frame` for a channel. The frame is held back until the channel's join is answered,
    /// and dropped if the channel has left.
    pub fn deliver(&mut self, outbound: &Arc<Outbound>, gate: &Gate, frame: Frame) -> Queued {
        self.schedule_flush(outbound, outbound.enqueue(Some((gate, None)), frame))
    }

    /// Queues the frame of a row for a channel, unless the row was replayed to the channel.
    pub fn deliver_once(
        &mut self,
        outbound: &Arc<Outbound>,
        gate: &Gate,
        id: Uuid,
        frame: Frame,
    ) -> Queued {
        self.schedule_flush(outbound, outbound.enqueue(Some((gate, Some(id))), frame))
    }

    /// Does the same as [`Fanout::deliver`] with shared `frames`, but writes them immediately if no
    /// frame is queued.
    pub fn write(&mut self, outbound: &Arc<Outbound>, gate: &Gate, frames: &Body) -> Queued {
        self.schedule_flush(outbound, outbound.write(gate, frames))
    }

    fn schedule_flush(&mut self, outbound: &Arc<Outbound>, queued: Queued) -> Queued {
        if queued == Queued::ToFlush {
            self.to_flush.push(Arc::clone(outbound));
        }
        queued
    }

    /// Flushes the queues of these sockets.
    pub fn flush(&mut self) {
        for outbound in self.to_flush.drain(..) {
            outbound.flush();
        }
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
