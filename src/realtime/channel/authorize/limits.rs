//! The limits that flights and insertions share.

use std::time::Duration;

/// Maximum connections for flights, and also for insertions. Many questions arrive at once only
/// when all clients reconnect. Supabase Realtime uses 2 to 15 connections, depending on the size of
/// the machine.
pub(super) const MAX_CONNECTIONS: usize = 4;

/// The statement timeout that the server enforces. The session sets it.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a question waits in the queue. Clients give up on a join after ten seconds. Together
/// with [`ANSWER_TIMEOUT`], this leaves time to send the reason before that.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer may take. It exceeds [`STATEMENT_TIMEOUT`], so it only applies when the
/// network loses packets.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
