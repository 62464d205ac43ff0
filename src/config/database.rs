//! Database logins, pool size and timeouts.

use std::time::Duration;

use super::reader::Reader;
use super::secret::Secret;

/// `[database]`.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// The owner's connection string, for migrations, replication, the catalogue and visibility
    /// checks.
    pub url: Secret,
    /// The connection string for user requests. If none is configured, it is the owner's.
    pub request_url: Secret,
    /// Maximum connections for user requests. The server may open a few more for its own
    /// statements.
    pub request_pool_size: usize,
    /// How long a request waits for a free connection, and one of its statements for a lock.
    pub pool_wait: Duration,
    /// Timeout of one statement of a request.
    pub statement_timeout: Duration,
    /// Timeout for opening a connection.
    pub connect_timeout: Duration,
}

impl DatabaseConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let url = reader.connection_url("database.url").unwrap_or_else(|| {
            reader.problem(
                "database.url",
                "is not set: set DATABASE_URL to the owner's connection string",
            );
            Secret::new("")
        });
        Self {
            request_url: reader
                .connection_url("database.request_url")
                .unwrap_or_else(|| url.clone()),
            url,
            request_pool_size: reader.integer("database.request_pool_size", 1..=1_000),
            pool_wait: reader.milliseconds("database.pool_wait_ms", 1..=60_000),
            statement_timeout: reader.milliseconds("database.statement_timeout_ms", 1..=600_000),
            connect_timeout: reader.milliseconds("database.connect_timeout_ms", 1..=60_000),
        }
    }
}
