//! Rapport: real-time user-to-user chat beside Supabase or plain Postgres.
//!
//! The modules in reading order, from the words everything is made of to what
//! puts the parts together. Who may use whom is the table in `ARCHITECTURE.md`,
//! which a test holds against the imports.

// Vocabulary: nouns without behaviour of their own.
pub mod change;
pub mod error_code;
pub mod limits;
pub mod shutdown;

// Base: settings, and what the process tells about itself.
pub mod config;
pub mod observability;

// Tools.
pub mod auth;
pub mod bus;
pub mod db;

// Shells and engines.
pub mod http;
pub mod replication;
pub mod schema;
pub mod visibility;

// Features.
pub mod chat;
pub mod realtime;

// Assembly.
pub mod app;
pub mod dev;
pub mod router;

// Entry: what a command of the program does.
pub mod cli;

// What fuzzing looks at, run over its seeds by `cargo test`.
#[cfg(test)]
mod fuzz_seeds;
