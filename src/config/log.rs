//! What is logged, and in which form.

use super::reader::Reader;

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level, or a list of levels per module (`tracing_subscriber::EnvFilter`).
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
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
