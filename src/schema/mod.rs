//! Brings a database to the schema this program is written for.
//!
//! Guarantees: all or nothing, in one transaction; one installer at a time; a second run executes
//! no DDL; an applied migration that was edited, a gap, and a schema newer than the program are
//! refused before anything is written. Definitions are those of the program that migrated last.

mod error;
mod files;
mod install;
mod ledger;
mod script;

pub use error::SchemaError;
pub use install::{InstallOptions, Installed, install, pending_sql, plan};
pub use script::install_script;

/// A demonstration application around the chat, applied to an empty database before the schema.
pub const DEV_HOST: &str = include_str!("../../sql/dev/host.sql");

/// The demonstration's people, applied after the schema.
pub const DEV_PEOPLE: &str = include_str!("../../sql/dev/people.sql");
