//! The outgoing side of one socket: the queue of frames and the writing of them.
//!
//! Guarantees: frames are written whole and in the order in which they were queued. The queue is
//! bounded, and a socket that does not read in time is closed instead of filling memory. A frame is
//! written by the task that queued it if the socket accepts it; the socket's own task writes the
//! rest.

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
use super::queue::{EAGER_FLUSH_FRAMES, MAX_CLOSING_BYTES, Queue, retain, signed};
use super::sockets::{Evict, Holdings, Registry};
use crate::observability::metrics::Held;

/// All open sockets of the process.
pub type Sockets = Registry<Outbound>;

/// The outgoing side of one socket.
#[derive(Debug)]
pub struct Outbound {
    /// The stream, if every task may write to it. Otherwise only the socket's own task writes.
    stream: Option<OwnedWriteHalf>,
    limits: QueueLimits,
    /// A plain mutex: it is held for a push or one non-blocking system call, never across an await.
    /// The call is made under the lock because the bytes on the wire must have the order in which
    /// the lock was taken; two writers outside of it could interleave their frames.
    queue: Mutex<Queue>,
    /// Wakes the socket's task when there is work left for it.
    task: AtomicWaker,
    /// The memory that this socket holds, and the registry of all sockets, which is updated when
    /// that changes. The registry contains this socket while it is open.
    holdings: Holdings,
    sockets: Arc<Sockets>,
    /// The permissions of some of the socket's channels must be rechecked.
    needs_recheck: AtomicBool,
}

/// The result of queueing a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The frame has been written.
    Written,
    /// The frame is queued, and the caller must flush.
    ToFlush,
    /// The frame is queued, and another task will flush.
    Pending,
    /// The frame was dropped: the channel received it by replay.
    AlreadyReplayed,
    /// The frame was dropped: the socket is closing.
    Refused,
    /// The queue was full: the socket is now closing.
    Overflowed,
}

/// Whether deliveries to a channel are let through. The state only changes under the lock of the
/// [`Outbound`] that the gate belongs to, so deliveries always follow the reply to the join.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    /// Locked only while the lock of the outbound is held, so it is never contended.
    contents: Mutex<GateContents>,
}

#[derive(Debug, Default)]
struct GateContents {
    /// Deliveries made before the join was answered. Deliveries of rows have the row's id.
    held: Vec<(Option<Uuid>, Frame)>,
    /// Ids of messages that were replayed and have not arrived as rows. Unordered: there are at
    /// most some hundreds, and only while their rows may still arrive.
    replayed: Vec<Uuid>,
}

impl GateContents {
    /// Whether the row was replayed. A row arrives once, so its id is then removed.
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

/// The deliveries of one turn. They are queued first; at the end of the turn each socket is written
/// to once, with everything queued for it in one system call. Dropping this value flushes.
#[derive(Debug, Default)]
pub struct Fanout {
    listed: Vec<Arc<Outbound>>,
}

impl Outbound {
    /// Writes to `stream`, or only through the socket's task if there is none.
    pub fn new(
        stream: Option<OwnedWriteHalf>,
        limits: QueueLimits,
        sockets: &Arc<Sockets>,
    ) -> Self {
        Self {
            stream,
            limits,
            queue: Mutex::default(),
            task: AtomicWaker::new(),
            holdings: Holdings::default(),
            sockets: Arc::clone(sockets),
            needs_recheck: AtomicBool::new(false),
        }
    }

    /// Wakes the socket's task to recheck its marked channels.
    pub fn request_recheck(&self) {
        self.needs_recheck.store(true, Ordering::SeqCst);
        self.task.wake();
    }

    /// Whether a recheck was requested since the last call.
    pub fn take_recheck(&self) -> bool {
        self.needs_recheck.load(Ordering::Relaxed)
            && self.needs_recheck.swap(false, Ordering::SeqCst)
    }

    /// Sets the memory of a kind that the socket's task holds.
    pub fn set_held(&self, held: Held, bytes: usize) {
        if self.holdings.get(held) != bytes {
            let before = self.holdings.set(held, bytes);
            self.sockets.adjust(held, signed(bytes) - signed(before));
        }
    }

    /// Notes that the socket's task has released all its memory.
    pub fn release_all(&self) {
        self.set_held(Held::Frames, 0);
        self.set_held(Held::Channels, 0);
        if let Some((held, bytes)) = self.lock().pending_release.take() {
            self.sockets.note_released(held, bytes);
        }
    }

    /// Whether the connection is to be cut without sending anything more.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Registers the task to wake when there is work for it.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Why the socket is closing, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.lock().closing
    }

