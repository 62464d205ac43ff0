//! Detects changes that may affect a user's permissions on chat topics. It requests rechecks over
//! the bus, and the `realtime` module then evaluates the policies again.
//!
//! This module does not decide whether a right is revoked. It reports every change that might
//! revoke one. Changes of memberships come from the WAL ([`Rights::changed`]): a member leaves or
//! is removed, or a block updates the rows of both members. Data in the application's own tables,
//! published or not, is compared at most twice a second ([`mod@standing`]).

pub(super) mod standing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::gathering::{COMMIT_PATIENCE, Gathering, Pace, Pending, Remaining, is_early};
use super::topics;
use crate::auth::Claims;
use crate::bus::rechecks::Rechecks;
use crate::db::{Db, DbError, Snapshot};
use crate::shutdown::Tasks;

/// The pauses are short compared with the second within which a removed member must stop receiving.
/// The query reads only a snapshot, so it is cheap.
const PACE: Pace = Pace {
    gathering: Duration::from_millis(20),
    until_visible: Duration::from_millis(100),
    after_failure: Duration::from_millis(100),
};

/// Maximum number of pending changes, of about 100 bytes each. Changes become visible within
/// milliseconds, so a larger number means that a statement removed many members at once. All
/// channels are then rechecked.
const MAX_CHANGES: usize = 65_536;

/// Pending changes of memberships. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rechecks: Rechecks,
    /// The pending changes, at most [`MAX_CHANGES`].
    changes: Gathering<Changes>,
    /// When all channels are rechecked a second time because changes were missed. A standard mutex,
    /// held to read or set the time.
    all_at: Mutex<Option<Instant>>,
    missed: Notify,
}

type Changes = HashMap<Membership, Change>;

/// The conversation and the user of a membership.
type Membership = (Uuid, Uuid);

/// A change that a snapshot must include before the policies are checked.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The last transaction that changed the membership. A snapshot that includes it also includes
    /// the earlier ones, because a writer of a row waits for the previous writer to end.
    xid: u32,
    /// When the change was recorded.
    since: Instant,
}

impl Rights {
    pub(super) fn new(rechecks: Rechecks) -> Self {
        Self {
            inner: Arc::new(Inner {
                rechecks,
                changes: Gathering::default(),
                all_at: Mutex::default(),
                missed: Notify::new(),
            }),
        }
    }

    /// Records that a transaction made a change that may affect the permissions of this member. The
    /// change is recorded even if the member has no channel: one may join before the change is
    /// visible, and its permissions may be read from an older snapshot.
    pub(super) fn changed(&self, membership: Membership, xid: u32) {
        self.changed_at(membership, xid, Instant::now());
    }

    fn changed_at(&self, membership: Membership, xid: u32, since: Instant) {
        let is_full = self.inner.changes.add(|changes| {
            changes.insert(membership, Change { xid, since });
            let is_full = changes.len() > MAX_CHANGES;
            if is_full {
                changes.clear();
            }
            is_full
        });
        if is_full {
            self.recheck_all_at(since);
        }
    }

    /// Requests a recheck of all channels, because changes were missed. The missed changes may not
    /// be visible yet, and their transactions are unknown. The recheck is therefore repeated when
    /// the last of them must be visible.
    pub(super) fn recheck_all(&self) {
        self.recheck_all_at(Instant::now());
    }

    fn recheck_all_at(&self, now: Instant) {
        self.inner.rechecks.request_all();
        *self.lock_all_at() = Some(now + COMMIT_PATIENCE);
        self.inner.missed.notify_one();
    }

    /// Requests rechecks until the server stops.
    pub(super) async fn run(self, db: Db, tasks: Tasks) {
        let handle = |changes| self.request_visible(&db, changes);
        tokio::select! {
            () = self.inner.changes.run(PACE, &tasks, handle) => {}
            () = self.repeat_for_all() => {}
        }
    }

    /// Requests rechecks for the changes that other transactions can see.
    async fn request_visible(&self, db: &Db, changes: Changes) -> Remaining<Changes> {
        let mut remaining = Remaining::<Changes>::default();
        match current_snapshot(db).await {
            Ok(snapshot) => remaining.early = self.request(changes, &snapshot, Instant::now()),
            Err(error) => {
                tracing::debug!(
                    %error,
                    "cannot check whether changed memberships are visible; retrying"
                );
                remaining.failed = changes;
            }
        }
        remaining
    }

    /// Requests rechecks for the changes that are visible in this snapshot, and returns the
    /// remaining ones.
    fn request(&self, changes: Changes, snapshot: &Snapshot, now: Instant) -> Changes {
        let (early, seen): (Changes, Changes) = changes
            .into_iter()
            .partition(|(_, change)| is_early(snapshot, &[change.xid], change.since, now));
        for ((conversation, person), _) in seen {
            let topic = topics::of_conversation(conversation);
            self.inner.rechecks.request_member(topic, person);
        }
        early
    }

