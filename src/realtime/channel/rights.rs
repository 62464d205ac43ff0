//! What a channel may do on a private topic, and the checks that find it out.
//!
//! Four concerns, each with one state. They change independently of each other.
//!
//! ```text
//! reading presence
//!   NotNeeded ──first track──► Needed(false) ◄──answer──► Needed(true)
//!
//! writing
//!   Unchecked ──first write──► Checking
//!   Checking ──yes or no──► Known
//!   Checking ──answer about reading presence──► Unchecked, and the write asks again
//!   Checking ──no answer──► Failed ──the waiting messages are refused──► Unchecked
//!   Known ──first track, if presence is NotNeeded──► Checking
//!   Known ──a change that may revoke──► Unchecked
//!   any ──the new token is accepted──► Unchecked
//!
//! new token
//!   None ──access_token──► Checking ──yes──► None
//!   Checking ──no answer──► Retrying ──yes──► None
//!   Retrying ──no answer──► Retrying
//!   Retrying ──access_token──► Checking
//!
//! recheck
//!   Current ──change──► Due ──the join is answered──► Running ──answer──► Current
//!   Due ──answer to the join──► Current
//!   Running ──no answer, or the question has changed──► Running
//! ```
//!
//! A no to reading, of a new token or of a recheck, closes the channel. That is not drawn.
//!
//! While writing or a new token is `Checking`, the messages of the topic wait. In doubt nothing is
//! allowed: a permission exists only as the result of a check, and an answer about an earlier round
//! of changes never becomes one.

use super::super::permissions::Permissions;
use super::authorize::{AuthorizeError, Question};
use super::holder::Holder;

/// Who decides what a channel may do.
#[derive(Debug)]
pub enum Access {
    /// Everything is allowed to everyone.
    Public,
    /// The policies of `realtime.messages` decide. Boxed because most channels are public.
    Private(Box<Rights>),
}

/// The rights of a channel on a private topic.
#[derive(Debug)]
pub struct Rights {
    /// The presence key is the `sub` of the token, and permissions are rechecked after changes.
    pub is_managed: bool,
    /// What may be read. Nothing until the join is allowed.
    pub read: Reading,
    /// What may be written.
    pub write: WriteState,
    /// A new token whose permissions are being checked.
    pub new_token: NewToken,
    /// Whether the permissions are rechecked after a change.
    pub recheck: Recheck,
    /// The number of changes so far that may have affected the permissions. An answer of an earlier
    /// round is discarded, because it may be older than the change.
    pub round: u32,
}

/// What a channel may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Broadcasts.
    pub broadcast: bool,
    /// Presence.
    pub presence: PresenceReading,
}

/// Whether a channel may read presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceReading {
    /// The client has not used presence, so checks leave it out and it is not allowed.
    NotNeeded,
    /// Every check includes it. Contains the latest answer, or `false` before the first one.
    Needed(bool),
}

/// Permissions to write (protocol 4.3). They are checked at the first write, and again after each
/// new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteState {
    /// Not checked yet.
    Unchecked,
    /// A check is running that the first write waits for: of writing, or of reading presence.
    Checking,
    /// The result of the check.
    Known(Permissions),
    /// The check failed. The messages that waited for it are refused. The next write checks again.
    Failed(AuthorizeError),
}

/// A new token of a joined channel. Until its permissions are known, the previous one is in force.
#[derive(Debug)]
pub enum NewToken {
    /// There is none.
    None,
    /// The first check is running. The messages of the topic wait for it.
    Checking(Holder),
    /// Checks failed because the database was unavailable. Messages do not wait.
    Retrying {
        /// The identity in the new token.
        holder: Holder,
        /// Consecutive failed checks.
        failures: u32,
    },
}

/// Whether the permissions of a channel are rechecked after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// No change since the permissions were checked.
    Current,
    /// There was a change, and no recheck is running. One starts when the join is answered.
    Due,
    /// A recheck is running. If there is another change, its result is discarded and it starts
    /// again.
    Running,
}

/// What a message writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// A broadcast.
    Broadcast,
    /// The presence of the client.
    Presence,
}

impl Writing {
    fn is_allowed_by(self, permissions: Permissions) -> bool {
        match self {
            Self::Broadcast => permissions.broadcast,
            Self::Presence => permissions.presence,
        }
    }
}

/// What happens to a message that writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteDecision {
    /// It is carried out.
    Allowed,
    /// It waits for the running check.
    Wait,
    /// This check starts, and it waits for that.
    Check(Question),
    /// It is refused, because the policies do not allow it or because the check failed.
    Refused(Option<AuthorizeError>),
}

impl Reading {
    /// Nothing may be read. `needs_presence` if checks include presence.
    pub fn none(needs_presence: bool) -> Self {
        Self {
            broadcast: false,
            presence: if needs_presence {
                PresenceReading::Needed(false)
            } else {
                PresenceReading::NotNeeded
            },
        }
    }

    /// What may be read.
    pub fn permissions(self) -> Permissions {
        Permissions {
            broadcast: self.broadcast,
            presence: self.presence == PresenceReading::Needed(true),
        }
    }

