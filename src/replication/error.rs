//! Why replication cannot start.

use thiserror::Error;

/// Why replication cannot be started, or will never be live.
#[derive(Debug, Error)]
pub enum ReplicationError {
    /// The configured slot name has no letter or digit to make a name of.
    #[error("The replication slot name `{0}` has no letter or digit in it")]
    SlotName(String),
    /// The connection URL lacks something that a replication connection needs.
    #[error("The database URL cannot be used for replication: {0}")]
    Url(&'static str),
    /// Replication was stopped before it was live.
    #[error("Replication was stopped before it was live")]
    Stopped,
}
