//! What is wrong with the written settings, all of it at once.

use std::fmt;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("The configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("The configuration file {} is not valid TOML: {source}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The compiled-in defaults are broken; a test keeps this from happening.
    #[error("The compiled-in defaults are not valid TOML: {0}")]
    Defaults(#[source] Box<toml::de::Error>),
    /// Keys or values that do not fit.
    #[error("The configuration is not usable:\n{0}")]
    Problems(Problems),
}

/// One line per mistake, so that a person mends them in one go. Never contains a secret's text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems(pub(super) Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "  {problem}")?;
        }
        Ok(())
    }
}
