//! Keeps snapshots from before deletions, for policies that read other rows.
//!
//! A transaction that deletes a row often also deletes the rows that the row's policy reads, for
//! example a room together with its members and posts. A check after the commit would then hide the
//! deletion from every subscriber. For such tables, this module exports a snapshot every [`PAUSE`],
//! and the check is repeated in the newest snapshot that does not see the deleting transaction.
//!
//! A snapshot is valid until the transaction that exported it ends (PostgreSQL manual 9.28.5). One
//! transaction exports snapshots for one [`TERM`], and stays open for another. The history
//! therefore reaches back for at least one term, so it also covers a stream that lags behind by as
//! much.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::QueryError;
use crate::db::Snapshot;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Pause between two snapshots. If a subscriber gains or loses access within this time before a
/// deletion, the check may not take that into account. Reading PostgreSQL's current snapshot takes
/// microseconds.
const PAUSE: Duration = Duration::from_millis(100);

/// Maximum time between a snapshot and the commit that it is used for. Snapshots are usually
/// [`PAUSE`] apart. If taking one is slow, the previous snapshot is older, and could reveal the
/// deletion to a subscriber who has since lost access.
const MAX_AGE: Duration = Duration::from_secs(1);

/// How long one transaction exports snapshots. VACUUM cannot remove rows that were deleted during
/// the last two terms.
const TERM: Duration = Duration::from_secs(5);

/// Maximum snapshots per transaction. PostgreSQL keeps a small file for each.
const MAX_EXPORTED: usize = 1_000;

/// Maximum time for taking one snapshot. A batch of changes may be waiting for it.
const TIMEOUT: Duration = Duration::from_secs(1);

const CONNECTION_SETTINGS: &str =
    "set statement_timeout = '1s'; set idle_in_transaction_session_timeout = '30s'";

/// READ COMMITTED, because each statement then has its own snapshot and can export it.
const BEGIN: &str = "begin isolation level read committed read only";

/// An open transaction that exports snapshots.
struct Exporter {
    client: Client,
    begun: Instant,
}

/// An exported snapshot, valid while this value exists and its connection is open.
pub(super) struct HeldSnapshot {
    id: String,
    exporter: Arc<Exporter>,
}

