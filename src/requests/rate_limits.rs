//! The rate limits of all users: token buckets per user and class of request.
//!
//! The buckets exist in the memory of one process. A full bucket is equivalent to no bucket, so
//! buckets that have become full again are dropped. The number of buckets therefore stays near the
//! number of users with requests in the last minutes.
//!
//! Pure except for [`RateLimits::now`]: the time is an argument.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use super::class::Class;
use super::rates::{LimitStatus, SECOND};

/// Number of buckets below which sweeping is not worthwhile.
const MIN_SWEPT: usize = 1024;

/// The refusal of a request for which no token is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LimitExceeded {
    /// The status of the exceeded limit.
    pub(super) status: LimitStatus,
    /// Whole seconds, rounded up, until a token is available.
    pub(super) retry_after: u64,
}

/// For each rate of a class, the time when its bucket is full again (the theoretical arrival time
/// of the generic cell rate algorithm). In contrast to a count of tokens, such a time does not have
/// to be refilled, and rounding errors do not add up.
type FullAt = [u64; 2];

/// The buckets of all users.
pub(super) struct RateLimits<C: Class> {
    started: Instant,
    settings: C::Settings,
    /// A standard mutex, held for a look-up or an occasional sweep and never across an await.
    buckets: Mutex<Buckets<C>>,
}

struct Buckets<C> {
    full_at: HashMap<(Uuid, C), FullAt>,
    /// Number of buckets at which full ones are dropped next: twice the number that the last sweep
    /// left, so that sweeping costs each new bucket a constant amount of work.
    sweep_at: usize,
}

impl<C: Class> RateLimits<C> {
    /// Creates full buckets for every class, with the rates of these settings.
    pub(super) fn new(settings: C::Settings) -> Self {
        Self {
            started: Instant::now(),
            settings,
            buckets: Mutex::new(Buckets {
                full_at: HashMap::new(),
                sweep_at: 0,
            }),
        }
    }

    /// Returns the nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a token of a class, if every rate of the class has one left.
    pub(super) fn take(&self, person: Uuid, class: C, now: u64) -> Result<(), LimitExceeded> {
        let rates = class.rates(&self.settings);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let before = buckets.full_at.get(&(person, class)).copied();
        let mut after = before.unwrap_or_default();
        let mut exceeded: Option<LimitExceeded> = None;
        for (full_at, rate) in after.iter_mut().zip(rates) {
            let Some(rate) = rate else { continue };
            let taken = (*full_at).max(now) + rate.period;
            let wait = taken.saturating_sub(now + rate.burst * rate.period);
            if wait > 0 {
                let exceeding = LimitExceeded {
                    status: rate.status(*full_at, now),
                    retry_after: wait.div_ceil(SECOND),
                };
                exceeded = exceeded
                    .filter(|other| other.retry_after >= exceeding.retry_after)
                    .or(Some(exceeding));
            }
            *full_at = taken;
        }
        if let Some(exceeded) = exceeded {
            return Err(exceeded);
        }
        buckets.full_at.insert((person, class), after);
        buckets.sweep(now);
        Ok(())
    }

    /// Puts back the token of a request that turned out to be free.
    pub(super) fn refund(&self, person: Uuid, class: C) {
        let rates = class.rates(&self.settings);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = buckets.full_at.get_mut(&(person, class)) {
            for (full_at, rate) in full_at.iter_mut().zip(rates) {
                *full_at = full_at.saturating_sub(rate.map_or(0, |rate| rate.period));
            }
        }
    }

    /// Returns the status of a class, by the rate with the fewest tokens left; `None` for a class
    /// without limits.
    pub(super) fn status(&self, person: Uuid, class: C, now: u64) -> Option<LimitStatus> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.full_at.get(&(person, class)).copied();
        drop(buckets);
        class
            .rates(&self.settings)
            .into_iter()
            .zip(full_at.unwrap_or_default())
            .filter_map(|(rate, full_at)| Some(rate?.status(full_at, now)))
            .min_by_key(|status| status.remaining)
    }
}

