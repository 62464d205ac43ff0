//! What every measured message carries: when it was sent, in which lane, and its number there.
//!
//! A fixed text that no JSON encoder changes, so that receivers find it without parsing.

use memchr::memmem::Finder;

/// `@@`, then 16 hexadecimal digits of nanoseconds, 4 of the lane, 8 of the sequence number.
pub(crate) const LENGTH: usize = 30;

/// One message of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Nanoseconds from the epoch of the run to the moment of sending.
    pub(crate) sent_ns: u64,
    /// Whose sequence numbers these are: a topic's, or a writer's.
    pub(crate) lane: usize,
    /// Number within the lane, from 0.
    pub(crate) sequence: u32,
}

impl Marker {
    /// The text that goes into the message.
    pub(crate) fn text(self) -> String {
        let Self {
            sent_ns,
            lane,
            sequence,
        } = self;
        format!("@@{sent_ns:016x}{lane:04x}{sequence:08x}")
    }

    /// Every marker in `payload`, in order.
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

/// Finds where markers begin.
pub(crate) fn finder() -> Finder<'static> {
    Finder::new(b"@@")
}

/// The value of lower-case digits.
#[inline]
fn hexadecimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| {
        let low = u64::from(digit & 0xf);
        (value << 4) | if *digit >= b'a' { low + 9 } else { low }
    })
}
