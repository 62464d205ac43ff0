//! Why the schema could not be installed.

use std::fmt::Write as _;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

/// Why the schema could not be installed. None of these errors leaves a change in the database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The embedded files are not numbered consecutively. A test prevents this.
    #[error("The migrations of this program are not numbered without gaps: {0}")]
    Files(String),
    /// The ledger exists but is not readable. It must not be mistaken for a fresh database, because
    /// that would run every migration again.
    #[error(
        "The login may not read the ledger chat.schema_migrations. Run the migration as the role \
         that installed the schema, which is usually the database's owner."
    )]
    LedgerUnreadable,
    /// A newer program has migrated the database.
    #[error(
        "The schema is at version {found}, but this program knows only version {known}: a newer \
         program has migrated the database. Update this one."
    )]
    Newer {
        /// The highest applied version.
        found: i32,
        /// The highest version of this program.
        known: i32,
    },
    /// The ledger lacks a version below its newest one.
    #[error("Migration {missing} is not in the ledger although a later one is.")]
    Gap {
        /// The first missing version.
        missing: i32,
    },
    /// The text of an applied migration has changed.
    #[error(
        "Migration {version} ({name}) has changed since it was applied. Migrations are never \
         edited: restore the text and write a new migration."
    )]
    Edited {
        /// The migration's version.
        version: i32,
        /// The migration's name.
        name: String,
    },
    /// Another installer, or another open transaction, holds a lock.
    #[error(
        "{what} timed out waiting for a lock: another migration is running, or an open transaction \
         uses these tables. Try again."
    )]
    Busy {
        /// The step that timed out.
        what: String,
    },
    /// Another database connection holds the advisory lock of the first installation. The text
    /// comes from the database and names the process.
    #[error("{0} If no other installation is running, end it with pg_terminate_backend().")]
    Locked(String),
    /// With the host preset `auto`, there is no safe choice. For example, several presets fit, or
    /// no user would have a team. The text comes from the database. It states the reason and lists
    /// the presets whose tables exist.
    #[error("{0}")]
    HostUndecided(String),
    /// A statement failed.
    #[error("{what} failed: {}", describe(source))]
    Statement {
        /// The file or step.
        what: String,
        /// PostgreSQL's error.
        source: tokio_postgres::Error,
    },
}

/// The SQLSTATE with which `chat.choose_host_preset()` asks the operator to choose a preset.
pub(super) const HOST_UNDECIDED: &str = "RP001";

/// The SQLSTATE with which the installer reports that another process holds its advisory lock.
const LOCKED: &str = "RP002";

impl SchemaError {
    pub(super) fn statement(what: impl Into<String>, source: tokio_postgres::Error) -> Self {
        let what = what.into();
        if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            return Self::Busy { what };
        }
        let answer = source.as_db_error();
        match answer.map(|answer| (answer.code().code(), answer.message().to_owned())) {
            Some((HOST_UNDECIDED, message)) => Self::HostUndecided(message),
            Some((LOCKED, message)) => Self::Locked(message),
            _ => Self::Statement { what, source },
        }
    }
}

/// Formats PostgreSQL's error as `psql` would show it.
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

/// Returns whether PostgreSQL refused the statement for lack of privileges.
pub(super) fn is_denied(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().map(DbError::code) == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}
