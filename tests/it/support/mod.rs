//! Tools shared by the tests: databases, tokens, a network proxy, and waiting for a condition.

#![allow(dead_code, reason = "each test area uses its own part")]

pub(crate) mod chaos;
pub(crate) mod chat_server;
pub(crate) mod config;
pub(crate) mod contract;
pub(crate) mod database;
pub(crate) mod eventually;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod slot;
pub(crate) mod snapshot;
pub(crate) mod socket;
pub(crate) mod supabase;
pub(crate) mod token;
pub(crate) mod whole_server;
