//! Creates the data directory of a cluster with `initdb`.

use std::os::unix::fs::DirBuilderExt as _;

use super::error::ClusterError;
use super::files::{Layout, remove_directory, write_private};
use super::options::ClusterOptions;
use super::server::{last_lines, server_command};
use super::user::ServerUser;
use crate::dev::binaries::Binaries;

pub(super) fn initialise(
    options: &ClusterOptions,
    layout: &Layout,
    user: Option<&ServerUser>,
    password: &str,
) -> Result<(), ClusterError> {
    let data = layout.unfinished_data();
    remove_directory(&data)?;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&data)
        .and_then(|()| ServerUser::own(user, &data))
        .map_err(|source| ClusterError::File {
            path: data.clone(),
            source,
        })?;
    // The password goes through a file, because the server's user cannot reopen the standard input
    // of this process.
    let password_file = layout.directory.join("initdb.password");
    write_private(&password_file, password.as_bytes(), user)?;

    let mut command = server_command(&options.binaries.program("initdb"), user);
    command
        .arg("--pgdata")
        .arg(&data)
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username", options.superuser, "--auth", "scram-sha-256"])
        // `C.UTF-8` distinguishes upper and lower case in every script and is the same on every
        // machine.
        .args(["--encoding", "UTF8", "--locale", "C.UTF-8"])
        // A crash during `initdb` leaves only an unfinished directory, which the next start
        // recreates.
        .arg("--no-sync");
    let output = command.output().map_err(ClusterError::Spawn);
    let removed = std::fs::remove_file(&password_file);
    let output = output?;
    removed.map_err(|source| ClusterError::File {
        path: password_file,
        source,
    })?;
    if !output.status.success() {
        return Err(ClusterError::Failed {
            program: "initdb",
            status: output.status,
            output: last_lines(&output.stderr),
        });
    }
    std::fs::rename(&data, layout.data()).map_err(|source| ClusterError::File {
        path: layout.data(),
        source,
    })
}

pub(super) fn check_version(binaries: &Binaries, layout: &Layout) -> Result<(), ClusterError> {
    let path = layout.data().join("PG_VERSION");
    let found = std::fs::read_to_string(&path)
        .map_err(|source| ClusterError::File { path, source })?
        .trim()
        .to_owned();
    if found == binaries.major().to_string() {
        return Ok(());
    }
    Err(ClusterError::OtherVersion {
        directory: layout.data(),
        found,
        major: binaries.major(),
    })
}
