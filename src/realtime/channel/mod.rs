//! One session's membership of a topic: its state, without any I/O.

pub mod authorize;
pub mod postgres_changes;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use authorize::{AuthorizeError, Permissions};
use postgres_changes::Subscription;

use super::hub::topic::TopicKey;
use super::messages::replay::{ReplayParams, ReplayedMessage};
use super::protocol::{
    ClientEvent, ClientMessage, PayloadEncoding, Ref, Reply, ServerMessage, SystemNotice,
};
use crate::auth::Claims;
use crate::limits::{UnixMillis, Window};
use crate::visibility::{ChannelId, Identity};
use serde_json::value::RawValue;

/// Recognizes a token that was seen before, without keeping it: tokens are long, and a session
/// that does not hold one cannot leak one. Seeded anew in every process, so that nobody can
/// look for a token with the mark of another.
#[derive(Clone, Debug, Default)]
pub struct TokenMarks(RandomState);

/// The mark of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMark(u64);

impl TokenMarks {
    /// The mark of `token`.
    pub fn of(&self, token: &str) -> TokenMark {
        TokenMark(self.0.hash_one(token))
    }
}

/// Who a channel acts for.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Verified claims.
    pub claims: Arc<Claims>,
    /// The mark of the token they came in.
    pub mark: TokenMark,
}

impl Holder {
    /// As visibility knows it.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::new(Identity {
            role: self.claims.role.clone(),
            claims: Arc::clone(&self.claims.json),
        })
    }

    /// When its token expires.
    pub fn expires_at(&self) -> UnixMillis {
        UnixMillis::from_seconds(self.claims.expires_at)
    }
}

/// A joined or joining channel.
#[derive(Debug)]
pub struct Channel {
    /// Its name in the hub and in visibility.
    pub id: ChannelId,
    /// The full topic.
    pub topic: Arc<str>,
    /// The `join_ref` of the join, which close frames and leaves refer to.
    pub join_ref: Option<Ref>,
    /// The `ref` of the join, which stands in for a missing `join_ref` on pushes (protocol 2.5).
    pub join_reference: Option<Ref>,
    /// Who it acts for.
    pub holder: Holder,
    /// Answers broadcasts.
    pub ack: bool,
    /// Its own broadcasts come back to it.
    pub echo: bool,
    /// Memory that its join makes the server hold, roughly: see [`join_bytes`].
    pub bytes: usize,
    /// Its join asked for presence: a state, then diffs.
    pub presence: bool,
    /// What it tracks there.
    pub tracking: Tracking,
    /// Policies decide who may take part.
    pub is_private: bool,
    /// Its presence key is the `sub` of its token, and its permissions are rechecked.
    pub is_managed: bool,
    /// The state of the recheck of its permissions.
    pub recheck: Recheck,
    /// What may be read; nothing on a private channel until its join is allowed.
    pub read: Permissions,
    /// Whether the policies were asked about reading presence: not before presence is wanted.
    pub is_presence_asked: bool,
    /// What may be written.
    pub write: WritePermission,
    /// The size, in bytes, of its broadcast that is being stored.
    pub storing: Option<usize>,
    /// Whether the coming expiry was announced.
    pub is_warned: bool,
    /// What it asked of `postgres_changes`; boxed because most channels ask nothing.
    pub subscription: Option<Box<Subscription>>,
    /// Set while the join is not answered.
    pub joining: Option<Box<Joining>>,
    /// A refreshed token whose permissions are being looked at.
    pub refreshing: Option<Box<Refreshing>>,
    /// Messages of the topic that wait for the end of what is under way.
    pub waiting: Option<Box<Waiting>>,
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

/// Memory of a channel whose join asks for nothing and has a short topic: what the session, the hub
/// and the topic keep of it.
const CHANNEL_BYTES: usize = 1_024;

/// How often a topic's name is kept: by itself and as JSON, where a character takes up to six.
const TOPIC_COPIES: usize = 7;

/// What each byte of bindings in the reply to a join takes: they are short names, parsed into texts of
/// their own, and kept by the channel and by visibility.
const BINDING_COPIES: usize = 8;

/// What each tracked byte takes: as it is, in the state that newcomers are sent, and in what is told.
const TRACKED_COPIES: usize = 3;

/// Memory that a join makes the server hold, roughly: by its topic, its key of presence and its
/// bindings as the reply shows them.
pub fn join_bytes(topic: &str, key: Option<&str>, reply: &str) -> usize {
    CHANNEL_BYTES
        + TOPIC_COPIES * topic.len()
        + key.map_or(0, str::len)
        + BINDING_COPIES * reply.len()
}

/// What a channel may write (protocol 4.3): asked when it writes for the first time, and anew
/// under every token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WritePermission {
    /// Nobody asked yet.
    NotAsked,
    /// The question is under way.
    Asking,
    /// What the policies say.
    Known(Permissions),
    /// There was no answer. What waited for it is refused; then it may be asked again.
    Unknown(AuthorizeError),
}

