//! The check, beside the stream, that the slot is still ours and keeps no more log than it may.
//!
//! It notices publications that come and go, too, and when the stream may begin to read a new one.
//! It is also what notices a dead network: an idle stream is silent for as long as PostgreSQL has
//! nothing to say.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::names::{CONTROL_APPLICATION_NAME, SlotName};
use super::publication::{self, Publications};
use super::session_error::SessionError;
use super::slot::{self, SlotState};
use super::timeout::answered;
use crate::change::Lsn;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// How soon the slot is looked at for the first time.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// What to hold the slot against.
pub(super) struct SlotWatch {
    pub connector: Connector,
    pub tasks: Tasks,
    pub name: SlotName,
    /// The walsender that must hold the slot.
    pub pid: i32,
    pub max_wal_held_bytes: u64,
    pub interval: Duration,
    /// The publication of row changes.
    pub publication: String,
    /// The publications that this connection reads.
    pub reading: Publications,
}

/// What has to happen before a publication that was made later may be read. A change written in a
/// transaction that began before the publication is decoded with the catalogs of that time, in
/// which it is missing, and the slot fails for ever (before PostgreSQL 18).
enum Wait {
    /// Every transaction that may be that old has ended: those below this id.
    ForTransactions(i64),
    /// Everything before this position is acknowledged, so that it is not decoded again.
    ForPosition(Lsn),
}

impl SlotWatch {
    /// Looks once per interval, reporting what it sees, and ends with what is wrong.
    pub(super) async fn run(self, client: Client, report: impl Fn(&SlotState)) -> SessionError {
        let mut client = Some(client);
        // The first look is early, so that a server that has just started can say how it is.
        let mut pause = self.interval.min(FIRST_LOOK);
        let mut wait = None;
        loop {
            tokio::time::sleep(pause).await;
            pause = self.interval;
            let (state, next) = match self.look(&mut client, wait.take()).await {
                Ok((Some(state), next)) => (state, next),
                Ok((None, _)) => return SessionError::SlotNotHeld,
                // The server answers, if only to refuse (too many connections, for one): the
                // stream may well be sound.
                Err(error) if error.sqlstate().is_some() => {
                    tracing::warn!(%error, "the replication slot cannot be looked at");
                    client = None;
                    continue;
                }
                Err(error) => return error,
            };
            report(&state);
            if state.active_pid != Some(self.pid) {
                return SessionError::SlotNotHeld;
            }
            if state.held_bytes > self.max_wal_held_bytes {
                return SessionError::WalHeld {
                    held_bytes: state.held_bytes,
                    limit_bytes: self.max_wal_held_bytes,
                };
            }
            if let (Some(Wait::ForPosition(position)), Some(confirmed)) = (&next, state.confirmed)
                && confirmed >= *position
            {
                return SessionError::PublicationsChanged;
            }
            if next.is_some() {
                // It takes two steps, and meanwhile messages are missed.
                pause = self.interval.min(FIRST_LOOK);
            }
            wait = next;
        }
    }

    /// The slot's state and what is waited for now, over a new connection where the old one has
    /// ended.
    async fn look(
        &self,
        client: &mut Option<Client>,
        wait: Option<Wait>,
    ) -> Result<(Option<SlotState>, Option<Wait>), SessionError> {
        let connected = match client.take().filter(|client| !client.is_closed()) {
            Some(connected) => connected,
            None => connect(&self.connector, &self.tasks).await?,
        };
        let looking = async {
            let state = slot::inspect(&connected, &self.name).await?;
            let found = publication::look(&connected, &self.publication).await?;
            if self.reading.messages && !found.messages {
                return Err(SessionError::PublicationsChanged);
            }
            if !found.exceed(self.reading) {
                return Ok::<_, SessionError>((state, None));
            }
            Ok((state, Some(advance(&connected, wait).await?)))
        };
        let seen = answered("looking at the replication slot", looking).await?;
        *client = Some(connected);
        Ok(seen)
    }
}

/// The next step of waiting for a publication to become readable.
async fn advance(client: &Client, wait: Option<Wait>) -> Result<Wait, tokio_postgres::Error> {
    const SQL: &str = "
        select pg_snapshot_xmin(snapshot)::text::bigint
             , pg_snapshot_xmax(snapshot)::text::bigint
             , case when pg_is_in_recovery()
                    then pg_last_wal_replay_lsn()
                    else pg_current_wal_lsn() end
          from pg_current_snapshot() as snapshot";
    let row = client.query_one(SQL, &[]).await?;
    Ok(match wait {
        None => Wait::ForTransactions(row.try_get(1)?),
        Some(Wait::ForTransactions(limit)) if row.try_get::<_, i64>(0)? >= limit => {
            Wait::ForPosition(Lsn(row.try_get::<_, PgLsn>(2)?.into()))
        }
        Some(unchanged) => unchanged,
    })
}

/// The ordinary connection beside the stream.
pub(super) async fn connect(connector: &Connector, tasks: &Tasks) -> Result<Client, SessionError> {
    // Boxed: the handshake's state is large, and would be part of the task for as long as it runs.
    let connecting = Box::pin(connector.connect(CONTROL_APPLICATION_NAME, tasks));
    answered("connecting", connecting).await
}
