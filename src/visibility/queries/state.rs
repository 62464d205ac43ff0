//! The state of the database in which a query runs.

use std::sync::Arc;

use crate::db::parked::NEXT_TRANSACTION;
use crate::visibility::snapshots::HeldSnapshot;

/// The state of the tables that a query sees.
#[derive(Clone)]
pub(crate) enum DatabaseState {
    /// The state at the time when the query runs.
    Current,
    /// The state that this snapshot sees.
    Snapshot(Arc<HeldSnapshot>),
}

impl DatabaseState {
    /// Returns whether queries see the current state.
    pub(in crate::visibility) fn is_current(&self) -> bool {
        matches!(self, Self::Current)
    }

    /// Returns the statements that begin a transaction in this state.
    pub(super) fn begin(&self, mode: &str) -> String {
        match self {
            Self::Current => format!("begin {mode}"),
            Self::Snapshot(snapshot) => format!(
                "begin isolation level repeatable read {mode}; set transaction snapshot '{}'",
                snapshot.id()
            ),
        }
    }

    /// Returns the statements between two executions of a group. They end one transaction, and
    /// begin the next one in this state.
    pub(super) fn next_transaction(&self) -> String {
        match self {
            Self::Current => NEXT_TRANSACTION.to_owned(),
            Self::Snapshot(snapshot) => {
                format!(
                    "{NEXT_TRANSACTION}; set transaction snapshot '{}'",
                    snapshot.id()
                )
            }
        }
    }
}
