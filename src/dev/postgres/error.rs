//! Why a private cluster is not there, in sentences for the person who wanted it.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::files::SCRATCH_LIMIT;
use super::server::START_DEADLINE;

/// Why a cluster could not be made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Another process holds the directory.
    #[error(
        "{} is in use by another process: stop the other `rapport dev`, or choose another \
         directory with --data-dir.",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// A server that is still shutting down, or that somebody else started, did not go away.
    #[error("The PostgreSQL server {pid} still runs in {}.", directory.display())]
    StillRunning {
        /// Its process id, from `postmaster.pid`.
        pid: i32,
        /// Its data directory.
        directory: PathBuf,
    },
    /// The server's user cannot reach the directory.
    #[error(
        "The user `{user}`, as whom PostgreSQL runs when started by root, cannot enter {}: \
         choose another directory.",
        directory.display()
    )]
    NotTraversable {
        /// The first directory that refuses.
        directory: PathBuf,
        /// Who is refused.
        user: String,
    },
    /// Root without a user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`."
    )]
    NoUser,
    /// The files were made by another major version.
    #[error(
        "The data in {} is of PostgreSQL {found}, the programs are of {major}: use the same \
         version, or remove the directory to start anew.",
        directory.display()
    )]
    OtherVersion {
        /// The data directory.
        directory: PathBuf,
        /// The version that made it.
        found: String,
        /// The version of the programs.
        major: u32,
    },
    /// A program ended with an error; its last words follow.
    #[error("`{program}` failed ({status}):\n{output}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// The server neither became ready nor ended.
    #[error("PostgreSQL was not ready within {} s; see {}.", START_DEADLINE.as_secs(), log.display())]
    NotReady {
        /// Its log file.
        log: PathBuf,
    },
    /// Every scratch directory is taken.
    #[error("All {SCRATCH_LIMIT} scratch directories below {} are in use.", parent.display())]
    NoScratch {
        /// The directory they lie in.
        parent: PathBuf,
    },
    /// A scratch directory belongs to somebody else.
    #[error("{} belongs to another user.", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A process or thread could not be started.
    #[error("PostgreSQL cannot be started: {0}")]
    Spawn(#[source] io::Error),
}
