//! Support for development and tests: a private PostgreSQL with the schema, keys, a sign-in, and a
//! demonstration application with five users.
//!
//! `app` must not depend on this module.

pub mod binaries;
pub mod demonstration;
pub mod directory;
pub mod env_file;
pub mod keys;
pub mod npm;
pub mod postgres;
pub mod sign_in;
