//! The user that runs the server. PostgreSQL refuses to run as root.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::ClusterError;
use super::system_call;

/// Returns the effective user id of this process; 0 for root.
pub fn effective_user() -> u32 {
    system_call::effective_user()
}

/// The user that runs PostgreSQL when this process is root.
#[derive(Debug)]
pub(super) struct ServerUser {
    name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl ServerUser {
    /// Finds the user that runs the server. `None` if this process is an ordinary user, which can
    /// run the server itself.
    pub(super) fn for_this_process() -> Result<Option<Self>, ClusterError> {
        if effective_user() != 0 {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(path).map_err(|source| ClusterError::File {
            path: path.to_owned(),
            source,
        })?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::in_passwd(&text, name))
            .map(Some)
            .ok_or(ClusterError::NoUser)
    }

    /// Finds `name` in the format of passwd(5): `name:password:uid:gid:…`.
    fn in_passwd(text: &str, name: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }

    /// Checks that this user can enter every directory down to `directory`.
    pub(super) fn check_path(&self, directory: &Path) -> Result<(), ClusterError> {
        let directory = directory
            .canonicalize()
            .map_err(|source| ClusterError::File {
                path: directory.to_owned(),
                source,
            })?;
        for ancestor in directory.ancestors() {
            let metadata = std::fs::metadata(ancestor).map_err(|source| ClusterError::File {
                path: ancestor.to_owned(),
                source,
            })?;
            let bit = if metadata.uid() == self.uid {
                0o100
            } else if metadata.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if metadata.mode() & bit == 0 {
                return Err(ClusterError::NotTraversable {
                    directory: ancestor.to_owned(),
                    user: self.name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Makes `user` the owner of `path`. Does nothing if the server runs as the current user.
    pub(super) fn own(user: Option<&Self>, path: &Path) -> io::Result<()> {
        match user {
            Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_user_in_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\nbroken\n";
        let user = ServerUser::in_passwd(text, "nobody").unwrap();
        assert_eq!((user.uid, user.gid), (65534, 65533));
        assert!(ServerUser::in_passwd(text, "postgres").is_none());
    }

    #[test]
    fn the_error_names_a_directory_that_the_user_cannot_enter() {
        use std::os::unix::fs::PermissionsExt as _;

        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // A user id that owns none of these directories.
        let user = ServerUser {
            name: "stranger".to_owned(),
            uid: u32::MAX - 1,
            gid: u32::MAX - 1,
        };
        match user.check_path(&inner) {
            Err(ClusterError::NotTraversable { directory, .. }) => {
                assert_eq!(directory, outer.path().canonicalize().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}
