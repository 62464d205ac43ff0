//! Waits until new snapshots see transactions that are committed in the WAL.
//!
//! A commit record is written, and may reach this process, before the transaction ends for other
//! connections. PostgreSQL removes the transaction from the list of running transactions only
//! afterwards. With synchronous replication, it first waits until the standby has confirmed the
//! commit (PostgreSQL manual 27.2.8). A query in between does not see the transaction: a policy
//! misses a membership that was inserted together with the row, and the catalogue lacks a new
//! column.

use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::backoff::Backoff;
use super::error::QueryError;
use crate::db::Snapshot;
use crate::db::connect::Connector;
use crate::observability::metrics::VisibilityMetrics;
use crate::shutdown::Tasks;

/// The time limit of a check. Taking a snapshot costs PostgreSQL almost nothing, so the limit only
/// matters if PostgreSQL is stuck.
const CONNECTION_SETTINGS: &str = "set statement_timeout = '10s'";

/// Maximum time for one check, after which its connection is dropped. This exceeds the server's own
/// limit, so it only matters if the network loses packets.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// The first pause between two checks. The rest of a commit usually takes microseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause between two checks. A standby that must confirm the commit can take any time.
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Waiting time after which a warning is logged.
const WARN_AFTER: Duration = Duration::from_secs(5);

/// Reads which transactions new snapshots see, over one connection.
pub(super) struct CommitWatch {
    connector: Connector,
    tasks: Tasks,
    metrics: VisibilityMetrics,
    /// The connection. An async lock, because it is held while the connection is in use.
    connection: tokio::sync::Mutex<Option<Client>>,
}

/// The transactions of one batch. The first caller waits until they are visible, and later callers
/// share the result.
pub(super) struct PendingCommits<'a> {
    watch: &'a CommitWatch,
    xids: Vec<u32>,
    seen: OnceCell<()>,
}

impl CommitWatch {
    pub(super) fn new(connector: Connector, metrics: VisibilityMetrics, tasks: &Tasks) -> Self {
        Self {
            connector,
            tasks: tasks.clone(),
            metrics,
            connection: tokio::sync::Mutex::new(None),
        }
    }

    /// Returns a handle for waiting until these transactions, which are committed in the WAL, are
    /// visible.
    pub(super) fn pending(&self, xids: impl Iterator<Item = u32>) -> PendingCommits<'_> {
        let mut xids: Vec<u32> = xids.collect();
        xids.sort_unstable();
        xids.dedup();
        PendingCommits {
            watch: self,
            xids,
            seen: OnceCell::new(),
        }
    }

    async fn wait(&self, xids: &[u32]) {
        let begun = Instant::now();
        let mut is_warned = false;
        let mut pause = FIRST_PAUSE;
        let mut backoff = Backoff::new(&self.metrics);
        loop {
            match self.are_visible(xids).await {
                Ok(true) => return,
                Ok(false) => {
                    self.metrics.commit_waits.inc();
                    if !is_warned && begun.elapsed() >= WARN_AFTER {
                        is_warned = true;
                        tracing::warn!(
                            "waiting for a committed transaction to become visible; it may be \
                             waiting for a synchronous standby"
                        );
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                    backoff = Backoff::new(&self.metrics);
                }
                Err(error) => backoff.wait(&error).await,
            }
        }
    }

    /// Returns whether a current snapshot sees all of `xids`, except those that no snapshot will
    /// ever see.
    async fn are_visible(&self, xids: &[u32]) -> Result<bool, QueryError> {
        let mut connection = self.connection.lock().await;
        // The connection is taken out of the lock, so that dropping an unfinished check also drops
        // the connection.
        let client = connection.take();
        let check = async {
            let client = match client.filter(|client| !client.is_closed()) {
                Some(client) => client,
                None => self.connect().await?,
            };
            let answers = client
                .simple_query("select pg_catalog.pg_current_snapshot()")
                .await?;
            let snapshot = answers
                .iter()
                .find_map(|answer| match answer {
                    SimpleQueryMessage::Row(row) => Snapshot::parse(row.get(0)?),
                    _ => None,
                })
                .ok_or(QueryError::Unavailable(None))?;
            let mut are_visible = true;
            for xid in xids.iter().filter(|xid| !snapshot.sees(**xid)) {
                if has_begun(&client, snapshot.full_xid(*xid)).await? {
                    are_visible = false;
                    break;
                }
            }
            Ok::<_, QueryError>((client, are_visible))
        };
        let (client, are_visible) = tokio::time::timeout(CHECK_TIMEOUT, check)
            .await
            .unwrap_or(Err(QueryError::Unavailable(None)))?;
        *connection = Some(client);
        Ok(are_visible)
    }

    async fn connect(&self) -> Result<Client, QueryError> {
        // Boxed, because the handshake's state is large and would otherwise enlarge every future
        // that awaits this one.
        let connecting = Box::pin(
            self.connector
                .connect("rapport visibility commits", &self.tasks),
        );
        let client = connecting.await?;
        client.batch_execute(CONNECTION_SETTINGS).await?;
        Ok(client)
    }
}

impl PendingCommits<'_> {
    /// Waits until every new snapshot sees all transactions of the batch. Other connections do not
    /// see the rows of these transactions earlier either.
    pub(super) async fn wait_visible(&self) {
        // Boxed, because the batch's future awaits this in several places and would otherwise
        // contain it several times.
        self.seen
            .get_or_init(|| Box::pin(self.watch.wait(&self.xids)))
            .await;
    }
}

/// Returns whether the transaction exists in this history of the database. If a standby took over
/// or a backup was restored without the commit, its id lies in the future, and no snapshot will
/// ever see it.
async fn has_begun(client: &Client, xid: u64) -> Result<bool, QueryError> {
    let status = format!("select pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)");
    match client.simple_query(&status).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
