//! How often somebody may do what: token buckets for each person and class of request.
//!
//! The buckets of one process, in memory. A full bucket is the same as none, so what has been idle for long enough to be full
//! again is forgotten: there are never many more buckets than people who asked for something in the last minutes.
//!
//! Pure but for [`RateLimits::now`]: the time is an argument.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::Method;
use uuid::Uuid;

use super::BASE_PATH;
use crate::config::ChatLimitsConfig;

/// A second in the unit that time is counted in here.
const SECOND: u64 = 1_000_000_000;

/// Buckets below which nothing is swept: not worth a look.
const MIN_SWEPT: usize = 1024;

/// What requests have in common that share a limit. The names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Sending messages.
    Send,
    /// Opening conversations that are new.
    Open,
    /// Marking as read or delivered.
    MarkRead,
    /// Saying that somebody types.
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
    /// The class of a request, by the pattern of its route. `None` for what asks for nothing.
    pub(super) fn of(method: &Method, route: &str) -> Option<Self> {
        let route = route.strip_prefix(BASE_PATH).unwrap_or(route);
        Some(match (method.as_str(), route) {
            // The settings are for everybody, and answered from memory.
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

    /// Its name.
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

/// How many at once, and how fast they come back.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u64,
    /// Time in which one comes back.
    period: u64,
}

impl Rate {
    /// `count` in `seconds` in the long run; `None` for a count of 0, which is no limit.
    fn new(burst: u32, count: u32, seconds: u64) -> Option<Self> {
        let period = (seconds * SECOND).checked_div(count.into())?;
        Some(Self {
            burst: burst.into(),
            period,
        })
    }

    /// As many in a minute as at once.
    fn per_minute(count: u32) -> Option<Self> {
        Self::new(count, count, 60)
    }

    /// What a bucket that is full at `full_at` has at `now`.
    fn standing(self, full_at: u64, now: u64) -> Standing {
        let missing = full_at.saturating_sub(now);
        Standing {
            limit: self.burst,
            remaining: self.burst.saturating_sub(missing.div_ceil(self.period)),
            reset: missing.div_ceil(SECOND),
        }
    }
}

/// What somebody has left: what `X-RateLimit-Limit`, `-Remaining` and `-Reset` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Requests at once.
    pub(super) limit: u64,
    /// Of these, those that are left.
    pub(super) remaining: u64,
    /// Whole seconds until all of them are.
    pub(super) reset: u64,
}

/// Too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What is left of the limit that was met.
    pub(super) standing: Standing,
    /// Whole seconds, rounded up, after which there is one.
    pub(super) retry_after: u64,
}

/// For each rate of a class when its bucket is full again (the generic cell rate algorithm's theoretical arrival time):
/// one number, which neither drifts nor has to be refilled.
type FullAt = [u64; 2];

/// The buckets.
pub(super) struct RateLimits {
    started: Instant,
    config: ChatLimitsConfig,
    /// A std mutex: held for a look-up or, seldom, a sweep of what is there; never across an await.
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    full_at: HashMap<(Uuid, Class), FullAt>,
    /// So many are there when idle ones are looked for next: twice what was left the last time, so that a sweep
    /// costs no bucket more than a step.
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

    /// The rates of a class. All of them must have one left.
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

