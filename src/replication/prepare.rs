//! Prepares for streaming: ensures that a publication exists, and then that the slot exists, can be
//! read, and is not in use.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::connection_error::ConnectionError;
use super::names::{APPLICATION_NAME, SlotName};
use super::publication::{self, Publications};
use super::slot::{self, SlotHolder};
use super::timeout::with_timeout;
use crate::config::ReplicationConfig;
use crate::db::connect::Connector;

/// How long another Rapport process may be silent before it counts as gone and its walsender may be
/// terminated. Rapport sends a status message at least every 2 s ([`super::transport`]). A
/// connection can outlast its client if the machine or the network fails. Without this limit, the
/// slot would then stay in use until `wal_sender_timeout`.
pub(super) const TAKEOVER_AFTER: Duration = Duration::from_secs(7);

/// The origin of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotOrigin {
    /// The slot existed. Reading continues at its last acknowledgement.
    Found,
    /// The slot did not exist and was created.
    Created,
    /// The slot was unusable and has been recreated. The changes that the old slot held are lost.
    Replaced,
}

/// The state that is kept between attempts.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    /// The walsender of this process's previous connection.
    pub own_pid: Option<i32>,
    /// Whether the slot cannot be read any further and must be recreated.
    pub needs_new_slot: bool,
    /// The other process that uses the slot, and since when it has sent nothing.
    other: Option<(SlotHolder, Instant)>,
}

impl Preparation {
    /// Ensures that a publication and the slot exist, and that the slot can be read. Returns the
    /// slot's origin and which publications exist.
    ///
    /// # Errors
    /// [`ConnectionError::SlotBusy`] while a walsender reads the slot,
    /// [`ConnectionError::ForeignSlot`] if the slot belongs to another plugin or database,
    /// [`ConnectionError::PublicationMissing`] if there is no publication,
    /// [`ConnectionError::Stopped`], or the error of a statement.
    pub(super) async fn prepare(
        &mut self,
        client: &Client,
        connector: &Connector,
        name: &SlotName,
        config: &ReplicationConfig,
        stop: &CancellationToken,
    ) -> Result<(SlotOrigin, Publications), ConnectionError> {
        let looking = async {
            let publications = publication::ensure(client, &config.publication).await?;
            Ok::<_, ConnectionError>((publications, slot::inspect(client, name).await?))
        };
        let (publications, state) = with_timeout("reading publication and slot", looking).await?;
        let Some(state) = state else {
            slot::create(client, connector, name, stop).await?;
            tracing::info!(slot = %name, "replication slot created");
            self.needs_new_slot = false;
            return Ok((SlotOrigin::Created, publications));
        };
        if !state.is_ours {
            return Err(ConnectionError::ForeignSlot(name.to_string()));
        }
        if let Some(pid) = state.active_pid {
            with_timeout(
                "reading which backend uses the slot",
                self.end_dead_holder(client, pid),
            )
            .await?;
            return Err(ConnectionError::SlotBusy(pid));
        }
        self.other = None;
        let is_over_limit = state.held_bytes > config.max_wal_held_bytes;
        if !(state.is_lost || is_over_limit || self.needs_new_slot) {
            return Ok((SlotOrigin::Found, publications));
        }
        tracing::warn!(
            slot = %name,
            is_lost = state.is_lost,
            held_bytes = state.held_bytes,
            "replication slot is unusable; recreating it, changes may be missing"
        );
        with_timeout("dropping the slot", slot::drop(client, name)).await?;
        slot::create(client, connector, name, stop).await?;
        self.needs_new_slot = false;
        Ok((SlotOrigin::Replaced, publications))
    }

    /// Terminates the walsender `pid` if it belongs to this process's previous connection, or to
    /// another Rapport process that has become silent. Otherwise the walsender keeps the slot, and
    /// this process waits.
    async fn end_dead_holder(&mut self, client: &Client, pid: i32) -> Result<(), ConnectionError> {
        if self.own_pid == Some(pid) {
            return Ok(slot::terminate(client, pid).await?);
        }
        let holder = slot::holder(client, pid).await?;
        match &self.other {
            Some((known, since)) if *known == holder => {
                let is_ours = holder.application_name.as_deref() == Some(APPLICATION_NAME);
                if is_ours && since.elapsed() >= TAKEOVER_AFTER {
                    tracing::warn!(pid, "terminating the walsender of a client that is gone");
                    slot::terminate(client, pid).await?;
                }
            }
            _ => self.other = Some((holder, Instant::now())),
        }
        Ok(())
    }
}
