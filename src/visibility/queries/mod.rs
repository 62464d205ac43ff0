//! Runs queries under the roles and claims of subscribers, over a bounded set of connections.
//!
//! Each query runs under one identity in its own read-only transaction or subtransaction, on
//! connections of [`crate::db::parked`]. There are three modes of execution:
//! - as a prepared statement;
//! - for many identities with the same input, in one call of a PL/pgSQL function (`loop_function`)
//!   that assumes one identity after the other and runs the statement for each. Settings and
//!   sub-selects are evaluated per identity as in the first mode, but this saves a transaction and
//!   three messages per identity;
//! - as an SQL function (`sql_function`), if a prepared statement cannot run under an identity's
//!   role.

mod connection;
mod loop_function;
mod pool;
mod query;
mod sql_function;
mod state;
mod text_array;

pub(super) use self::pool::QueryPool;
pub(super) use self::query::{Execution, ExecutionMode, Principal, Query, QueryOutput};
pub(super) use self::state::DatabaseState;
pub(super) use self::text_array::TextArray;
