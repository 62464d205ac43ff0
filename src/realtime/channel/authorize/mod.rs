//! Checks what a caller may do on a private channel. The policies of `realtime.messages` decide
//! this, exactly as they would for a message of the topic (protocol 4.3).
//!
//! A *worker* is a task that runs checks over one connection until none wait. Checks that arrive
//! while a pipeline is running are sent together in the next one. Some checks require a row in the
//! table. Each of them is an insertion in its own transaction. While the database is known to be
//! unavailable, checks fail immediately, without waiting for a connection.
//!
//! There is a known difference from an insertion: a policy may call a function that reads
//! `realtime.messages` without naming it. Such a function does not find the row of the check.
//!
//! Read `check` and `authorizer` first. `queue` decides which checks a pipeline contains. `catalog`
//! decides how each is determined: from the catalogue alone, by `evaluate` on the worker's
//! connection, or by `insertions`, whose statements are in `insert`. `connections` opens
//! connections and keeps idle ones.

mod authorizer;
mod catalog;
mod check;
mod connections;
mod error;
mod evaluate;
mod insert;
mod insertions;
mod limits;
mod queue;

pub use self::authorizer::Authorizer;
pub use self::check::CheckKind;
pub use self::error::AuthorizeError;
