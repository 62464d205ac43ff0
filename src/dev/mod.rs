//! What people and tests need beside the server: a private PostgreSQL with the schema, keys, and
//! a demonstration application with five people in it.
//!
//! Nothing in `app` may assume that any of it is there.

pub mod binaries;
pub mod demonstration;
pub mod directory;
pub mod env_file;
pub mod keys;
pub mod npm;
pub mod postgres;
