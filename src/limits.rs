//! Rate limits of clients, and the time type that they use.
//!
//! All functions except [`UnixMillis::now`] are pure: the time is an argument.

use std::time::Duration;

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Returns the current time.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }

    /// Converts a time in whole seconds, as in tokens.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Returns whole seconds, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the duration since `earlier`; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns this time plus a duration.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// Returns this time minus a duration.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

/// A token bucket that allows bursts of `burst`, and `per_second` on average. It has only sixteen
/// bytes, because every socket has one.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Available permits in thousandths.
    available: u32,
    refilled: UnixMillis,
}

impl Bucket {
    /// Creates a full bucket.
    pub fn full(burst: u32, now: UnixMillis) -> Self {
        Self {
            available: burst.saturating_mul(1000),
            refilled: now,
        }
    }

    /// Takes one permit, if available.
    pub fn take(&mut self, burst: u32, per_second: u32, now: UnixMillis) -> bool {
        // One permit per second is one thousandth of a permit per millisecond.
        let elapsed = u32::try_from(now.since(self.refilled).as_millis()).unwrap_or(u32::MAX);
        self.available = self
            .available
            .saturating_add(elapsed.saturating_mul(per_second))
            .min(burst.saturating_mul(1000));
        self.refilled = now;
        let Some(rest) = self.available.checked_sub(1000) else {
            return false;
        };
        self.available = rest;
        true
    }

    /// Returns the time from the last call of [`Self::take`] until the next permit is available.
    pub fn wait(&self, per_second: u32) -> Duration {
        let missing = 1000_u32.saturating_sub(self.available);
        Duration::from_millis(missing.div_ceil(per_second.max(1)).into())
    }
}

/// A fixed window. Its first call opens it, and it allows `max` calls until `length` has passed.
/// The next call after that opens a new window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    opened: UnixMillis,
    calls: u32,
}

impl Window {
    /// Creates a window without calls.
    pub fn new(now: UnixMillis) -> Self {
        Self {
            opened: now,
            calls: 0,
        }
    }

    /// Counts one call. Returns whether it is allowed.
    pub fn take(&mut self, max: u32, length: Duration, now: UnixMillis) -> bool {
        // A clock that was set back must not keep a window open.
        if self.calls == 0 || now < self.opened || now.since(self.opened) >= length {
            *self = Self::new(now);
        }
        let is_allowed = self.calls < max;
        self.calls += u32::from(is_allowed);
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_limits_calls_and_opens_again() {
        let mut window = Window::new(UnixMillis(0));
        let length = Duration::from_millis(100);
        for (at, expected) in [
            (1_000, true),
            (1_050, true),
            (1_099, false),
            (1_100, true),
            (1_199, true),
            (1_199, false),
            // The clock is set back.
            (500, true),
        ] {
            assert_eq!(window.take(2, length, UnixMillis(at)), expected, "{at}");
        }
        assert!(!Window::new(UnixMillis(0)).take(0, length, UnixMillis(0)));
    }

    #[test]
    fn a_bucket_allows_a_burst_and_then_the_rate() {
        let start = UnixMillis(1_000_000);
        let mut bucket = Bucket::full(3, start);
        assert_eq!(bucket.wait(2), Duration::ZERO);
        let mut taken = |millis: i64| bucket.take(3, 2, UnixMillis(start.0 + millis));
        // (milliseconds after the start, allowed)
        for (at, expected) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (499, false),
            (500, true),
            (999, false),
            (1_000, true),
            (60_000, true),
            (60_000, true),
            (60_000, true),
            (60_000, false),
            // A clock that was set back neither adds nor removes permits.
            (10, false),
        ] {
            assert_eq!(taken(at), expected, "at {at} ms");
        }
        // 90 ms at two per second are 0.18 of a permit, so 0.82 are missing.
        assert!(!taken(100));
        assert_eq!(bucket.wait(2), Duration::from_millis(410));
    }

    #[test]
    fn times_are_counted_in_milliseconds() {
        let time = UnixMillis::from_seconds(10);
        assert_eq!(time.before(Duration::from_secs(3)), UnixMillis(7_000));
        assert_eq!(UnixMillis(7_999).seconds(), 7);
        assert_eq!(UnixMillis(7_000).since(time), Duration::ZERO);
        assert_eq!(time.since(UnixMillis(7_000)), Duration::from_secs(3));
    }
}
