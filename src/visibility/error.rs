//! The errors for refused subscriptions, and for queries without a result.
//!
//! The texts of [`SubscribeError::client_text`] are those of the protocol, word for word (protocol
//! 6.3), because users search for them.

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::db::connect::ConnectError;
use crate::db::parked::ParkedError;

/// The reason why a `postgres_changes` binding is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubscribeError {
    /// The `filter` text violates the grammar. Contains a text that names the fault.
    #[error("The filter is invalid: {0}")]
    Filter(String),
    /// `select` is not a list.
    #[error("`select` is not a list of column names")]
    Select,
    /// `select` is combined with `*` as schema or table.
    #[error("`select` needs an explicit schema and table")]
    SelectWithWildcard,
    /// Neither schema nor table is given, or the combination is not allowed. Contains the
    /// parameters as shown to the client.
    #[error("Neither schema nor table is given")]
    NoParams(String),
    /// No published table matches. Contains the parameters as shown to the client.
    #[error("No published table matches [{params}]")]
    NotPublished {
        /// The binding as the protocol prints it.
        params: String,
    },
    /// The database, or a check in this process that imitates it, refused the binding.
    #[error("The binding [{params}] is invalid: {message}")]
    Invalid {
        /// The binding as the protocol prints it.
        params: String,
        /// The SQLSTATE, which has five characters.
        sqlstate: String,
        /// The text of the exception.
        message: String,
    },
    /// The user would have more bindings than this.
    #[error("The user has too many bindings")]
    TooManyBindings(usize),
    /// The user would have more filters that PostgreSQL evaluates than this.
    #[error("The user has too many filters that only the database can apply")]
    TooManyFilters(usize),
    /// The database is currently unreachable.
    #[error("The database is currently unreachable")]
    Unavailable,
}

impl SubscribeError {
    /// Returns the `message` of the channel's `system` error (protocol 6.3).
    pub fn client_text(&self) -> String {
        match self {
            Self::Filter(why) => format!("Error parsing `filter` params: {why}"),
            Self::Select => "Error parsing `select` params: expected a list of column name \
                             strings, e.g. select: [\"col1\", \"col2\"]"
                .to_owned(),
            Self::SelectWithWildcard => "Column selection is not supported for wildcard \
                                         subscriptions. Provide an explicit schema and table name."
                .to_owned(),
            Self::NoParams(params) => format!(
                "No subscription params provided. Please provide at least a `schema` or `table` \
                 to subscribe to: {params}"
            ),
            Self::NotPublished { params } => format!(
                "Unable to subscribe to changes with given parameters. Please check Realtime is \
                 enabled for the given connect parameters: [{params}]"
            ),
            Self::Invalid {
                params,
                sqlstate,
                message,
            } => format!(
                "Unable to subscribe to changes with given parameters. An exception happened so \
                 please check your connect parameters: [{params}]. Exception: ERROR {sqlstate} \
                 ({}) {message}",
                condition_name(sqlstate)
            ),
            Self::TooManyBindings(limit) => {
                format!("Too many postgres_changes bindings of one user: at most {limit}")
            }
            Self::TooManyFilters(limit) => format!(
                "Too many postgres_changes filters of one user that only the database can apply: \
                 at most {limit}"
            ),
            Self::Unavailable => "Unable to subscribe to changes: the database cannot be reached \
                                  at present, trying again"
                .to_owned(),
        }
    }

    /// Returns whether PostgreSQL cancelled the check of a filter, because it took too long.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Invalid { sqlstate, .. } if sqlstate == "57014")
    }

    /// Returns whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

/// Returns the condition name of an SQLSTATE (PostgreSQL manual, appendix A). Only those that a
/// refused filter can cause are known.
fn condition_name(sqlstate: &str) -> &'static str {
    match sqlstate {
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22021" => "character_not_in_repertoire",
        "22023" => "invalid_parameter_value",
        "2201B" => "invalid_regular_expression",
        "22025" => "invalid_escape_sequence",
        "22030" => "duplicate_json_object_key_value",
        "22032" => "invalid_json_text",
        "22P02" => "invalid_text_representation",
        "22P03" => "invalid_binary_representation",
        "22001" => "string_data_right_truncation",
        "23514" => "check_violation",
        "23502" => "not_null_violation",
        "2202E" => "array_subscript_error",
        "42501" => "insufficient_privilege",
        "42704" => "undefined_object",
        "42883" => "undefined_function",
        "42804" => "datatype_mismatch",
        "57014" => "query_canceled",
        "0A000" => "feature_not_supported",
        "P0001" => "raise_exception",
        _ => "error",
    }
}

