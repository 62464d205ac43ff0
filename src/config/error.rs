//! Configuration errors. All mistakes are reported at once.

use std::fmt;
use std::path::PathBuf;

/// Why the configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("The configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML. The error contains only the parser's short message, because the
    /// parser's full text quotes the line, which may contain a secret.
    #[error("The configuration file {} is not valid TOML (line {line}): {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The cause.
        message: String,
    },
    /// The compiled-in defaults are broken. A test prevents this.
    #[error("The compiled-in defaults are not valid TOML: {0}")]
    Defaults(#[source] Box<toml::de::Error>),
    /// Unknown keys or invalid values.
    #[error("The configuration is invalid:\n{0}")]
    Problems(Problems),
}

/// One line per mistake, so that all can be corrected in one go. Never contains the text of a
/// secret.
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
