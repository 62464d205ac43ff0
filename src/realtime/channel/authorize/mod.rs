//! Checks what a caller may do on a private channel. The policies of `realtime.messages` decide
//! this, exactly as they would for a message of the topic (protocol 4.3).
//!
//! Questions are answered in *flights*. All questions that arrive during one flight form the next
//! flight and share a connection. Some questions can only be answered with a row in the table. Each
//! of them is answered by an insertion in its own transaction. While the database is known to be
//! unavailable, questions fail immediately, without waiting for a connection.
//!
//! There is a known difference from an insertion: a policy may call a function that reads
//! `realtime.messages` without naming it. Such a function does not find the row that the question
//! is about.
//!
//! Read `question` and `authorizer` first. `queue` decides which questions a flight carries.
//! `catalog` decides how each is answered: from the catalogue alone, by `evaluate` on the
//! connection of the flight, or by `insertions`, whose statements are in `insert`. `connections`
//! opens connections and keeps idle ones.

mod authorizer;
mod catalog;
mod connections;
mod error;
mod evaluate;
mod insert;
mod insertions;
mod limits;
mod question;
mod queue;

pub use self::authorizer::Authorizer;
pub use self::error::AuthorizeError;
pub use self::question::Question;
