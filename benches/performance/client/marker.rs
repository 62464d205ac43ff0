//! The marker in every measured message: send time, lane, and sequence number within the lane. A
//! lane is a stream of messages with its own sequence numbers: those of one topic or writer.
//!
//! A marker is a fixed-length text that no JSON encoder changes, so receivers find it without
//! parsing.

use memchr::memmem::Finder;

/// Length in bytes: `@@`, then 16 hexadecimal digits of nanoseconds, 4 of the lane, 8 of the
/// sequence number.
pub(crate) const LENGTH: usize = 30;

/// The identity of a message in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Send time in nanoseconds since the epoch of the run.
    pub(crate) sent_ns: u64,
    /// The lane that the sequence number belongs to: a topic or a writer.
    pub(crate) lane: usize,
    /// Sequence number within the lane.
    pub(crate) sequence: u32,
}

impl Marker {
    /// Returns the marker as text.
    pub(crate) fn text(self) -> String {
        let Self {
            sent_ns,
            lane,
            sequence,
        } = self;
        format!("@@{sent_ns:016x}{lane:04x}{sequence:08x}")
    }

    /// Returns all markers in `payload`, in order.
    #[inline]
    pub(crate) fn all_in<'a>(
        finder: &'a Finder<'static>,
        payload: &'a [u8],
    ) -> impl Iterator<Item = Self> + 'a {
        finder.find_iter(payload).filter_map(|at| {
            let digits = payload.get(at + 2..at + LENGTH)?;
            Some(Self {
                sent_ns: hexadecimal(&digits[..16]),
                lane: hexadecimal(&digits[16..20]) as usize,
                sequence: hexadecimal(&digits[20..]) as u32,
            })
        })
    }
}

/// Returns a searcher for the start of markers.
pub(crate) fn finder() -> Finder<'static> {
    Finder::new(b"@@")
}

/// Parses lower-case hexadecimal digits.
#[inline]
fn hexadecimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| {
        let low = u64::from(digit & 0xf);
        (value << 4) | if *digit >= b'a' { low + 9 } else { low }
    })
}
