//! Sets up the log: to standard error, one line per event.
//!
//! Never logged: tokens, keys, passwords, connection strings with a password, cookies, request
//! and message bodies, and rows of other people's tables.

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is not one; configuration checks it before.
    #[error("The log level cannot be read: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something else set up a log in this process.
    #[error("The log is set up already: {0}")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the whole process. Called once, before anything is started.
///
/// # Errors
/// When the level cannot be read or a log is there already.
pub fn start(config: &LogConfig) -> Result<(), LoggingError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.level)?)
        .with_writer(std::io::stderr)
        // Colours help only where a person looks on.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::AlreadySet)
}
