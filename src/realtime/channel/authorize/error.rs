//! Why a question about permissions has no answer.

use thiserror::Error;
use tokio_postgres::error::DbError;

use crate::db::connect::ConnectError;

/// Why there is no answer (protocol 4.3). None of them holds anything that the database said but
/// the text of a cancellation, which is for clients.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthorizeError {
    /// A policy failed, or the role does not exist: nothing is allowed.
    #[error("The policies cannot be evaluated for this caller: {sqlstate}")]
    Policy {
        /// What PostgreSQL called it.
        sqlstate: String,
    },
    /// A statement was stopped, as a rule because a policy takes too long; holds PostgreSQL's text.
    #[error("The question was cancelled: {0}")]
    Canceled(String),
    /// `realtime.messages` has no partition for today.
    #[error("The table of messages has no partition for today")]
    MissingPartition,
    /// Too many questions wait for a connection.
    #[error("Every connection for permissions is busy")]
    PoolExhausted,
    /// The database has no connection to give.
    #[error("The database accepts no more connections")]
    TooManyConnections,
    /// The database cannot be reached, or the connection to it broke.
    #[error("The database cannot be reached")]
    Unavailable,
    /// The database failed in another way, which may pass.
    #[error("The database failed: {sqlstate}")]
    Failed {
        /// What PostgreSQL called it.
        sqlstate: String,
    },
}

impl AuthorizeError {
    /// Whether the answer is no, and not that there is none: asking again changes nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Policy { .. })
    }

    /// A question could not be put to a session that was not in the state it should be in.
    pub(super) fn unexpected() -> Self {
        Self::Failed {
            sqlstate: "XX000".to_owned(),
        }
    }

    /// PostgreSQL has another meaning for the name.
    pub(super) fn no_such_role() -> Self {
        Self::Policy {
            sqlstate: "22023".to_owned(),
        }
    }

    /// Whether it is about a statement itself, whatever it is asked: a name, a right, a type.
    pub(super) fn concerns_statement(&self) -> bool {
        matches!(self, Self::Policy { sqlstate } if sqlstate.starts_with("42") || sqlstate.starts_with("0A"))
    }

    fn of_server(error: &DbError) -> Self {
        let sqlstate = error.code().code();
        match sqlstate {
            "57014" => Self::Canceled(error.message().to_owned()),
            "53300" => Self::TooManyConnections,
            // Unlike a broken CHECK, a row that finds no partition breaks no constraint with a name.
            "23514" if error.constraint().is_none() => Self::MissingPartition,
            _ if sqlstate.starts_with("08") || sqlstate.starts_with("57") => Self::Unavailable,
            // What is not a fault of the question: resources, locks, the system, and transactions
            // that lost against others.
            _ if ["40", "53", "55", "58", "XX"]
                .iter()
                .any(|class| sqlstate.starts_with(class)) =>
            {
                Self::Failed {
                    sqlstate: sqlstate.to_owned(),
                }
            }
            _ => Self::Policy {
                sqlstate: sqlstate.to_owned(),
            },
        }
    }
}

impl From<tokio_postgres::Error> for AuthorizeError {
    fn from(error: tokio_postgres::Error) -> Self {
        error
            .as_db_error()
            .map_or(Self::Unavailable, Self::of_server)
    }
}

impl From<ConnectError> for AuthorizeError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Connect(error)
                if error
                    .as_db_error()
                    .is_some_and(|error| error.code().code() == "53300") =>
            {
                Self::TooManyConnections
            }
            _ => Self::Unavailable,
        }
    }
}
