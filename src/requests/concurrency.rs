//! Limits the simultaneous requests of a user, in addition to the rate limits. A slow request
//! occupies shared resources for as long as it runs.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::observability::metrics::{RateLimitLabels, RateLimitRefusals};

/// Seconds after which a refused caller may retry.
const RETRY_AFTER: u64 = 1;

/// Counts the simultaneous requests of each user. Cheap to clone.
#[derive(Clone)]
pub struct ConcurrencyLimit {
    limit: usize,
    /// The label of refusals in the metrics.
    class: &'static str,
    refusals: RateLimitRefusals,
    counts: Arc<DashMap<Uuid, usize>>,
}

/// The permission to run one request. Dropping it allows the user another one.
#[derive(Debug)]
pub struct Permit {
    person: Uuid,
    counts: Arc<DashMap<Uuid, usize>>,
}

impl ConcurrencyLimit {
    /// Allows each user `limit` requests at a time. Refused requests are counted under the label
    /// `class`.
    pub fn new(limit: usize, class: &'static str, refusals: RateLimitRefusals) -> Self {
        Self {
            limit,
            class,
            refusals,
            counts: Arc::default(),
        }
    }

    /// Admits one more request of this user.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`] if too many requests of the user are in progress.
    pub fn acquire(&self, person: Uuid) -> Result<Permit, ApiError> {
        let mut count = self.counts.entry(person).or_default();
        if *count >= self.limit {
            let labels = RateLimitLabels { class: self.class };
            self.refusals.get_or_create(&labels).inc();
            return Err(ApiError::new(ErrorCode::RateLimited).with_retry_after(RETRY_AFTER));
        }
        *count += 1;
        drop(count);
        Ok(Permit {
            person,
            counts: Arc::clone(&self.counts),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.counts.entry(self.person) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_per_user_and_dropped_permits_are_returned() {
        let refusals = RateLimitRefusals::default();
        let limit = ConcurrencyLimit::new(2, "searching", refusals.clone());
        let [ana, ben] = [1, 2].map(Uuid::from_u128);
        let first = limit.acquire(ana).expect("the first permit");
        let second = limit.acquire(ana).expect("the second permit");
        assert!(limit.acquire(ana).is_err());
        let other = limit.acquire(ben).expect("a permit of another user");
        drop(first);
        let third = limit.acquire(ana).expect("a permit in place of the first");
        assert!(limit.acquire(ana).is_err());
        drop((second, third, other));
        assert!(limit.counts.is_empty());
        let labels = RateLimitLabels { class: "searching" };
        assert_eq!(refusals.get_or_create(&labels).get(), 2);
    }
}