    /// Closes the socket with a close frame. Queued frames are dropped for a slow reader and
    /// written first otherwise. Only the first reason counts.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.lock();
        queue.begin_close(reason);
        self.unlock_and_report(queue);
        self.task.wake();
    }

    /// Lets a channel's deliveries through from now on, beginning with those that were held back.
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

    /// Records the ids of messages replayed to a channel, so that it does not receive them again as
    /// rows.
    pub fn note_replayed(&self, gate: &Gate, ids: Vec<Uuid>) {
        let _order = self.lock();
        gate.lock().replayed = ids;
    }

    /// Whether there are queued frames that the socket did not accept.
    pub fn is_blocked(&self) -> bool {
        let queue = self.lock();
        queue.is_blocked && !queue.frames.is_empty()
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Writes queued frames as far as the socket accepts them now. The socket's task writes the
    /// rest.
    pub fn flush(&self) {
        let mut queue = self.lock();
        queue.is_listed = false;
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
    /// more. Called by the socket's own task once the socket is writable.
    ///
    /// # Errors
    /// Those of the stream.
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

    /// Writes `frames` immediately if the queue is empty and the socket accepts them. Queues them
    /// otherwise.
    fn write(&self, gate: &Gate, frames: &Body) -> Queued {
        let mut queue = self.lock();
        if queue.closing.is_none()
            && queue.frames.is_empty()
            && gate.state.load(Ordering::Relaxed) == Gate::OPEN
            && let Some(stream) = &self.stream
        {
            // This bypasses the runtime's record of whether the socket is writable. Reading that
            // record misses the cache once per receiver, which is 5 % of a broadcast to a thousand,
            // and the kernel knows. The socket's task receives the same error and ends the socket.
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
        if queue.is_full(&frame, self.limits) {
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
        let queued = if std::mem::replace(&mut queue.is_listed, true) {
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
        if queue.is_full(&frame, self.limits) {
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

    /// Releases the lock of the queue and reports the change in memory to the budget, if there is
    /// any.
    fn unlock_and_report(&self, mut queue: MutexGuard<'_, Queue>) {
        let budget_delta = std::mem::take(&mut queue.budget_delta);
        if budget_delta != 0 {
            self.holdings.set(Held::Queues, queue.waiting_bytes());
            drop(queue);
            self.sockets.adjust(Held::Queues, budget_delta);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic while the lock was held leaves a consistent queue: every change to it is complete
        // before anything that can panic.
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

    fn evict(&self, held: Held) -> Option<i64> {
        let mut queue = self.lock();
        let was_closing = queue.closing.is_some();
        let mut pending_release = 0;
        if held == Held::Queues {
            queue.begin_close(CloseReason::Memory(held));
            if was_closing || queue.bytes > MAX_CLOSING_BYTES {
                queue.cut();
            }
        } else if was_closing {
            return None;
        } else {
            pending_release = signed(self.holdings.get(held));
            queue.pending_release = Some((held, pending_release));
            queue.begin_close(CloseReason::Memory(held));
        }
        self.unlock_and_report(queue);
        self.task.wake();
        Some(pending_release)
    }
}

impl Fanout {
    /// Queues `frame` for a socket.
    pub fn send(&mut self, outbound: &Arc<Outbound>, frame: Frame) -> Queued {
        self.schedule_flush(outbound, outbound.enqueue(None, frame))
    }

    /// Queues `frame` for a channel: held back until its join is answered, dropped after it has
    /// left.
    pub fn deliver(&mut self, outbound: &Arc<Outbound>, gate: &Gate, frame: Frame) -> Queued {
        self.schedule_flush(outbound, outbound.enqueue(Some((gate, None)), frame))
    }

    /// Queues the frame of a row for a channel, unless the row was replayed to that channel.
    pub fn deliver_once(
        &mut self,
        outbound: &Arc<Outbound>,
        gate: &Gate,
        id: Uuid,
        frame: Frame,
    ) -> Queued {
        self.schedule_flush(outbound, outbound.enqueue(Some((gate, Some(id))), frame))
    }

    /// Writes `frames` for a channel immediately, or queues them if other frames are queued
    /// already.
    pub fn write(&mut self, outbound: &Arc<Outbound>, gate: &Gate, frames: &Body) -> Queued {
        self.schedule_flush(outbound, outbound.write(gate, frames))
    }

    fn schedule_flush(&mut self, outbound: &Arc<Outbound>, queued: Queued) -> Queued {
        if queued == Queued::ToFlush {
            self.listed.push(Arc::clone(outbound));
        }
        queued
    }

    /// Writes all queued frames.
    pub fn flush(&mut self) {
        for outbound in self.listed.drain(..) {
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