    /// Requests the second recheck of all channels whenever it is due.
    async fn repeat_for_all(&self) {
        loop {
            let all_at = *self.lock_all_at();
            let missed = self.inner.missed.notified();
            match all_at {
                Some(at) => {
                    if tokio::time::timeout_at(at, missed).await.is_err() {
                        self.repeat_if_due(Instant::now());
                    }
                }
                None => missed.await,
            }
        }
    }

    fn repeat_if_due(&self, now: Instant) {
        let mut all_at = self.lock_all_at();
        if all_at.is_some_and(|at| at <= now) {
            *all_at = None;
            self.inner.rechecks.request_all();
        }
    }

    fn lock_all_at(&self) -> MutexGuard<'_, Option<Instant>> {
        let all_at = self.inner.all_at.lock();
        all_at.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending for Changes {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn put_back(&mut self, earlier: Self) {
        for (membership, change) in earlier {
            self.entry(membership).or_insert(change);
        }
    }
}

async fn current_snapshot(db: &Db) -> Result<Snapshot, DbError> {
    let answer = db
        .query_as(&Claims::of_service(), Snapshot::CURRENT, &[])
        .await?;
    Snapshot::read(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::rechecks::Requested;

    const PLACE: Uuid = Uuid::from_u128(1);
    const ANA: Uuid = Uuid::from_u128(3);
    const BEN: Uuid = Uuid::from_u128(4);

    /// Returns the rechecks that are requested with this snapshot at this time.
    fn requested(rights: &Rights, rechecks: &Rechecks, snapshot: &str, now: Instant) -> Requested {
        let changes = rights.inner.changes.take();
        let early = rights.request(changes, &Snapshot::parse(snapshot).unwrap(), now);
        rights.inner.changes.add(|changes| changes.put_back(early));
        rechecks.take()
    }

    #[test]
    fn a_recheck_waits_until_other_transactions_see_the_change() {
        let rechecks = Rechecks::default();
        let rights = Rights::new(rechecks.clone());
        let now = Instant::now();
        rights.changed_at((PLACE, ANA), 10, now);
        rights.changed_at((PLACE, BEN), 11, now);
        let expected = |person| {
            let expected = Rechecks::default();
            expected.request_member(topics::of_conversation(PLACE), person);
            expected.take()
        };
        let none = Requested::default();
        let requested = |snapshot, now| requested(&rights, &rechecks, snapshot, now);
        assert_eq!(requested("10:10:", now), none);
        assert_eq!(requested("11:11:", now), expected(ANA));
        // A later change of the same member must be visible too.
        rights.changed_at((PLACE, BEN), 12, now);
        assert_eq!(requested("12:12:", now), none);
        assert_eq!(requested("13:13:", now), expected(BEN));
        assert!(rights.inner.changes.take().is_empty());
        // A change that no snapshot ever sees is checked after a limited time.
        rights.changed_at((PLACE, BEN), 20, now);
        assert_eq!(requested("13:13:", now + COMMIT_PATIENCE), none);
        assert_eq!(
            requested("13:13:", now + COMMIT_PATIENCE * 2),
            expected(BEN)
        );
    }

    #[test]
    fn after_a_gap_all_channels_are_rechecked_twice() {
        let rechecks = Rechecks::default();
        let rights = Rights::new(rechecks.clone());
        let now = Instant::now();
        rights.recheck_all_at(now);
        assert!(rechecks.take().everything);
        let is_rechecked_at = |time| {
            rights.repeat_if_due(time);
            rechecks.take().everything
        };
        assert!(!is_rechecked_at(now), "too early");
        assert!(is_rechecked_at(now + COMMIT_PATIENCE));
        assert!(!is_rechecked_at(now + COMMIT_PATIENCE * 2), "a third time");
    }

    #[tokio::test]
    async fn the_second_recheck_needs_no_further_change() {
        let rechecks = Rechecks::default();
        let rights = Rights::new(rechecks.clone());
        rights.recheck_all_at(Instant::now() - COMMIT_PATIENCE);
        rechecks.take();
        tokio::select! {
            () = rights.repeat_for_all() => panic!("repeating ends only with the server"),
            () = rechecks.requested() => assert!(rechecks.take().everything),
        }
    }

    #[test]
    fn too_many_changes_become_a_recheck_of_all_channels() {
        let rechecks = Rechecks::default();
        let rights = Rights::new(rechecks.clone());
        for person in 0..MAX_CHANGES as u128 {
            rights.changed((PLACE, Uuid::from_u128(person)), 10);
        }
        assert_eq!(rechecks.take(), Requested::default());
        rights.changed((PLACE, Uuid::from_u128(MAX_CHANGES as u128)), 10);
        assert!(rechecks.take().everything);
        assert!(rights.inner.changes.take().is_empty());
    }
}
