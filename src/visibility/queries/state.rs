//! The state of the database in which a query is asked.

use std::sync::Arc;

use crate::db::parked::NEXT_TURN;
use crate::visibility::snapshots::HeldSnapshot;

/// What a query sees of the tables.
#[derive(Clone)]
pub(crate) enum State {
    /// Everything that is committed when the query is asked.
    Now,
    /// Everything that this snapshot sees.
    At(Arc<HeldSnapshot>),
}

impl State {
    /// Whether queries see the current state.
    pub(in crate::visibility) fn is_now(&self) -> bool {
        matches!(self, Self::Now)
    }

    /// The statements that begin a transaction in this state.
    pub(super) fn begin(&self, mode: &str) -> String {
        match self {
            Self::Now => format!("begin {mode}"),
            Self::At(snapshot) => format!(
                "begin isolation level repeatable read {mode}; set transaction snapshot '{}'",
                snapshot.id()
            ),
        }
    }

    /// The statements that end a turn of a group and begin the next transaction in this state.
    pub(super) fn next_turn(&self) -> String {
        match self {
            Self::Now => NEXT_TURN.to_owned(),
            Self::At(snapshot) => {
                format!("{NEXT_TURN}; set transaction snapshot '{}'", snapshot.id())
            }
        }
    }
}
