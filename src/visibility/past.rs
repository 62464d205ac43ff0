//! Snapshots from before a deletion, for policies that look at other rows.
//!
//! A transaction that deletes a row often deletes what its policy looks at, too: the room with its
//! members and its posts. Asked after the commit, the policy hides such a row from everybody. So
//! where somebody may have to be told of a deletion like that, snapshots are taken all the
//! time, and the newest one that does not see the deleting transaction is asked.
//!
//! A snapshot lives as long as the transaction that exported it (PostgreSQL manual 9.28.5). One
//! transaction exports many, for a *term*; the one before it stays open, so that there are snapshots
//! from before everything that the stream has not brought yet, as long as it lags by less than a term.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::AskError;
use crate::db::Snapshot;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// The pause between two snapshots. Who gained or lost access for so long before a deletion may be
/// taken for one who had not yet; a look costs the server some microseconds.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one transaction exports. Two of them hold back VACUUM by twice this at most.
const TERM: Duration = Duration::from_secs(5);

/// Snapshots that one transaction exports: each is a small file of the server's.
const MAX_EXPORTED: usize = 1_000;

/// How long taking one may hold up a batch of changes.
const TIMEOUT: Duration = Duration::from_secs(1);

const SESSION: &str =
    "set statement_timeout = '1s'; set idle_in_transaction_session_timeout = '30s'";

/// Only under READ COMMITTED has each statement a snapshot of its own to export.
const BEGIN: &str = "begin isolation level read committed read only";

/// A transaction that exports, and its connection.
struct Term {
    client: Client,
    begun: Instant,
}

/// An exported snapshot. It can be used as long as this value lives and its connection is sound.
pub(super) struct Moment {
    id: String,
    /// As the server prints it.
    text: String,
    snapshot: Snapshot,
    term: Arc<Term>,
}

impl Moment {
    /// What to call it in `set transaction snapshot`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// The snapshots that are held.
pub(super) struct Past {
    connector: Connector,
    tasks: Tasks,
    /// Whether a task takes snapshots.
    is_kept: AtomicBool,
    /// In the order in which they were taken. A std lock: held for a look-up or an insertion.
    moments: Mutex<Vec<Arc<Moment>>>,
    /// The turn to take one, and when that was last done. An async lock: whoever waits for it finds
    /// it done.
    turn: tokio::sync::Mutex<Option<Instant>>,
}

impl Past {
    pub(super) fn new(connector: Connector, tasks: &Tasks) -> Self {
        Self {
            connector,
            tasks: tasks.clone(),
            is_kept: AtomicBool::new(false),
            moments: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The newest snapshot that does not see a transaction.
    pub(super) fn before(&self, xid: u32) -> Option<Arc<Moment>> {
        let moments = self.lock();
        let unaware = moments.iter().rfind(|moment| !moment.snapshot.sees(xid));
        unaware.map(Arc::clone)
    }

    /// Has snapshots taken for as long as `is_wanted`, and waits for one of now.
    pub(super) async fn keep(
        self: &Arc<Self>,
        is_wanted: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        if !self.is_kept.swap(true, Ordering::SeqCst) {
            let past = Arc::clone(self);
            self.tasks.spawn("snapshots of the past", async move {
                let keeping = async {
                    while is_wanted() {
                        past.take().await;
                        tokio::time::sleep(PAUSE).await;
                    }
                };
                tokio::select! {
                    () = keeping => {}
                    () = past.tasks.token().cancelled() => {}
                }
                past.is_kept.store(false, Ordering::SeqCst);
                past.lock().clear();
            });
        }
        self.take().await;
    }

    /// Sees to it that the newest snapshot sees these transactions, if any are taken: whoever is told
    /// of them may act on it.
    pub(super) async fn catch_up(&self, mut xids: impl Iterator<Item = u32>) {
        if !self.is_kept.load(Ordering::SeqCst) {
            return;
        }
        let newest = self.lock().last().map(Arc::clone);
        if newest.is_none_or(|newest| xids.any(|xid| !newest.snapshot.sees(xid))) {
            self.take().await;
        }
    }

    /// Takes a snapshot. Without one that can be taken none of those before is worth anything: the
    /// connection is gone, or somebody would be judged by a state of long ago.
    async fn take(&self) {
        let asked_at = Instant::now();
        let mut turn = self.turn.lock().await;
        if turn.is_some_and(|taken_at| taken_at >= asked_at) {
            return;
        }
        let taken_at = Instant::now();
        let taken = tokio::time::timeout(TIMEOUT, self.export())
            .await
            .unwrap_or(Err(AskError::Unavailable(None)));
        match taken {
            Ok(moment) => {
                *turn = Some(taken_at);
                self.lock().extend(moment.map(Arc::new));
            }
            Err(error) => {
                tracing::debug!(%error, "no snapshot can be taken");
                self.lock().clear();
            }
        }
    }

    /// Exports a snapshot of now; `None` when no transaction has ended since the last one.
    async fn export(&self) -> Result<Option<Moment>, AskError> {
        let term = self.term().await?;
        let known = self.lock().last().map(Arc::clone);
        let known = known.filter(|newest| Arc::ptr_eq(&newest.term, &term));
        let known = known.map_or_else(String::new, |newest| newest.text.clone());
        let answers = term
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
            .ok_or(AskError::Unavailable(None))?;
        let Some(id) = id else {
            return Ok(None);
        };
        Ok(Some(Moment {
            id: id.to_owned(),
            text: text.to_owned(),
            snapshot: Snapshot::parse(text).ok_or(AskError::Unavailable(None))?,
            term,
        }))
    }

    /// The present term, or a new one in place of the one before it.
    async fn term(&self) -> Result<Arc<Term>, AskError> {
        match self.present() {
            Ok(present) => Ok(present),
            Err(idle) => self.begin(idle).await,
        }
    }

    /// The present term. At its end the one before it ends, whose connection is given back unless
    /// somebody still asks about a moment of it.
    fn present(&self) -> Result<Arc<Term>, Option<Box<Client>>> {
        let mut moments = self.lock();
        let present = moments.last().map(|newest| Arc::clone(&newest.term));
        let Some(present) = present.filter(|present| !present.client.is_closed()) else {
            moments.clear();
            return Err(None);
        };
        let is_of_present = |moment: &Arc<Moment>| Arc::ptr_eq(&moment.term, &present);
        let exported = moments
            .iter()
            .filter(|moment| is_of_present(moment))
            .count();
        if present.begun.elapsed() < TERM && exported < MAX_EXPORTED {
            return Ok(present);
        }
        let oldest = moments.first().filter(|oldest| !is_of_present(oldest));
        let ended = oldest.map(|oldest| Arc::clone(&oldest.term));
        moments.retain(is_of_present);
        let ended = ended.and_then(Arc::into_inner);
        Err(ended.map(|ended| Box::new(ended.client)))
    }

    async fn begin(&self, idle: Option<Box<Client>>) -> Result<Arc<Term>, AskError> {
        let client = match idle.filter(|client| !client.is_closed()) {
            Some(client) => {
                client.batch_execute("rollback").await?;
                *client
            }
            None => {
                // Boxed: the handshake's state is large, and would be part of every resolution.
                let connecting = Box::pin(
                    self.connector
                        .connect("rapport visibility past", &self.tasks),
                );
                let client = connecting.await?;
                client.batch_execute(SESSION).await?;
                client
            }
        };
        client.batch_execute(BEGIN).await?;
        let begun = Instant::now();
        Ok(Arc::new(Term { client, begun }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Moment>>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
