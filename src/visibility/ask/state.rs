//! The state of the database that a question is about.

use std::sync::Arc;

use crate::db::parked::NEXT_TURN;
use crate::visibility::past::Moment;

/// What a question sees.
#[derive(Clone)]
pub(crate) enum State {
    /// Whatever is committed when it is asked.
    Now,
    /// What was committed at a moment of the past.
    At(Arc<Moment>),
}

impl State {
    /// Whether it is that of now.
    pub(super) fn is_now(&self) -> bool {
        matches!(self, Self::Now)
    }

    /// Begins a transaction that sees it.
    pub(super) fn begin(&self, mode: &str) -> String {
        match self {
            Self::Now => format!("begin {mode}"),
            Self::At(moment) => format!(
                "begin isolation level repeatable read {mode}; set transaction snapshot '{}'",
                moment.id()
            ),
        }
    }

    /// Ends a turn of a flight, and begins another transaction that sees it.
    pub(super) fn next_turn(&self) -> String {
        match self {
            Self::Now => NEXT_TURN.to_owned(),
            Self::At(moment) => {
                format!("{NEXT_TURN}; set transaction snapshot '{}'", moment.id())
            }
        }
    }
}
