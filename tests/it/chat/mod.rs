//! The REST routes, over real HTTP against a real PostgreSQL.

mod conversations;
