//! Detects changes that may affect a user's permissions on chat topics. The realtime side then
//! checks the policies again; the requests reach it through the bus.
//!
//! This module decides nothing, and passes on every change that might revoke a right. Changes of
//! memberships come from the WAL ([`Rights::changed`]): a member leaves or is removed, or a block
//! touches the rows of both members. Data in the application's own tables, published or not, is
//! compared about twice a second ([`mod@standing`]).

pub(super) mod standing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::topics;
use crate::auth::Claims;
use crate::bus::rechecks::Rechecks;
use crate::db::{Db, DbError, Snapshot};
use crate::shutdown::Tasks;

/// How long changes gather before one query checks whether other transactions see them. It is short
/// compared with the second within which a removed member must stop receiving.
const GATHERING: Duration = Duration::from_millis(20);

/// The pause before the next query if a change is not visible yet, or after a failed query.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a change waits for its commit, which the WAL has shown, to become visible. A commit
/// that never becomes visible belongs to another history of the database; a needless recheck is
/// harmless.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

/// Maximum number of pending changes, of about 100 bytes each. They become visible within
/// milliseconds, so more than this means that a statement removed many members at once; then all
/// channels are rechecked.
const MAX_CHANGES: usize = 65_536;

/// Pending changes of memberships. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    rechecks: Rechecks,
    /// A standard mutex, held only to add changes or to take all.
    pending: Mutex<Pending>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// At most [`MAX_CHANGES`].
    changes: HashMap<Owner, Change>,
    /// When all channels are rechecked a second time after changes were missed.
    all_at: Option<Instant>,
}

/// The conversation and the user of a membership.
type Owner = (Uuid, Uuid);

/// What a snapshot must see before the policies are checked.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The last transaction that changed the membership. A snapshot that sees it also sees the
    /// earlier ones, because a writer of a row waits for the previous writer to end.
    xid: u32,
    since: Instant,
}

impl Rights {
    pub(super) fn new(rechecks: Rechecks) -> Self {
        Self {
            inner: Arc::new(Inner {
                rechecks,
                pending: Mutex::default(),
                notify: Notify::new(),
            }),
        }
    }

    /// Records that a transaction changed something that may affect this member. Whether the member
    /// has a channel matters only when the change is visible: a channel may join before that, and
    /// its permissions may be read from an older snapshot.
    pub(super) fn changed(&self, owner: Owner, xid: u32) {
        self.changed_at(owner, xid, Instant::now());
    }

    fn changed_at(&self, owner: Owner, xid: u32, since: Instant) {
        let mut pending = self.lock();
        pending.changes.insert(owner, Change { xid, since });
        if pending.changes.len() > MAX_CHANGES {
            pending.changes.clear();
            drop(pending);
            self.everybody_at(since);
            return;
        }
        drop(pending);
        self.inner.notify.notify_one();
    }

    /// Requests a recheck of all channels, because changes were missed. Missed changes may not be
    /// visible yet, and their transactions are unknown, so the recheck is repeated when the last of
    /// them must be visible.
    pub(super) fn everybody(&self) {
        self.everybody_at(Instant::now());
    }

    fn everybody_at(&self, now: Instant) {
        self.inner.rechecks.everything();
        self.lock().all_at = Some(now + COMMIT_PATIENCE);
        self.inner.notify.notify_one();
    }

    /// Requests rechecks until the server stops.
    pub(super) async fn run(self, db: Db, tasks: Tasks) {
        let requesting = async {
            loop {
                self.wait().await;
                tokio::time::sleep(GATHERING).await;
                let changes = self.take(Instant::now());
                if changes.is_empty() {
                    continue;
                }
                match current_snapshot(&db).await {
                    Ok(snapshot) => self.request(changes, &snapshot, Instant::now()),
                    Err(error) => {
                        tracing::debug!(
                            %error,
                            "cannot check whether changed memberships are visible; retrying"
                        );
                        self.put_back(changes);
                    }
                }
                if !self.lock().changes.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = requesting => {}
            () = tasks.token().cancelled() => {}
        }
    }

    /// Waits until there are changes, or until the repeated recheck of all channels is due.
    async fn wait(&self) {
        loop {
            let all_at = {
                let pending = self.lock();
                if !pending.changes.is_empty() {
                    return;
                }
                pending.all_at
            };
            let notified = self.inner.notify.notified();
            match all_at {
                Some(at) => {
                    if tokio::time::timeout_at(at, notified).await.is_err() {
                        return;
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Takes all changes, and requests the repeated recheck of all channels if it is due.
    fn take(&self, now: Instant) -> HashMap<Owner, Change> {
        let mut pending = self.lock();
        if pending.all_at.is_some_and(|at| at <= now) {
            pending.all_at = None;
            self.inner.rechecks.everything();
        }
        std::mem::take(&mut pending.changes)
    }

    /// Requests rechecks for the changes that are visible in this snapshot, and keeps the others.
    fn request(&self, changes: HashMap<Owner, Change>, snapshot: &Snapshot, now: Instant) {
        let (seen, early): (HashMap<_, _>, HashMap<_, _>) =
            changes.into_iter().partition(|(_, change)| {
                snapshot.sees(change.xid) || change.since + COMMIT_PATIENCE < now
            });
        for ((conversation, person), _) in seen {
            let topic = topics::of_conversation(conversation);
            self.inner.rechecks.member(topic, person);
        }
        self.put_back(early);
    }

    /// Keeps changes for the next query, unless a newer change of the same member was recorded.
    fn put_back(&self, changes: HashMap<Owner, Change>) {
        let mut pending = self.lock();
        for (owner, change) in changes {
            pending.changes.entry(owner).or_insert(change);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while the mutex is held leaves complete changes.
        self.inner
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// The rechecks that are requested with this snapshot at this time.
    fn requested(rights: &Rights, rechecks: &Rechecks, snapshot: &str, now: Instant) -> Requested {
        let changes = rights.take(now);
        rights.request(changes, &Snapshot::parse(snapshot).unwrap(), now);
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
            expected.member(topics::of_conversation(PLACE), person);
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
        assert!(rights.lock().changes.is_empty());
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
        rights.everybody_at(now);
        assert!(rechecks.take().everything);
        let is_rechecked_at = |time| {
            rights.take(time);
            rechecks.take().everything
        };
        assert!(!is_rechecked_at(now), "too early");
        assert!(is_rechecked_at(now + COMMIT_PATIENCE));
        assert!(!is_rechecked_at(now + COMMIT_PATIENCE * 2), "a third time");
    }

    #[tokio::test]
    async fn waiting_ends_after_the_second_recheck_without_a_change() {
        let rights = Rights::new(Rechecks::default());
        let past = Instant::now() - COMMIT_PATIENCE;
        rights.everybody_at(past);
        // It ends without a change.
        rights.wait().await;
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
        assert!(rights.lock().changes.is_empty());
    }
}
