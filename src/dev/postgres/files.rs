//! The files of a cluster: their locations, their permissions, and the lock on the directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::ClusterError;
use super::user::{ServerUser, effective_user};

/// Number of scratch directories to try, which limits the processes that use one at the same time.
const SCRATCH_LIMIT: u32 = 256;

/// The file whose lock marks a directory as in use.
const LOCK: &str = "lock";

/// The files of one cluster.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) directory: PathBuf,
}

impl Layout {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns PostgreSQL's own data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    /// Returns the directory that `initdb` writes to. It is renamed to [`Layout::data`] on success,
    /// so an interrupted `initdb` is never taken for a complete cluster.
    pub(super) fn unfinished_data(&self) -> PathBuf {
        self.directory.join("postgres.unfinished")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// Returns the path of the file with the port of the last start.
    pub(super) fn port_file(&self) -> PathBuf {
        self.directory.join("postgres.port")
    }

    fn lock(&self) -> PathBuf {
        self.directory.join(LOCK)
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.directory.join("postgres.password")
    }

    /// Removes everything except the lock file, which another process may have open.
    pub(super) fn clear(&self) -> Result<(), ClusterError> {
        let failed = |path: &Path, source| ClusterError::File {
            path: path.to_owned(),
            source,
        };
        let entries =
            std::fs::read_dir(&self.directory).map_err(|error| failed(&self.directory, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.directory, error))?;
            let path = entry.path();
            if path == self.lock() {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                remove_directory(&path)?;
            } else {
                std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
            }
        }
        Ok(())
    }
}

/// Reads the secret in the file `path`. The first call creates a random secret that only the owner
/// can read.
///
/// # Errors
/// Fails if the file cannot be read or written.
pub fn load_or_create_secret(path: &Path) -> Result<String, ClusterError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = random_secret();
            write_private(path, secret.as_bytes(), None)?;
            Ok(secret)
        }
        Err(source) => Err(ClusterError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Generates a random text with 244 bits of entropy, suitable as a password or a signing key.
fn random_secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Locks `directory`, creating it if necessary. The kernel releases the lock when this process ends
/// for whatever reason, so a stale lock cannot occur.
pub(super) fn lock_directory(directory: &Path) -> Result<File, ClusterError> {
    // Other users may enter the directory (the server's user must), but only the owner may list or
    // write it.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(|source| ClusterError::File {
            path: directory.to_owned(),
            source,
        })?;
    let path = directory.join(LOCK);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| ClusterError::File {
            path: path.clone(),
            source,
        })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(ClusterError::InUse {
            directory: directory.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(ClusterError::File { path, source }),
    }
}

pub(super) fn lock_scratch(parent: &Path) -> Result<(PathBuf, File), ClusterError> {
    for number in 0..SCRATCH_LIMIT {
        let directory = parent.join(number.to_string());
        match lock_directory(&directory) {
            Ok(lock) => {
                // The parent may be in a directory that any user can write to, such as `/tmp`.
                for path in [parent, &directory] {
                    let owner = std::fs::metadata(path)
                        .map_err(|source| ClusterError::File {
                            path: path.to_owned(),
                            source,
                        })?
                        .uid();
                    if owner != effective_user() {
                        return Err(ClusterError::Foreign {
                            directory: path.to_owned(),
                        });
                    }
                }
                return Ok((directory, lock));
            }
            Err(ClusterError::InUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ClusterError::NoScratch {
        limit: SCRATCH_LIMIT,
        parent: parent.to_owned(),
    })
}

/// Writes a file that only its owner can read. An existing file is removed first, because its mode
/// or owner may differ.
pub(super) fn write_private(
    path: &Path,
    content: &[u8],
    user: Option<&ServerUser>,
) -> Result<(), ClusterError> {
    let write = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(content)?;
        ServerUser::own(user, path)
    };
    write().map_err(|source| ClusterError::File {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn remove_directory(path: &Path) -> Result<(), ClusterError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ClusterError::File {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_process_can_lock_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let lock = lock_directory(directory.path()).unwrap();
        assert!(matches!(
            lock_directory(directory.path()),
            Err(ClusterError::InUse { .. })
        ));
        drop(lock);
        lock_directory(directory.path()).unwrap();
    }

    #[test]
    fn two_secrets_differ() {
        assert_ne!(random_secret(), random_secret());
        assert_eq!(random_secret().len(), 64);
    }
}
