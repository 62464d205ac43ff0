//! Rates of token buckets, and what clients see of a bucket.

/// One second in the time unit of the buckets, nanoseconds.
pub(super) const SECOND: u64 = 1_000_000_000;

/// The rates of a class. A request is admitted only if each rate has a token left.
pub type Rates = [Option<Rate>; 2];

/// The size of a bucket, and how fast it refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens in a full bucket.
    pub(super) burst: u64,
    /// Nanoseconds in which one token is refilled.
    pub(super) period: u64,
}

impl Rate {
    fn new(burst: u32, count: u32, seconds: u64) -> Option<Self> {
        let period = (seconds * SECOND).checked_div(count.into())?;
        Some(Self {
            burst: burst.into(),
            period,
        })
    }

    /// Allows `count` requests per second on average. Returns `None`, which means no limit, for a
    /// count of 0.
    pub fn per_second(burst: u32, count: u32) -> Option<Self> {
        Self::new(burst, count, 1)
    }

    /// Allows `count` requests per minute, and as many in a burst. Returns `None` for a count of 0.
    pub fn per_minute(count: u32) -> Option<Self> {
        Self::new(count, count, 60)
    }

    /// Returns the status at `now` of a bucket that is full at `full_at`.
    pub(super) fn status(self, full_at: u64, now: u64) -> LimitStatus {
        let missing = full_at.saturating_sub(now);
        LimitStatus {
            limit: self.burst,
            remaining: self.burst.saturating_sub(missing.div_ceil(self.period)),
            reset: missing.div_ceil(SECOND),
        }
    }
}

/// The status of a limit, as in `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LimitStatus {
    /// Size of the bucket.
    pub(super) limit: u64,
    /// Tokens left.
    pub(super) remaining: u64,
    /// Whole seconds until the bucket is full.
    pub(super) reset: u64,
}
