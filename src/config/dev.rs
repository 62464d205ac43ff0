//! Settings of `rapport dev`.

use std::path::PathBuf;

use super::reader::Reader;

/// `[dev]`.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// The directory of the PostgreSQL programs.
    pub postgres_bin: Option<PathBuf>,
    /// The directory for the database and the keys.
    pub data_dir: Option<PathBuf>,
}

impl DevConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            postgres_bin: reader.text("dev.postgres_bin").map(PathBuf::from),
            data_dir: reader.text("dev.data_dir").map(PathBuf::from),
        }
    }
}
