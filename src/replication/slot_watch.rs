//! Checks, while the stream runs, that the replication connection still uses the slot and that the
//! slot does not hold too much WAL.
//!
//! The checks also detect that a publication was created and can now be read, and that the
//! publication of `realtime.messages` was dropped. They also detect a dead network. The stream
//! itself cannot, because it is silent while PostgreSQL has nothing to send.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::connection_error::ConnectionError;
use super::names::{CONTROL_APPLICATION_NAME, SlotName};
use super::publication::{self, Publications};
use super::slot::{self, SlotInfo};
use super::timeout::with_timeout;
use crate::change::Lsn;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Time until the first check.
const FIRST_CHECK: Duration = Duration::from_secs(1);

/// The settings of the checks, and the expected state.
pub(super) struct SlotWatch {
    pub connector: Connector,
    pub tasks: Tasks,
    pub name: SlotName,
    /// The walsender that must use the slot.
    pub pid: i32,
    pub max_wal_held_bytes: u64,
    pub interval: Duration,
    /// The publication of row changes.
    pub publication: String,
    /// The publications that the replication connection reads.
    pub publications: Publications,
}

/// The condition that must be met before a newly created publication can be read. A change of a
/// transaction that began earlier is decoded with the catalogue of that time. That catalogue does
/// not contain the publication, so reading the slot would fail forever (before PostgreSQL 18).
enum PublicationWait {
    /// All transactions with a lower id must have ended.
    ForTransactions(i64),
    /// Everything before this position must have been acknowledged, so that it is not decoded
    /// again.
    ForPosition(Lsn),
}

impl SlotWatch {
    /// Checks once per interval and reports the state. Returns when the connection must end, with
    /// the reason.
    pub(super) async fn run(self, client: Client, report: impl Fn(&SlotInfo)) -> ConnectionError {
        let mut client = Some(client);
        // The first check is early, so that a newly started server soon reports its state.
        let mut pause = self.interval.min(FIRST_CHECK);
        let mut wait = None;
        loop {
            tokio::time::sleep(pause).await;
            pause = self.interval;
            let (state, next) = match self.check(&mut client, wait.take()).await {
                Ok((Some(state), next)) => (state, next),
                Ok((None, _)) => return ConnectionError::SlotNotHeld,
                // The server responds, if only with a refusal such as too many connections. The
                // stream may still work.
                Err(error) if error.sqlstate().is_some() => {
                    tracing::warn!(%error, "replication slot check failed; retrying");
                    client = None;
                    continue;
                }
                Err(error) => return error,
            };
            report(&state);
            if state.active_pid != Some(self.pid) {
                return ConnectionError::SlotNotHeld;
            }
            if state.held_bytes > self.max_wal_held_bytes {
                return ConnectionError::WalHeld {
                    held_bytes: state.held_bytes,
                    limit_bytes: self.max_wal_held_bytes,
                };
            }
            if let (Some(PublicationWait::ForPosition(position)), Some(confirmed)) =
                (&next, state.confirmed)
                && confirmed >= *position
            {
                return ConnectionError::PublicationsChanged;
            }
            if next.is_some() {
                // A new publication can be read after two waits, and its rows are missed until
                // then.
                pause = self.interval.min(FIRST_CHECK);
            }
            wait = next;
        }
    }

    /// Returns the slot's state, and the condition for reading a new publication, if there is one.
    /// Reconnects if `client` has lost its connection.
    async fn check(
        &self,
        client: &mut Option<Client>,
        wait: Option<PublicationWait>,
    ) -> Result<(Option<SlotInfo>, Option<PublicationWait>), ConnectionError> {
        let connected = match client.take().filter(|client| !client.is_closed()) {
            Some(connected) => connected,
            None => connect(&self.connector, &self.tasks).await?,
        };
        let checking = async {
            let state = slot::inspect(&connected, &self.name).await?;
            let found = publication::inspect(&connected, &self.publication).await?;
            if self.publications.messages && !found.messages {
                return Err(ConnectionError::PublicationsChanged);
            }
            if !found.has_more_than(self.publications) {
                return Ok::<_, ConnectionError>((state, None));
            }
            Ok((state, Some(next_wait(&connected, wait).await?)))
        };
        let seen = with_timeout("checking the replication slot", checking).await?;
        *client = Some(connected);
        Ok(seen)
    }
}

/// Returns the next condition for reading a new publication. `wait` is the previous one.
async fn next_wait(
    client: &Client,
    wait: Option<PublicationWait>,
) -> Result<PublicationWait, tokio_postgres::Error> {
    const SQL: &str = "
        select pg_snapshot_xmin(snapshot)::text::bigint
             , pg_snapshot_xmax(snapshot)::text::bigint
             , case when pg_is_in_recovery()
                    then pg_last_wal_replay_lsn()
                    else pg_current_wal_lsn() end
          from pg_current_snapshot() as snapshot";
    let row = client.query_one(SQL, &[]).await?;
    Ok(match wait {
        None => PublicationWait::ForTransactions(row.try_get(1)?),
        Some(PublicationWait::ForTransactions(limit)) if row.try_get::<_, i64>(0)? >= limit => {
            PublicationWait::ForPosition(Lsn(row.try_get::<_, PgLsn>(2)?.into()))
        }
        Some(unchanged) => unchanged,
    })
}

/// Opens the ordinary connection, which runs statements before, during and after streaming.
pub(super) async fn connect(
    connector: &Connector,
    tasks: &Tasks,
) -> Result<Client, ConnectionError> {
    // Boxed, because the handshake's state is large and would otherwise take memory for as long as
    // the task runs.
    let connecting = Box::pin(connector.connect(CONTROL_APPLICATION_NAME, tasks));
    with_timeout("connecting", connecting).await
}
