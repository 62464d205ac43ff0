//! The errors that prevent replication from starting.

use thiserror::Error;

/// The reason why replication cannot start or never becomes live.
#[derive(Debug, Error)]
pub enum ReplicationError {
    /// The configured slot name contains no letter or digit.
    #[error("The replication slot name `{0}` contains no letter or digit")]
    SlotName(String),
    /// The connection URL lacks a part that a replication connection needs.
    #[error("The database URL cannot be used for replication: {0}")]
    Url(&'static str),
    /// Replication was stopped before it was live.
    #[error("Replication was stopped before it was live")]
    Stopped,
}
