//! What `rapport dev` starts.

use std::path::PathBuf;

use super::reader::Reader;

/// `[dev]`.
#[derive(Clone, Debug)]
pub struct DevConfig {
    /// The directory of PostgreSQL's programs.
    pub postgres_bin: Option<PathBuf>,
    /// Where the database and the keys are kept.
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
