//! Requests to check the permissions of channels again, after a change that may have revoked a
//! right.
//!
//! The requests are a set, not a queue. A request never waits, repeated requests count once, and
//! too many requests become one request for all channels.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Maximum number of pending requests. Each takes about 100 bytes. Beyond this number, checking all
/// channels is no more work than finding the requested ones.
const MAX_REQUESTS: usize = 65_536;

/// The pending requests. Clones are cheap and share them.
#[derive(Clone, Debug, Default)]
pub struct Rechecks {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// A standard mutex, because it is held only to add one request or to take all.
    requested: Mutex<Requested>,
    news: Notify,
}

/// The requests since the last [`Rechecks::take`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// The number of requests, without repeated ones.
    count: usize,
    /// Whether all channels must be checked.
    pub everything: bool,
    /// The private topics whose channels must be checked, without the prefix `realtime:`.
    pub topics: HashMap<String, Members>,
    /// The users whose channels must be checked.
    pub user_ids: HashSet<Uuid>,
}

/// The channels of a topic that a request concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// All channels of the topic.
    All,
    /// The channels of these users.
    Of(HashSet<Uuid>),
}

impl Rechecks {
    /// Requests a recheck of one user's channels of a topic.
    pub fn request_member(&self, topic: String, user_id: Uuid) {
        self.request(|requested| {
            let members = requested
                .topics
                .entry(topic)
                .or_insert_with(|| Members::Of(HashSet::new()));
            match members {
                Members::Of(user_ids) => user_ids.insert(user_id),
                Members::All => false,
            }
        });
    }

    /// Requests a recheck of all channels of a topic.
    pub fn request_topic(&self, topic: String) {
        self.request(|requested| {
            requested.topics.insert(topic, Members::All) != Some(Members::All)
        });
    }

    /// Requests a recheck of all channels of a user.
    pub fn request_user(&self, user_id: Uuid) {
        self.request(|requested| requested.user_ids.insert(user_id));
    }

    /// Requests a recheck of all channels.
    pub fn request_all(&self) {
        self.request(|requested| {
            *requested = Requested::of_everything();
            false
        });
    }

    /// Waits until there is a request.
    pub async fn requested(&self) {
        loop {
            if *self.lock() != Requested::default() {
                return;
            }
            self.inner.news.notified().await;
        }
    }

    /// Takes all pending requests.
    pub fn take(&self) -> Requested {
        std::mem::take(&mut *self.lock())
    }

    /// Adds a request. `add` returns whether the request is new.
    fn request(&self, add: impl FnOnce(&mut Requested) -> bool) {
        let mut requested = self.lock();
        if !requested.everything && add(&mut requested) {
            requested.count += 1;
            if requested.count > MAX_REQUESTS {
                *requested = Requested::of_everything();
            }
        }
        drop(requested);
        self.inner.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Requested> {
        // If a thread panics while it holds the lock, the requests are still complete.
        self.inner
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requested {
    fn of_everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANA: Uuid = Uuid::from_u128(1);
    const BEN: Uuid = Uuid::from_u128(2);

    #[test]
    fn requests_for_the_same_topic_are_combined() {
        let rechecks = Rechecks::default();
        assert_eq!(rechecks.take(), Requested::default());
        rechecks.request_member("a".to_owned(), ANA);
        rechecks.request_member("a".to_owned(), BEN);
        rechecks.request_member("b".to_owned(), ANA);
        rechecks.request_topic("b".to_owned());
        rechecks.request_member("b".to_owned(), BEN);
        rechecks.request_user(ANA);
        let requested = rechecks.take();
        assert_eq!(requested.user_ids, HashSet::from([ANA]));
        let expected = HashMap::from([
            ("a".to_owned(), Members::Of(HashSet::from([ANA, BEN]))),
            ("b".to_owned(), Members::All),
        ]);
        assert_eq!(requested.topics, expected);
        assert!(!requested.everything);
    }

    #[test]
    fn too_many_requests_are_one_for_everything() {
        let rechecks = Rechecks::default();
        for user_id in 0..=MAX_REQUESTS as u128 {
            rechecks.request_user(Uuid::from_u128(user_id));
        }
        rechecks.request_topic("a".to_owned());
        assert_eq!(rechecks.take(), Requested::of_everything());
        assert_eq!(rechecks.take(), Requested::default());
    }

    #[tokio::test]
    async fn a_request_is_noticed_whenever_it_is_made() {
        let rechecks = Rechecks::default();
        rechecks.request_user(ANA);
        rechecks.requested().await;
        rechecks.take();
        let waiting = rechecks.requested();
        tokio::join!(waiting, async { rechecks.request_all() });
    }
}
