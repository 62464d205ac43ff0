//! Sets up logging to standard error, one line per event.
//!
//! The following are never logged: tokens, keys, passwords, connection strings with a password,
//! cookies, bodies of requests and messages, and rows of the application's tables.
//!
//! Other texts that clients choose are logged as an [`Excerpt`](super::excerpt::Excerpt).

use tracing_subscriber::EnvFilter;

use super::log_lines::LogLines;
use crate::config::{LogConfig, LogFormat};

/// The reason why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is invalid. This should not occur, because the configuration has already been
    /// checked.
    #[error("The log level is invalid: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Other code has already set up logging in this process.
    #[error("Logging is already set up: {0}")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the whole process. Call it once, before anything else starts.
///
/// # Errors
/// If the level is invalid or logging is already set up.
pub fn start(config: &LogConfig) -> Result<(), LoggingError> {
    let format = config.format;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&config.level)?)
        .with_writer(move || LogLines(format))
        // Colours are only used on terminals.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::AlreadySet)
}
