//! The state of the change stream, and the notices about it that are sent to channels with
//! bindings.

use super::super::protocol::SystemNotice;

/// Sent to a channel with bindings when changes are live.
const SUBSCRIBED: &str = "Subscribed to PostgreSQL";
/// Sent to a channel with bindings while the change stream is down.
const INTERRUPTED: &str = "Changes are interrupted: the connection to the database was lost. \
                               Nothing is lost, they will come later";
/// Sent to a channel with bindings before the change stream has started.
const NOT_LIVE_YET: &str = "Changes are not live yet: waiting for the database";
/// Sent to a channel with bindings when the WAL could not be read without a gap.
pub const GAP: &str = "Changes may have been missed: read again what you need";
/// Sent to a channel with bindings each time that the rate of changes starts to exceed
/// `realtime.max_events_per_second`.
pub(super) const TOO_MANY_CHANGES: &str =
    "Too many changes per second: some are left out, read again what you need";

/// The state of the change stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// The stream has not started.
    NotYet,
    /// Committed changes are delivered.
    Live,
    /// Committed changes will be delivered later.
    Interrupted,
}

impl StreamState {
    /// Returns the notice that reports this state to a channel with registered bindings.
    pub fn notice(self) -> SystemNotice {
        match self {
            Self::Live => SystemNotice::changes_ok(SUBSCRIBED),
            Self::Interrupted => SystemNotice::changes_error(INTERRUPTED),
            Self::NotYet => SystemNotice::changes_error(NOT_LIVE_YET),
        }
    }
}
