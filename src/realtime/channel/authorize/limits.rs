//! The limits that workers and insertions share (see [`super`]).

use std::time::Duration;

/// Maximum number of connections for workers. The same number applies to insertions. Many checks
/// arrive at once only when all clients reconnect. Supabase Realtime uses 2 to 15 connections,
/// depending on the size of the machine.
pub(super) const MAX_CONNECTIONS: usize = 4;

/// The statement timeout that each connection sets and PostgreSQL enforces.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a check waits in the queue, or an insertion for its connection. The sum of this time
/// and [`CHECK_TIMEOUT`] is less than the ten seconds after which clients give up on a join, which
/// leaves time to send the reason.
pub(super) const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a check may take after that wait. This exceeds [`STATEMENT_TIMEOUT`], so it only takes
/// effect when the network loses packets.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(6);
