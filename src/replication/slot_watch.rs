//! The check, beside the stream, that the slot is still ours and keeps no more log than it may.
//!
//! It is also what notices a dead network: an idle stream is silent for as long as PostgreSQL has
//! nothing to say.

use std::time::Duration;

use tokio_postgres::Client;

use super::error::SessionError;
use super::slot::{self, SlotName, SlotState};
use super::transport::{CONTROL_APPLICATION_NAME, answered};
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
}

impl SlotWatch {
    /// Looks once per interval, reporting what it sees, and ends with what is wrong.
    pub(super) async fn run(self, client: Client, report: impl Fn(&SlotState)) -> SessionError {
        let mut client = Some(client);
        // The first look is early, so that a server that has just started can say how it is.
        let mut pause = self.interval.min(FIRST_LOOK);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.interval;
            let state = match self.look(&mut client).await {
                Ok(Some(state)) => state,
                Ok(None) => return SessionError::SlotNotHeld,
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
        }
    }

    /// The slot's state, over a new connection where the old one has ended.
    async fn look(&self, client: &mut Option<Client>) -> Result<Option<SlotState>, SessionError> {
        let connected = match client.take().filter(|client| !client.is_closed()) {
            Some(connected) => connected,
            None => connect(&self.connector, &self.tasks).await?,
        };
        let state = answered(
            "looking at the replication slot",
            slot::inspect(&connected, &self.name),
        )
        .await?;
        *client = Some(connected);
        Ok(state)
    }
}

/// The ordinary connection beside the stream.
pub(super) async fn connect(connector: &Connector, tasks: &Tasks) -> Result<Client, SessionError> {
    // Boxed: the handshake's state is large, and would be part of the task for as long as it runs.
    let connecting = Box::pin(connector.connect(CONTROL_APPLICATION_NAME, tasks));
    answered("connecting", connecting).await
}