impl HeldSnapshot {
    /// Returns the argument of `set transaction snapshot`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// A snapshot, and when it was PostgreSQL's current one. `H` is `()` in tests.
struct Entry<H = Arc<HeldSnapshot>> {
    held: H,
    /// `pg_current_snapshot()` as text. While it stays the same, no transaction has ended.
    text: String,
    visible: Snapshot,
    /// A time after the snapshot was taken.
    taken: Instant,
    /// A time at which the snapshot was still current: the start of the last check that found it
    /// so.
    current: Instant,
}

/// The exported snapshots of the last few seconds.
pub(super) struct SnapshotHistory {
    connector: Connector,
    tasks: Tasks,
    /// Whether the task that takes snapshots is running.
    is_running: AtomicBool,
    /// The snapshots, oldest first. A std lock, because it is held only for a look-up or an
    /// insertion.
    entries: Mutex<Vec<Entry>>,
    /// When the last successful call of [`Self::export_if_changed`] began. An async lock, because
    /// it is held during the call. A caller that waited for the lock uses the result.
    checked_at: tokio::sync::Mutex<Option<Instant>>,
}

impl SnapshotHistory {
    pub(super) fn new(connector: Connector, tasks: &Tasks) -> Self {
        Self {
            connector,
            tasks: tasks.clone(),
            is_running: AtomicBool::new(false),
            entries: Mutex::default(),
            checked_at: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the newest snapshot from before the commit of `xid`, or `None` if there is none or
    /// it is too old.
    pub(super) fn before(&self, xid: u32) -> Option<Arc<HeldSnapshot>> {
        let entries = self.lock();
        let entry = newest_before(&entries, xid, Instant::now())?;
        Some(Arc::clone(&entry.held))
    }

    /// Starts the task that takes snapshots while `is_needed` returns true. Waits until a snapshot
    /// has been taken after this call, or an attempt has failed.
    pub(super) async fn start(
        self: &Arc<Self>,
        is_needed: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        if !self.is_running.swap(true, Ordering::SeqCst) {
            let history = Arc::clone(self);
            self.tasks.spawn("visibility snapshots", async move {
                let refreshing = async {
                    while is_needed() {
                        history.refresh().await;
                        tokio::time::sleep(PAUSE).await;
                    }
                };
                tokio::select! {
                    () = refreshing => {}
                    () = history.tasks.token().cancelled() => {}
                }
                history.is_running.store(false, Ordering::SeqCst);
                history.lock().clear();
            });
        }
        self.refresh().await;
    }

    /// Ensures that the newest snapshot sees these transactions, if snapshots are taken at all.
    /// This is necessary because a client that receives a row may delete it at once.
    pub(super) async fn catch_up(&self, mut xids: impl Iterator<Item = u32>) {
        if !self.is_running.load(Ordering::SeqCst) {
            return;
        }
        let is_behind = {
            let entries = self.lock();
            entries
                .last()
                .is_none_or(|newest| xids.any(|xid| !newest.visible.sees(xid)))
        };
        if is_behind {
            // Boxed, because this future is large and rarely needed, and would otherwise enlarge
            // the future of every batch.
            Box::pin(self.refresh()).await;
        }
    }

    /// Takes a snapshot. If that fails, the history is cleared, because the next deletion would be
    /// checked in a state that is too old.
    async fn refresh(&self) {
        let called_at = Instant::now();
        let mut checked_at = self.checked_at.lock().await;
        if checked_at.is_some_and(|at| at >= called_at) {
            return;
        }
        let at = Instant::now();
        let result = tokio::time::timeout(TIMEOUT, self.export_if_changed(at))
            .await
            .unwrap_or(Err(QueryError::Unavailable(None)));
        match result {
            Ok(()) => *checked_at = Some(at),
            Err(error) => {
                tracing::debug!(%error, "snapshot export failed; deletions are checked without one");
                self.lock().clear();
            }
        }
    }

    /// Exports the current snapshot if a transaction has ended since the previous snapshot.
    async fn export_if_changed(&self, at: Instant) -> Result<(), QueryError> {
        let exporter = self.exporter().await?;
        let known = {
            let entries = self.lock();
            let newest = entries.last();
            let newest = newest.filter(|newest| Arc::ptr_eq(&newest.held.exporter, &exporter));
            newest.map_or_else(String::new, |newest| newest.text.clone())
        };
        let answers = exporter
            .client
            .simple_query(&format!(
                "select s.now, case when s.now <> '{known}' then pg_catalog.pg_export_snapshot() end
                 from (select pg_catalog.pg_current_snapshot()::text as now) as s"
            ))
            .await?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let (text, id) = row
            .and_then(|row| Some((row.get(0)?, row.get(1))))
            .ok_or(QueryError::Unavailable(None))?;
        let visible = Snapshot::parse(text).ok_or(QueryError::Unavailable(None))?;
        let mut entries = self.lock();
        match (id, entries.last_mut()) {
            (None, Some(newest)) => newest.current = at,
            (None, None) => {}
            (Some(id), _) => entries.push(Entry {
                held: Arc::new(HeldSnapshot {
                    id: id.to_owned(),
                    exporter,
                }),
                text: text.to_owned(),
                visible,
                taken: Instant::now(),
                current: at,
            }),
        }
        Ok(())
    }

    /// Returns the transaction to export from. If the term of the newest one is over, begins
    /// another transaction, after ending the older of the two that are open.
    async fn exporter(&self) -> Result<Arc<Exporter>, QueryError> {
        match self.current_exporter() {
            Some(exporter) => Ok(exporter),
            None => self.begin(self.retire_exporter()).await,
        }
    }

    fn current_exporter(&self) -> Option<Arc<Exporter>> {
        let mut entries = self.lock();
        let exporter = Arc::clone(&entries.last()?.held.exporter);
        if exporter.client.is_closed() {
            entries.clear();
            return None;
        }
        let own = entries.iter().rev();
        let own = own.take_while(|entry| Arc::ptr_eq(&entry.held.exporter, &exporter));
        let is_over = exporter.begun.elapsed() >= TERM || own.count() >= MAX_EXPORTED;
        (!is_over).then_some(exporter)
    }

    /// Forgets the snapshots of the older transaction, if two are open. Returns its connection for
    /// reuse, unless a query still uses one of these snapshots.
    fn retire_exporter(&self) -> Option<Client> {
        let mut entries = self.lock();
        let newest = Arc::clone(&entries.last()?.held.exporter);
        let oldest = Arc::clone(&entries.first()?.held.exporter);
        entries.retain(|entry| Arc::ptr_eq(&entry.held.exporter, &newest));
        drop(newest);
        Arc::into_inner(oldest).map(|exporter| exporter.client)
    }

    async fn begin(&self, reused: Option<Client>) -> Result<Arc<Exporter>, QueryError> {
        let client = match reused.filter(|client| !client.is_closed()) {
            Some(client) => {
                client.batch_execute("rollback").await?;
                client
            }
            None => {
                // Boxed, because the handshake's state is large and would otherwise enlarge every
                // future that awaits this one.
                let connecting = Box::pin(
                    self.connector
                        .connect("rapport visibility snapshots", &self.tasks),
                );
                let client = connecting.await?;
                client.batch_execute(CONNECTION_SETTINGS).await?;
                client
            }
        };
        client.batch_execute(BEGIN).await?;
        let begun = Instant::now();
        Ok(Arc::new(Exporter { client, begun }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the newest entry that does not see `xid`, if it was current at most [`MAX_AGE`] before
/// the commit. The commit is between this entry and the next, or before `now` if there is none.
fn newest_before<H>(entries: &[Entry<H>], xid: u32, now: Instant) -> Option<&Entry<H>> {
    let place = entries.iter().rposition(|entry| !entry.visible.sees(xid))?;
    let committed = entries.get(place + 1).map_or(now, |next| next.taken);
    let entry = &entries[place];
    let age = committed.saturating_duration_since(entry.current);
    (age <= MAX_AGE).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_used_for_a_commit_at_most_a_second_later() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        // Transaction 10 ends between the entries, and 11 after both.
        let entry = |text: &str, taken, current| Entry {
            held: (),
            text: text.to_owned(),
            visible: Snapshot::parse(text).expect("a snapshot"),
            taken: at(taken),
            current: at(current),
        };
        // (second entry taken at, now, entry for 10, entry for 11). The first entry is current
        // until 300 ms.
        let cases = [
            (400, 500, Some("10:10:"), Some("11:11:")),
            (1_300, 1_400, Some("10:10:"), Some("11:11:")),
            (1_301, 1_400, None, Some("11:11:")),
            (400, 1_401, Some("10:10:"), None),
        ];
        for (second, now, for_first, for_second) in cases {
            let entries = [entry("10:10:", 100, 300), entry("11:11:", second, second)];
            let found = |xid| newest_before(&entries, xid, at(now)).map(|it| it.text.as_str());
            assert_eq!(
                (found(10), found(11)),
                (for_first, for_second),
                "{second}, {now}"
            );
            assert_eq!(found(9), None, "seen by both");
        }
    }
}
