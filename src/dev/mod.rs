//! What people and tests need beside the server: a private PostgreSQL.
//!
//! Nothing in `app` may assume that it is there.

pub mod binaries;
pub mod postgres;
