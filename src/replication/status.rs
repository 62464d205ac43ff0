//! The status of a stream, and the queues to which it sends.

use tokio::sync::{mpsc, watch};

use crate::change::{InsertedMessages, Lsn, StreamEvent, TimestampMicros};

/// The state of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// The stream has not been live yet.
    Connecting,
    /// The stream delivers changes as they are committed.
    Live,
    /// The stream was live and is reconnecting.
    Interrupted,
    /// The stream has ended.
    Stopped,
}

/// The status of the stream, for operators. [`crate::observability::readiness::Readiness`] contains
/// the part of it that `/ready` needs.
#[derive(Clone, Debug)]
pub struct ReplicationStatus {
    /// The state.
    pub state: StreamState,
    /// The slot's full name.
    pub slot: String,
    /// The last transaction that was handed over completely.
    pub last_commit: Option<(Lsn, TimestampMicros)>,
    /// Bytes of WAL between the last acknowledgement and the end of the WAL, at the last check.
    pub lag_bytes: Option<u64>,
    /// Bytes of WAL that PostgreSQL keeps for the slot, at the last check.
    pub wal_held_bytes: Option<u64>,
    /// The reason why the stream is not live. For operators only, because it may contain names of
    /// hosts and roles.
    pub last_error: Option<String>,
}

/// The queues to which the stream sends.
#[derive(Clone, Debug)]
pub struct Sinks {
    /// Receives row changes and, in order with them, changes of the stream's state.
    pub changes: mpsc::Sender<StreamEvent>,
    /// Receives rows of `realtime.messages`. They are separate from row changes, so that access
    /// checks do not delay them.
    pub messages: mpsc::Sender<InsertedMessages>,
    /// Shows whether rows that are inserted into `realtime.messages` now will be handed over.
    pub messages_live: watch::Sender<bool>,
}
