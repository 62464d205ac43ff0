//! Repeats the attacks that reach the database. Here, the server's login owns the database but is
//! not a superuser.
#![allow(
    clippy::duplicate_mod,
    reason = "the same attacks on another installation"
)]

#[path = "held_rows.rs"]
mod held_rows;
#[path = "old_rows.rs"]
mod old_rows;
#[path = "old_snapshots.rs"]
mod old_snapshots;
#[path = "presence_keys.rs"]
mod presence_keys;
#[path = "revocation.rs"]
mod revocation;
#[path = "tokens.rs"]
mod tokens;
#[path = "unauthorized.rs"]
mod unauthorized;
#[path = "unseen.rs"]
mod unseen;
#[path = "waits.rs"]
mod waits;

use super::{begin_as, join};
use crate::support::database::{Login, TestDatabase};

async fn database() -> TestDatabase {
    TestDatabase::installed_by(Login::Owner).await
}
