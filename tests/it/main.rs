//! The integration tests: a real PostgreSQL, real sockets, one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should panic"
)]

mod support;

mod auth;
mod chat;
mod commands;
mod config_dump;
mod deploy;
mod dev_cluster;
mod dev_sign_in;
mod doctor;
mod exactly_once;
mod examples;
mod fail_closed;
mod hosts;
mod house;
mod key_sets;
mod nextjs_guide;
mod openapi;
mod operations;
mod parked_connection;
mod realtime;
mod replication;
mod schema_install;
mod security;
mod serving;
mod sql;
mod supabase;
mod unix_socket;
mod upstream;
mod visibility;
