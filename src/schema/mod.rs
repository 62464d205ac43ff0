//! Updates a database to the schema of this program.
//!
//! An installation is one transaction, and only one installer runs at a time. A second run executes
//! no DDL. An edited migration, a gap, and a schema newer than the program are refused before
//! anything is written. The definitions in force are those of the program that migrated last.

mod error;
mod files;
mod host;
mod install;
mod ledger;
mod parts;
mod script;
mod statements;

pub use error::SchemaError;
pub use files::{Policy, policies};
pub use host::{HostChoice, HostReport, host_choice, host_report};
pub use install::{InstallOptions, Installed, install, pending_sql, plan};
pub use parts::{Contained, IfNewer, parts};
pub use script::install_script;

/// A demonstration application around the chat, applied to an empty database before the schema.
pub const DEV_HOST: &str = include_str!("../../sql/dev/host.sql");

/// The users of the demonstration, applied after the schema.
pub const DEV_PEOPLE: &str = include_str!("../../sql/dev/people.sql");

/// The table for the sessions of the development sign-in, applied after the schema.
pub const DEV_SIGN_IN: &str = include_str!("../../sql/dev/sign_in.sql");
