//! What is asked of PostgreSQL about rows, in whose name, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::text_array::TextArray;
use crate::db::parked::Caller;
use crate::visibility::Identity;
use crate::visibility::error::AskError;

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
pub(crate) struct Question {
    /// Distinguishes it from every other question of this process.
    pub(super) id: u64,
    pub(super) sql: String,
    /// How many it has.
    pub(super) parameters: usize,
    /// Whether the plan is made anew for every identity.
    is_planned_anew: bool,
    /// How long it may take, if less than other statements, as `statement_timeout` is written.
    time_limit: Option<String>,
    /// A [`Way`] as its number.
    way: AtomicU8,
}

/// How a question can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
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

impl Question {
    /// A question of this text with so many `text[]` parameters.
    pub(crate) fn new(sql: String, parameters: usize, is_planned_anew: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sql,
            parameters,
            is_planned_anew,
            time_limit: None,
            way: AtomicU8::new(0),
        }
    }

    /// Less time than other statements have, for each identity: so each is asked about alone.
    pub(crate) fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit.as_millis().to_string());
        self.way = AtomicU8::new(Way::Prepared as u8);
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
    pub(crate) fn way(&self) -> Way {
        match self.way.load(Ordering::Relaxed) {
            0 => Way::Loop,
            1 => Way::Prepared,
            2 => Way::Function,
            _ => Way::Impossible,
        }
    }

    /// Puts it no more: the server does not accept it.
    pub(crate) fn give_up(&self) {
        self.way.store(Way::Impossible as u8, Ordering::Relaxed);
    }

    /// Takes another way after an error of `asked` that the other may not meet.
    /// `is_systematic` says that it fails without any input too. Returns whether to ask again.
    pub(crate) fn give_way(&self, asked: Way, error: &AskError, is_systematic: bool) -> bool {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        const UNDEFINED_COLUMN: &str = "42703";
        if asked != self.way() {
            return true;
        }
        let other = match (asked, error.sqlstate(), error) {
            (Way::Loop, _, AskError::Together(_)) => Way::Prepared,
            (Way::Loop | Way::Prepared, Some(UNDEFINED_COLUMN), AskError::Unpreparable(_)) => {
                Way::Impossible
            }
            (Way::Loop | Way::Prepared, Some(INSUFFICIENT_PRIVILEGE), _) if is_systematic => {
                Way::Function
            }
            _ => return false,
        };
        self.way.store(other as u8, Ordering::Relaxed);
        true
    }
}

/// An identity with what its transactions need, worked out once.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Who.
    pub(crate) identity: Arc<Identity>,
    /// The `sub` claim, empty when there is none.
    pub(crate) subject: String,
}

impl Asker {
    /// Takes the subject from the claims.
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        let claims: Option<serde_json::Value> = serde_json::from_str(&identity.claims).ok();
        let subject = claims
            .as_ref()
            .and_then(|claims| claims.get("sub"))
            .and_then(serde_json::Value::as_str)
            // A text of PostgreSQL's has no NUL; a setting refused for one would fail every question.
            .filter(|subject| !subject.contains('\0'))
            .unwrap_or_default()
            .to_owned();
        Self { identity, subject }
    }
}

/// A question in one identity's name.
pub(crate) struct Asking {
    /// Whose name.
    pub(crate) asker: Arc<Asker>,
    /// What is asked.
    pub(crate) question: Arc<Question>,
    /// How the question is put.
    pub(crate) way: Way,
    /// What it is asked about, shared by all who are asked about the same.
    pub(crate) parameters: Arc<[TextArray]>,
}

impl Asking {
    /// Whose turn it is, with the values of [`SETTINGS`].
    pub(super) fn caller<'a>(&'a self, statement_timeout: &'a str) -> Caller<'a> {
        let Identity { role, claims } = &*self.asker.identity;
        let time_limit = self.question.time_limit.as_deref();
        Caller {
            role,
            settings: vec![
                claims,
                &self.asker.subject,
                role,
                self.question.plan_cache_mode(),
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

/// What a question is answered with.
pub(crate) enum Answer {
    /// The row of a statement.
    Row(Row),
    /// What [`super::ask_loop::AskLoop`] took out of it: its first column, ordinals of inputs.
    Ordinals(Vec<i64>),
}

impl Answer {
    /// The answer to a question that asks for ordinals.
    pub(crate) fn ordinals(self) -> Result<Vec<i64>, AskError> {
        match self {
            Self::Row(row) => Ok(row.try_get(0)?),
            Self::Ordinals(ordinals) => Ok(ordinals),
        }
    }

    /// The answer to any other question, which is never put for many.
    pub(crate) fn row(self) -> Result<Row, AskError> {
        match self {
            Self::Row(row) => Ok(row),
            Self::Ordinals(_) => Err(AskError::Unavailable(None)),
        }
    }
}
