//! Maps database errors to what a client may see.
//!
//! One table maps SQLSTATEs. A refusal raised by our own SQL carries our error code in the
//! constraint field of the error.

use std::error::Error as StdError;

use thiserror::Error;
use tokio_postgres::error::DbError as ServerError;

use crate::error_code::ErrorCode;

/// Seconds before a retry when every connection is busy. Requests take milliseconds, so a second
/// later the load is different.
const BUSY_RETRY_AFTER: u64 = 1;

/// Seconds before a retry when the database is unavailable: about the duration of a restart.
const UNAVAILABLE_RETRY_AFTER: u64 = 5;

/// Why a statement failed.
#[derive(Debug, Error)]
pub enum DbError {
    /// Every connection stayed busy until the timeout, or too many requests were waiting already.
    #[error("Every database connection is busy")]
    PoolExhausted,
    /// The caller's other requests occupied all connections that one user may have, until the
    /// timeout.
    #[error("Too many requests of this user are in progress")]
    TooManyOfCaller,
    /// Another transaction held a lock on a row until the timeout.
    #[error("Another transaction holds a lock")]
    Locked(#[source] tokio_postgres::Error),
    /// The database is unreachable, is starting or shutting down, or cancelled the statement.
    #[error("The database is not available")]
    Unavailable(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// The transaction lost a conflict with others, for example a deadlock, and was rolled back.
    #[error("The transaction lost a conflict with other transactions")]
    Contended(#[source] tokio_postgres::Error),
    /// The statement was prepared before the schema changed.
    #[error("The schema changed under a prepared statement")]
    StaleStatement(#[source] tokio_postgres::Error),
    /// A statement found that the whole write was done before, so nothing was written (SQLSTATE
    /// PT208).
    #[error("The write was done before")]
    DoneBefore,
    /// The database refused the caller's request.
    #[error("The database refused: {}", .0.code.as_str())]
    Refused(Box<Refusal>),
    /// A server fault.
    #[error("The database returned an unexpected result")]
    Unexpected(#[source] Box<dyn StdError + Send + Sync>),
}

/// A refusal and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error code for the client.
    pub code: ErrorCode,
    /// The SQLSTATE of the refusal.
    pub sqlstate: String,
    /// The violated constraint, if any.
    pub constraint: Option<String>,
    /// Details that our own SQL adds for the client, such as the invalid field. `None` for errors
    /// raised by PostgreSQL or the application's triggers, whose texts must not reach clients.
    pub detail: Option<String>,
}

/// Prefixes of SQLSTATEs (PostgreSQL manual, appendix A) and their meaning. Longer prefixes come
/// before shorter ones. A SQLSTATE that is not listed counts as a server fault.
const TABLE: &[(&str, Meaning)] = &[
    ("PT208", Meaning::DoneBefore),
    ("PT400", Meaning::Refused(ErrorCode::MalformedRequest)),
    ("PT401", Meaning::Refused(ErrorCode::Unauthorized)),
    ("PT403", Meaning::Refused(ErrorCode::Forbidden)),
    ("PT404", Meaning::Refused(ErrorCode::NotFound)),
    ("PT410", Meaning::Refused(ErrorCode::ResyncRequired)),
    ("PT422", Meaning::Refused(ErrorCode::ValidationFailed)),
    // A row-level security check failed, or a grant is missing.
    ("42501", Meaning::Refused(ErrorCode::Forbidden)),
    // The row that a foreign key refers to does not exist.
    ("23503", Meaning::Refused(ErrorCode::NotFound)),
    ("23", Meaning::Refused(ErrorCode::ValidationFailed)),
    ("22", Meaning::Refused(ErrorCode::ValidationFailed)),
    // "cached plan must not change result type", and a statement unknown to the server.
    ("0A000", Meaning::Stale),
    ("26000", Meaning::Stale),
    // Serialization failure and deadlock.
    ("40001", Meaning::Contended),
    ("40P01", Meaning::Contended),
    // A lock could not be acquired in time.
    ("55P03", Meaning::Locked),
    // A standby, or a read-only database: a failover is in progress.
    ("25006", Meaning::Unavailable),
    ("08", Meaning::Unavailable),
    ("53", Meaning::Unavailable),
    ("57", Meaning::Unavailable),
    ("58", Meaning::Unavailable),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    DoneBefore,
    Refused(ErrorCode),
    Contended,
    Stale,
    Locked,
    Unavailable,
    Fault,
}

impl DbError {
    /// Returns the error code for the client.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::PoolExhausted => ErrorCode::PoolExhausted,
            Self::TooManyOfCaller => ErrorCode::RateLimited,
            Self::Locked(_) => ErrorCode::RowLocked,
            Self::Unavailable(_) | Self::Contended(_) | Self::StaleStatement(_) => {
                ErrorCode::DatabaseUnavailable
            }
            Self::Refused(refusal) => refusal.code,
            // The code that runs such a statement handles `DoneBefore` itself.
            Self::DoneBefore | Self::Unexpected(_) => ErrorCode::Internal,
        }
    }

    /// Returns the seconds to wait before a retry, if a retry may help.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::PoolExhausted
            | Self::TooManyOfCaller
            | Self::Locked(_)
            | Self::Contended(_)
            | Self::StaleStatement(_) => Some(BUSY_RETRY_AFTER),
            Self::Unavailable(_) => Some(UNAVAILABLE_RETRY_AFTER),
            Self::Refused(refusal) if refusal.code == ErrorCode::IdempotencyInFlight => {
                Some(BUSY_RETRY_AFTER)
            }
            Self::DoneBefore | Self::Refused(_) | Self::Unexpected(_) => None,
        }
    }

