//! Queries about rows, and their executions under an identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::text_array::TextArray;
use crate::db::parked::Caller;
use crate::visibility::error::QueryError;
use crate::visibility::identity::Identity;

/// The settings that are set for each identity. They contain the claims in both forms that
/// PostgREST has used: as one object, and one by one.
pub(super) const CALLER_SETTINGS: [&str; 5] = [
    "request.jwt.claims",
    "request.jwt.claim.sub",
    "request.jwt.claim.role",
    "plan_cache_mode",
    "statement_timeout",
];

/// A statement that runs under different identities. All its parameters are `text[]`, and it
/// returns one row.
#[derive(Debug)]
pub(crate) struct Query {
    /// The query's id, unique in this process.
    pub(super) id: u64,
    pub(super) sql: String,
    /// The number of parameters.
    pub(super) parameters: usize,
    /// Whether the query is planned again for each identity.
    plans_per_caller: bool,
    /// The current [`ExecutionMode`], as a number.
    mode: AtomicU8,
}

/// How a query is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecutionMode {
    /// In one call for many identities, or as a prepared statement if there are only a few.
    Loop,
    /// As a prepared statement, because a call for many identities has failed as a whole.
    Prepared,
    /// As an SQL function. PostgreSQL analyses a prepared statement again under the executing role
    /// if it reads tables with row-level security. Without USAGE on a schema, that role cannot
    /// resolve the names in it, although a `select` under the policy would not require USAGE. The
    /// body of an SQL function with `begin atomic` is stored with resolved names, like a policy.
    Function,
    /// The query cannot be executed on row images, because it refers to something that only a
    /// stored row has, such as a system column.
    Impossible,
}

impl Query {
    /// Creates a query with this text and number of `text[]` parameters.
    pub(crate) fn new(sql: String, parameters: usize, plans_per_caller: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sql,
            parameters,
            plans_per_caller,
            mode: AtomicU8::new(0),
        }
    }

    /// Makes each execution a statement of its own, so that it can have its own time limit.
    pub(crate) fn executed_separately(mut self) -> Self {
        self.mode = AtomicU8::new(ExecutionMode::Prepared as u8);
        self
    }

    /// Returns the `plan_cache_mode` for this query.
    pub(super) fn plan_cache_mode(&self) -> &'static str {
        if self.plans_per_caller {
            "force_custom_plan"
        } else {
            "force_generic_plan"
        }
    }

    /// Returns the current mode.
    pub(crate) fn mode(&self) -> ExecutionMode {
        match self.mode.load(Ordering::Relaxed) {
            0 => ExecutionMode::Loop,
            1 => ExecutionMode::Prepared,
            2 => ExecutionMode::Function,
            _ => ExecutionMode::Impossible,
        }
    }

    /// Stops the query from being executed, because the server does not accept it.
    pub(crate) fn disable(&self) {
        self.mode
            .store(ExecutionMode::Impossible as u8, Ordering::Relaxed);
    }

    /// Changes the mode, unless another execution has changed it from `executed` in the meantime.
    pub(crate) fn switch_mode(&self, executed: ExecutionMode, mode: ExecutionMode) {
        let (executed, mode) = (executed as u8, mode as u8);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // If another execution has already changed the mode, the caller reads that mode.
        let _ = self.mode.compare_exchange(executed, mode, success, failure);
    }
}

/// The identity that a query runs as, with the values that its transactions need.
#[derive(Debug)]
pub(crate) struct Principal {
    /// The identity.
    pub(crate) identity: Arc<Identity>,
    /// The `sub` claim, or an empty text if there is none.
    pub(crate) subject: String,
    /// The key under which the limits per user are counted: the `sub` claim, which new tokens of
    /// the user repeat, or else the role and all claims.
    pub(crate) user: Arc<str>,
}

impl Principal {
    /// Extracts the subject from the claims.
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        let claims: Option<serde_json::Value> = serde_json::from_str(&identity.claims).ok();
        let subject = claims
            .as_ref()
            .and_then(|claims| claims.get("sub"))
            .and_then(serde_json::Value::as_str)
            // PostgreSQL's texts cannot contain NUL, so a setting with NUL would make every query
            // fail.
            .filter(|subject| !subject.contains('\0'))
            .unwrap_or_default()
            .to_owned();
        let user = if subject.is_empty() {
            // A `sub` cannot contain NUL.
            format!("{}\0{}", identity.role, identity.claims).into()
        } else {
            subject.as_str().into()
        };
        Self {
            identity,
            subject,
            user,
        }
    }
}

/// One execution of a query as a principal.
pub(crate) struct Execution {
    /// The principal.
    pub(crate) principal: Arc<Principal>,
    /// The query.
    pub(crate) query: Arc<Query>,
    /// The mode of this execution.
    pub(crate) mode: ExecutionMode,
    /// The parameters, shared by all executions with the same ones.
    pub(crate) parameters: Arc<[TextArray]>,
    /// The time limit, if it is shorter than the general one. Only a query that is
    /// [`Query::executed_separately`] can have one.
    pub(crate) time_limit: Option<TimeLimit>,
}

/// The time limit of an execution, as a value of `statement_timeout`.
pub(crate) struct TimeLimit(String);

impl From<Duration> for TimeLimit {
    /// A shorter limit becomes one millisecond, because zero would mean no limit.
    fn from(limit: Duration) -> Self {
        Self(limit.as_millis().max(1).to_string())
    }
}

impl Execution {
    /// Returns the role and the values of [`CALLER_SETTINGS`] for this execution.
    pub(super) fn caller<'a>(&'a self, statement_timeout: &'a str) -> Caller<'a> {
        let Identity { role, claims } = &*self.principal.identity;
        let time_limit = self.time_limit.as_ref().map(|limit| limit.0.as_str());
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

    /// Returns the parameters in the driver's form.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters
            .iter()
            .map(|parameter| parameter as &(dyn ToSql + Sync))
            .collect()
    }
}

/// The result of a query.
pub(crate) enum QueryOutput {
    /// The row that a statement returned.
    Row(Row),
    /// The ordinals of inputs: the first column of the row that a statement returned, or the whole
    /// result of a [`super::loop_function::LoopFunction`].
    Ordinals(Vec<i64>),
}

impl QueryOutput {
    /// Returns the ordinals. Call it only for queries that return ordinals.
    pub(crate) fn ordinals(self) -> Result<Vec<i64>, QueryError> {
        match self {
            Self::Row(row) => Ok(row.try_get(0)?),
            Self::Ordinals(ordinals) => Ok(ordinals),
        }
    }

    /// Returns how long the statement took, if it is one that returns this as its second column.
    pub(crate) fn time(&self) -> Duration {
        let seconds = match self {
            Self::Row(row) => row.try_get::<_, f64>(1).unwrap_or_default(),
            Self::Ordinals(_) => 0.0,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// Returns the row. Call it only for queries that do not return ordinals. These are never
    /// executed in a call for many identities.
    pub(crate) fn row(self) -> Result<Row, QueryError> {
        match self {
            Self::Row(row) => Ok(row),
            Self::Ordinals(_) => Err(QueryError::Unavailable(None)),
        }
    }
}

/// Returns the same error for each execution of a group.
pub(super) fn same_error(
    group: &[&Execution],
    error: impl Fn() -> QueryError,
) -> Vec<Result<QueryOutput, QueryError>> {
    group.iter().map(|_| Err(error())).collect()
}
