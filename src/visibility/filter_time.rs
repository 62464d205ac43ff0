//! Limits the time that the filters of one user take in the database: those that PostgreSQL
//! evaluates for row changes, and the checks of filters in a join.
//!
//! The changes of all tables wait while the filters of a batch are evaluated. The limit therefore
//! applies to all filters of a user together, whatever their tables, channels, sockets and tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The time that the filters of a user may take at once. A normal filter takes microseconds per
/// value.
const BURST: Duration = Duration::from_millis(250);

/// Used time is available again after this many times its length, so one user takes at most a tenth
/// of the time of a connection.
const REFILL_FACTOR: u32 = 10;

/// How long the filters of a user are suspended after they have used up their time. Without the
/// suspension, such a user would delay the changes again as soon as a little time is available.
const SUSPENSION: Duration = Duration::from_secs(30);

/// Minimum time between two removals of accounts that are full again.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// The time that is available to each user.
#[derive(Default)]
pub(super) struct FilterTime {
    /// A std lock, because it is held only for work in memory.
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    by_user: HashMap<Arc<str>, Account>,
    swept: Option<Instant>,
}

/// The account of a user. A user without an account has the whole [`BURST`].
struct Account {
    /// The available time at `at`. It increases until it reaches [`BURST`].
    available: Duration,
    at: Instant,
    suspended_until: Option<Instant>,
    /// Locked during a check of a filter in a join, so that a user has at most one at a time.
    check_lock: Arc<AsyncMutex<()>>,
}

impl Account {
    fn full(now: Instant) -> Self {
        Self {
            available: BURST,
            at: now,
            suspended_until: None,
            check_lock: Arc::default(),
        }
    }

    /// Brings the account up to date.
    fn refill(&mut self, now: Instant) {
        match self.suspended_until {
            Some(until) if until > now => self.available = Duration::ZERO,
            Some(_) => {
                self.suspended_until = None;
                self.available = BURST;
            }
            None => {
                let refilled = now.saturating_duration_since(self.at) / REFILL_FACTOR;
                self.available = (self.available + refilled).min(BURST);
            }
        }
        self.at = now;
    }

    fn is_full(&self) -> bool {
        // A lock that is held or awaited has another reference.
        self.available == BURST && Arc::strong_count(&self.check_lock) == 1
    }
}

impl FilterTime {
    /// Returns the time that the filters of this user may still take, or `None` if they are
    /// suspended.
    pub(super) fn available(&self, user: &Arc<str>, now: Instant) -> Option<Duration> {
        let available = self.with(user, now, |account| account.available);
        (!available.is_zero()).then_some(available)
    }

    /// Subtracts time that the filters of this user have taken. Suspends them if no time is left.
    pub(super) fn charge(&self, user: &Arc<str>, time: Duration, now: Instant) {
        self.with(user, now, |account| {
            account.available = account.available.saturating_sub(time);
            if account.available.is_zero() && account.suspended_until.is_none() {
                account.suspended_until = Some(now + SUSPENSION);
            }
        });
    }

    /// Suspends the filters of this user.
    pub(super) fn suspend(&self, user: &Arc<str>, now: Instant) {
        self.charge(user, BURST, now);
    }

    /// Waits until no other check of a filter of this user is running.
    pub(super) async fn lock_checks(&self, user: &Arc<str>) -> OwnedMutexGuard<()> {
        let lock = self.with(user, Instant::now(), |account| {
            Arc::clone(&account.check_lock)
        });
        lock.lock_owned().await
    }

    fn with<T>(&self, user: &Arc<str>, now: Instant, work: impl FnOnce(&mut Account) -> T) -> T {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let Accounts { by_user, swept } = &mut *accounts;
        if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_PAUSE) {
            *swept = Some(now);
            by_user.retain(|_, account| {
                account.refill(now);
                !account.is_full()
            });
        }
        let account = by_user
            .entry(Arc::clone(user))
            .or_insert_with(|| Account::full(now));
        account.refill(now);
        work(account)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn user(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn time_is_used_up_and_available_again() {
        let (times, begun) = (FilterTime::default(), Instant::now());
        let (ana, ben) = (user("ana"), user("ben"));
        let after = |millis| begun + Duration::from_millis(millis);
        times.charge(&ana, Duration::from_millis(200), begun);
        assert_eq!(
            times.available(&ana, after(100)),
            Some(Duration::from_millis(60)),
            "a tenth of the time"
        );
        assert_eq!(times.available(&ben, after(100)), Some(BURST));
        assert_eq!(times.available(&ana, after(60_000)), Some(BURST));
    }

    #[test]
    fn many_short_filters_suspend_a_user_like_one_long_filter() {
        let (times, begun) = (FilterTime::default(), Instant::now());
        let (ana, ben) = (user("ana"), user("ben"));
        for _ in 0..25 {
            assert!(times.available(&ana, begun).is_some());
            times.charge(&ana, Duration::from_millis(10), begun);
        }
        times.suspend(&ben, begun);
        for user in [&ana, &ben] {
            let over = begun + SUSPENSION;
            let before = over - Duration::from_millis(1);
            assert_eq!(times.available(user, before), None);
            // Time that is used during the suspension does not prolong it.
            times.charge(user, BURST, before);
            assert_eq!(times.available(user, over), Some(BURST));
        }
    }

    #[test]
    fn accounts_without_use_are_removed() {
        let (times, begun) = (FilterTime::default(), Instant::now());
        for n in 0..100 {
            times.charge(&user(&n.to_string()), Duration::from_millis(1), begun);
        }
        times.available(&user("ana"), begun + SWEEP_PAUSE);
        let kept = times.accounts.lock().expect("no panic").by_user.len();
        assert_eq!(kept, 1);
    }

    #[tokio::test]
    async fn a_user_has_one_check_at_a_time() {
        let times = FilterTime::default();
        let (ana, ben) = (user("ana"), user("ben"));
        let first = times.lock_checks(&ana).await;
        // The account of a user whose check is running is kept.
        times.available(&ben, Instant::now() + SUSPENSION);
        assert!(times.lock_checks(&ana).now_or_never().is_none());
        assert!(times.lock_checks(&ben).now_or_never().is_some());
        drop(first);
        assert!(times.lock_checks(&ana).now_or_never().is_some());
    }
}
