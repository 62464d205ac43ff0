//! The reasons why a permission check has no result.

use thiserror::Error;
use tokio_postgres::error::DbError;

use crate::db::connect::ConnectError;

/// The reason why a permission check has no result (section 4.3 of `docs/protocol.md`). An error
/// contains no text from the database, except the text of a cancellation, which clients may read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthorizeError {
    /// A policy failed, or the role does not exist or may not be used. Nothing is allowed.
    #[error("The policies cannot be evaluated for this caller: {sqlstate}")]
    Policy {
        /// PostgreSQL's code for the error.
        sqlstate: String,
    },
    /// A statement was cancelled, usually because a policy takes too long. Contains PostgreSQL's
    /// text.
    #[error("The permission check was cancelled: {0}")]
    Canceled(String),
    /// `realtime.messages` has no partition for today.
    #[error("The table of messages has no partition for today")]
    MissingPartition,
    /// Too many permission checks are waiting for a connection.
    #[error("Every connection for permission checks is busy")]
    PoolExhausted,
    /// The database accepts no more connections.
    #[error("The database accepts no more connections")]
    TooManyConnections,
    /// The database cannot be reached, or the connection to it broke.
    #[error("The database cannot be reached")]
    Unavailable,
    /// The database failed in another way, which may be temporary.
    #[error("The database failed: {sqlstate}")]
    Failed {
        /// PostgreSQL's code for the error.
        sqlstate: String,
    },
}

impl AuthorizeError {
    /// Returns whether the error is a refusal. If it is, checking again would give the same result.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Policy { .. })
    }

    /// Creates the error for a connection that was not in the expected state.
    pub(super) fn unexpected() -> Self {
        Self::Failed {
            sqlstate: "XX000".to_owned(),
        }
    }

    /// Creates the error for a role name that PostgreSQL reserves.
    pub(super) fn no_such_role() -> Self {
        Self::Policy {
            sqlstate: "22023".to_owned(),
        }
    }

    /// Returns whether the statement would fail with any parameters: because of a name, a privilege
    /// or a type (SQLSTATE class 42), or an unsupported feature (class 0A).
    pub(super) fn concerns_statement(&self) -> bool {
        matches!(self, Self::Policy { sqlstate } if sqlstate.starts_with("42") || sqlstate.starts_with("0A"))
    }

    fn of_server(error: &DbError) -> Self {
        let sqlstate = error.code().code();
        match sqlstate {
            "57014" => Self::Canceled(error.message().to_owned()),
            "53300" => Self::TooManyConnections,
            // The error of a violated CHECK constraint contains the name of the constraint. The
            // error for a row without a matching partition contains no such name.
            "23514" if error.constraint().is_none() => Self::MissingPartition,
            _ if sqlstate.starts_with("08") || sqlstate.starts_with("57") => Self::Unavailable,
            // Errors of these classes are not caused by the permission check itself: resources,
            // locks, the system, and transactions that were aborted because of concurrent ones.
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
