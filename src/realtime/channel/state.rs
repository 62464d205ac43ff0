//! The state of one session's participation in a topic, without any I/O.
//!
//! ```text
//!  phx_join ──► Joining ─────────────────────────────► Joined ──► (removed)
//!                  │   permissions (private topics)      │
//!                  │   stored messages (with replay)     │   leave, another join of the topic,
//!                  │   bindings (until live, with wait)  │   an expired token, a lost permission
//!                  └──► (removed): refused, or late
//! ```
//!
//! A removed channel has no state. Other activities of a channel are independent of this diagram,
//! and each has its own state:
//!
//! | concern | states |
//! | --- | --- |
//! | permissions of a private topic | see [`Rights`] |
//! | bindings | [`Registration`](super::postgres_changes::Registration) |
//! | the channel's own presence | [`Tracked`] |
//! | stored messages for a join | [`Replay`] |
//!
//! While [`Channel::holds_messages`] returns `true`, the messages of the topic wait in
//! [`Channel::waiting`].

use std::sync::Arc;

use super::super::hub::{ReplayedMessage, TopicKey};
use super::super::protocol::{Ref, Reply, ServerMessage, SystemNotice, sub_topic};
use super::holder::Holder;
use super::postgres_changes::Subscription;
use super::rights::{Access, Rights};
use super::waiting::{OwnedMessage, Waiting};
use crate::limits::{UnixMillis, Window};
use crate::visibility::ChannelId;

/// A joined or joining channel.
#[derive(Debug)]
pub struct Channel {
    /// Identifies the channel in the hub and in `visibility`.
    pub id: ChannelId,
    /// The full topic.
    pub topic: Arc<str>,
    /// The `join_ref` of the join. Close frames and leaves refer to it.
    pub join_ref: Option<Ref>,
    /// The `ref` of the join. Pushes of the server contain it if there is no `join_ref`.
    pub join_reference: Option<Ref>,
    /// The identity that the channel acts for.
    pub holder: Holder,
    /// Whether broadcasts are acknowledged.
    pub ack: bool,
    /// Whether the client receives its own broadcasts.
    pub echo: bool,
    /// Approximate memory, in bytes, that the server needs because of the join: see [`join_bytes`].
    pub bytes: u32,
    /// Whether the join requested presence, which is a state followed by diffs.
    pub wants_presence: bool,
    /// The presence that the channel tracks.
    pub tracking: Tracking,
    /// The source of the channel's permissions.
    pub access: Access,
    /// Size in bytes of the broadcast that is being stored, if any.
    pub storing: Option<usize>,
    /// The `postgres_changes` bindings. Boxed because most channels have none.
    pub subscription: Option<Box<Subscription>>,
    /// Whether the join has been answered.
    pub join_state: JoinState,
    /// The last message with a new token, if the keys of the token must be fetched first.
    pub unverified: Option<Box<OwnedMessage>>,
    /// Messages of the topic that wait until the current work is done.
    pub waiting: Option<Box<Waiting>>,
}

impl Channel {
    /// Estimates the memory, in bytes, that the server needs for the channel.
    pub fn held_bytes(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.bytes());
        let storing = self.storing.unwrap_or(0);
        let unverified = self.unverified.as_ref();
        self.bytes as usize
            + TRACKED_COPIES * self.tracking.tracked.bytes()
            + waiting
            + storing
            + unverified.map_or(0, |message| message.payload_bytes())
    }

    /// Returns the number of `postgres_changes` bindings.
    pub fn bindings(&self) -> usize {
        let subscription = self.subscription.as_ref();
        let bindings = subscription.and_then(|it| it.bindings.as_ref().ok());
        bindings.map_or(0, Vec::len)
    }

    /// Returns whether policies decide what the channel may do.
    pub fn is_private(&self) -> bool {
        matches!(self.access, Access::Private(_))
    }

    /// Returns whether the topic is managed: see [`Rights::is_managed`].
    pub fn is_managed(&self) -> bool {
        self.access.rights().is_some_and(|rights| rights.is_managed)
    }

    /// Returns the join, if it has not been answered yet.
    pub fn joining(&self) -> Option<&Joining> {
        match &self.join_state {
            JoinState::Joining(joining) => Some(joining),
            JoinState::Joined { .. } => None,
        }
    }

    /// Returns the join for changing it, if it has not been answered yet.
    pub fn joining_mut(&mut self) -> Option<&mut Joining> {
        match &mut self.join_state {
            JoinState::Joining(joining) => Some(joining),
            JoinState::Joined { .. } => None,
        }
    }

    /// Returns whether messages of the topic wait. They wait for the reply to the join, for the
    /// permission to write, for a broadcast that is being stored, or for the first check of a new
    /// token. A message that was sent after a new token must be checked under that token.
    pub fn holds_messages(&self) -> bool {
        self.joining().is_some()
            || self.storing.is_some()
            || self.access.rights().is_some_and(Rights::holds_messages)
    }

    /// Returns the `join_ref` for pushes to the client on this channel.
    pub fn push_ref(&self) -> Option<Ref> {
        self.join_ref
            .clone()
            .or_else(|| self.join_reference.clone())
    }

    /// Returns the key of the joined topic.
    pub fn key(&self) -> TopicKey {
        TopicKey::from_full_name(Arc::clone(&self.topic), self.is_private())
    }

    /// Returns the topic without `realtime:`.
    pub fn sub_topic(&self) -> &str {
        sub_topic(&self.topic)
    }

    /// Creates a reply to a push.
    pub fn reply(&self, reference: Option<Ref>, reply: Reply) -> ServerMessage {
        ServerMessage::Reply {
            join_ref: self.join_ref.clone(),
            reference,
            topic: Arc::clone(&self.topic),
            reply,
        }
    }

    /// Creates a `system` message.
    pub fn system(&self, notice: SystemNotice) -> ServerMessage {
        ServerMessage::System {
            join_ref: self.push_ref(),
            topic: Arc::clone(&self.topic),
            notice,
        }
    }

    /// Creates the message that closes the channel.
    pub fn close(&self) -> ServerMessage {
        ServerMessage::Close {
            join_ref: self.join_ref.clone(),
            topic: Arc::clone(&self.topic),
        }
    }
}

