//! Logging settings.

use super::reader::Reader;

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level, or a list of levels per module (`tracing_subscriber::EnvFilter`).
    pub level: String,
    /// The format of log lines.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let level = reader.required_text("log.level");
        if tracing_subscriber::EnvFilter::try_new(&level).is_err() {
            reader.problem(
                "log.level",
                "must be a level, or levels per module as in info,tokio_postgres=warn",
            );
        }
        let format = reader.choice(
            "log.format",
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        );
        Self { level, format }
    }
}
