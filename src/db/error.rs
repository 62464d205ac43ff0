//! What the database says, in terms of what a client may be told.
//!
//! SQLSTATEs are translated in one table. A refusal that our own SQL raises carries our code
//! in the error's constraint field.

use std::error::Error as StdError;

use thiserror::Error;
use tokio_postgres::error::DbError as ServerError;

use crate::error_code::ErrorCode;

/// Seconds after which to try again while every connection is busy: requests take
/// milliseconds, so a second is a new situation.
const BUSY_RETRY_AFTER: u64 = 1;

/// Seconds after which to try again while the database is away: a restart takes about that.
const AWAY_RETRY_AFTER: u64 = 5;

/// Why a statement has no answer.
#[derive(Debug, Error)]
pub enum DbError {
    /// Every connection stayed busy.
    #[error("Every database connection is busy")]
    PoolExhausted,
    /// The database cannot be reached, is starting or stopping, or gave up on the statement.
    #[error("The database is not available")]
    Unavailable(#[source] Option<Box<dyn StdError + Send + Sync>>),
    /// The statement lost against others, for example in a deadlock, and was rolled back.
    #[error("The transaction lost against others")]
    Contended(#[source] tokio_postgres::Error),
    /// The statement was prepared before the schema changed.
    #[error("The schema changed under a prepared statement")]
    StaleStatement(#[source] tokio_postgres::Error),
    /// A statement found that all of it was done before, so nothing was done again (SQLSTATE PT208).
    #[error("It was done before")]
    DoneBefore,
    /// The database refused what the caller asked for.
    #[error("The database refused: {}", .0.code.as_str())]
    Refused(Box<Refusal>),
    /// A fault of ours.
    #[error("The database answered unexpectedly")]
    Unexpected(#[source] Box<dyn StdError + Send + Sync>),
}

/// What was refused and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub code: ErrorCode,
    /// The SQLSTATE behind it.
    pub sqlstate: String,
    /// The constraint that was broken, where it was one.
    pub constraint: Option<String>,
    /// What our own SQL adds for the client, such as the field at fault. `None` for errors that
    /// PostgreSQL or the application's triggers raised: those texts are not for strangers.
    pub detail: Option<String>,
}

/// The beginning of a SQLSTATE (PostgreSQL manual, appendix A) and what it means here; longer
/// beginnings stand before shorter ones. What is missing is a fault of ours.
const TABLE: &[(&str, Meaning)] = &[
    ("PT208", Meaning::DoneBefore),
    ("PT400", Meaning::Refused(ErrorCode::MalformedRequest)),
    ("PT401", Meaning::Refused(ErrorCode::Unauthorized)),
    ("PT403", Meaning::Refused(ErrorCode::Forbidden)),
    ("PT404", Meaning::Refused(ErrorCode::NotFound)),
    ("PT410", Meaning::Refused(ErrorCode::ResyncRequired)),
    ("PT422", Meaning::Refused(ErrorCode::ValidationFailed)),
    // A row-level security check said no, or a grant is missing.
    ("42501", Meaning::Refused(ErrorCode::Forbidden)),
    // What the row refers to is not there.
    ("23503", Meaning::Refused(ErrorCode::NotFound)),
    ("23", Meaning::Refused(ErrorCode::ValidationFailed)),
    ("22", Meaning::Refused(ErrorCode::ValidationFailed)),
    // "cached plan must not change result type", and a statement the server does not know.
    ("0A000", Meaning::Stale),
    ("26000", Meaning::Stale),
    // Serialization failure and deadlock.
    ("40001", Meaning::Contended),
    ("40P01", Meaning::Contended),
    // A lock was not to be had in time.
    ("55P03", Meaning::Away),
    // A standby, or a database set read-only: somebody is switching over.
    ("25006", Meaning::Away),
    ("08", Meaning::Away),
    ("53", Meaning::Away),
    ("57", Meaning::Away),
    ("58", Meaning::Away),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    DoneBefore,
    Refused(ErrorCode),
    Contended,
    Stale,
    Away,
    Fault,
}

impl DbError {
    /// What the client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::PoolExhausted => ErrorCode::PoolExhausted,
            Self::Unavailable(_) | Self::Contended(_) | Self::StaleStatement(_) => {
                ErrorCode::DatabaseUnavailable
            }
            Self::Refused(refusal) => refusal.code,
            // Whoever runs such a statement knows what to answer.
            Self::DoneBefore | Self::Unexpected(_) => ErrorCode::Internal,
        }
    }

    /// Seconds after which it is worth trying again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::PoolExhausted | Self::Contended(_) | Self::StaleStatement(_) => {
                Some(BUSY_RETRY_AFTER)
            }
            Self::Unavailable(_) => Some(AWAY_RETRY_AFTER),
            Self::Refused(refusal) if refusal.code == ErrorCode::IdempotencyInFlight => {
                Some(BUSY_RETRY_AFTER)
            }
            Self::DoneBefore | Self::Refused(_) | Self::Unexpected(_) => None,
        }
    }

    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// What the log says: every cause, without the values of rows that PostgreSQL puts into the
    /// detail of an error.
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

    /// Whether everything was rolled back for a reason that the next attempt need not meet.
    pub(super) fn may_pass_on_repetition(&self) -> bool {
        matches!(self, Self::Contended(_) | Self::StaleStatement(_))
    }

    /// An error of a statement that does what the caller asked for.
    pub(super) fn in_statement(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            return Self::of_the_connection(error);
        };
        match meaning(server.code().code()) {
            Meaning::DoneBefore => Self::DoneBefore,
            Meaning::Refused(code) => Self::Refused(Box::new(refusal(code, server))),
            // A conflict without a code of ours, and whatever else is not in the table.
            Meaning::Fault => match named_code(server) {
                Some(code) => Self::Refused(Box::new(refusal(code, server))),
                None => Self::Unexpected(error.into()),
            },
            Meaning::Contended => Self::Contended(error),
            Meaning::Stale => Self::StaleStatement(error),
            Meaning::Away => Self::Unavailable(Some(error.into())),
        }
    }

    /// An error of what stands around the caller's statements. It is never the caller's fault,
    /// so it is never told as a refusal.
    pub(super) fn outside_statement(error: tokio_postgres::Error) -> Self {
        let Some(server) = error.as_db_error() else {
            return Self::of_the_connection(error);
        };
        match meaning(server.code().code()) {
            Meaning::Away => Self::Unavailable(Some(error.into())),
            _ => Self::Unexpected(error.into()),
        }
    }

    /// An error that the server did not send: the connection broke, or a value does not fit the
    /// type that a statement wants.
    fn of_the_connection(error: tokio_postgres::Error) -> Self {
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

/// The code of ours that our SQL put where a constraint's name would be.
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
    fn states_have_their_meaning() {
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
            ("57014", Meaning::Away),
            ("57P01", Meaning::Away),
            ("53300", Meaning::Away),
            ("P0001", Meaning::Fault),
        ];
        for (sqlstate, expected) in cases {
            assert_eq!(meaning(sqlstate), expected, "{sqlstate}");
        }
    }

    #[test]
    fn no_line_of_the_table_hides_another() {
        for (position, (beginning, _)) in TABLE.iter().enumerate() {
            let reached = TABLE
                .iter()
                .position(|(other, _)| beginning.starts_with(other));
            assert_eq!(reached, Some(position), "{beginning}");
        }
    }
}
