//! Waits until new snapshots see what the log says is committed.
//!
//! A commit record is written, and may be sent to us, before the transaction ends for everyone else: PostgreSQL takes
//! it off the list of running transactions after that, and with synchronous replication only when the standby has
//! answered (PostgreSQL manual 27.2.8). A query asked in between is answered as if the transaction had not
//! been: a policy misses the membership that was inserted together with the row, the catalogue the new column.

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

/// A snapshot costs the server nothing, so its own limit only matters when it is stuck.
const SESSION: &str = "set statement_timeout = '10s'";

/// How long one look may take before its connection is given up: longer than the server's own
/// limit, so it only matters when the network swallows packets.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// First and longest pause between two looks. What is left of a commit takes microseconds; a standby
/// that has to answer first takes as long as it takes.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// After how long somebody should know what everything waits for.
const WARN_AFTER: Duration = Duration::from_secs(5);

/// Looks at which transactions new snapshots see, on a connection of its own.
pub(super) struct CommitWatch {
    connector: Connector,
    tasks: Tasks,
    metrics: VisibilityMetrics,
    /// An async lock because it stands for the connection's own turn.
    connection: tokio::sync::Mutex<Option<Client>>,
}

/// The transactions of one batch. Waited for once, by whoever needs it first.
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

    /// These transactions, which the log says are committed.
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
                            "row changes wait for a transaction that is committed and not yet \
                             visible: does it wait for a synchronous standby?"
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

    /// Whether a snapshot of now sees all of `xids` that any snapshot ever will.
    async fn are_visible(&self, xids: &[u32]) -> Result<bool, QueryError> {
        let mut connection = self.connection.lock().await;
        // Taken out: a look that is dropped half-way leaves a connection nobody uses again.
        let client = connection.take();
        let looking = async {
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
        let (client, are_visible) = tokio::time::timeout(LOOK_TIMEOUT, looking)
            .await
            .unwrap_or(Err(QueryError::Unavailable(None)))?;
        *connection = Some(client);
        Ok(are_visible)
    }

    async fn connect(&self) -> Result<Client, QueryError> {
        // Boxed: the handshake's state is large, and would be part of every resolution.
        let connecting = Box::pin(
            self.connector
                .connect("rapport visibility commits", &self.tasks),
        );
        let client = connecting.await?;
        client.batch_execute(SESSION).await?;
        Ok(client)
    }
}

impl PendingCommits<'_> {
    /// Waits until every snapshot taken from now on sees all of them, for as long as that takes:
    /// others do not see these rows either until then.
    pub(super) async fn wait_visible(&self) {
        // Boxed for the same reason: it is awaited in several places of a resolution.
        self.seen
            .get_or_init(|| Box::pin(self.watch.wait(&self.xids)))
            .await;
    }
}

/// Whether the database knows of this transaction. One of its future is of another history: a standby took over,
/// or a backup was restored, without that commit, and nobody will ever see it.
async fn has_begun(client: &Client, xid: u64) -> Result<bool, QueryError> {
    let status = format!("select pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)");
    match client.simple_query(&status).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