impl<C: Class> Buckets<C> {
    /// Drops full buckets, if there are many.
    fn sweep(&mut self, now: u64) {
        if self.full_at.len() < self.sweep_at.max(MIN_SWEPT) {
            return;
        }
        self.full_at
            .retain(|_, full_at| full_at.iter().any(|full_at| *full_at > now));
        self.full_at.shrink_to(2 * self.full_at.len());
        self.sweep_at = 2 * self.full_at.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::class::Exemption;
    use crate::requests::rates::{Rate, Rates};

    const ANA: Uuid = Uuid::from_u128(1);
    const BEN: Uuid = Uuid::from_u128(2);

    /// Classes with fixed rates.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    enum Kind {
        /// Ten at once, five per second, and at most 120 per minute.
        Message,
        /// Ten at once, and one per second.
        Signal,
        /// 30 per minute.
        Search,
        Unlimited,
    }

    impl Class for Kind {
        type Settings = ();
        const READ: Self = Self::Search;
        const WRITE: Self = Self::Message;

        fn label(self) -> &'static str {
            "test"
        }

        fn rates(self, (): &()) -> Rates {
            match self {
                Self::Message => [Rate::per_second(10, 5), Rate::per_minute(120)],
                Self::Signal => [Rate::per_second(10, 1), None],
                Self::Search => [Rate::per_minute(30), None],
                Self::Unlimited => [Rate::per_second(10, 0), Rate::per_minute(0)],
            }
        }

        fn exemption(self) -> Exemption {
            Exemption::Never
        }
    }

    fn limits() -> RateLimits<Kind> {
        RateLimits::new(())
    }

    #[test]
    fn bursts_are_followed_by_the_rate_and_limited_per_minute() {
        let limits = limits();
        let mut sent = 0;
        for tenth in 0..600 {
            while limits.take(ANA, Kind::Message, tenth * SECOND / 10).is_ok() {
                sent += 1;
            }
            match tenth {
                0 => assert_eq!(sent, 10),
                10 => assert_eq!(sent, 15),
                100 => assert_eq!(sent, 60),
                _ => {}
            }
        }
        // The burst, and the tokens that were refilled within the minute.
        assert_eq!(sent, 120 + 119);
        assert!(limits.take(BEN, Kind::Message, 0).is_ok(), "another user");
        assert!(limits.take(ANA, Kind::Search, 0).is_ok(), "another class");
    }

    #[test]
    fn a_request_after_retry_after_is_admitted() {
        let limits = limits();
        let mut now = 0;
        for step in 0..2_000_u64 {
            // Some requests at uneven intervals.
            now += step * 7_919_993 % (SECOND / 3);
            for class in [Kind::Message, Kind::Signal, Kind::Search] {
                let Err(exceeded) = limits.take(ANA, class, now) else {
                    continue;
                };
                assert!(exceeded.retry_after >= 1);
                assert_eq!(exceeded.status.remaining, 0);
                assert!(exceeded.status.reset >= exceeded.retry_after);
                if step % 10 == 0 {
                    now += exceeded.retry_after * SECOND;
                    assert_eq!(limits.take(ANA, class, now), Ok(()), "{class:?} {step}");
                }
            }
        }
    }

    #[test]
    fn the_status_counts_down_and_up() {
        let limits = limits();
        let status = |now| {
            let status = limits.status(ANA, Kind::Signal, now).unwrap();
            (status.limit, status.remaining, status.reset)
        };
        assert_eq!(status(0), (10, 10, 0));
        for _ in 0..3 {
            limits.take(ANA, Kind::Signal, 0).unwrap();
        }
        assert_eq!(status(0), (10, 7, 3));
        assert_eq!(status(SECOND - 1), (10, 7, 3));
        assert_eq!(status(SECOND), (10, 8, 2));
        limits.refund(ANA, Kind::Signal);
        assert_eq!(status(SECOND), (10, 9, 1));
        assert_eq!(status(60 * SECOND), (10, 10, 0));
    }

    #[test]
    fn classes_without_a_limit_have_no_status() {
        let limits = limits();
        for _ in 0..1000 {
            limits.take(ANA, Kind::Unlimited, 0).unwrap();
        }
        assert_eq!(limits.status(ANA, Kind::Unlimited, 0), None);
    }

    #[test]
    fn full_buckets_are_dropped() {
        let limits = limits();
        for person in 0..100_000_u64 {
            // A thousand users per second, whose buckets are full again after a second.
            let now = person * SECOND / 1000;
            let person = Uuid::from_u128(person.into());
            limits.take(person, Kind::Signal, now).unwrap();
        }
        let kept = limits.buckets.lock().unwrap().full_at.len();
        assert!(kept <= 3 * MIN_SWEPT, "{kept}");
    }
}
