//! The permissions of a channel on a private topic, and the checks that determine them.
//!
//! There are four concerns. Each has its own state, and these states change independently.
//!
//! ```text
//! reading presence
//!   NotNeeded ──first track──► Needed(false) ◄──result──► Needed(true)
//!
//! writing
//!   Unchecked ──first write──► Checking
//!   Checking ──yes or no──► Known
//!   Checking ──result about reading presence──► Unchecked, and the write is checked
//!   Checking ──no result──► Failed ──the waiting messages are refused──► Unchecked
//!   Known ──first track, if presence is NotNeeded──► Checking
//!   Known ──a change that may revoke──► Unchecked
//!   any ──the new token is accepted──► Unchecked
//!
//! new token
//!   None ──access_token──► Checking ──yes──► None
//!   Checking ──no result──► Retrying ──yes──► None
//!   Retrying ──no result──► Retrying
//!   Retrying ──access_token──► Checking
//!
//! recheck
//!   Current ──change──► Due ──the join has been answered──► Running ──result──► Current
//!   Due ──the check of the join allows reading──► Current
//!   Running ──no result, or a new check is needed──► Running
//! ```
//!
//! If the check of a new token or a recheck does not allow reading, the channel is closed. The
//! diagram omits these transitions.
//!
//! While writing or a new token is `Checking`, the messages of the topic wait. Nothing is allowed
//! without a positive result: a permission exists only as the result of a check. The result of a
//! check that started before a change never becomes a permission.

use super::super::permissions::Permissions;
use super::authorize::{AuthorizeError, CheckKind};
use super::holder::Holder;

/// The source of a channel's permissions.
#[derive(Debug)]
pub enum Access {
    /// Every client may do everything.
    Public,
    /// The policies of `realtime.messages` decide what the channel may do. Boxed because most
    /// channels are public.
    Private(Box<Rights>),
}

/// The rights of a channel on a private topic.
#[derive(Debug)]
pub struct Rights {
    /// Whether the topic is managed, as the topics of the chat are: the presence key is the `sub`
    /// of the token, and permissions are rechecked after changes.
    pub is_managed: bool,
    /// The permissions to read. There are none until the join is allowed.
    pub read: ReadPermissions,
    /// The permissions to write.
    pub write: WriteState,
    /// The new token whose permissions are being checked, if any.
    pub new_token: NewToken,
    /// The state of the recheck after a change.
    pub recheck: Recheck,
    /// The number of changes so far that may have affected the permissions. The result of a check
    /// that started in an earlier round is discarded, because it may be older than the change.
    pub round: u32,
}

/// The permissions of a channel to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPermissions {
    /// Whether the channel may read broadcasts.
    pub broadcast: bool,
    /// Whether the channel may read presence.
    pub presence: PresenceReading,
}

/// Whether a channel may read presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceReading {
    /// The client has not used presence. Checks do not include it, and reading presence is not
    /// allowed.
    NotNeeded,
    /// Every check includes presence. Contains the latest result, or `false` before the first one.
    Needed(bool),
}

/// The permissions to write (protocol 4.3). They are checked at the first write, and again after
/// each new token and each change that may revoke them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteState {
    /// The permissions have not been checked yet, or must be checked again.
    Unchecked,
    /// A write waits for a running check, either of writing or of reading presence.
    Checking,
    /// The result of the check.
    Known(Permissions),
    /// The check failed. The messages that waited for it are refused, and the next write starts
    /// another check.
    Failed(AuthorizeError),
}

/// A new token of a joined channel. Until its permissions are known, the previous token stays in
/// force.
#[derive(Debug)]
pub enum NewToken {
    /// There is no new token.
    None,
    /// The first check is running. The messages of the topic wait for it.
    Checking(Holder),
    /// Checks failed without a refusal, for example because the database was unavailable. Messages
    /// no longer wait.
    Retrying {
        /// The identity in the new token.
        holder: Holder,
        /// Number of consecutive failed checks.
        failures: u32,
    },
}

/// The state of the recheck after a change that may have affected the permissions of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// There was no change since the permissions were checked.
    Current,
    /// There was a change, and no recheck is running. A recheck starts when the join has been
    /// answered.
    Due,
    /// A recheck is running. If there is another change, the result is discarded and the recheck is
    /// repeated.
    Running,
}

/// The extension to which a client's message writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// The message is a broadcast.
    Broadcast,
    /// The message changes the client's presence.
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

/// The decision about a message that writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteDecision {
    /// The message is carried out.
    Allowed,
    /// The message waits for the running check.
    Wait,
    /// This check starts, and the message waits for the result.
    Check(CheckKind),
    /// The message is refused. Contains the error if the check failed, or `None` if the policies do
    /// not allow the message.
    Refused(Option<AuthorizeError>),
}

impl ReadPermissions {
    /// Creates a state in which nothing may be read. `needs_presence` determines whether checks
    /// include presence.
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

    /// Returns the permissions to read.
    pub fn permissions(self) -> Permissions {
        Permissions {
            broadcast: self.broadcast,
            presence: self.presence == PresenceReading::Needed(true),
        }
    }

