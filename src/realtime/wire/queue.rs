//! What waits to be written to one socket: whole frames in order, bounded, and what of it counts in the budget of all
//! queues. Pure: writing is a function of the caller's.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use uuid::Uuid;

use super::super::error::CloseReason;
use super::frame::Frame;
use crate::observability::metrics::Held;

/// Buffers handed to one vectored write: a frame has up to three. Linux takes at most 1024.
const MAX_SLICES: usize = 192;

/// Frames that gather on a list of deliveries before they are written without waiting for its
/// end, so that a large transaction does not look like a slow reader.
pub(super) const EAGER_FLUSH_FRAMES: usize = MAX_SLICES / 3;

/// Bytes of a begun frame that a socket closed for its memory may still take. More would stay until
/// the peer reads it or the time for a farewell is over, so the connection is cut instead.
pub(super) const MAX_FAREWELL_BYTES: usize = 64 * 1024;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Frames.
    pub frames: usize,
    /// Bytes; one frame may be larger when it waits alone.
    pub bytes: usize,
}

/// The queue. Its lock is the [`Outbound`](super::outbound::Outbound)'s, which also tells the budget what it owes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) frames: VecDeque<Frame>,
    /// Bytes in `frames`, without what was written of the first.
    pub(super) bytes: usize,
    /// Bytes of the first frame that are written already.
    pub(super) written: usize,
    /// What the gates of all channels hold: it is bounded together with what waits here.
    pub(super) held: HeldBack,
    /// Frames at the front that count in the budget of all queues, as does all that gates hold. Those
    /// behind are about to be written.
    pub(super) counted: usize,
    /// What the budget is to be told when the lock is let go.
    pub(super) owed: i64,
    /// What the socket's task is to let go of, where the socket was closed for it.
    pub(super) leaving: Option<(Held, i64)>,
    /// Nothing is written any more, not even a close frame.
    pub(super) is_cut: bool,
    /// The socket takes no more for now: the socket's task writes when it does again.
    pub(super) is_blocked: bool,
    /// On the list of a [`Fanout`](super::outbound::Fanout), which will flush it.
    pub(super) is_listed: bool,
    /// Set once: nothing is accepted any more but the close frame.
    pub(super) closing: Option<CloseReason>,
}

/// Deliveries that are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldBack {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

impl Queue {
    /// Whether there is no room for another frame. One that would be alone may have any size.
    pub(super) fn is_full(&self, frame: &Frame, limits: QueueLimits) -> bool {
        let frames = self.frames.len() + self.held.frames;
        let bytes = self.bytes + self.held.bytes + frame.wire_len();
        frames > 0 && (frames >= limits.frames || bytes > limits.bytes)
    }

    /// These are held no longer.
    pub(super) fn release(&mut self, held: &[(Option<Uuid>, Frame)]) {
        for (_, frame) in held {
            self.held.frames -= 1;
            self.held.bytes -= frame.wire_len();
            self.owed -= released(frame);
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += frame.wire_len();
        self.frames.push_back(frame);
    }

    /// Counts all frames from here on: the socket has not taken them.
    pub(super) fn count(&mut self) {
        for frame in self.frames.range(self.counted..) {
            self.owed += wait(frame);
        }
        self.counted = self.frames.len();
    }

    /// Drops all frames but the first `left`, of which no more than one may have been begun.
    pub(super) fn truncate(&mut self, left: usize) {
        while self.frames.len() > left
            && let Some(frame) = self.frames.pop_back()
        {
            if self.counted > self.frames.len() {
                self.counted -= 1;
                self.owed -= released(&frame);
            }
        }
        let begun = self.frames.front().map_or(0, Frame::wire_len);
        self.bytes = begun.saturating_sub(self.written);
    }

    /// Drops everything: nothing is written any more.
    pub(super) fn cut(&mut self) {
        self.truncate(0);
        (self.bytes, self.written) = (0, 0);
        self.is_cut = true;
    }

    /// What all that waits takes, shared or not, roughly: by this the largest are found.
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
            // A frame that was begun must be finished: the peer would read the close frame as
            // its continuation.
            self.truncate(usize::from(self.written > 0));
        }
        let frame = match reason.frame_parts() {
            Some((code, text)) => Frame::close(code, text),
            None => Frame::close_without_code(),
        };
        self.push(frame);
        self.count();
        // The socket's task writes it: it has to see the end through anyway.
        self.is_blocked = true;
    }

    /// Writes until everything is written or `write` fails.
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

    /// Takes `wrote` bytes off the front.
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
                self.owed -= released(first);
            }
            self.frames.pop_front();
        }
        // An idle socket owns no buffers.
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}

/// A frame counts as waiting from here on; the memory that this adds.
pub(super) fn wait(frame: &Frame) -> i64 {
    signed(frame.own_bytes() + frame.body().wait())
}

/// A frame that counted as waiting does so no longer; the memory that this frees.
fn released(frame: &Frame) -> i64 {
    signed(frame.own_bytes() + frame.body().release())
}

/// As the budgets count. No memory has as many bytes as do not fit.
pub(super) fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
