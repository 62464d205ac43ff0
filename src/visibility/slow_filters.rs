//! Whose filters took too long lately, so that they hold up nobody a second time.
//!
//! Bounded: an identity is kept for [`SUSPENSION`], and only one with a filter that was cut off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::identity::Identity;

/// How long filters of an identity are not applied after one was cut off. Changes of all tables wait
/// for a filter, so this bounds the share of the time that one person can take.
const SUSPENSION: Duration = Duration::from_secs(30);

/// Identities, and when their filters are applied again.
#[derive(Default)]
pub(super) struct SlowFilters {
    /// A std lock: held for a look-up or an insertion.
    until: Mutex<HashMap<Arc<Identity>, Instant>>,
}

impl SlowFilters {
    /// A filter of this identity was cut off.
    pub(super) fn suspend(&self, identity: &Arc<Identity>, now: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| *until > now);
        until.insert(Arc::clone(identity), now + SUSPENSION);
    }

    /// Whether filters of this identity are not applied for now.
    pub(super) fn is_suspended(&self, identity: &Identity, now: Instant) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(identity).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_remembered_for_a_while() {
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
        assert_eq!(kept, 1, "what is over is forgotten");
    }
}