/// Messages of one topic that wait, in order.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The messages.
    pub messages: VecDeque<OwnedMessage>,
    bytes: usize,
}

/// Messages of one topic that wait at most. Clients buffer on their side until a join is
/// answered, so more than a handful is no client.
pub const MAX_WAITING: usize = 64;

/// Bytes of their payloads.
pub const MAX_WAITING_BYTES: usize = 1 << 20;

impl Waiting {
    /// Whether there is room for another message of so many bytes. A message that waits alone may be
    /// larger than others, if `any_alone` says so.
    pub fn has_room(&self, bytes: usize, any_alone: bool) -> bool {
        (self.messages.len() < MAX_WAITING && self.bytes + bytes <= MAX_WAITING_BYTES)
            || (self.messages.is_empty() && any_alone)
    }

    /// Bytes of the payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a message for later.
    pub fn push(&mut self, message: OwnedMessage) {
        self.bytes += message.payload_bytes();
        self.messages.push_back(message);
    }
}

/// What a channel tracks.
#[derive(Debug)]
pub struct Tracking {
    /// The key it is listed under; chosen at the first track where the client named none.
    pub key: Option<Arc<str>>,
    /// Bytes of key and payload, as they came.
    pub bytes: usize,
    /// Pushes of presence lately.
    pub calls: Window,
}

/// A refreshed token under way.
#[derive(Debug)]
pub struct Refreshing {
    /// Whom the channel is to act for.
    pub holder: Holder,
    /// Questions in a row that met no database.
    pub failures: u32,
}

/// A join under way.
#[derive(Debug)]
pub struct Joining {
    /// The bindings with their ids, as the reply shows them.
    pub reply: String,
    /// The channel of the same topic that this join replaces: its `join_ref`. It is told to be
    /// over after the join is answered.
    pub replaced: Option<Option<Ref>>,
    /// The reply waits until changes are live.
    pub wait: Option<Wait>,
    /// Stored messages that are wanted.
    pub replay: Option<ReplayParams>,
    /// They, when they are read.
    pub replayed: Vec<ReplayedMessage>,
    /// The client wants to hear when broadcasts from the database are live.
    pub awaits_messages: bool,
}

/// How long a reply waits until changes are live.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// At most until then.
    pub until: UnixMillis,
    /// The same in milliseconds since the join.
    pub millis: u64,
}

impl Channel {
    /// Memory that it makes the server hold, roughly.
    pub fn held_bytes(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.bytes());
        let storing = self.storing.unwrap_or(0);
        self.bytes + TRACKED_COPIES * self.tracking.bytes + waiting + storing
    }

    /// What pushes of the channel carry as `join_ref`.
    pub fn push_ref(&self) -> Option<Ref> {
        self.join_ref
            .clone()
            .or_else(|| self.join_reference.clone())
    }

    /// What it is joined to.
    pub fn key(&self) -> TopicKey {
        TopicKey::of_channel(Arc::clone(&self.topic), self.is_private)
    }

    /// The topic without `realtime:`.
    pub fn sub_topic(&self) -> &str {
        super::protocol::sub_topic(&self.topic)
    }

    /// An answer to a push.
    pub fn reply(&self, reference: Option<Ref>, reply: Reply) -> ServerMessage {
        ServerMessage::Reply {
            join_ref: self.join_ref.clone(),
            reference,
            topic: Arc::clone(&self.topic),
            reply,
        }
    }

    /// A `system` message.
    pub fn system(&self, notice: SystemNotice) -> ServerMessage {
        ServerMessage::System {
            join_ref: self.push_ref(),
            topic: Arc::clone(&self.topic),
            notice,
        }
    }

    /// The message that it is over.
    pub fn close(&self) -> ServerMessage {
        ServerMessage::Close {
            join_ref: self.join_ref.clone(),
            topic: Arc::clone(&self.topic),
        }
    }
}

