//! The state of one session's membership in a topic, without any I/O.

use std::sync::Arc;

use super::super::hub::{ReplayedMessage, TopicKey};
use super::super::permissions::Permissions;
use super::super::protocol::{Ref, Reply, ServerMessage, SystemNotice, sub_topic};
use super::authorize::AuthorizeError;
use super::holder::Holder;
use super::postgres_changes::Subscription;
use super::waiting::Waiting;
use crate::limits::{UnixMillis, Window};
use crate::visibility::ChannelId;

/// A joined or joining channel.
#[derive(Debug)]
pub struct Channel {
    /// Identifies the channel in the hub and in visibility.
    pub id: ChannelId,
    /// The full topic.
    pub topic: Arc<str>,
    /// The `join_ref` of the join. Close frames and leaves refer to it.
    pub join_ref: Option<Ref>,
    /// The `ref` of the join. Pushes use it if there is no `join_ref` (protocol 2.5).
    pub join_reference: Option<Ref>,
    /// The identity that the channel acts for.
    pub holder: Holder,
    /// Broadcasts are acknowledged.
    pub ack: bool,
    /// The client receives its own broadcasts.
    pub echo: bool,
    /// Approximate memory that the server needs because of the join: see [`join_bytes`].
    pub bytes: usize,
    /// The join requested presence: a state, followed by diffs.
    pub presence: bool,
    /// The presence that the channel tracks.
    pub tracking: Tracking,
    /// Policies decide who may join, read and write.
    pub is_private: bool,
    /// The presence key is the `sub` of the token, and permissions are rechecked after changes.
    pub is_managed: bool,
    /// The state of the recheck of its permissions.
    pub recheck: Recheck,
    /// Permissions to read. A private channel has none until its join is allowed.
    pub read: Permissions,
    /// Whether the permission to read presence was checked. It is checked once presence is needed.
    pub is_presence_asked: bool,
    /// Permissions to write.
    pub write: WritePermission,
    /// Size, in bytes, of the broadcast that is being stored.
    pub storing: Option<usize>,
    /// The client was warned that the token expires soon.
    pub is_warned: bool,
    /// The `postgres_changes` bindings. Boxed because most channels have none.
    pub subscription: Option<Box<Subscription>>,
    /// Set until the join is answered.
    pub joining: Option<Box<Joining>>,
    /// A refreshed token whose permissions are being checked.
    pub refreshing: Option<Box<Refreshing>>,
    /// Messages of the topic that wait until the current work is done.
    pub waiting: Option<Box<Waiting>>,
}

impl Channel {
    /// Estimates the memory, in bytes, that the server needs for the channel.
    pub fn held_bytes(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.bytes());
        let storing = self.storing.unwrap_or(0);
        self.bytes + TRACKED_COPIES * self.tracking.bytes + waiting + storing
    }

    /// Returns the `join_ref` for pushes of the channel.
    pub fn push_ref(&self) -> Option<Ref> {
        self.join_ref
            .clone()
            .or_else(|| self.join_reference.clone())
    }

    /// Returns the key of the joined topic.
    pub fn key(&self) -> TopicKey {
        TopicKey::from_full_name(Arc::clone(&self.topic), self.is_private)
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

/// The state of the recheck of a channel's permissions. A result of an earlier round is discarded,
/// because it may be older than the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recheck {
    /// The number of changes so far that may have affected the permissions.
    pub round: u32,
    /// The round of the current permissions.
    pub known: u32,
    /// A recheck is running.
    pub is_running: bool,
}

/// Memory, in bytes, of a channel without options and with a short topic. It covers the data in the
/// session, the hub and the topic.
const CHANNEL_BYTES: usize = 1_024;

/// Bytes per byte of the topic name. The name is stored as it is and as JSON, where a character
/// takes up to six bytes.
const TOPIC_COPIES: usize = 7;

/// Bytes per byte of the bindings in the reply to a join. Bindings are short names. Each is parsed
/// into a separate string, and both the channel and visibility store it.
const BINDING_COPIES: usize = 8;

/// Bytes per tracked byte: the payload itself, the state for new members, and the diffs.
const TRACKED_COPIES: usize = 3;

/// Estimates the memory, in bytes, that the server needs because of a join. It depends on the
/// topic, the presence key and the bindings as the reply lists them.
pub fn join_bytes(topic: &str, key: Option<&str>, reply: &str) -> usize {
    CHANNEL_BYTES
        + TOPIC_COPIES * topic.len()
        + key.map_or(0, str::len)
        + BINDING_COPIES * reply.len()
}

/// Permissions to write (protocol 4.3). They are checked at the first write, and again after each
/// new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WritePermission {
    /// Not checked yet.
    NotAsked,
    /// The check is running.
    Asking,
    /// The result of the check.
    Known(Permissions),
    /// The check failed. The messages that waited for it are refused. The next write checks again.
    Unknown(AuthorizeError),
}

/// The presence that a channel tracks.
#[derive(Debug)]
pub struct Tracking {
    /// The presence key. If the client does not choose one, it is generated at the first track.
    pub key: Option<Arc<str>>,
    /// Bytes of the key and the payload, as received.
    pub bytes: usize,
    /// Recent presence pushes.
    pub calls: Window,
}

/// A refreshed token whose permissions are being checked.
#[derive(Debug)]
pub struct Refreshing {
    /// The new identity of the channel.
    pub holder: Holder,
    /// Consecutive checks that failed because the database was unavailable.
    pub failures: u32,
}

/// A join that is not answered yet.
#[derive(Debug)]
pub struct Joining {
    /// The bindings with their ids, as the reply lists them.
    pub reply: String,
    /// The `join_ref` of the channel that this join replaces on the same topic. That channel is
    /// closed after the join is answered.
    pub replaced: Option<Option<Ref>>,
    /// Set if the reply waits until changes are live.
    pub wait: Option<Wait>,
    /// Selects the stored messages to replay.
    pub replay: Option<ReplayParams>,
    /// The stored messages, once they are read.
    pub replayed: Vec<ReplayedMessage>,
    /// The client requested a notice when broadcasts from the database are live.
    pub awaits_messages: bool,
}

/// How long a reply waits until changes are live.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// The latest time of the reply.
    pub until: UnixMillis,
    /// Maximum wait in milliseconds, counted from the join.
    pub millis: u64,
}

/// The parameters of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayParams {
    /// Milliseconds since 1970.
    pub since_ms: i64,
    /// Maximum number of messages.
    pub limit: i64,
}
