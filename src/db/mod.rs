//! Connections to PostgreSQL: how they are made, pooled, and used in a caller's name.
//!
//! Takes claims as a value and never verifies a token.

pub mod connect;
