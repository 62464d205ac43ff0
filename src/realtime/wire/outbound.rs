//! What waits to be written to one socket, and the writing of it.
//!
//! Guarantees: frames leave in the order in which they were queued, whole; the queue is bounded,
//! and a socket that does not read in time is closed instead of filling memory. A frame is
//! written by whoever queued it while the socket takes it; what it does not take is left to
//! the socket's own task.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use socket2::SockRef;
use tokio::net::tcp::OwnedWriteHalf;
use uuid::Uuid;

use super::super::error::CloseReason;
use super::body::Body;
use super::frame::Frame;
pub use super::queue::QueueLimits;
use super::queue::{EAGER_FLUSH_FRAMES, MAX_FAREWELL_BYTES, Queue, signed, wait};
use super::sockets::{Holdings, Sockets};
use crate::observability::metrics::Held;

/// One socket's way out.
#[derive(Debug)]
pub struct Outbound {
    /// The stream, where it can be written to from any task; otherwise only the socket's own
    /// task writes.
    stream: Option<OwnedWriteHalf>,
    limits: QueueLimits,
    /// A plain mutex: it is held for a push or one non-blocking system call, never across an
    /// await. The call is made under it because the order of bytes on the wire is the order in
    /// which this lock is taken; two writers outside of it could interleave their frames.
    queue: Mutex<Queue>,
    /// Wakes the socket's task when something is left for it to do.
    task: AtomicWaker,
    /// What the socket holds, and all sockets, which are told when that changes. They hold this one
    /// while it is open.
    holdings: Holdings,
    sockets: Arc<Sockets>,
    /// The permissions of some of the socket's channels must be rechecked.
    needs_recheck: AtomicBool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is written.
    Written,
    /// It waits, and whoever queued it is to flush.
    ToFlush,
    /// It waits, and somebody else is going to flush.
    Waits,
    /// The channel had it already, by replay.
    Repeated,
    /// The socket is closing.
    Refused,
    /// It was one too many: the socket is now closing.
    Overflowed,
}

/// Whether a channel's deliveries go through. Its state changes only under the lock of the
/// [`Outbound`] it belongs to, which is what puts a change after the reply to its join.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU8,
    /// Taken under the lock of the outbound, so never contended.
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// Deliveries made before the join was answered; those of rows with their id.
    held: Vec<(Option<Uuid>, Frame)>,
    /// Ids of messages that were replayed and have not come as rows. In no order: there are some
    /// hundred at most, and only while they may still come.
    replayed: Vec<Uuid>,
}

impl Inside {
    /// Whether the row was replayed. It comes once, so this forgets it.
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
    const SHUT: u8 = 2;
}

/// Deliveries of one turn: they are queued first and written once per socket when the turn
/// ends, all that has gathered for a socket in one system call. Dropping it flushes.
#[derive(Debug, Default)]
pub struct Fanout {
    listed: Vec<Arc<Outbound>>,
}

impl Outbound {
    /// A way out over `stream`, or one that only the socket's task writes to.
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

    /// What the socket holds.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// The socket's task holds so many bytes of a kind from here on.
    pub fn note_held(&self, held: Held, bytes: usize) {
        if self.holdings.get(held) != bytes {
            let before = self.holdings.set(held, bytes);
            self.sockets.change(held, signed(bytes) - signed(before));
        }
    }

    /// The socket's task holds nothing any more.
    pub fn let_go(&self) {
        self.note_held(Held::Frames, 0);
        self.note_held(Held::Channels, 0);
        if let Some((held, bytes)) = self.lock().leaving.take() {
            self.sockets.has_left(held, bytes);
        }
    }

    /// Ends the socket because all of them hold too much of a kind. Returns the bytes that its task is
    /// going to let go of; `None` where it has been told to go before.
    pub(super) fn evict(&self, held: Held) -> Option<i64> {
        let mut queue = self.lock();
        let was_closing = queue.closing.is_some();
        let mut leaving = 0;
        if held == Held::Queues {
            queue.begin_close(CloseReason::Memory(held));
            if was_closing || queue.bytes > MAX_FAREWELL_BYTES {
                queue.cut();
            }
        } else if was_closing {
            return None;
        } else {
            leaving = signed(self.holdings.get(held));
            queue.leaving = Some((held, leaving));
            queue.begin_close(CloseReason::Memory(held));
        }
        self.book(queue);
        self.task.wake();
        Some(leaving)
    }

    /// Whether the connection is to be cut without another word.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Wakes this task from now on when there is something to do for it.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Why the socket is closing, if it is.
    pub fn closing(&self) -> Option<CloseReason> {
        self.lock().closing
    }