/// A client message that outlives its frame.
#[derive(Debug)]
pub struct OwnedMessage {
    join_ref: Option<Ref>,
    reference: Option<Ref>,
    topic: Arc<str>,
    event: OwnedEvent,
}

#[derive(Debug)]
enum OwnedEvent {
    Heartbeat,
    Join(Box<RawValue>),
    Leave,
    AccessToken(Box<RawValue>),
    Broadcast(Box<RawValue>),
    UserBroadcast {
        event: Box<str>,
        metadata: Box<str>,
        encoding: PayloadEncoding,
        payload: Box<[u8]>,
    },
    Presence(Box<RawValue>),
    Other(Box<str>),
}

impl OwnedMessage {
    /// A copy of `message`, which is for the channel of this topic.
    pub fn new(message: &ClientMessage<'_>, topic: Arc<str>) -> Self {
        Self {
            join_ref: message.join_ref.clone(),
            reference: message.reference.clone(),
            topic,
            event: match &message.event {
                ClientEvent::Heartbeat => OwnedEvent::Heartbeat,
                ClientEvent::Join(payload) => OwnedEvent::Join((*payload).to_owned()),
                ClientEvent::Leave => OwnedEvent::Leave,
                ClientEvent::AccessToken(payload) => OwnedEvent::AccessToken((*payload).to_owned()),
                ClientEvent::Broadcast(payload) => OwnedEvent::Broadcast((*payload).to_owned()),
                ClientEvent::UserBroadcast {
                    event,
                    metadata,
                    encoding,
                    payload,
                } => OwnedEvent::UserBroadcast {
                    event: (*event).into(),
                    metadata: (*metadata).into(),
                    encoding: *encoding,
                    payload: (*payload).into(),
                },
                ClientEvent::Presence(payload) => OwnedEvent::Presence((*payload).to_owned()),
                ClientEvent::Other(name) => OwnedEvent::Other((**name).into()),
            },
        }
    }

    /// The message as it came.
    pub fn borrow(&self) -> ClientMessage<'_> {
        ClientMessage {
            join_ref: self.join_ref.clone(),
            reference: self.reference.clone(),
            topic: (&*self.topic).into(),
            event: match &self.event {
                OwnedEvent::Heartbeat => ClientEvent::Heartbeat,
                OwnedEvent::Join(payload) => ClientEvent::Join(payload),
                OwnedEvent::Leave => ClientEvent::Leave,
                OwnedEvent::AccessToken(payload) => ClientEvent::AccessToken(payload),
                OwnedEvent::Broadcast(payload) => ClientEvent::Broadcast(payload),
                OwnedEvent::UserBroadcast {
                    event,
                    metadata,
                    encoding,
                    payload,
                } => ClientEvent::UserBroadcast {
                    event,
                    metadata,
                    encoding: *encoding,
                    payload,
                },
                OwnedEvent::Presence(payload) => ClientEvent::Presence(payload),
                OwnedEvent::Other(name) => ClientEvent::Other((&**name).into()),
            },
        }
    }

    /// What a reply to it would repeat.
    pub fn into_reference(self) -> Option<Ref> {
        self.reference
    }

    /// Bytes of its payload.
    pub fn payload_bytes(&self) -> usize {
        match &self.event {
            OwnedEvent::Join(payload)
            | OwnedEvent::AccessToken(payload)
            | OwnedEvent::Broadcast(payload)
            | OwnedEvent::Presence(payload) => payload.get().len(),
            OwnedEvent::UserBroadcast {
                metadata, payload, ..
            } => metadata.len() + payload.len(),
            OwnedEvent::Heartbeat | OwnedEvent::Leave => 0,
            OwnedEvent::Other(name) => name.len(),
        }
    }
}
