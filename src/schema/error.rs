//! Why a database was not brought to this program's schema.

use std::fmt::Write as _;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

/// Nothing was changed when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The embedded files are not numbered one after the other; a test keeps this from happening.
    #[error("The migrations of this program are not numbered without gaps: {0}")]
    Files(String),
    /// The ledger is there and may not be read. Never taken for a fresh database: that would run
    /// every migration again.
    #[error(
        "The login may not read the ledger chat.schema_migrations: migrate as the role that \
         installed the schema, which is usually the database's owner."
    )]
    LedgerUnreadable,
    /// The database was migrated by a newer program.
    #[error(
        "The schema is at version {found} and this program knows {known}: a newer program has \
         migrated the database. Update this one."
    )]
    Newer {
        /// The highest applied version.
        found: i32,
        /// The highest version of this program.
        known: i32,
    },
    /// The ledger lacks a version below one it has.
    #[error("Migration {missing} is not in the ledger although a later one is.")]
    Gap {
        /// The first missing version.
        missing: i32,
    },
    /// An applied migration has another text now.
    #[error(
        "Migration {version} ({name}) has changed since it was applied. Migrations are never \
         edited: put the text back and write a new one."
    )]
    Edited {
        /// Its version.
        version: i32,
        /// Its name.
        name: String,
    },
    /// Another installer, or somebody's open transaction, holds a lock.
    #[error(
        "{what} waited too long for a lock: another migration runs, or an open transaction uses \
         these tables. Try again."
    )]
    Busy {
        /// What was being done.
        what: String,
    },
    /// The host mapping `auto` would leave everybody without a team. The text is the database's, and lists the
    /// presets that fit.
    #[error("{0}")]
    HostUndecided(String),
    /// A statement failed.
    #[error("{what} failed: {}", describe(source))]
    Statement {
        /// The file, or what was being done.
        what: String,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
}

/// The SQLSTATE by which `chat.detect_host_preset()` leaves the choice to a person.
const HOST_UNDECIDED: &str = "RP001";

impl SchemaError {
    pub(super) fn statement(what: impl Into<String>, source: tokio_postgres::Error) -> Self {
        let what = what.into();
        if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Self::Busy { what };
        }
        if let Some(answer) = source.as_db_error()
            && answer.code().code() == HOST_UNDECIDED
        {
            return Self::HostUndecided(answer.message().to_owned());
        }
        Self::Statement { what, source }
    }
}

/// PostgreSQL's own words, as `psql` would show them.
fn describe(error: &tokio_postgres::Error) -> String {
    let Some(answer) = error.as_db_error() else {
        return error.to_string();
    };
    let mut text = format!(
        "{}: {} ({})",
        answer.severity(),
        answer.message(),
        answer.code().code()
    );
    let position = match answer.position() {
        Some(ErrorPosition::Original(at)) => Some(format!("character {at}")),
        Some(ErrorPosition::Internal { query, .. }) => Some(format!("in `{query}`")),
        None => None,
    };
    let more = [
        ("", position.as_deref()),
        ("DETAIL: ", answer.detail()),
        ("HINT: ", answer.hint()),
        ("", answer.where_()),
    ];
    for (label, line) in more {
        if let Some(line) = line {
            // Writing into a String cannot fail.
            let _ = write!(text, "\n  {label}{line}");
        }
    }
    text
}

/// Whether PostgreSQL refused for lack of rights.
pub(super) fn is_denied(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().map(DbError::code) == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}
