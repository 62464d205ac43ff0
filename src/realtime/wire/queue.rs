//! The queue of frames to be written to one socket, in order and bounded, and the part of it that
//! counts towards the budget for all queues. Pure: the caller passes a function that writes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use uuid::Uuid;

use super::close::CloseReason;
use super::frame::Frame;
use crate::observability::metrics::Held;

/// Buffers per vectored write: a frame has up to three. Linux accepts at most 1024.
const MAX_SLICES: usize = 192;

/// Maximum number of frames that accumulate while a list of deliveries is queued. At this number
/// they are written without waiting for the end of the list. Otherwise a large transaction would
/// make the client look like a slow reader.
pub(super) const EAGER_FLUSH_FRAMES: usize = MAX_SLICES / 3;

/// Maximum remaining bytes of a partly written frame when its socket is closed for memory. A longer
/// rest would occupy memory until the peer reads it or the time for the close handshake is over, so
/// the connection is cut instead.
pub(super) const MAX_CLOSING_BYTES: usize = 64 * 1024;

/// Maximum size of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Frames.
    pub frames: usize,
    /// Bytes. A single frame may be larger if the queue is otherwise empty.
    pub bytes: usize,
}

/// The queue. It is protected by the lock of [`Outbound`](super::outbound::Outbound), which also
/// reports `budget_delta` to the budget.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) frames: VecDeque<Frame>,
    /// Bytes in `frames`, without the written part of the first frame.
    pub(super) bytes: usize,
    /// Bytes of the first frame that have been written.
    pub(super) written: usize,
    /// Frames that the gates of all channels hold back. They share the limits of this queue.
    pub(super) held: HeldFrames,
    /// Frames at the front that count towards the budget for all queues. Frames behind them are
    /// about to be written. Frames held back by gates always count.
    pub(super) counted: usize,
    /// Bytes to report to the budget when the lock is released.
    pub(super) budget_delta: i64,
    /// Set when the socket is closed for memory that its task holds: the kind and the bytes that
    /// the task will release.
    pub(super) pending_release: Option<(Held, i64)>,
    /// Nothing more is written, not even a close frame.
    pub(super) is_cut: bool,
    /// The socket currently accepts no more bytes. The socket's task writes when it does again.
    pub(super) is_blocked: bool,
    /// On the list of a [`Fanout`](super::outbound::Fanout), which will flush it.
    pub(super) is_listed: bool,
    /// Set once. From then on only the close frame is accepted.
    pub(super) closing: Option<CloseReason>,
}

/// Size of the deliveries that gates hold back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldFrames {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

impl Queue {
    /// Whether another frame does not fit. A frame of any size fits into an empty queue.
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

    /// Counts the frames that are not counted yet: the socket has not accepted them.
    pub(super) fn count(&mut self) {
        for frame in self.frames.range(self.counted..) {
            self.budget_delta += retain(frame);
        }
        self.counted = self.frames.len();
    }

    /// Drops all frames but the first `left`. At most one of the remaining frames may be partly
    /// written.
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

    /// Drops all frames and stops all writing.
    pub(super) fn cut(&mut self) {
        self.truncate(0);
        (self.bytes, self.written) = (0, 0);
        self.is_cut = true;
    }

    /// Approximate memory of everything queued, including shared bytes. The largest sockets are
    /// found by it.
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
            // A partly written frame must be finished. Otherwise the peer would read the close
            // frame as its continuation.
            self.truncate(usize::from(self.written > 0));
        }
        let frame = match reason.frame_parts() {
            Some((code, text)) => Frame::close(code, text),
            None => Frame::close_without_code(),
        };
        self.push(frame);
        self.count();
        // The socket's task writes it, because that task handles the end of the socket anyway.
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

    /// Removes `wrote` bytes from the front.
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

/// Uncounts a queued frame. Returns the memory that this frees.
fn release(frame: &Frame) -> i64 {
    signed(frame.own_bytes() + frame.body().release())
}

/// The signed type that the budgets use. No machine has more memory than fits into it.
pub(super) fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
