//! Settings of `rapport dev`.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;

/// `[dev]`.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// The directory of the PostgreSQL programs.
    pub postgres_bin: Option<PathBuf>,
    /// The directory for the database and the keys.
    pub data_dir: Option<PathBuf>,
    /// Lifetime of the access tokens that the development sign-in issues.
    pub token_lifetime: Duration,
}

impl DevConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let token_lifetime_s: u64 = reader.integer("dev.token_lifetime_s", 1..=86_400);
        Self {
            postgres_bin: reader.text("dev.postgres_bin").map(PathBuf::from),
            data_dir: reader.text("dev.data_dir").map(PathBuf::from),
            token_lifetime: Duration::from_secs(token_lifetime_s),
        }
    }
}