    /// Ends the socket. What waits is dropped for a slow reader and still written otherwise;
    /// then comes the close frame. Only the first reason counts.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.lock();
        queue.begin_close(reason);
        self.book(queue);
        self.task.wake();
    }

    /// Lets the deliveries of a channel through from now on, those that were held first.
    pub fn open(&self, gate: &Gate) {
        let mut queue = self.lock();
        if gate.state.load(Ordering::Relaxed) == Gate::HELD {
            gate.state.store(Gate::OPEN, Ordering::Relaxed);
            let mut inside = gate.lock();
            let held = std::mem::take(&mut inside.held);
            queue.release(&held);
            for (id, frame) in held {
                if queue.closing.is_none() && !inside.take_replayed(id) {
                    queue.push(frame);
                }
            }
        }
        drop(queue);
        self.flush();
    }

    /// Lets nothing of a channel through any more.
    pub fn shut(&self, gate: &Gate) {
        let mut queue = self.lock();
        gate.state.store(Gate::SHUT, Ordering::Relaxed);
        let inside = std::mem::take(&mut *gate.lock());
        queue.release(&inside.held);
        self.book(queue);
    }

    /// These were replayed to the channel: as rows they are held back.
    pub fn note_replayed(&self, gate: &Gate, ids: Vec<Uuid>) {
        let _order = self.lock();
        gate.lock().replayed = ids;
    }

    /// Whether anything waits that the socket did not take.
    pub fn is_blocked(&self) -> bool {
        let queue = self.lock();
        queue.is_blocked && !queue.frames.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Writes what waits, as far as the socket takes it now. What is left is the socket's
    /// task's to write.
    pub fn flush(&self) {
        let mut queue = self.lock();
        queue.is_listed = false;
        if queue.frames.is_empty() {
            self.book(queue);
            return;
        }
        if let Some(stream) = &self.stream
            && !queue.is_blocked
        {
            // An error shows itself to the socket's task as well, which ends the socket.
            let _ = queue.write(|slices| stream.try_write_vectored(slices));
        }
        let has_rest = !queue.frames.is_empty();
        queue.is_blocked = has_rest;
        queue.count();
        self.book(queue);
        if has_rest {
            self.task.wake();
        }
    }

    /// Writes what waits with `write`, which returns `WouldBlock` when the socket takes no more.
    /// For the socket's own task, once the socket is writable.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn drain(&self, write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()> {
        let mut queue = self.lock();
        let result = queue.write(write);
        queue.is_blocked = !queue.frames.is_empty();
        queue.count();
        self.book(queue);
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    /// Writes `frames` at once if nothing waits and the socket takes them; queues them otherwise.
    fn write(&self, gate: &Gate, frames: &Body) -> Queued {
        let mut queue = self.lock();
        if queue.closing.is_none()
            && queue.frames.is_empty()
            && gate.state.load(Ordering::Relaxed) == Gate::OPEN
            && let Some(stream) = &self.stream
        {
            // Past the runtime's own record of whether the socket is writable: looking that up
            // misses the cache once per receiver, 5 % of a broadcast to a thousand, and the
            // kernel knows. An error shows itself to the socket's task as well, which ends the
            // socket.
            let written = SockRef::from(stream.as_ref()).send(frames).unwrap_or(0);
            if written == frames.len() {
                return Queued::Written;
            }
            queue.push(Frame::shared(frames.clone()));
            queue.bytes -= written;
            queue.written = written;
            queue.is_blocked = true;
            queue.count();
            self.book(queue);
            self.task.wake();
            return Queued::Waits;
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
                    return Queued::Repeated;
                }
                Gate::OPEN => {}
                Gate::HELD => return self.hold(gate, id, frame, queue),
                _ => return Queued::Refused,
            }
        }
        if queue.is_full(&frame, self.limits) {
            return self.overflow(queue);
        }
        queue.push(frame);
        if queue.is_blocked {
            queue.count();
            self.book(queue);
            return Queued::Waits;
        }
        if queue.frames.len() >= EAGER_FLUSH_FRAMES
            && let Some(stream) = &self.stream
        {
            let _ = queue.write(|slices| stream.try_write_vectored(slices));
            queue.count();
        }
        let queued = if std::mem::replace(&mut queue.is_listed, true) {
            Queued::Waits
        } else {
            Queued::ToFlush
        };
        self.book(queue);
        queued
    }

    fn hold(
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
        queue.owed += wait(&frame);
        gate.lock().held.push((id, frame));
        self.book(queue);
        Queued::Waits
    }

    fn overflow(&self, mut queue: MutexGuard<'_, Queue>) -> Queued {
        queue.begin_close(CloseReason::SlowConsumer);
        self.book(queue);
        self.task.wake();
        Queued::Overflowed
    }

    /// Lets go of the queue and tells the budget what has changed, if anything has that counts there.
    fn book(&self, mut queue: MutexGuard<'_, Queue>) {
        let owed = std::mem::take(&mut queue.owed);
        if owed != 0 {
            self.holdings.set(Held::Queues, queue.waiting_bytes());
            drop(queue);
            self.sockets.change(Held::Queues, owed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic while it was held leaves a queue that is still in order: every change to it
        // is complete before anything that can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let queue = self.queue.get_mut();
        let queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.truncate(0);
        self.sockets.change(Held::Queues, queue.owed);
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fanout {
    /// Queues `frame` for a socket.
    pub fn send(&mut self, outbound: &Arc<Outbound>, frame: Frame) -> Queued {
        self.note(outbound, outbound.enqueue(None, frame))
    }

    /// Queues `frame` for a channel: held while its join is not answered, dropped when it has
    /// left.
    pub fn deliver(&mut self, outbound: &Arc<Outbound>, gate: &Gate, frame: Frame) -> Queued {
        self.note(outbound, outbound.enqueue(Some((gate, None)), frame))
    }

    /// Queues the frame of a row for a channel, unless the row was replayed to it.
    pub fn deliver_once(
        &mut self,
        outbound: &Arc<Outbound>,
        gate: &Gate,
        id: Uuid,
        frame: Frame,
    ) -> Queued {
        self.note(outbound, outbound.enqueue(Some((gate, Some(id))), frame))
    }

    /// Writes `frames` for a channel now; queues them where other frames wait already.
    pub fn write(&mut self, outbound: &Arc<Outbound>, gate: &Gate, frames: &Body) -> Queued {
        self.note(outbound, outbound.write(gate, frames))
    }

    fn note(&mut self, outbound: &Arc<Outbound>, queued: Queued) -> Queued {
        if queued == Queued::ToFlush {
            self.listed.push(Arc::clone(outbound));
        }
        queued
    }

    /// Writes what was queued.
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
