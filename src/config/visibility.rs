//! How it is decided who may see a changed row.

use std::time::Duration;

use super::reader::Reader;

/// `[visibility]`.
#[derive(Clone, Debug)]
pub struct VisibilityConfig {
    /// Connections that ask.
    pub pool_size: usize,
    /// How long the catalogue is taken as known.
    pub catalog_ttl: Duration,
    /// Rows in one question at most.
    pub batch_max_rows: usize,
    /// How long one question may take.
    pub statement_timeout: Duration,
    /// Whether a DELETE under row-level security reaches those for whom nobody can tell any
    /// more whether they could see the row; they get its primary key alone.
    pub delete_without_old_row: bool,
    /// Tables, as `schema.table`, of whose old rows subscribers are told the primary key alone.
    pub tables_without_old_rows: Vec<String>,
}

impl VisibilityConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            pool_size: reader.integer("visibility.pool_size", 1..=1_000),
            catalog_ttl: reader.milliseconds("visibility.catalog_ttl_ms", 0..=3_600_000),
            batch_max_rows: reader.integer("visibility.batch_max_rows", 1..=100_000),
            statement_timeout: reader.milliseconds("visibility.statement_timeout_ms", 1..=600_000),
            delete_without_old_row: reader.switch("visibility.delete_without_old_row"),
            tables_without_old_rows: reader.list("visibility.tables_without_old_rows"),
        }
    }
}
