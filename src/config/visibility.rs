//! Settings of the checks that decide who may see a changed row.

use std::time::Duration;

use super::reader::Reader;

/// `[visibility]`.
#[derive(Clone, Debug)]
pub struct VisibilityConfig {
    /// Connections for visibility checks.
    pub pool_size: usize,
    /// How long the cached catalogue is used before it is compared with the database.
    pub catalog_ttl: Duration,
    /// Maximum rows in one check.
    pub batch_max_rows: usize,
    /// Timeout of one check.
    pub statement_timeout: Duration,
    /// Whether a DELETE event under row-level security is delivered, with only the primary key, if
    /// the old row is unknown. Without the old row, the server cannot determine who was able to see
    /// it.
    pub delete_without_old_row: bool,
    /// Whether subscribers whose role may not select a table's primary key are notified about
    /// inserts and updates, without the rows.
    pub tell_unauthorized: bool,
    /// Tables, as `schema.table`, whose events contain only the primary key of the old row.
    pub tables_without_old_rows: Vec<String>,
    /// Tables, as `schema.table`, whose UPDATE events contain the old row whenever the new row is
    /// visible, even if the old row was not.
    pub tables_with_unchecked_old_rows: Vec<String>,
}

/// The published tables of the chat. Their old rows are always checked.
const CHAT_TABLES: [&str; 6] = [
    "public.user_conversations",
    "public.user_conversation_members",
    "public.conversation_receipts",
    "public.user_messages",
    "public.user_presence",
    "public.message_reactions",
];

impl VisibilityConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            pool_size: reader.integer("visibility.pool_size", 1..=1_000),
            catalog_ttl: reader.milliseconds("visibility.catalog_ttl_ms", 0..=3_600_000),
            batch_max_rows: reader.integer("visibility.batch_max_rows", 1..=100_000),
            statement_timeout: reader.milliseconds("visibility.statement_timeout_ms", 1..=600_000),
            delete_without_old_row: reader.switch("visibility.delete_without_old_row"),
            tell_unauthorized: reader.switch("visibility.tell_unauthorized"),
            tables_without_old_rows: reader.list("visibility.tables_without_old_rows"),
            tables_with_unchecked_old_rows: unchecked_tables(reader),
        }
    }
}

fn unchecked_tables(reader: &mut Reader) -> Vec<String> {
    const KEY: &str = "visibility.tables_with_unchecked_old_rows";
    let tables = reader.list(KEY);
    for table in &tables {
        if CHAT_TABLES.contains(&table.as_str()) {
            reader.problem(
                KEY,
                &format!("names {table}, a table of the chat, whose old rows are always checked"),
            );
        }
    }
    tables
}
