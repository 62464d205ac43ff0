//! Rapport: real-time user-to-user chat alongside Supabase or plain Postgres.
//!
//! The modules are listed in reading order, from the vocabulary to the assembly. A table in
//! `ARCHITECTURE.md` defines which module may use which; a test checks the imports against it.

// Vocabulary: types that all other modules may use.
pub mod change;
pub mod error_code;
pub mod limits;
pub mod shutdown;

// Base: settings and observability.
pub mod config;
pub mod observability;

// Tools.
pub mod auth;
pub mod bus;
pub mod db;

// Shells and engines.
pub mod http;
pub mod replication;
pub mod requests;
pub mod schema;
pub mod visibility;

// Features.
pub mod chat;
pub mod realtime;
pub mod upstream;

// Assembly.
pub mod app;
pub mod dev;
pub mod router;

// Entry: the commands.
pub mod cli;

// The properties that fuzzing checks, run on its seeds by `cargo test`.
#[cfg(test)]
mod fuzz_seeds;
