//! Permission checks, and the receivers of their results.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::oneshot;

use super::super::super::permissions::Permissions;
use super::error::AuthorizeError;
use crate::auth::Claims;

/// What a check determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// The extensions that may be read.
    Read {
        /// Whether presence is checked too. If not, reading presence is not allowed.
        presence: bool,
    },
    /// The extensions that may be written. As in Supabase Realtime, both extensions are always
    /// checked.
    Write,
}

/// The extension of broadcasts, as in the column `extension`.
pub(super) const BROADCAST: &str = "broadcast";
/// The extension of presence, as in the column `extension`.
pub(super) const PRESENCE: &str = "presence";

impl CheckKind {
    /// Returns the extensions that are checked.
    pub(super) fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Read { presence: false } => &[BROADCAST],
            Self::Read { presence: true } | Self::Write => &[BROADCAST, PRESENCE],
        }
    }

    /// Limits `permissions` to the extensions that are checked.
    pub(super) fn mask(self, permissions: Permissions) -> Permissions {
        Permissions {
            broadcast: permissions.broadcast,
            presence: permissions.presence && self != Self::Read { presence: false },
        }
    }
}

/// Sets whether an extension is allowed, given its name.
pub(super) fn set(permissions: &mut Permissions, extension: &str, is_allowed: bool) {
    match extension {
        BROADCAST => permissions.broadcast = is_allowed,
        PRESENCE => permissions.presence = is_allowed,
        _ => {}
    }
}

/// A permission check of one caller on one topic.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) kind: CheckKind,
    /// The topic without `realtime:`.
    pub(super) topic: Arc<str>,
    pub(super) claims: Claims,
    /// The text of a JSON object that policies read as `request.headers`.
    pub(super) headers: Arc<str>,
}

/// A check and the receivers of its result.
pub(super) struct PendingCheck {
    pub(super) check: Arc<Check>,
    pub(super) receivers: Vec<oneshot::Sender<CheckResult>>,
    /// Whether a worker has taken the check from the queue.
    pub(super) is_taken: Arc<AtomicBool>,
    /// Whether the check was sent before and the connection broke.
    pub(super) is_repeated: bool,
}

pub(super) type CheckResult = Result<Permissions, AuthorizeError>;

impl PendingCheck {
    /// Sends the result to all receivers.
    pub(super) fn send_result(self, result: &CheckResult) {
        for receiver in self.receivers {
            // A receiver that was dropped no longer needs the result.
            let _ = receiver.send(result.clone());
        }
    }

    /// Returns whether any receiver still needs the result.
    pub(super) fn is_waited_for(&self) -> bool {
        self.receivers.iter().any(|receiver| !receiver.is_closed())
    }
}
