//! What is asked of PostgreSQL about rows, in whose name, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::text_array::TextArray;
use crate::db::parked::Caller;
use crate::visibility::error::QueryError;
use crate::visibility::identity::Identity;

/// What is set for each identity, with the claims in both conventions of PostgREST.
pub(super) const SETTINGS: [&str; 5] = [
    "request.jwt.claims",
    "request.jwt.claim.sub",
    "request.jwt.claim.role",
    "plan_cache_mode",
    "statement_timeout",
];

/// A statement that can be asked in different names. Its parameters are `text[]` each, its
/// answer is one row.
#[derive(Debug)]
pub(crate) struct Query {
    /// Distinguishes it from every other query of this process.
    pub(super) id: u64,
    pub(super) sql: String,
    /// How many it has.
    pub(super) parameters: usize,
    /// Whether the plan is made anew for every identity.
    is_planned_anew: bool,
    /// How long it may take, if less than other statements, as `statement_timeout` is written.
    time_limit: Option<String>,
    /// A [`ExecutionMode`] as its number.
    mode: AtomicU8,
}

/// How a query can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecutionMode {
    /// For many identities in one call, as a prepared statement for a few.
    Loop,
    /// As a prepared statement: a call for many has failed as a whole.
    Prepared,
    /// As a function. PostgreSQL analyses a prepared statement anew under the executing role
    /// when it reads tables under row-level security, and then that role cannot resolve a name
    /// in a schema it has no USAGE on, which in a `select` it need not. The body of an SQL
    /// function with `begin atomic` is stored resolved, as policies are.
    Function,
    /// Not at all on row images: it means something that only a stored row has, such as a
    /// system column.
    Impossible,
}

impl Query {
    /// A query of this text with so many `text[]` parameters.
    pub(crate) fn new(sql: String, parameters: usize, is_planned_anew: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sql,
            parameters,
            is_planned_anew,
            time_limit: None,
            mode: AtomicU8::new(0),
        }
    }

    /// Less time than other statements have, for each identity: so each is asked about alone.
    pub(crate) fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit.as_millis().to_string());
        self.mode = AtomicU8::new(ExecutionMode::Prepared as u8);
        self
    }

    /// The `plan_cache_mode` it runs under.
    pub(super) fn plan_cache_mode(&self) -> &'static str {
        if self.is_planned_anew {
            "force_custom_plan"
        } else {
            "force_generic_plan"
        }
    }

    /// How it is put now.
    pub(crate) fn mode(&self) -> ExecutionMode {
        match self.mode.load(Ordering::Relaxed) {
            0 => ExecutionMode::Loop,
            1 => ExecutionMode::Prepared,
            2 => ExecutionMode::Function,
            _ => ExecutionMode::Impossible,
        }
    }

    /// Puts it no more: the server does not accept it.
    pub(crate) fn disable(&self) {
        self.mode
            .store(ExecutionMode::Impossible as u8, Ordering::Relaxed);
    }

    /// Changes the mode, unless another execution has changed it since it was `executed`.
    pub(crate) fn switch_mode(&self, executed: ExecutionMode, mode: ExecutionMode) {
        let (executed, mode) = (executed as u8, mode as u8);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // A lost race is fine: the caller reads the mode again.
        let _ = self.mode.compare_exchange(executed, mode, success, failure);
    }
}

/// An identity with what its transactions need, worked out once.
#[derive(Debug)]
pub(crate) struct Principal {
    /// Who.
    pub(crate) identity: Arc<Identity>,
    /// The `sub` claim, empty when there is none.
    pub(crate) subject: String,
}

impl Principal {
    /// Takes the subject from the claims.
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        let claims: Option<serde_json::Value> = serde_json::from_str(&identity.claims).ok();
        let subject = claims
            .as_ref()
            .and_then(|claims| claims.get("sub"))
            .and_then(serde_json::Value::as_str)
            // A text of PostgreSQL's has no NUL; a setting refused for one would fail every query.
            .filter(|subject| !subject.contains('\0'))
            .unwrap_or_default()
            .to_owned();
        Self { identity, subject }
    }
}

/// A query in one identity's name.
pub(crate) struct Execution {
    /// Whose name.
    pub(crate) principal: Arc<Principal>,
    /// What is asked.
    pub(crate) query: Arc<Query>,
    /// How the query is put.
    pub(crate) mode: ExecutionMode,
    /// What it is asked about, shared by all who are asked about the same.
    pub(crate) parameters: Arc<[TextArray]>,
}

impl Execution {
    /// Whose turn it is, with the values of [`SETTINGS`].
    pub(super) fn caller<'a>(&'a self, statement_timeout: &'a str) -> Caller<'a> {
        let Identity { role, claims } = &*self.principal.identity;
        let time_limit = self.query.time_limit.as_deref();
        Caller {
            role,
            settings: vec![
                claims,
                &self.principal.subject,
                role,
                self.query.plan_cache_mode(),
                time_limit.unwrap_or(statement_timeout),
            ],
        }
    }

    /// The parameters as the driver takes them.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters
            .iter()
            .map(|parameter| parameter as &(dyn ToSql + Sync))
            .collect()
    }
}

/// What a query is answered with.
pub(crate) enum QueryOutput {
    /// The row of a statement.
    Row(Row),
    /// What [`super::loop_function::LoopFunction`] took out of it: its first column, ordinals of inputs.
    Ordinals(Vec<i64>),
}

impl QueryOutput {
    /// The answer to a query that asks for ordinals.
    pub(crate) fn ordinals(self) -> Result<Vec<i64>, QueryError> {
        match self {
            Self::Row(row) => Ok(row.try_get(0)?),
            Self::Ordinals(ordinals) => Ok(ordinals),
        }
    }

    /// The answer to any other query, which is never put for many.
    pub(crate) fn row(self) -> Result<Row, QueryError> {
        match self {
            Self::Row(row) => Ok(row),
            Self::Ordinals(_) => Err(QueryError::Unavailable(None)),
        }
    }
}

/// The same error as everybody's answer.
pub(super) fn same_error(
    group: &[&Execution],
    error: impl Fn() -> QueryError,
) -> Vec<Result<QueryOutput, QueryError>> {
    group.iter().map(|_| Err(error())).collect()
}