/// The reason why a query has no result.
#[derive(Debug, Error)]
pub(crate) enum QueryError {
    /// No connection is available, the connection broke, or the server is starting or stopping. The
    /// query is repeated.
    #[error("The database cannot be reached")]
    Unavailable(#[source] Option<tokio_postgres::Error>),
    /// The server refused or cancelled the statement.
    #[error("The database refused the query")]
    Refused(#[source] tokio_postgres::Error),
    /// The server does not accept the statement, whatever its parameters.
    #[error("The database cannot prepare the query")]
    Unpreparable(#[source] Arc<tokio_postgres::Error>),
    /// The query failed for one identity of a call for many. Contains the SQLSTATE.
    #[error("The query failed for one identity: {0}")]
    OneIdentity(String),
    /// A call for many identities failed as a whole.
    #[error("The query failed for many identities at once")]
    WholeCall(#[source] Arc<tokio_postgres::Error>),
}

impl QueryError {
    fn refusal(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Unpreparable(error) | Self::WholeCall(error) => Some(error),
            Self::Unavailable(_) | Self::OneIdentity(_) => None,
        }
    }

    /// Returns the SQLSTATE, if the server refused the query.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::OneIdentity(sqlstate) => Some(sqlstate),
            _ => self.refusal()?.code().map(SqlState::code),
        }
    }

    /// Returns the server's own text. It may quote data, so it may only be sent to the client that
    /// sent the data.
    pub(crate) fn message(&self) -> Option<&str> {
        Some(self.refusal()?.as_db_error()?.message())
    }

    /// Returns the kind of this error.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) => ErrorKind::Outage,
            Self::Unpreparable(_) => ErrorKind::Unpreparable,
            Self::WholeCall(_) => ErrorKind::WholeCall,
            Self::Refused(_) | Self::OneIdentity(_) => ErrorKind::Execution,
        }
    }

    /// Returns the same as [`ErrorKind::is_statement_error`], or `false` for an error without an
    /// SQLSTATE.
    pub(crate) fn is_statement_error(&self) -> bool {
        let kind = self.kind();
        self.sqlstate()
            .is_some_and(|sqlstate| kind.is_statement_error(sqlstate))
    }
}

/// The kinds of [`QueryError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The database is unreachable.
    Outage,
    /// The statement cannot be prepared.
    Unpreparable,
    /// One call for many identities failed as a whole.
    WholeCall,
    /// The execution for one identity failed.
    Execution,
}

impl ErrorKind {
    /// Returns whether the statement or an object that it names is at fault, and not a value. This
    /// is the case for names and rights (class 42), a plan that no longer fits (0A000), and a
    /// statement that the server no longer has (26000). A failed call for many identities never
    /// counts, because each identity is then tried separately.
    pub(crate) fn is_statement_error(self, sqlstate: &str) -> bool {
        self != Self::WholeCall
            && (sqlstate.starts_with("42") || matches!(sqlstate, "0A000" | "26000"))
    }
}

impl From<ConnectError> for QueryError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Connect(source) => Self::Unavailable(Some(source)),
            _ => Self::Unavailable(None),
        }
    }
}

impl From<ParkedError> for QueryError {
    fn from(error: ParkedError) -> Self {
        match error {
            ParkedError::Doubtful => Self::Unavailable(None),
            ParkedError::Database(error) => error.into(),
        }
    }
}

impl From<tokio_postgres::Error> for QueryError {
    /// Distinguishes an outage from a refusal. Class 08 is a connection failure, 53300 means that
    /// the server has no free connection, and a server that stops, crashes or starts sends 57P01 to
    /// 57P05. A statement that exhausts memory or disk is a refusal, because it may fail every
    /// time.
    fn from(error: tokio_postgres::Error) -> Self {
        let is_outage = match error.code() {
            None => {
                error.is_closed()
                    || StdError::source(&error).is_some_and(|source| source.is::<std::io::Error>())
            }
            Some(state) => {
                let code = state.code();
                code.starts_with("08") || code == "53300" || code.starts_with("57P")
            }
        };
        if is_outage {
            Self::Unavailable(Some(error))
        } else {
            Self::Refused(error)
        }
    }
}