    /// Returns the kind of check that determines the permissions to read.
    pub fn check_kind(self) -> CheckKind {
        CheckKind::Read {
            presence: self.presence != PresenceReading::NotNeeded,
        }
    }

    /// Applies the result of a check of [`ReadPermissions::check_kind`].
    fn set(&mut self, read: Permissions) {
        self.broadcast = read.broadcast;
        if let PresenceReading::Needed(is_allowed) = &mut self.presence {
            *is_allowed = read.presence;
        }
    }

    /// Makes all further checks include presence.
    fn need_presence(&mut self) {
        if self.presence == PresenceReading::NotNeeded {
            self.presence = PresenceReading::Needed(false);
        }
    }
}

impl NewToken {
    /// Returns the identity in the new token.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::None => None,
            Self::Checking(holder) | Self::Retrying { holder, .. } => Some(holder),
        }
    }
}

impl Access {
    /// Returns the rights, or `None` on a public topic.
    pub fn rights(&self) -> Option<&Rights> {
        match self {
            Self::Public => None,
            Self::Private(rights) => Some(rights),
        }
    }

    /// Returns the rights for changing them, or `None` on a public topic.
    pub fn rights_mut(&mut self) -> Option<&mut Rights> {
        match self {
            Self::Public => None,
            Self::Private(rights) => Some(rights),
        }
    }

    /// Returns the permissions to read.
    pub fn read(&self) -> Permissions {
        match self {
            Self::Public => Permissions::ALL,
            Self::Private(rights) => rights.read.permissions(),
        }
    }
}

impl Rights {
    /// Creates the rights of a channel that joins, which are none. `needs_presence` must be set if
    /// the join requests presence.
    pub fn new(is_managed: bool, needs_presence: bool) -> Self {
        Self {
            is_managed,
            read: ReadPermissions::none(needs_presence),
            write: WriteState::Unchecked,
            new_token: NewToken::None,
            recheck: Recheck::Current,
            round: 0,
        }
    }

    /// Returns whether the messages of the topic wait for a check.
    pub fn holds_messages(&self) -> bool {
        self.write == WriteState::Checking || matches!(self.new_token, NewToken::Checking(_))
    }

    /// Decides about a message that writes.
    pub fn decide(&self, writing: Writing) -> WriteDecision {
        // A client that tracks presence also receives presence updates, if the policies allow it.
        let reads_first =
            writing == Writing::Presence && self.read.presence == PresenceReading::NotNeeded;
        match &self.write {
            WriteState::Checking => WriteDecision::Wait,
            WriteState::Failed(error) => WriteDecision::Refused(Some(error.clone())),
            WriteState::Known(_) | WriteState::Unchecked if reads_first => {
                WriteDecision::Check(CheckKind::Read { presence: true })
            }
            WriteState::Unchecked => WriteDecision::Check(CheckKind::Write),
            WriteState::Known(permissions) if writing.is_allowed_by(*permissions) => {
                WriteDecision::Allowed
            }
            WriteState::Known(_) => WriteDecision::Refused(None),
        }
    }

    /// Applies the result of the check that a write waited for. Returns whether the permissions to
    /// read may have changed.
    pub fn apply_write(
        &mut self,
        kind: CheckKind,
        result: Result<Permissions, AuthorizeError>,
    ) -> bool {
        let mut is_read_changed = false;
        self.write = match (kind, result) {
            (CheckKind::Write, Ok(permissions)) => WriteState::Known(permissions),
            (CheckKind::Read { .. }, Ok(read)) => {
                // The result is applied only to presence, because it must not revoke broadcasts
                // without closing the channel.
                self.read.presence = PresenceReading::Needed(read.presence);
                is_read_changed = true;
                WriteState::Unchecked
            }
            // The policies failed, and would fail again.
            (_, Err(error)) if error.is_refusal() => {
                self.read.need_presence();
                WriteState::Known(Permissions::default())
            }
            (_, Err(error)) => WriteState::Failed(error),
        };
        is_read_changed
    }

    /// Makes the next write start another check. Called after the messages that waited for the
    /// failed check have been refused.
    pub fn forget_failure(&mut self) {
        if matches!(self.write, WriteState::Failed(_)) {
            self.write = WriteState::Unchecked;
        }
    }

    /// Applies the result of the check of a join.
    pub fn apply_join(&mut self, read: Permissions) {
        self.read.set(read);
        self.recheck = Recheck::Current;
    }

    /// Applies new permissions to read to a joined channel.
    ///
    /// # Errors
    /// Fails if the channel may read less than before. Nothing is applied, and the channel must be
    /// closed.
    pub fn apply_read(&mut self, read: Permissions) -> Result<(), ReadsLess> {
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

    /// Records a change that may have revoked a permission. The results of running checks are
    /// discarded. The permissions to write are checked at the next write, and those to read are
    /// rechecked.
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

/// The reason why a joined channel is closed after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadsLess {
    /// The channel may read nothing.
    Nothing,
    /// The channel may no longer read broadcasts or presence, which it could read before.
    Part,
}

#[cfg(test)]
#[path = "rights_tests.rs"]
mod tests;
