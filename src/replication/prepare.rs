//! Everything that must be right before a connection can stream: the publication exists, then the
//! slot does, it can be read, and nobody else reads it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::names::{APPLICATION_NAME, SlotName};
use super::publication::{self, Publications};
use super::session_error::SessionError;
use super::slot::{self, Holder};
use super::timeout::answered;
use crate::config::ReplicationConfig;
use crate::db::connect::Connector;

/// A client of ours speaks every 2 s ([`super::transport`]). One that was silent this long is gone,
/// although its connection still stands (its machine died, or the network lost it), and its
/// walsender may be ended. Without that the slot stays taken until `wal_sender_timeout`.
pub(super) const TAKEOVER_AFTER: Duration = Duration::from_secs(7);

/// How the slot came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotOrigin {
    /// It was there, and continues where it was acknowledged.
    Found,
    /// There was none.
    Made,
    /// There was one that could not be used any more; what it held is lost.
    Replaced,
}

/// What is remembered from one attempt to the next.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    /// The walsender of our last connection.
    pub own_pid: Option<i32>,
    /// The slot cannot be read further: make it anew.
    pub needs_new_slot: bool,
    /// Who else holds the slot, and since when nothing about them has changed.
    other: Option<(Holder, Instant)>,
}

impl Preparation {
    /// Makes publication and slot ready, and tells which publications there are.
    ///
    /// # Errors
    /// [`SessionError::SlotBusy`] while somebody else reads the slot, [`SessionError::Stopped`],
    /// or whatever a statement fails with.
    pub(super) async fn prepare(
        &mut self,
        client: &Client,
        connector: &Connector,
        name: &SlotName,
        config: &ReplicationConfig,
        stop: &CancellationToken,
    ) -> Result<(SlotOrigin, Publications), SessionError> {
        let looking = async {
            let publications = publication::ensure(client, &config.publication).await?;
            Ok::<_, SessionError>((publications, slot::inspect(client, name).await?))
        };
        let (publications, state) = answered("looking at publication and slot", looking).await?;
        let Some(state) = state else {
            slot::create(client, connector, name, stop).await?;
            tracing::info!(slot = %name, "replication slot made");
            self.needs_new_slot = false;
            return Ok((SlotOrigin::Made, publications));
        };
        if !state.is_ours {
            return Err(SessionError::ForeignSlot(name.to_string()));
        }
        if let Some(pid) = state.active_pid {
            answered(
                "looking at who reads the slot",
                self.end_dead_holder(client, pid),
            )
            .await?;
            return Err(SessionError::SlotBusy(pid));
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
            "the replication slot cannot be used any more and is made anew; changes may be missing"
        );
        answered("dropping the slot", slot::drop(client, name)).await?;
        slot::create(client, connector, name, stop).await?;
        self.needs_new_slot = false;
        Ok((SlotOrigin::Replaced, publications))
    }

    /// Ends the walsender `pid` if its client is our own last connection, or one of ours that has
    /// gone silent. A living one keeps the slot: this process then waits for its end.
    async fn end_dead_holder(&mut self, client: &Client, pid: i32) -> Result<(), SessionError> {
        if self.own_pid == Some(pid) {
            return Ok(slot::terminate(client, pid).await?);
        }
        let holder = slot::holder(client, pid).await?;
        match &self.other {
            Some((known, since)) if *known == holder => {
                let is_ours = holder.application_name.as_deref() == Some(APPLICATION_NAME);
                if is_ours && since.elapsed() >= TAKEOVER_AFTER {
                    tracing::warn!(pid, "ending the walsender of a client that is gone");
                    slot::terminate(client, pid).await?;
                }
            }
            _ => self.other = Some((holder, Instant::now())),
        }
        Ok(())
    }
}
