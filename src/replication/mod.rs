//! Row changes, and messages to be broadcast, out of PostgreSQL's write-ahead log into bounded queues.
//!
//! # What is guaranteed
//! While the slot exists, every change that is committed to a published table, and every row that
//! is inserted into `realtime.messages`, is handed over exactly once, in commit order, however often the connection drops, within one run of this
//! process. A new run continues at the last acknowledgement: what was handed over shortly before a
//! crash may come again. When the slot is lost, [`StreamEvent::Gap`] says so; it comes after the new
//! slot exists, so that a listener who then reads the tables has missed nothing.
//!
//! # Who acknowledges what
//! A position is acknowledged once the sink has taken everything before it, never earlier. A full
//! sink stops the reading and nothing else: keep-alives go on. The log that PostgreSQL must keep
//! meanwhile is bounded by [`ReplicationConfig::max_wal_held_bytes`].
//!
//! # The publications
//! Two: the configured one, and that of `realtime.messages`, which Supabase's own server uses as
//! well. One that is missing does not stop the reading of the other; one that is made later is
//! read as soon as nothing older than it is left to be read.
//!
//! # The slot
//! Permanent, one per database, made after the publication (`slot`, `publication`, `prepare`).
//! A clean stop drops it, unless it is to be kept. One process reads it at a time; another waits,
//! and takes over when the first has ended or fallen silent.
//!
//! # Tasks
//! One, `replication`, and the one inside the replication client, which ends with it.

mod assemble;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod pgoutput;
mod prepare;
mod publication;
mod relation_cache;
mod slot;
mod slot_watch;
mod stream;
mod transport;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::change::{InsertedMessages, Lsn, StreamEvent, TimestampMicros};
use crate::config::ReplicationConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::ReplicationMetrics;
use crate::observability::readiness::Readiness;
use crate::shutdown::Tasks;

pub use error::ReplicationError;
pub use publication::{MESSAGES_PUBLICATION, PublishedTable, published_tables};

use slot::SlotName;
use stream::{Memory, Stream};
use transport::Address;

/// Where the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Not live yet.
    Connecting,
    /// Changes are delivered as they are committed.
    Live,
    /// It was live and is being connected again.
    Interrupted,
    /// It has ended.
    Stopped,
}

/// A report for operators. [`Readiness`] holds what `/ready` needs of it.
#[derive(Clone, Debug)]
pub struct ReplicationStatus {
    /// Where it stands.
    pub state: StreamState,
    /// The slot's full name.
    pub slot: String,
    /// The last transaction that was handed over whole.
    pub last_commit: Option<(Lsn, TimestampMicros)>,
    /// Bytes of log between the last acknowledgement and the end, at the last look.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that PostgreSQL keeps for the slot, at the last look.
    pub wal_held_bytes: Option<u64>,
    /// Why it is not live. For operators: it may name hosts and roles.
    pub last_error: Option<String>,
}

/// Where a stream hands over what it reads.
#[derive(Clone, Debug)]
pub struct Sinks {
    /// Row changes, and what becomes of the stream, in its place among them.
    pub changes: mpsc::Sender<StreamEvent>,
    /// Rows of `realtime.messages`. Apart from the row changes, because they need no decision
    /// about who may see them: they leave as they are read.
    pub messages: mpsc::Sender<InsertedMessages>,
    /// Whether a row that is inserted into `realtime.messages` now will be handed over.
    pub messages_live: watch::Sender<bool>,
}

/// The running stream.
pub struct Replication {
    status: watch::Receiver<ReplicationStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Replication {
    /// Starts to stream into `sinks` and returns at once; [`Replication::ready`] waits until the
    /// stream is live. The database need not be there yet.
    ///
    /// # Errors
    /// [`ReplicationError`] when the settings can never work.
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

    /// Waits until the stream is live: what is committed after this returned is delivered.
    ///
    /// # Errors
    /// [`ReplicationError::Stopped`] when it was stopped before.
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

    /// Where the stream stands, now and as it changes.
    pub fn status(&self) -> watch::Receiver<ReplicationStatus> {
        self.status.clone()
    }

    /// The clean end: stops reading, acknowledges what was handed over, and drops the slot unless it
    /// is to be kept. Returns when that is done, or after at most some ten seconds.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the replication task has failed");
        }
    }
}
