//! Questions about permissions, and the receivers of their answers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::oneshot;

use super::super::super::permissions::Permissions;
use super::error::AuthorizeError;
use crate::auth::Claims;

/// The permissions that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The extensions that may be read.
    Read {
        /// Whether presence is checked too. If not, the answer for presence is no.
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

impl Question {
    /// Returns the extensions that the question is about.
    pub(super) fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Read { presence: false } => &[BROADCAST],
            Self::Read { presence: true } | Self::Write => &[BROADCAST, PRESENCE],
        }
    }

    /// Limits `permissions` to the extensions that the question is about.
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

/// A question and the caller that it is about.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) question: Question,
    /// The topic without `realtime:`.
    pub(super) topic: Arc<str>,
    pub(super) claims: Claims,
    /// The text of a JSON object that policies read as `request.headers`.
    pub(super) headers: Arc<str>,
}

/// A question and the receivers of its answer.
pub(super) struct Group {
    pub(super) subject: Arc<Subject>,
    pub(super) receivers: Vec<oneshot::Sender<Answer>>,
    /// Whether a flight has taken the question from the queue.
    pub(super) is_taken: Arc<AtomicBool>,
    /// Whether the question was sent before and the connection broke.
    pub(super) is_repeated: bool,
}

pub(super) type Answer = Result<Permissions, AuthorizeError>;

impl Group {
    /// Sends the answer to all receivers.
    pub(super) fn answer(self, answer: &Answer) {
        for receiver in self.receivers {
            // A receiver that was dropped no longer needs the answer.
            let _ = receiver.send(answer.clone());
        }
    }

    /// Returns whether any receiver still needs the answer.
    pub(super) fn is_waited_for(&self) -> bool {
        self.receivers.iter().any(|receiver| !receiver.is_closed())
    }
}
