//! Settings for reading row changes from the database.

use std::time::Duration;

use super::reader::Reader;

/// `[replication]`.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// The publication to read.
    pub publication: String,
    /// The name of the logical replication slot, to which the database's name is appended.
    pub slot_name: String,
    /// Whether the slot is kept on a clean shutdown.
    pub keep_slot: bool,
    /// Maximum bytes of WAL that the database may retain for the slot before it is recreated.
    pub max_wal_held_bytes: u64,
    /// Maximum changes in one chunk of a transaction.
    pub chunk_max_changes: usize,
    /// Size in bytes at which a chunk is closed.
    pub chunk_max_bytes: usize,
    /// Interval of status updates to the database.
    pub status_interval: Duration,
    /// Interval of slot checks: whether the slot still belongs to this server, and how much WAL it
    /// retains.
    pub check_interval: Duration,
    /// The delay before the first reconnect attempt.
    pub backoff_min: Duration,
    /// Maximum delay between reconnect attempts; not below the first delay.
    pub backoff_max: Duration,
}

impl ReplicationConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let slot_name = reader.required_text("replication.slot_name");
        // Valid slot names: PostgreSQL manual, section 27.2.6.1.
        let allowed = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '_');
        if slot_name.len() > 63 || !slot_name.chars().all(allowed) {
            reader.problem(
                "replication.slot_name",
                "may contain only lower-case letters, digits and underscores, at most 63",
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
                .integer("replication.max_wal_held_bytes", 16_777_216..=1 << 50),
            chunk_max_changes: reader.integer("replication.chunk_max_changes", 1..=1_000_000),
            chunk_max_bytes: reader.integer("replication.chunk_max_bytes", 1_024..=1 << 30),
            // PostgreSQL disconnects a replication client after `wal_sender_timeout` without a
            // status update; its default is one minute.
            status_interval: reader.milliseconds("replication.status_interval_ms", 10..=30_000),
            check_interval: reader.milliseconds("replication.check_interval_ms", 100..=600_000),
            backoff_min,
            backoff_max,
        }
    }
}
