//! The handle that starts and stops the stream.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::ReplicationError;
use super::names::SlotName;
use super::status::{ReplicationStatus, Sinks, StreamState};
use super::stream::{Memory, Stream};
use super::transport::Address;
use crate::config::ReplicationConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::ReplicationMetrics;
use crate::observability::readiness::Readiness;
use crate::shutdown::Tasks;

/// A running stream.
pub struct Replication {
    status: watch::Receiver<ReplicationStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Replication {
    /// Starts streaming into `sinks` and returns immediately. [`Replication::ready`] waits until
    /// the stream is live. The database need not be reachable yet.
    ///
    /// # Errors
    /// [`ReplicationError`] if the settings cannot work.
    pub fn start(
        connector: &Connector,
        config: &ReplicationConfig,
        sinks: Sinks,
        metrics: ReplicationMetrics,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, ReplicationError> {
        let address = Address::new(connector)?;
        let slot = SlotName::new(&config.slot_name, address.database())?;
        let (status, receiver) = watch::channel(ReplicationStatus {
            state: StreamState::Connecting,
            slot: slot.to_string(),
            last_commit: None,
            lag_bytes: None,
            wal_held_bytes: None,
            last_error: None,
        });
        let stop = tasks.token().child_token();
        let stream = Stream {
            connector: connector.clone(),
            address,
            config: config.clone(),
            slot,
            sinks,
            status,
            metrics,
            readiness,
            tasks: tasks.clone(),
            stop: stop.clone(),
            memory: Memory::default(),
        };
        let task = tasks.spawn("replication", stream.run());
        Ok(Self {
            status: receiver,
            stop,
            task,
        })
    }

    /// Waits until the stream is live. Changes that are committed after this call returns are
    /// delivered.
    ///
    /// # Errors
    /// [`ReplicationError::Stopped`] if the stream was stopped before it was live.
    pub async fn ready(&self) -> Result<(), ReplicationError> {
        let mut status = self.status.clone();
        let seen = status
            .wait_for(|status| matches!(status.state, StreamState::Live | StreamState::Stopped))
            .await;
        match seen {
            Ok(status) if status.state == StreamState::Live => Ok(()),
            _ => Err(ReplicationError::Stopped),
        }
    }

    /// Returns a receiver for the current status of the stream and its changes.
    pub fn status(&self) -> watch::Receiver<ReplicationStatus> {
        self.status.clone()
    }

    /// Stops the stream cleanly: stops reading, acknowledges everything that was handed over, and
    /// drops the slot unless the configuration keeps it. Takes at most about ten seconds, or longer
    /// if the creation of the slot must be cancelled.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "replication task failed");
        }
    }
}
