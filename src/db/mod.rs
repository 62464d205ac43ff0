//! Connections to PostgreSQL: opening, pooling, and running statements as a caller.
//!
//! Claims are passed in as values; this module never verifies a token.

pub mod connect;
mod connection;
mod error;
pub mod parked;
mod permits;
pub mod plans;
mod pool;
mod rls;
pub mod roles;
mod snapshot;

pub use connection::PARKED_ROLE;
pub use error::{DbError, Refusal};
pub use pool::Db;
pub use rls::Query;
pub use snapshot::Snapshot;
