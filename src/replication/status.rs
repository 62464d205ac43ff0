//! What a stream reports, and where it hands over what it reads.

use tokio::sync::{mpsc, watch};

use crate::change::{InsertedMessages, Lsn, StreamEvent, TimestampMicros};

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

/// A report for operators. [`crate::observability::readiness::Readiness`] holds what `/ready` needs of it.
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
