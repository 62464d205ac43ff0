//! Reads row changes, and broadcasts as rows of `realtime.messages`, from PostgreSQL's write-ahead
//! log (WAL) into bounded queues.
//!
//! # Guarantees
//! While the slot exists and the process runs, every committed change of a published table and
//! every row inserted into `realtime.messages` is handed over exactly once, in commit order, no
//! matter how often the connection breaks. After a restart, reading continues at the last
//! acknowledgement, so changes that were handed over shortly before a crash may be repeated. If the
//! slot is lost or the history of the database changes,
//! [`StreamEvent::Gap`](crate::change::StreamEvent::Gap) follows once the stream is live again. A
//! listener that then reads the tables misses nothing.
//!
//! # Acknowledgement
//! A position is acknowledged only after the queues of the bus have taken everything before it. A
//! full queue stops the reading, but not the keepalives.
//! [`ReplicationConfig::max_wal_held_bytes`](crate::config::ReplicationConfig::max_wal_held_bytes)
//! bounds the WAL that PostgreSQL must keep.
//!
//! # Publications
//! There are two: the configured one, and the one for `realtime.messages`, which Supabase's server
//! also uses. If one is missing, the other is still read. A publication that is created later is
//! read once all transactions that began before its creation have been read.
//!
//! # Slot
//! There is one slot per database. It is permanent and is created after the configured publication
//! (`slot`, `publication`, `prepare`). A clean stop drops it, unless the configuration keeps it.
//! One process reads it at a time. Another process waits, and takes over when the first one ends or
//! becomes silent.
//!
//! # Tasks
//! There is one task, `replication`. The replication client runs another one, which ends with it.

mod assemble;
mod connection_error;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handle;
mod names;
mod pgoutput;
mod prepare;
mod publication;
mod relation_cache;
mod slot;
mod slot_watch;
mod status;
mod stream;
mod timeout;
mod transport;

pub use error::ReplicationError;
pub use handle::Replication;
pub use names::MESSAGES_PUBLICATION;
pub use publication::{PublishedTable, published_tables};
pub use status::{ReplicationStatus, Sinks, StreamState};
