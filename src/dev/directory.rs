//! Default locations for the data of development servers.

use std::path::{Path, PathBuf};

use crate::config::source::Source;

/// The location for root, following the convention for data of system services. PostgreSQL runs as
/// another user, which cannot enter `/root`.
const ROOT_DATA: &str = "/var/lib/rapport";

/// Returns the directory for everything that `rapport dev` keeps for this user:
/// `$XDG_DATA_HOME/rapport`, by default `~/.local/share/rapport` (XDG Base Directory
/// Specification). `None` if there is no home directory.
pub fn data_root(environment: &dyn Source, is_root: bool) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from(ROOT_DATA));
    }
    let absolute = |name| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path: &PathBuf| path.is_absolute())
    };
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("rapport"))
}

/// Returns the parent directory of this user's scratch clusters, below the system's temporary
/// directory.
pub fn scratch_root(purpose: &str, user_id: u32) -> PathBuf {
    let parent = std::env::temp_dir();
    Path::new(&parent).join(format!("rapport-{purpose}-{user_id}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn data_root_follows_the_xdg_specification() {
        type Case = (
            &'static [(&'static str, &'static str)],
            bool,
            Option<&'static str>,
        );
        let cases: &[Case] = &[
            (
                &[("HOME", "/home/ana")],
                false,
                Some("/home/ana/.local/share/rapport"),
            ),
            (
                &[("HOME", "/home/ana"), ("XDG_DATA_HOME", "/data")],
                false,
                Some("/data/rapport"),
            ),
            (
                &[("HOME", "/home/ana"), ("XDG_DATA_HOME", "data")],
                false,
                Some("/home/ana/.local/share/rapport"),
            ),
            (&[], false, None),
            (&[("HOME", "/root")], true, Some("/var/lib/rapport")),
        ];
        for (pairs, is_root, expected) in cases {
            let environment: BTreeMap<String, String> = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(
                data_root(&environment, *is_root),
                expected.map(PathBuf::from),
                "{pairs:?}"
            );
        }
    }
}