    /// The question whose answer would be the current permissions.
    pub fn question(self) -> Question {
        Question::Read {
            presence: self.presence != PresenceReading::NotNeeded,
        }
    }

    /// Applies the answer to [`Reading::question`].
    fn set(&mut self, read: Permissions) {
        self.broadcast = read.broadcast;
        if let PresenceReading::Needed(is_allowed) = &mut self.presence {
            *is_allowed = read.presence;
        }
    }

    /// Includes presence in all further checks.
    fn need_presence(&mut self) {
        if self.presence == PresenceReading::NotNeeded {
            self.presence = PresenceReading::Needed(false);
        }
    }
}

impl NewToken {
    /// The identity in the new token.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::None => None,
            Self::Checking(holder) | Self::Retrying { holder, .. } => Some(holder),
        }
    }
}

impl Access {
    /// The rights on a private topic.
    pub fn rights(&self) -> Option<&Rights> {
        match self {
            Self::Public => None,
            Self::Private(rights) => Some(rights),
        }
    }

    /// The rights on a private topic, to change them.
    pub fn rights_mut(&mut self) -> Option<&mut Rights> {
        match self {
            Self::Public => None,
            Self::Private(rights) => Some(rights),
        }
    }

    /// What may be read.
    pub fn read(&self) -> Permissions {
        match self {
            Self::Public => Permissions::ALL,
            Self::Private(rights) => rights.read.permissions(),
        }
    }
}

impl Rights {
    /// The rights of a channel that joins: none. `needs_presence` if the join requests presence.
    pub fn new(is_managed: bool, needs_presence: bool) -> Self {
        Self {
            is_managed,
            read: Reading::none(needs_presence),
            write: WriteState::Unchecked,
            new_token: NewToken::None,
            recheck: Recheck::Current,
            round: 0,
        }
    }

    /// Whether the messages of the topic wait for a check.
    pub fn holds_messages(&self) -> bool {
        self.write == WriteState::Checking || matches!(self.new_token, NewToken::Checking(_))
    }

    /// What happens to a message that writes.
    pub fn decide(&self, writing: Writing) -> WriteDecision {
        // A client that tracks presence also receives presence updates, if the policies allow it.
        let reads_first =
            writing == Writing::Presence && self.read.presence == PresenceReading::NotNeeded;
        match &self.write {
            WriteState::Checking => WriteDecision::Wait,
            WriteState::Failed(error) => WriteDecision::Refused(Some(error.clone())),
            WriteState::Known(_) | WriteState::Unchecked if reads_first => {
                WriteDecision::Check(Question::Read { presence: true })
            }
            WriteState::Unchecked => WriteDecision::Check(Question::Write),
            WriteState::Known(permissions) if writing.is_allowed_by(*permissions) => {
                WriteDecision::Allowed
            }
            WriteState::Known(_) => WriteDecision::Refused(None),
        }
    }

    /// Applies the answer to the check that a write waited for. Returns whether what may be read
    /// has changed.
    pub fn answer_write(
        &mut self,
        question: Question,
        answer: Result<Permissions, AuthorizeError>,
    ) -> bool {
        let mut is_read_changed = false;
        self.write = match (question, answer) {
            (Question::Write, Ok(permissions)) => WriteState::Known(permissions),
            (Question::Read { .. }, Ok(read)) => {
                // Only presence: the answer must not revoke broadcasts without closing the channel.
                self.read.presence = PresenceReading::Needed(read.presence);
                is_read_changed = true;
                WriteState::Unchecked
            }
            // A policy that fails would fail again.
            (_, Err(error)) if error.is_refusal() => {
                self.read.need_presence();
                WriteState::Known(Permissions::default())
            }
            (_, Err(error)) => WriteState::Failed(error),
        };
        is_read_changed
    }

    /// After the messages that waited for a failed check were refused, the next write checks again.
    pub fn forget_failure(&mut self) {
        if matches!(self.write, WriteState::Failed(_)) {
            self.write = WriteState::Unchecked;
        }
    }

    /// Applies the answer to the check of a join.
    pub fn answer_join(&mut self, read: Permissions) {
        self.read.set(read);
        self.recheck = Recheck::Current;
    }

    /// Applies new permissions to read to a joined channel.
    ///
    /// # Errors
    /// If the channel may read less than before. It must then be closed, and nothing is applied.
    pub fn answer_read(&mut self, read: Permissions) -> Result<(), ReadsLess> {
        let had = self.read.permissions();
        if !read.any() {
            return Err(ReadsLess::Nothing);
        }
        if (had.broadcast && !read.broadcast) || (had.presence && !read.presence) {
            return Err(ReadsLess::Part);
        }
        self.read.set(read);
        Ok(())
    }

    /// Notes a change that may have revoked a permission. What may be written is checked before the
    /// next write; what may be read is rechecked, and the result of any running check is discarded.
    pub fn note_change(&mut self) {
        self.round = self.round.wrapping_add(1);
        if matches!(self.write, WriteState::Known(_)) {
            self.write = WriteState::Unchecked;
        }
        if self.recheck == Recheck::Current {
            self.recheck = Recheck::Due;
        }
    }
}

/// Why a joined channel is closed after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadsLess {
    /// It may read nothing.
    Nothing,
    /// It may no longer read something that it could.
    Part,
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
