//! The messages of clients and server, independent of the protocol version.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use super::json::json_string;

/// The prefix of every channel topic. A topic with this prefix is called the full topic. The rest
/// is the sub-topic: the name that SQL and REST use.
pub const TOPIC_PREFIX: &str = "realtime:";

/// The error for a frame that is not a message of the protocol (protocol 2.3). It is neither
/// reported to the client nor logged. Supabase Realtime does not report it either, and with a log
/// line per frame clients could fill a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("The frame is not a message of this protocol version")]
pub struct MalformedMessage;

/// A `ref` or `join_ref`, kept as the JSON text that the client sent, because it is echoed
/// (protocol 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref(Arc<str>);

impl Ref {
    /// Maximum length of the JSON text. Official clients send a string with a number that counts
    /// from 1. The limit only prevents clients from causing large replies with a long reference.
    const MAX_BYTES: usize = 255;

    /// Reads a reference from JSON. `null` gives `None`.
    pub(super) fn from_json(value: &RawValue) -> Result<Option<Self>, MalformedMessage> {
        let text = value.get();
        match text.as_bytes() {
            b"null" => Ok(None),
            [b'{' | b'[', ..] => Err(MalformedMessage),
            _ if text.len() > Self::MAX_BYTES => Err(MalformedMessage),
            _ => Ok(Some(Self(text.into()))),
        }
    }

    /// Reads a reference from the header of a binary frame. An empty one gives `None`.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(json_string(text).into()))
    }

    /// Returns the JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// Appends a reference as the client sent it, or `null`.
pub(super) fn push_ref(out: &mut Vec<u8>, reference: Option<&Ref>) {
    out.extend_from_slice(reference.map_or(b"null", |reference| reference.as_json().as_bytes()));
}

/// A message from a client. Borrows from its frame.
#[derive(Clone, Debug)]
pub struct ClientMessage<'a> {
    /// The join to which the sender assigns the message.
    pub join_ref: Option<Ref>,
    /// The `ref` that a reply repeats.
    pub reference: Option<Ref>,
    /// The full topic.
    pub topic: Cow<'a, str>,
    /// The requested action.
    pub event: ClientEvent<'a>,
}

/// The action that a client message requests (protocol 2.5). Payloads are parsed only where they
/// are needed.
#[derive(Clone, Debug)]
pub enum ClientEvent<'a> {
    /// `heartbeat`, valid only on the topic `phoenix`.
    Heartbeat,
    /// `phx_join`
    Join(&'a RawValue),
    /// `phx_leave`
    Leave,
    /// `access_token`
    AccessToken(&'a RawValue),
    /// `broadcast` in a text frame. The payload is forwarded unchanged.
    Broadcast(&'a RawValue),
    /// A broadcast in a binary frame (kind 3, protocol 2.4).
    UserBroadcast {
        /// The user's own event name.
        event: &'a str,
        /// The text of a JSON object, or empty.
        metadata: &'a str,
        /// How to read `payload`.
        encoding: PayloadEncoding,
        /// The user's payload, which is not parsed.
        payload: &'a [u8],
    },
    /// `presence`
    Presence(&'a RawValue),
    /// Any other event, by name.
    Other(Cow<'a, str>),
}

impl<'a> ClientEvent<'a> {
    /// Returns the event of a text frame.
    pub(super) fn from_text(name: Cow<'a, str>, payload: &'a RawValue) -> Self {
        match &*name {
            "heartbeat" => Self::Heartbeat,
            "phx_join" => Self::Join(payload),
            "phx_leave" => Self::Leave,
            "access_token" => Self::AccessToken(payload),
            "broadcast" => Self::Broadcast(payload),
            "presence" => Self::Presence(payload),
            _ => Self::Other(name),
        }
    }
}

/// How to read the payload of a user broadcast (protocol 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadEncoding {
    /// Opaque bytes.
    Binary,
    /// JSON text.
    Json,
}

/// `ok` or `error`, in replies and `system` messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok,
    /// Failure.
    Error,
}

impl Status {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// The reply to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `ok` with an empty response.
    Ok,
    /// `ok` to a join. Contains the array of bindings with their ids, as JSON text (protocol 3.3).
    Joined(String),
    /// `error` with a reason.
    Error(Cow<'static, str>),
    /// `error` without a reason (protocol 5.1).
    Refused,
    /// `ok` to a stored broadcast. Contains the id of its row (protocol 4.8).
    Stored(Uuid),
    /// `error` to a broadcast that was not stored: the response has `error` instead of `reason`
    /// (protocol 4.8).
    NotStored(Cow<'static, str>),
    /// `error` to a broadcast above the size limit: the response is a string instead of an object
    /// (protocol 4.2).
    PayloadSizeExceeded,
}

/// The subject of a `system` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The channel's `postgres_changes`.
    PostgresChanges,
    /// The channel itself.
    System,
}

impl Extension {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PostgresChanges => "postgres_changes",
            Self::System => "system",
        }
    }
}

/// The payload of a `system` message without the channel's name (protocol 3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemNotice {
    /// The subject of the message.
    pub extension: Extension,
    /// Success or failure.
    pub status: Status,
    /// The text. Texts from Supabase Realtime are part of the protocol.
    pub message: Cow<'static, str>,
}

impl SystemNotice {
    /// Creates a notice that the channel's `postgres_changes` work.
    pub fn changes_ok(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            extension: Extension::PostgresChanges,
            status: Status::Ok,
            message: message.into(),
        }
    }

    /// Creates a notice about an error of the channel's `postgres_changes`.
    pub fn changes_error(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            extension: Extension::PostgresChanges,
            status: Status::Error,
            message: message.into(),
        }
    }

    /// Creates a notice about the channel itself.
    pub fn channel(status: Status, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            extension: Extension::System,
            status,
            message: message.into(),
        }
    }
}

/// A message to one socket. Row changes, broadcasts and presence are not among these messages:
/// sockets share their bytes, so separate functions encode them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// `phx_reply` to a heartbeat.
    Heartbeat {
        /// The heartbeat's `ref`.
        reference: Option<Ref>,
    },
    /// `phx_reply`.
    Reply {
        /// The channel's `join_ref`, if it has one. A leave of a topic that is not joined receives
        /// its own `join_ref` instead.
        join_ref: Option<Ref>,
        /// The `ref` of the push that receives this reply.
        reference: Option<Ref>,
        /// The full topic.
        topic: Arc<str>,
        /// The reply.
        reply: Reply,
    },
    /// `phx_close`: the channel has ended; the socket stays open.
    Close {
        /// The channel's `join_ref`.
        join_ref: Option<Ref>,
        /// The full topic.
        topic: Arc<str>,
    },
    /// `system`.
    System {
        /// The channel's `join_ref`.
        join_ref: Option<Ref>,
        /// The full topic.
        topic: Arc<str>,
        /// The notice.
        notice: SystemNotice,
    },
}

impl ServerMessage {
    /// Replaces the contents of a reply. Does nothing to other messages.
    pub fn replace_reply(&mut self, other: Reply) {
        if let Self::Reply { reply, .. } = self {
            *reply = other;
        }
    }
}

/// Returns the topic without `realtime:`.
pub fn sub_topic(topic: &str) -> &str {
    topic.strip_prefix(TOPIC_PREFIX).unwrap_or(topic)
}
