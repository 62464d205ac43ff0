//! Suspends the filters of identities that exceeded the time limit, so that they do not delay other
//! subscribers again.
//!
//! Memory is bounded, because only these identities are stored, and only for [`SUSPENSION`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::identity::Identity;

/// How long the filters of an identity are suspended after one of them exceeded the time limit.
/// Changes of all tables wait for a slow filter, so this bounds the share of time that one identity
/// can take.
const SUSPENSION: Duration = Duration::from_secs(30);

/// The suspended identities, and when their suspension ends.
#[derive(Default)]
pub(super) struct SlowFilters {
    /// The end of each suspension. A std lock, because it is held only for a look-up or an
    /// insertion.
    until: Mutex<HashMap<Arc<Identity>, Instant>>,
}

impl SlowFilters {
    /// Suspends the filters of this identity.
    pub(super) fn suspend(&self, identity: &Arc<Identity>, now: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| *until > now);
        until.insert(Arc::clone(identity), now + SUSPENSION);
    }

    /// Returns whether the filters of this identity are suspended.
    pub(super) fn is_suspended(&self, identity: &Identity, now: Instant) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(identity).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_an_identity_are_suspended_for_a_while() {
        let filters = SlowFilters::default();
        let identity = |claims: &str| {
            Arc::new(Identity {
                role: "authenticated".to_owned(),
                claims: claims.into(),
            })
        };
        let begun = Instant::now();
        let over = begun + SUSPENSION;
        filters.suspend(&identity("1"), begun);
        assert!(
            filters.is_suspended(&identity("1"), begun)
                && !filters.is_suspended(&identity("2"), begun)
        );
        assert!(!filters.is_suspended(&identity("1"), over));
        filters.suspend(&identity("2"), over);
        let kept = filters.until.lock().expect("no panic").len();
        assert_eq!(kept, 1, "expired entries are removed");
    }
}
