//! The bounded queue of frames to be written to one socket, in order. It also tracks which of its
//! frames count towards the memory budget for all queues. It does no I/O: the caller passes a
//! function that writes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use uuid::Uuid;

use super::close::CloseReason;
use super::frame::Frame;
use crate::observability::metrics::Held;

/// Maximum number of buffers per vectored write. A frame has up to three. Linux accepts up to 1024.
const MAX_SLICES: usize = 192;

/// Maximum number of frames that accumulate for one socket during a turn of a
/// [`Fanout`](super::outbound::Fanout). Once a queue has this many frames, they are written without
/// waiting for the end of the turn. Otherwise a large transaction would make the client look like a
/// slow reader.
pub(super) const EAGER_FLUSH_FRAMES: usize = MAX_SLICES / 3;

/// Maximum number of bytes that may remain to be written when a socket is closed to free the memory
/// of queues. They belong to a partly written frame and the close frame. If more bytes remain, the
/// connection is cut instead. Otherwise they would occupy memory until the peer reads them or the
/// time for the close handshake is over.
pub(super) const MAX_CLOSING_BYTES: usize = 64 * 1024;

/// The maximum size of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Maximum number of frames.
    pub frames: usize,
    /// Maximum number of bytes. A single frame may be larger if the queue is otherwise empty.
    pub bytes: usize,
}

/// The queue of one socket. It is protected by the lock of [`Outbound`](super::outbound::Outbound),
/// which also reports `budget_delta` to the budget.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) frames: VecDeque<Frame>,
    /// Bytes in `frames`, excluding the written bytes of the first frame.
    pub(super) bytes: usize,
    /// Bytes of the first frame that have been written.
    pub(super) written: usize,
    /// The size of the frames that the gates of all channels hold back. These frames share the
    /// limits of this queue.
    pub(super) held: HeldFrames,
    /// Number of frames at the front that count towards the budget for all queues. The frames
    /// behind them are about to be written. Frames held back by gates always count.
    pub(super) counted: usize,
    /// Change in bytes to report to the budget when the lock is released.
    pub(super) budget_delta: i64,
    /// Set when the socket is closed for memory that its task holds. Boxed, because it is needed
    /// only once in the life of few sockets.
    pub(super) pending_release: Option<Box<PendingRelease>>,
    /// Set when nothing more is written, not even a close frame.
    pub(super) is_cut: bool,
    /// Set while only the socket's task writes: either the socket accepts no more bytes at present,
    /// or a close frame is queued.
    pub(super) is_blocked: bool,
    /// Set while the socket is on the list of a [`Fanout`](super::outbound::Fanout), which will
    /// flush the queue.
    pub(super) awaits_flush: bool,
    /// The reason why the socket is closing. Set once; no frame is accepted after the close frame.
    pub(super) closing: Option<CloseReason>,
}

/// The memory that a socket's task will release, because the socket is closed for it.
#[derive(Debug)]
pub(super) struct PendingRelease {
    pub(super) held: Held,
    pub(super) bytes: i64,
}

/// The total size of the deliveries that gates hold back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldFrames {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

impl Queue {
    /// Returns whether there is no room for another frame. A frame of any size fits into an empty
    /// queue.
    pub(super) fn is_full(&self, frame: &Frame, limits: QueueLimits) -> bool {
        let frames = self.frames.len() + self.held.frames;
        let bytes = self.bytes + self.held.bytes + frame.wire_len();
        frames > 0 && (frames >= limits.frames || bytes > limits.bytes)
    }

    /// Subtracts deliveries that a gate no longer holds back.
    pub(super) fn release(&mut self, held: &[(Option<Uuid>, Frame)]) {
        for (_, frame) in held {
            self.held.frames -= 1;
            self.held.bytes -= frame.wire_len();
            self.budget_delta -= release(frame);
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += frame.wire_len();
        self.frames.push_back(frame);
    }

    /// Counts the frames that are not counted yet. Called when the socket does not accept them.
    pub(super) fn count(&mut self) {
        for frame in self.frames.range(self.counted..) {
            self.budget_delta += retain(frame);
        }
        self.counted = self.frames.len();
    }

    /// Drops all frames except the first `left`: none, or the one that is partly written.
    pub(super) fn truncate(&mut self, left: usize) {
        while self.frames.len() > left
            && let Some(frame) = self.frames.pop_back()
        {
            if self.counted > self.frames.len() {
                self.counted -= 1;
                self.budget_delta -= release(&frame);
            }
        }
        let begun = self.frames.front().map_or(0, Frame::wire_len);
        self.bytes = begun.saturating_sub(self.written);
    }

    /// Drops all frames and ends all writing.
    pub(super) fn cut(&mut self) {
        self.truncate(0);
        (self.bytes, self.written) = (0, 0);
        self.is_cut = true;
    }

    /// Returns the approximate memory of everything queued, including shared bytes. The registry
    /// finds the largest sockets by this value.
    pub(super) fn waiting_bytes(&self) -> usize {
        let frames = self.frames.len() + self.held.frames;
        self.bytes + self.held.bytes + frames * Frame::OVERHEAD_BYTES
    }

    pub(super) fn begin_close(&mut self, reason: CloseReason) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(reason);
        if reason.drops_queue() {
            // A partly written frame must be finished. Otherwise the peer would take the close
            // frame for its remainder.
            self.truncate(usize::from(self.written > 0));
        }
        let frame = match reason.frame_parts() {
            Some((code, text)) => Frame::close(code, text),
            None => Frame::close_without_code(),
        };
        self.push(frame);
        self.count();
        // The socket's task writes the close frame, because that task handles the end of the socket
        // anyway.
        self.is_blocked = true;
    }

    /// Writes until the queue is empty or `write` fails.
    pub(super) fn write(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !self.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            let mut skip = self.written;
            'frames: for frame in &self.frames {
                for part in frame.parts() {
                    let skipped = skip.min(part.len());
                    skip -= skipped;
                    if skipped < part.len() {
                        slices[count] = IoSlice::new(&part[skipped..]);
                        count += 1;
                        if count == MAX_SLICES {
                            break 'frames;
                        }
                    }
                }
            }
            let wrote = write(&slices[..count])?;
            if wrote == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.advance(wrote);
        }
        Ok(())
    }

    /// Removes `wrote` bytes from the front of the queue.
    fn advance(&mut self, wrote: usize) {
        self.bytes = self.bytes.saturating_sub(wrote);
        self.written += wrote;
        while let Some(first) = self.frames.front() {
            let length = first.wire_len();
            if self.written < length {
                break;
            }
            self.written -= length;
            if self.counted > 0 {
                self.counted -= 1;
                self.budget_delta -= release(first);
            }
            self.frames.pop_front();
        }
        // An idle socket owns no buffers.
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}

/// Counts a frame as queued. Returns the memory that this adds.
pub(super) fn retain(frame: &Frame) -> i64 {
    signed(frame.own_bytes() + frame.body().retain())
}

/// Reverts one call of [`retain`]. Returns the memory that this frees.
fn release(frame: &Frame) -> i64 {
    signed(frame.own_bytes() + frame.body().release())
}

/// Converts to the signed type that the budgets use. No machine has more memory than fits into it.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
