//! Row changes, and messages to be broadcast, out of PostgreSQL's write-ahead log into bounded queues.
//!
//! # What is guaranteed
//! While the slot exists, every change that is committed to a published table, and every row that
//! is inserted into `realtime.messages`, is handed over exactly once, in commit order, however often the connection drops, within one run of this
//! process. A new run continues at the last acknowledgement: what was handed over shortly before a
//! crash may come again. When the slot is lost, [`StreamEvent::Gap`] says so; it comes after the new
//! slot exists, so that a listener who then reads the tables has missed nothing.
//!
//! # Who acknowledges what
//! A position is acknowledged once the sink has taken everything before it, never earlier. A full
//! sink stops the reading and nothing else: keep-alives go on. The log that PostgreSQL must keep
//! meanwhile is bounded by [`ReplicationConfig::max_wal_held_bytes`].
//!
//! # The publications
//! Two: the configured one, and that of `realtime.messages`, which Supabase's own server uses as
//! well. One that is missing does not stop the reading of the other; one that is made later is
//! read as soon as nothing older than it is left to be read.
//!
//! # The slot
//! Permanent, one per database, made after the publication (`slot`, `publication`, `prepare`).
//! A clean stop drops it, unless it is to be kept. One process reads it at a time; another waits,
//! and takes over when the first has ended or fallen silent.
//!
//! # Tasks
//! One, `replication`, and the one inside the replication client, which ends with it.

mod assemble;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handle;
mod names;
mod pgoutput;
mod prepare;
mod publication;
mod relation_cache;
mod session_error;
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
