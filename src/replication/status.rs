//! The status of a stream, and the queues that it hands over to.

use tokio::sync::{mpsc, watch};

use crate::change::{InsertedMessages, Lsn, StreamEvent, TimestampMicros};

/// The state of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// It has not been live yet.
    Connecting,
    /// It delivers changes as they are committed.
    Live,
    /// It was live and is reconnecting.
    Interrupted,
    /// It has ended.
    Stopped,
}

/// A report for operators. [`crate::observability::readiness::Readiness`] contains the part that
/// `/ready` needs.
#[derive(Clone, Debug)]
pub struct ReplicationStatus {
    /// The state.
    pub state: StreamState,
    /// The slot's full name.
    pub slot: String,
    /// The last transaction that was handed over completely.
    pub last_commit: Option<(Lsn, TimestampMicros)>,
    /// Bytes of WAL between the last acknowledgement and the end, at the last check.
    pub lag_bytes: Option<u64>,
    /// Bytes of WAL that PostgreSQL keeps for the slot, at the last check.
    pub wal_held_bytes: Option<u64>,
    /// Why it is not live. For operators only: it may contain names of hosts and roles.
    pub last_error: Option<String>,
}

/// The queues for what the stream reads.
#[derive(Clone, Debug)]
pub struct Sinks {
    /// Row changes, and the state of the stream in order with them.
    pub changes: mpsc::Sender<StreamEvent>,
    /// Rows of `realtime.messages`. They are separate from row changes because no access check
    /// delays them.
    pub messages: mpsc::Sender<InsertedMessages>,
    /// Whether rows that are now inserted into `realtime.messages` will be handed over.
    pub messages_live: watch::Sender<bool>,
}
