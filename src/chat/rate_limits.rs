//! Rate limits: token buckets per user and class of request.
//!
//! The buckets exist in the memory of one process. A full bucket is equivalent to none, so buckets
//! that have become full again are dropped. The number of buckets stays near the number of users
//! with requests in the last minutes.
//!
//! Pure except for [`RateLimits::now`]: the time is an argument.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::Method;
use uuid::Uuid;

use super::BASE_PATH;
use crate::config::ChatLimitsConfig;

/// One second in the time unit of this file, nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Number of buckets below which sweeping is not worthwhile.
const MIN_SWEPT: usize = 1024;

/// Classes of requests that share a limit. The names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Sending messages.
    Send,
    /// Opening new conversations.
    Open,
    /// Marking as read or delivered.
    MarkRead,
    /// Reporting that the caller is typing.
    Typing,
    /// Searching.
    Search,
    /// Every other write.
    Write,
    /// Every other read.
    Read,
    /// Error reports of clients.
    ClientErrors,
}

impl Class {
    /// The class of a request, by the pattern of its route; `None` for requests without a limit.
    pub(super) fn of(method: &Method, route: &str) -> Option<Self> {
        let route = route.strip_prefix(BASE_PATH).unwrap_or(route);
        Some(match (method.as_str(), route) {
            // The settings are public and cached in memory.
            ("OPTIONS", _) | (_, "/config") => return None,
            ("POST", "/messages") => Self::Send,
            ("POST", "/conversations") => Self::Open,
            ("PATCH" | "PUT", "/messages")
            | (
                "POST",
                "/messages/read"
                | "/messages/mark-read"
                | "/conversations/{id}/read"
                | "/conversations/{id}/delivered",
            ) => Self::MarkRead,
            ("POST", "/conversations/{id}/typing") | ("POST" | "PUT", "/presence/typing") => {
                Self::Typing
            }
            ("POST", "/client-errors") => Self::ClientErrors,
            ("GET" | "HEAD", "/search") => Self::Search,
            ("GET" | "HEAD", _) => Self::Read,
            _ => Self::Write,
        })
    }

    /// The label in the metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Open => "open",
            Self::MarkRead => "mark_read",
            Self::Typing => "typing",
            Self::Search => "search",
            Self::Write => "write",
            Self::Read => "read",
            Self::ClientErrors => "client_errors",
        }
    }
}

/// The size of a bucket, and how fast it refills.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u64,
    /// Time in which one token is refilled.
    period: u64,
}

impl Rate {
    /// On average `count` requests in `seconds`; `None` for a count of 0, which means no limit.
    fn new(burst: u32, count: u32, seconds: u64) -> Option<Self> {
        let period = (seconds * SECOND).checked_div(count.into())?;
        Some(Self {
            burst: burst.into(),
            period,
        })
    }

    /// A burst as large as the number per minute.
    fn per_minute(count: u32) -> Option<Self> {
        Self::new(count, count, 60)
    }

