//! Asks PostgreSQL in many identities' names, over a bounded set of connections.
//!
//! Each query runs under one identity's role and claims in a read-only transaction or
//! subtransaction of its own, on connections as [`crate::db::parked`] has them. There are three modes:
//! - as a prepared statement;
//! - about the same rows for many identities, as one call of a PL/pgSQL function (`loop_function`) that takes on
//!   one identity after the other and runs the statement for each: the same executions, each with its own
//!   settings and its own evaluation of every sub-select, without a transaction and three messages
//!   around each of them;
//! - as a function of SQL (`sql_function`), where a prepared statement cannot be executed in an
//!   identity's name.

mod connection;
mod loop_function;
mod pool;
mod query;
mod sql_function;
mod state;
mod text_array;

pub(super) use self::pool::QueryPool;
pub(super) use self::query::{Execution, ExecutionMode, Principal, Query, QueryOutput};
pub(super) use self::state::State;
pub(super) use self::text_array::TextArray;
