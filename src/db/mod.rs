//! Connections to PostgreSQL: how they are made, pooled, and used in a caller's name.
//!
//! Takes claims as a value and never verifies a token.

pub mod connect;
mod error;
pub mod parked;
mod pool;
mod rls;
mod snapshot;

pub use error::{DbError, Refusal};
pub use pool::{Db, PARKED_ROLE};
pub use rls::Query;
pub use snapshot::Snapshot;