    /// Takes one of a class, if every rate of it has one left.
    pub(super) fn take(&self, person: Uuid, class: Class, now: u64) -> Result<(), Refused> {
        let rates = self.rates(class);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let before = buckets.full_at.get(&(person, class)).copied();
        let mut after = before.unwrap_or_default();
        let mut refused: Option<Refused> = None;
        for (full_at, rate) in after.iter_mut().zip(rates) {
            let Some(rate) = rate else { continue };
            let taken = (*full_at).max(now) + rate.period;
            let wait = taken.saturating_sub(now + rate.burst * rate.period);
            if wait > 0 {
                let refusal = Refused {
                    standing: rate.standing(*full_at, now),
                    retry_after: wait.div_ceil(SECOND),
                };
                refused = refused
                    .filter(|other| other.retry_after >= refusal.retry_after)
                    .or(Some(refusal));
            }
            *full_at = taken;
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        buckets.full_at.insert((person, class), after);
        buckets.sweep(now);
        Ok(())
    }

    /// Gives one back that was taken for what turned out to cost nothing.
    pub(super) fn give_back(&self, person: Uuid, class: Class) {
        let rates = self.rates(class);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = buckets.full_at.get_mut(&(person, class)) {
            for (full_at, rate) in full_at.iter_mut().zip(rates) {
                *full_at = full_at.saturating_sub(rate.map_or(0, |rate| rate.period));
            }
        }
    }

    /// What somebody has left of a class, by the rate that has least; `None` for a class without limits.
    pub(super) fn standing(&self, person: Uuid, class: Class, now: u64) -> Option<Standing> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.full_at.get(&(person, class)).copied();
        drop(buckets);
        self.rates(class)
            .into_iter()
            .zip(full_at.unwrap_or_default())
            .filter_map(|(rate, full_at)| Some(rate?.standing(full_at, now)))
            .min_by_key(|standing| standing.remaining)
    }
}

impl Buckets {
    /// Forgets what is full again, when there is much.
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

    fn shipped() -> ChatLimitsConfig {
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
    fn routes_have_their_class() {
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
    fn a_burst_then_the_rate_and_never_more_than_the_minute_allows() {
        let limits = RateLimits::new(shipped());
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
        // The burst of the minute and what came back in it.
        assert_eq!(sent, 120 + 119);
        assert!(limits.take(BEN, Class::Send, 0).is_ok(), "another person");
        assert!(limits.take(ANA, Class::Read, 0).is_ok(), "another class");
    }

    #[test]
    fn whoever_waits_as_told_gets_through() {
        let limits = RateLimits::new(shipped());
        let mut now = 0;
        for step in 0..2_000_u64 {
            // Some haste, at uneven moments.
            now += step * 7_919_993 % (SECOND / 3);
            for class in [Class::Send, Class::Typing, Class::Search, Class::Open] {
                let Err(refused) = limits.take(ANA, class, now) else {
                    continue;
                };
                assert!(refused.retry_after >= 1);
                assert_eq!(refused.standing.remaining, 0);
                assert!(refused.standing.reset >= refused.retry_after);
                if step % 10 == 0 {
                    now += refused.retry_after * SECOND;
                    assert_eq!(limits.take(ANA, class, now), Ok(()), "{class:?} {step}");
                }
            }
        }
    }

    #[test]
    fn the_standing_counts_down_and_back() {
        let limits = RateLimits::new(shipped());
        let standing = |now| {
            let standing = limits.standing(ANA, Class::Typing, now).unwrap();
            (standing.limit, standing.remaining, standing.reset)
        };
        assert_eq!(standing(0), (10, 10, 0));
        for _ in 0..3 {
            limits.take(ANA, Class::Typing, 0).unwrap();
        }
        assert_eq!(standing(0), (10, 7, 3));
        assert_eq!(standing(SECOND - 1), (10, 7, 3));
        assert_eq!(standing(SECOND), (10, 8, 2));
        limits.give_back(ANA, Class::Typing);
        assert_eq!(standing(SECOND), (10, 9, 1));
        assert_eq!(standing(60 * SECOND), (10, 10, 0));
    }

    #[test]
    fn no_limit_is_none() {
        let limits = RateLimits::new(ChatLimitsConfig {
            send_per_second: 0,
            send_per_minute: 0,
            ..shipped()
        });
        for _ in 0..1000 {
            limits.take(ANA, Class::Send, 0).unwrap();
        }
        assert_eq!(limits.standing(ANA, Class::Send, 0), None);
    }

    #[test]
    fn idle_buckets_are_forgotten() {
        let limits = RateLimits::new(shipped());
        for person in 0..100_000_u64 {
            // A thousand people a second, who are back to full after one.
            let now = person * SECOND / 1000;
            let person = Uuid::from_u128(person.into());
            limits.take(person, Class::Typing, now).unwrap();
        }
        let kept = limits.buckets.lock().unwrap().full_at.len();
        assert!(kept <= 3 * MIN_SWEPT, "{kept}");
    }
}
