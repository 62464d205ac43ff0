//! Collects changes for a moment, and then handles them together with one query.
//!
//! The WAL shows a commit shortly before other transactions see it. If the snapshot of a query does
//! not yet contain a change, the query has read older rows. That change is therefore handled again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::auth::Claims;
use crate::db::{Db, DbError, Query, Snapshot};
use crate::shutdown::Tasks;

/// The longest time for which a change in the WAL waits for its commit to become visible to other
/// transactions. A commit that stays invisible longer does not belong to the history of this
/// database, for instance after a restore.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

/// The pauses between two queries. Changes that arrive during a pause are handled together with the
/// earlier ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The pause after the first change, so that a burst of changes causes one query.
    pub(super) gathering: Duration,
    /// An additional pause before changes that were not yet visible are handled again.
    pub(super) until_visible: Duration,
    /// An additional pause after a failed query. A shorter one would only burden a database that
    /// has problems.
    pub(super) after_failure: Duration,
}

/// Changes that wait to be handled.
pub(super) trait Pending: Default {
    /// Returns whether no change is waiting.
    fn is_empty(&self) -> bool;

    /// Adds changes that were taken earlier. Newer changes of the same subject replace them or are
    /// combined with them.
    fn put_back(&mut self, earlier: Self);
}

/// The changes that could not be handled.
#[derive(Debug, Default)]
pub(super) struct Remaining<P> {
    /// Changes that the snapshot does not include yet.
    pub(super) early: P,
    /// Changes whose query failed.
    pub(super) failed: P,
}

/// Holds changes until they are handled. The implementation of [`Pending`] limits their number.
#[derive(Debug, Default)]
pub(super) struct Gathering<P> {
    /// A standard mutex, held only to add changes or to take all of them.
    pending: Mutex<P>,
    notify: Notify,
}

impl<P: Pending> Gathering<P> {
    /// Adds changes, and returns what `add` returns.
    pub(super) fn add<T>(&self, add: impl FnOnce(&mut P) -> T) -> T {
        let added = add(&mut self.lock());
        self.notify.notify_one();
        added
    }

    /// Takes all changes.
    pub(super) fn take(&self) -> P {
        std::mem::take(&mut *self.lock())
    }

    /// Handles changes until the server stops. Two queries never run at the same time, so clients
    /// do not receive an older value after a newer one.
    pub(super) async fn run<F>(&self, pace: Pace, tasks: &Tasks, handle: impl Fn(P) -> F)
    where
        F: Future<Output = Remaining<P>>,
    {
        let handling = async {
            loop {
                self.wait().await;
                tokio::time::sleep(pace.gathering).await;
                let remaining = handle(self.take()).await;
                let pause = if !remaining.failed.is_empty() {
                    pace.after_failure
                } else if !remaining.early.is_empty() {
                    pace.until_visible
                } else {
                    continue;
                };
                self.put_back(remaining);
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = handling => {}
            () = tasks.token().cancelled() => {}
        }
    }

    fn put_back(&self, remaining: Remaining<P>) {
        let mut pending = self.lock();
        pending.put_back(remaining.early);
        pending.put_back(remaining.failed);
    }

    /// Waits until there are changes.
    async fn wait(&self) {
        while self.lock().is_empty() {
            self.notify.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, P> {
        // A panic never leaves an incomplete change, so a poisoned mutex can still be used.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether changes by these transactions, recorded at `since`, must wait for a later
/// snapshot.
pub(super) fn is_early(snapshot: &Snapshot, xids: &[u32], since: Instant, now: Instant) -> bool {
    !xids.iter().all(|xid| snapshot.sees(*xid)) && now <= since + COMMIT_PATIENCE
}

/// Runs a query as `service_role`. Returns its rows, and a snapshot that is not newer than them.
pub(super) async fn read_with_snapshot(
    db: &Db,
    query: Query<'_>,
) -> Result<(Snapshot, Vec<Row>), DbError> {
    // The snapshot is taken first. If it is older than the rows, they are merely read again.
    let snapshot = Query {
        sql: Snapshot::CURRENT,
        parameters: &[],
    };
    let mut answers = db
        .run_as(&Claims::of_service(), &[snapshot, query])
        .await?
        .into_iter();
    let (Some(snapshot), Some(rows)) = (answers.next(), answers.next()) else {
        let error = "two queries did not return two results";
        return Err(DbError::Unexpected(error.into()));
    };
    Ok((Snapshot::read(&snapshot)?, rows))
}

/// Reads a column of a row.
pub(super) fn value<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, DbError> {
    row.try_get(index)
        .map_err(|error| DbError::Unexpected(error.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::mpsc;

    use super::*;

    impl Pending for BTreeSet<u32> {
        fn is_empty(&self) -> bool {
            self.is_empty()
        }

        fn put_back(&mut self, earlier: Self) {
            self.extend(earlier);
        }
    }

    /// Each call takes the changes recorded so far, including those that the previous call left.
    #[tokio::test]
    async fn remaining_changes_are_handled_again_with_the_new_ones() {
        let gathering = Gathering::<BTreeSet<u32>>::default();
        let pace = Pace {
            gathering: Duration::ZERO,
            until_visible: Duration::ZERO,
            after_failure: Duration::ZERO,
        };
        let (sender, mut taken) = mpsc::channel(8);
        let handle = |changes: BTreeSet<u32>| {
            // A change that is recorded during the query.
            gathering.add(|pending| pending.extend(changes.iter().map(|change| change + 10)));
            sender.try_send(changes.clone()).unwrap();
            let (early, late): (BTreeSet<_>, BTreeSet<_>) =
                changes.into_iter().partition(|change| *change == 1);
            let failed = late.into_iter().filter(|change| *change == 2).collect();
            async { Remaining { early, failed } }
        };
        gathering.add(|pending| pending.extend([1, 2, 3]));
        let tasks = Tasks::new();
        tokio::select! {
            () = gathering.run(pace, &tasks, handle) => panic!("the server was not stopped"),
            () = async {
                assert_eq!(taken.recv().await, Some(BTreeSet::from([1, 2, 3])));
                assert_eq!(taken.recv().await, Some(BTreeSet::from([1, 2, 11, 12, 13])));
            } => {}
        }
    }

    #[tokio::test]
    async fn handling_ends_when_the_server_stops() {
        let gathering = Gathering::<BTreeSet<u32>>::default();
        let pace = Pace {
            gathering: Duration::from_secs(3600),
            until_visible: Duration::ZERO,
            after_failure: Duration::ZERO,
        };
        gathering.add(|pending| pending.insert(1));
        let tasks = Tasks::new();
        let handle = |_| async { Remaining::default() };
        tokio::join!(gathering.run(pace, &tasks, handle), async { tasks.stop() });
    }

    #[test]
    fn a_change_waits_for_its_commit_for_a_limited_time() {
        let snapshot = Snapshot::parse("10:12:10").unwrap();
        let since = Instant::now();
        for (xids, after, expected) in [
            (&[][..], Duration::ZERO, false),
            (&[11], Duration::ZERO, false),
            (&[10], Duration::ZERO, true),
            (&[11, 12], Duration::ZERO, true),
            (&[12], COMMIT_PATIENCE, true),
            (&[12], COMMIT_PATIENCE * 2, false),
        ] {
            let found = is_early(&snapshot, xids, since, since + after);
            assert_eq!(found, expected, "{xids:?} after {after:?}");
        }
    }
}
