//! Errors of a private cluster, worded for the user of `rapport dev`.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a cluster could not be created, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Another process holds the lock of the directory.
    #[error(
        "{} is in use by another process. Stop the other `rapport dev`, or choose another \
         directory with --data-dir.",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// An earlier server, still shutting down or started by other means, did not exit in time.
    #[error("PostgreSQL server {pid} is still running in {}.", directory.display())]
    StillRunning {
        /// The server's process id, from `postmaster.pid`.
        pid: i32,
        /// The server's data directory.
        directory: PathBuf,
    },
    /// The server's user cannot enter a directory on the path.
    #[error(
        "The user `{user}`, which runs PostgreSQL when root starts it, cannot enter {}. \
         Choose another directory.",
        directory.display()
    )]
    NotTraversable {
        /// The first directory without search permission.
        directory: PathBuf,
        /// The user that runs the server.
        user: String,
    },
    /// This process runs as root, and no user to run the server was found.
    #[error("PostgreSQL does not run as root, and neither user `postgres` nor `nobody` exists.")]
    NoUser,
    /// The data directory was created by another major version.
    #[error(
        "The data in {} was created by PostgreSQL {found}, but the programs are version {major}. \
         Use the same version, or remove the directory to start over.",
        directory.display()
    )]
    OtherVersion {
        /// The data directory.
        directory: PathBuf,
        /// The version that created it.
        found: String,
        /// The version of the programs.
        major: u32,
    },
    /// A program failed. The error contains the end of its output.
    #[error("`{program}` failed ({status}):\n{output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The program's exit status.
        status: ExitStatus,
        /// The end of the program's output.
        output: String,
    },
    /// The server neither became ready nor exited in time.
    #[error("PostgreSQL was not ready within {} s; see {}.", deadline.as_secs(), log.display())]
    NotReady {
        /// How long the start may take.
        deadline: Duration,
        /// The server's log file.
        log: PathBuf,
    },
    /// Every scratch directory is in use.
    #[error("All {limit} scratch directories below {} are in use.", parent.display())]
    NoScratch {
        /// The number of scratch directories.
        limit: u32,
        /// The parent directory of the scratch directories.
        parent: PathBuf,
    },
    /// A scratch directory belongs to another user.
    #[error("{} belongs to another user.", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A process or thread could not be started.
    #[error("PostgreSQL cannot be started: {0}")]
    Spawn(#[source] io::Error),
}
