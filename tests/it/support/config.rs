//! The configuration of servers in tests.

use std::collections::BTreeMap;
use std::time::Duration;

use rapport::config::{Config, Inputs, ReplicationConfig};

use super::token::JWT_SECRET;

/// Returns a configuration with this database, any free port, and additional settings
/// (`RAPPORT_<SECTION>_<KEY>`). If a setting occurs more than once, the last one wins.
pub(crate) fn config(database_url: &str, settings: &[(&str, &str)]) -> Config {
    let environment: BTreeMap<String, String> = [
        ("DATABASE_URL", database_url),
        ("SUPABASE_JWT_SECRET", JWT_SECRET),
        ("RAPPORT_SERVER_PORT", "0"),
    ]
    .iter()
    .chain(settings)
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect();
    Config::load(&Inputs {
        file: None,
        environment: &environment,
        flags: Vec::new(),
    })
    .unwrap()
}

/// Returns settings of a change stream with short intervals.
pub(crate) fn replication() -> ReplicationConfig {
    ReplicationConfig {
        publication: "supabase_realtime".to_owned(),
        slot_name: "rapport".to_owned(),
        keep_slot: false,
        max_wal_held_bytes: 1 << 40,
        chunk_max_changes: 1_000,
        chunk_max_bytes: 1 << 20,
        status_interval: Duration::from_millis(200),
        check_interval: Duration::from_millis(200),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_secs(1),
    }
}
