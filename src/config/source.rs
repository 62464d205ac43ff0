//! The sources of settings: the process environment, or a map in tests.
//!
//! No other file reads the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A set of named strings. Tests pass a map, the program passes [`ProcessEnvironment`].
pub trait Source {
    /// Returns the value of `name`; `None` if absent.
    fn get(&self, name: &str) -> Option<String>;
    /// Returns all names, so that misspelt ones can be reported.
    fn names(&self) -> Vec<String>;
}

/// The environment variables of this process. A value that is not UTF-8 counts as absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Source for ProcessEnvironment {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the only place that reads the environment"
    )]
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .collect()
    }
}

impl Source for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Returns the directories in which the shell looks for programs (`PATH`), unparsed.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the only place that reads the environment"
)]
pub fn program_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}