/// Memory, in bytes, that a channel without options and with a short topic needs in the session,
/// the hub and the topic.
const CHANNEL_BYTES: usize = 1_024;

/// Memory, in bytes, per byte of the topic name. The name is stored unchanged and as JSON, in which
/// a character takes up to six bytes.
const TOPIC_COPIES: usize = 7;

/// Memory, in bytes, per byte of the bindings in the reply to a join. Bindings consist of short
/// names. Each name is parsed into a separate string, and both the channel and `visibility` store
/// it.
const BINDING_COPIES: usize = 8;

/// Memory, in bytes, per tracked byte. It covers the payload itself, the state for new members, and
/// the diffs.
const TRACKED_COPIES: usize = 3;

/// Estimates the memory, in bytes, that the server needs because of a join. The estimate depends on
/// the topic, the presence key, and the bindings as the reply lists them.
pub fn join_bytes(topic: &str, key: Option<&str>, reply: &str) -> u32 {
    let bytes = CHANNEL_BYTES
        + TOPIC_COPIES * topic.len()
        + key.map_or(0, str::len)
        + BINDING_COPIES * reply.len();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The presence that a channel tracks.
#[derive(Debug)]
pub struct Tracking {
    /// The presence key. If the client does not choose one, the server generates it at the first
    /// track.
    pub key: Option<Arc<str>>,
    /// Whether the channel tracks a payload.
    pub tracked: Tracked,
    /// Counts recent presence pushes.
    pub calls: Window,
}

/// Whether a channel tracks a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// The channel does not appear in the presence of its topic.
    Nothing,
    /// The channel tracks a payload, or tried to when the topic was full.
    Payload {
        /// Length of the key and the payload in bytes, as received.
        bytes: usize,
    },
}

impl Tracked {
    /// Returns the length of the key and the payload in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Payload { bytes } => bytes,
        }
    }
}

/// Whether the join of a channel has been answered.
#[derive(Debug)]
pub enum JoinState {
    /// The join has not been answered. The messages of the topic wait.
    Joining(Box<Joining>),
    /// The join has been answered.
    Joined {
        /// Whether the client was warned that its token expires soon.
        is_warned: bool,
    },
}

/// A join that has not been answered yet.
#[derive(Debug)]
pub struct Joining {
    /// The bindings with their ids, as the reply lists them.
    pub reply: String,
    /// The previous channel on the same topic, which this join replaces. It is closed after the
    /// join has been answered.
    pub replaced: Option<Replaced>,
    /// The limits of the wait, if the reply waits until changes are live.
    pub wait: Option<Wait>,
    /// The stored messages that the join requests.
    pub replay: Replay,
    /// Whether the client requested a notice when broadcasts from the database are live.
    pub awaits_messages: bool,
}

/// The `join_ref` of a channel that another join of the same topic has replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced(pub Option<Ref>);

/// The stored messages that a join requests.
#[derive(Debug)]
pub enum Replay {
    /// The join requests no stored messages.
    None,
    /// The messages are read as soon as the permissions are known.
    Pending(ReplayParams),
    /// The messages have been read, and are sent after the reply.
    Read(Vec<ReplayedMessage>),
}

/// How long a reply waits until changes are live.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// The latest time at which the reply is sent.
    pub until: UnixMillis,
    /// Maximum duration of the wait in milliseconds, counted from the join.
    pub millis: u64,
}

/// The parameters of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayParams {
    /// Start of the replay, in milliseconds since 1970.
    pub since_ms: i64,
    /// Maximum number of messages.
    pub limit: i64,
}
