//! How much one person may have going on at the same moment, beside how often they may begin it: a request that is slow
//! holds what others need for as long as it lasts.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use uuid::Uuid;

use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::observability::metrics::{ChatMetrics, RateLimitLabels};

/// Seconds after which somebody over the limit may try again.
const RETRY_AFTER: u64 = 1;

/// Counts what people have going on. Cheap to clone.
#[derive(Clone)]
pub(super) struct AtOnce {
    limit: usize,
    /// What refusals are counted as.
    class: &'static str,
    metrics: ChatMetrics,
    people: Arc<DashMap<Uuid, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct GoingOn {
    person: Uuid,
    people: Arc<DashMap<Uuid, usize>>,
}

impl AtOnce {
    pub(super) fn new(limit: usize, class: &'static str, metrics: ChatMetrics) -> Self {
        Self {
            limit,
            class,
            metrics,
            people: Arc::default(),
        }
    }

    /// One more of this person, or [`ErrorCode::RateLimited`].
    pub(super) fn begin(&self, person: Uuid) -> Result<GoingOn, ApiError> {
        let mut count = self.people.entry(person).or_default();
        if *count >= self.limit {
            let labels = RateLimitLabels { class: self.class };
            self.metrics.rate_limited.get_or_create(&labels).inc();
            return Err(ApiError::new(ErrorCode::RateLimited).with_retry_after(RETRY_AFTER));
        }
        *count += 1;
        drop(count);
        Ok(GoingOn {
            person,
            people: Arc::clone(&self.people),
        })
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.people.entry(self.person) {
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
    fn each_person_has_their_own_and_what_ends_makes_room() {
        let metrics = ChatMetrics::default();
        let at_once = AtOnce::new(2, "searching", metrics.clone());
        let [ana, ben] = [1, 2].map(Uuid::from_u128);
        let first = at_once.begin(ana).expect("the first");
        let second = at_once.begin(ana).expect("the second");
        assert!(at_once.begin(ana).is_err());
        let other = at_once.begin(ben).expect("somebody else's");
        drop(first);
        let third = at_once.begin(ana).expect("in place of the first");
        assert!(at_once.begin(ana).is_err());
        drop((second, third, other));
        assert!(at_once.people.is_empty());
        let labels = RateLimitLabels { class: "searching" };
        assert_eq!(metrics.rate_limited.get_or_create(&labels).get(), 2);
    }
}