    /// Returns the refusal, if the error is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Returns the text for the log. It contains every cause, but not the row values that
    /// PostgreSQL includes in error details.
    pub fn log_text(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            next = cause.source();
            text.push_str(": ");
            match cause.downcast_ref::<ServerError>() {
                Some(server) => {
                    text.push_str(server.code().code());
                    text.push(' ');
                    text.push_str(server.message());
                }
                None if cause.is::<tokio_postgres::Error>() && next.is_some() => {
                    text.push_str("statement")
                }
                None => text.push_str(&cause.to_string()),
            }
        }
        text
    }

    /// Returns whether the transaction was rolled back for a reason that may not apply to a retry.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, Self::Contended(_) | Self::StaleStatement(_))
    }

    /// Converts an error of a statement that performs the caller's request.
    pub(super) fn in_statement(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            return Self::from_driver(error);
        };
        match meaning(server.code().code()) {
            Meaning::DoneBefore => Self::DoneBefore,
            Meaning::Refused(code) => Self::Refused(Box::new(refusal(code, server))),
            // A SQLSTATE that is not in the table, such as PT409. If the error names one of our
            // codes, it is a refusal.
            Meaning::Fault => match named_code(server) {
                Some(code) => Self::Refused(Box::new(refusal(code, server))),
                None => Self::Unexpected(error.into()),
            },
            Meaning::Contended => Self::Contended(error),
            Meaning::Stale => Self::StaleStatement(error),
            Meaning::Locked => Self::Locked(error),
            Meaning::Unavailable => Self::Unavailable(Some(error.into())),
        }
    }

    /// Converts an error of a statement around the caller's statements, such as BEGIN. Such an
    /// error is never the caller's fault, so it is never reported as a refusal.
    pub(super) fn outside_statement(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            return Self::from_driver(error);
        };
        match meaning(server.code().code()) {
            Meaning::Unavailable => Self::Unavailable(Some(error.into())),
            _ => Self::Unexpected(error.into()),
        }
    }

    /// Converts an error that the server did not send: the connection broke, or a value does not
    /// match the type of a parameter.
    fn from_driver(error: tokio_postgres::Error) -> Self {
        let broke = error.is_closed()
            || error
                .source()
                .is_some_and(|source| source.is::<std::io::Error>());
        if broke {
            Self::Unavailable(Some(error.into()))
        } else {
            Self::Unexpected(error.into())
        }
    }
}

fn meaning(sqlstate: &str) -> Meaning {
    TABLE
        .iter()
        .find(|(beginning, _)| sqlstate.starts_with(beginning))
        .map_or(Meaning::Fault, |(_, meaning)| *meaning)
}

/// Returns the error code that our SQL raises as the constraint name.
fn named_code(server: &ServerError) -> Option<ErrorCode> {
    if !server.code().code().starts_with("PT") {
        return None;
    }
    server.constraint().and_then(ErrorCode::from_name)
}

fn refusal(fallback: ErrorCode, server: &ServerError) -> Refusal {
    let named = named_code(server);
    Refusal {
        code: named.unwrap_or(fallback),
        sqlstate: server.code().code().to_owned(),
        constraint: server.constraint().map(str::to_owned),
        detail: named
            .and(server.detail())
            .filter(|detail| !detail.is_empty())
            .map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, TABLE, meaning};
    use crate::error_code::ErrorCode;

    #[test]
    fn sqlstates_map_to_their_meaning() {
        let cases = [
            ("PT208", Meaning::DoneBefore),
            ("PT404", Meaning::Refused(ErrorCode::NotFound)),
            ("PT409", Meaning::Fault),
            ("42501", Meaning::Refused(ErrorCode::Forbidden)),
            ("42P01", Meaning::Fault),
            ("23503", Meaning::Refused(ErrorCode::NotFound)),
            ("23514", Meaning::Refused(ErrorCode::ValidationFailed)),
            ("22P02", Meaning::Refused(ErrorCode::ValidationFailed)),
            ("40P01", Meaning::Contended),
            ("40003", Meaning::Fault),
            ("55P03", Meaning::Locked),
            ("57014", Meaning::Unavailable),
            ("57P01", Meaning::Unavailable),
            ("53300", Meaning::Unavailable),
            ("P0001", Meaning::Fault),
        ];
        for (sqlstate, expected) in cases {
            assert_eq!(meaning(sqlstate), expected, "{sqlstate}");
        }
    }

    #[test]
    fn no_entry_of_the_table_shadows_another() {
        for (position, (beginning, _)) in TABLE.iter().enumerate() {
            let reached = TABLE
                .iter()
                .position(|(other, _)| beginning.starts_with(other));
            assert_eq!(reached, Some(position), "{beginning}");
        }
    }
}
