//! The location of a cluster's files, and the options of its server.

use std::path::PathBuf;

use crate::dev::binaries::Binaries;

/// The usual superuser, which is the default user name of common tools.
pub const SUPERUSER: &str = "postgres";

/// Location and lifetime of a cluster's files.
#[derive(Clone, Debug)]
pub enum Storage {
    /// This directory. Data, password and port persist between starts.
    Persistent(PathBuf),
    /// The first unlocked numbered directory below this one, emptied at start and removed on stop.
    /// A directory left by a killed process is reused, so leftovers do not accumulate.
    Scratch(PathBuf),
}

/// Options for a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The programs to run.
    pub binaries: Binaries,
    /// The name of the superuser that `initdb` creates, usually [`SUPERUSER`].
    pub superuser: &'static str,
    /// Location and lifetime of the files.
    pub storage: Storage,
    /// The port to listen on. `None` uses the previous port if it is free, otherwise any free port.
    pub port: Option<u16>,
    /// Settings (name and value) that override those of `config/postgresql.dev.conf`.
    pub settings: Vec<(&'static str, &'static str)>,
}
