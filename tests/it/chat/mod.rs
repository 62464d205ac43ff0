//! The REST routes, over real HTTP against a real PostgreSQL.

mod conversations;
mod messages;
mod presence;
mod protocol;
mod reading;