    /// The status at `now` of a bucket that is full at `full_at`.
    fn status(self, full_at: u64, now: u64) -> LimitStatus {
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

/// No token is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LimitExceeded {
    /// The status of the exceeded limit.
    pub(super) status: LimitStatus,
    /// Whole seconds, rounded up, until a token is available.
    pub(super) retry_after: u64,
}

/// For each rate of a class, the time when its bucket is full again (the theoretical arrival time
/// of the generic cell rate algorithm). A single number, which neither drifts nor has to be
/// refilled.
type FullAt = [u64; 2];

/// The buckets of all users.
pub(super) struct RateLimits {
    started: Instant,
    config: ChatLimitsConfig,
    /// A std mutex, held for a look-up or an occasional sweep; never across an await.
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    full_at: HashMap<(Uuid, Class), FullAt>,
    /// Number of buckets at which idle ones are swept next: twice the number left by the last
    /// sweep, so that sweeping costs each new bucket a constant amount of work.
    sweep_at: usize,
}

impl RateLimits {
    pub(super) fn new(config: ChatLimitsConfig) -> Self {
        Self {
            started: Instant::now(),
            config,
            buckets: Mutex::default(),
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The rates of a class. All of them must have a token left.
    fn rates(&self, class: Class) -> [Option<Rate>; 2] {
        let config = &self.config;
        match class {
            Class::Send => [
                Rate::new(config.send_burst, config.send_per_second, 1),
                Rate::per_minute(config.send_per_minute),
            ],
            Class::Open => [Rate::per_minute(config.open_per_minute), None],
            Class::MarkRead => [
                Rate::new(config.mark_read_burst, config.mark_read_per_second, 1),
                None,
            ],
            Class::Typing => [
                Rate::new(config.typing_burst, config.typing_per_second, 1),
                None,
            ],
            Class::Search => [Rate::per_minute(config.search_per_minute), None],
            Class::Write => [
                Rate::new(config.write_burst, config.write_per_second, 1),
                None,
            ],
            Class::Read => [
                Rate::new(config.read_burst, config.read_per_second, 1),
                None,
            ],
            Class::ClientErrors => [Rate::per_minute(config.client_errors_per_minute), None],
        }
    }

    /// Takes a token of a class, if every rate of the class has one left.
    pub(super) fn take(&self, person: Uuid, class: Class, now: u64) -> Result<(), LimitExceeded> {
        let rates = self.rates(class);
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
    pub(super) fn refund(&self, person: Uuid, class: Class) {
        let rates = self.rates(class);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = buckets.full_at.get_mut(&(person, class)) {
            for (full_at, rate) in full_at.iter_mut().zip(rates) {
                *full_at = full_at.saturating_sub(rate.map_or(0, |rate| rate.period));
            }
        }
    }

    /// The status of a class, by the rate with the fewest tokens left; `None` for a class without
    /// limits.
    pub(super) fn status(&self, person: Uuid, class: Class, now: u64) -> Option<LimitStatus> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.full_at.get(&(person, class)).copied();
        drop(buckets);
        self.rates(class)
            .into_iter()
            .zip(full_at.unwrap_or_default())
            .filter_map(|(rate, full_at)| Some(rate?.status(full_at, now)))
            .min_by_key(|status| status.remaining)
    }
}

impl Buckets {
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

    const ANA: Uuid = Uuid::from_u128(1);
    const BEN: Uuid = Uuid::from_u128(2);

    fn default_limits() -> ChatLimitsConfig {
        ChatLimitsConfig {
            send_burst: 10,
            send_per_second: 5,
            send_per_minute: 120,
            open_per_minute: 20,
            mark_read_burst: 10,
            mark_read_per_second: 3,
            typing_burst: 10,
            typing_per_second: 1,
            search_per_minute: 30,
            write_burst: 60,
            write_per_second: 20,
            read_burst: 200,
            read_per_second: 50,
            client_errors_per_minute: 10,
        }
    }

    #[test]
    fn routes_have_the_right_class() {
        let cases = [
            ("POST", "/messages", Some(Class::Send)),
            ("PATCH", "/messages", Some(Class::MarkRead)),
            ("GET", "/messages", Some(Class::Read)),
            ("PATCH", "/messages/{id}", Some(Class::Write)),
            ("POST", "/conversations", Some(Class::Open)),
            ("POST", "/conversations/{id}/read", Some(Class::MarkRead)),
            ("POST", "/conversations/{id}/unread", Some(Class::Write)),
            ("PUT", "/presence/typing", Some(Class::Typing)),
            ("PUT", "/presence", Some(Class::Write)),
            ("HEAD", "/search", Some(Class::Search)),
            ("POST", "/client-errors", Some(Class::ClientErrors)),
            ("OPTIONS", "/messages", None),
            ("GET", "/config", None),
        ];
        for (method, route, expected) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let route = format!("{BASE_PATH}{route}");
            assert_eq!(Class::of(&method, &route), expected, "{method} {route}");
        }
    }

    #[test]
    fn bursts_are_followed_by_the_rate_and_limited_per_minute() {
        let limits = RateLimits::new(default_limits());
        let mut sent = 0;
        for tenth in 0..600 {
            while limits.take(ANA, Class::Send, tenth * SECOND / 10).is_ok() {
                sent += 1;
            }
            match tenth {
                0 => assert_eq!(sent, 10),
                10 => assert_eq!(sent, 15),
                100 => assert_eq!(sent, 60),
                _ => {}
            }
        }
        // The burst of the minute, and what was refilled within it.
        assert_eq!(sent, 120 + 119);
        assert!(limits.take(BEN, Class::Send, 0).is_ok(), "another user");
        assert!(limits.take(ANA, Class::Read, 0).is_ok(), "another class");
    }

    #[test]
    fn a_request_after_retry_after_is_admitted() {
        let limits = RateLimits::new(default_limits());
        let mut now = 0;
        for step in 0..2_000_u64 {
            // Some requests at uneven intervals.
            now += step * 7_919_993 % (SECOND / 3);
            for class in [Class::Send, Class::Typing, Class::Search, Class::Open] {
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
        let limits = RateLimits::new(default_limits());
        let status = |now| {
            let status = limits.status(ANA, Class::Typing, now).unwrap();
            (status.limit, status.remaining, status.reset)
        };
        assert_eq!(status(0), (10, 10, 0));
        for _ in 0..3 {
            limits.take(ANA, Class::Typing, 0).unwrap();
        }
        assert_eq!(status(0), (10, 7, 3));
        assert_eq!(status(SECOND - 1), (10, 7, 3));
        assert_eq!(status(SECOND), (10, 8, 2));
        limits.refund(ANA, Class::Typing);
        assert_eq!(status(SECOND), (10, 9, 1));
        assert_eq!(status(60 * SECOND), (10, 10, 0));
    }

    #[test]
    fn classes_without_a_limit_have_no_status() {
        let limits = RateLimits::new(ChatLimitsConfig {
            send_per_second: 0,
            send_per_minute: 0,
            ..default_limits()
        });
        for _ in 0..1000 {
            limits.take(ANA, Class::Send, 0).unwrap();
        }
        assert_eq!(limits.status(ANA, Class::Send, 0), None);
    }

    #[test]
    fn idle_buckets_are_dropped() {
        let limits = RateLimits::new(default_limits());
        for person in 0..100_000_u64 {
            // A thousand users per second, whose buckets are full again after a second.
            let now = person * SECOND / 1000;
            let person = Uuid::from_u128(person.into());
            limits.take(person, Class::Typing, now).unwrap();
        }
        let kept = limits.buckets.lock().unwrap().full_at.len();
        assert!(kept <= 3 * MIN_SWEPT, "{kept}");
    }
}
