//! How row changes are read from the database.

use std::time::Duration;

use super::reader::Reader;

/// `[replication]`.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// The publication that is read.
    pub publication: String,
    /// The logical replication slot; the database's name is added to it.
    pub slot_name: String,
    /// Whether the slot stays after a clean stop.
    pub keep_slot: bool,
    /// Log the database may hold back before the slot is made anew.
    pub max_wal_held_bytes: u64,
    /// Changes in one chunk at most.
    pub chunk_max_changes: usize,
    /// Bytes after which a chunk is closed.
    pub chunk_max_bytes: usize,
    /// How often the database hears how far we are.
    pub status_interval: Duration,
    /// How often the slot is looked at: whether it is still ours, and how much log it holds back.
    pub check_interval: Duration,
    /// The first pause before connecting again.
    pub backoff_min: Duration,
    /// The longest pause before connecting again; not shorter than the first.
    pub backoff_max: Duration,
}

impl ReplicationConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let slot_name = reader.required_text("replication.slot_name");
        // PostgreSQL manual, 27.2.6.1: what a slot may be called.
        let allowed = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '_');
        if slot_name.len() > 63 || !slot_name.chars().all(allowed) {
            reader.problem(
                "replication.slot_name",
                "may hold lower-case letters, digits and underscores, 63 at most",
            );
        }
        let backoff_min = reader.milliseconds("replication.backoff_min_ms", 1..=60_000);
        let backoff_max = reader.milliseconds("replication.backoff_max_ms", 1..=600_000);
        if backoff_max < backoff_min {
            reader.problem(
                "replication.backoff_max_ms",
                "must not be below `replication.backoff_min_ms`",
            );
        }
        Self {
            publication: reader.required_text("replication.publication"),
            slot_name,
            keep_slot: reader.switch("replication.keep_slot"),
            max_wal_held_bytes: reader
                .whole("replication.max_wal_held_bytes", 16_777_216..=1 << 50),
            chunk_max_changes: reader.whole("replication.chunk_max_changes", 1..=1_000_000),
            chunk_max_bytes: reader.whole("replication.chunk_max_bytes", 1_024..=1 << 30),
            // The database drops a reader it has not heard of for `wal_sender_timeout`, one minute
            // unless it is set lower.
            status_interval: reader.milliseconds("replication.status_interval_ms", 10..=30_000),
            check_interval: reader.milliseconds("replication.check_interval_ms", 100..=600_000),
            backoff_min,
            backoff_max,
        }
    }
}
