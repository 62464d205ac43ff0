//! What clients and the server say to one another, independent of the version.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use super::TOPIC_PREFIX;

/// A frame that is no message of the protocol (2.3). What is wrong with it is not told: the
/// original says nothing either, and a log line per frame would be a way to fill a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("The frame is not a message of this protocol version")]
pub struct MalformedMessage;

/// A `ref` or `join_ref`, kept as the JSON text the client sent, because it is echoed (2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref(Arc<str>);

impl Ref {
    /// Official clients count from 1 in a string; this only stops a reference from being used
    /// as a way to be sent large answers.
    const MAX_BYTES: usize = 255;

    /// A reference from JSON: `None` for `null`.
    pub(super) fn from_json(value: &RawValue) -> Result<Option<Self>, MalformedMessage> {
        let text = value.get();
        match text.as_bytes() {
            b"null" => Ok(None),
            [b'{' | b'[', ..] => Err(MalformedMessage),
            _ if text.len() > Self::MAX_BYTES => Err(MalformedMessage),
            _ => Ok(Some(Self(text.into()))),
        }
    }

    /// A reference from the header of a binary frame: `None` when empty.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(super::json_string(text).into()))
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// A message from a client. Borrows from the frame it came in.
#[derive(Clone, Debug)]
pub struct ClientMessage<'a> {
    /// The join that the sender thinks it belongs to.
    pub join_ref: Option<Ref>,
    /// What a reply repeats.
    pub reference: Option<Ref>,
    /// The full topic.
    pub topic: Cow<'a, str>,
    /// What is wanted.
    pub event: ClientEvent<'a>,
}

/// What a client message asks for (2.5). Payloads are left unread until somebody needs them.
#[derive(Clone, Debug)]
pub enum ClientEvent<'a> {
    /// `heartbeat`, which counts on the topic `phoenix` only.
    Heartbeat,
    /// `phx_join`
    Join(&'a RawValue),
    /// `phx_leave`
    Leave,
    /// `access_token`
    AccessToken(&'a RawValue),
    /// `broadcast` as text: the payload is forwarded as it is.
    Broadcast(&'a RawValue),
    /// A broadcast as binary frame (kind 3).
    UserBroadcast {
        /// The user's own event name.
        event: &'a str,
        /// JSON object text, or empty.
        metadata: &'a str,
        /// How to read `payload`.
        encoding: PayloadEncoding,
        /// The user's payload, never looked into.
        payload: &'a [u8],
    },
    /// `presence`
    Presence(&'a RawValue),
    /// Anything else, by name.
    Other(Cow<'a, str>),
}

impl<'a> ClientEvent<'a> {
    /// The event of a text frame.
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

/// How the payload of a user broadcast is to be read (2.4).
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
    /// It worked.
    Ok,
    /// It did not.
    Error,
}

impl Status {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// The answer to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `ok` with an empty response.
    Ok,
    /// `ok` to a join; holds the array of bindings with their ids as JSON text (3.3).
    Joined(String),
    /// `error` with a reason.
    Error(Cow<'static, str>),
    /// `error` without a reason (5.1).
    Refused,
    /// `ok` to a broadcast that was stored; holds the id of its row (4.8).
    Stored(Uuid),
    /// `error` to a broadcast that was not: the text stands under another name than a reason (4.8).
    NotStored(Cow<'static, str>),
    /// `error` to a broadcast above the limit: the response is a text of its own, not an object (4.2).
    PayloadSizeExceeded,
}

/// Which part of the server a `system` message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// The channel's `postgres_changes`.
    PostgresChanges,
    /// The channel itself.
    System,
}

impl Extension {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PostgresChanges => "postgres_changes",
            Self::System => "system",
        }
    }
}

/// The payload of a `system` message without the channel's name (3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemNotice {
    /// What it is about.
    pub extension: Extension,
    /// Good news or bad.
    pub status: Status,
    /// The text, part of the protocol where it comes from the original.
    pub message: Cow<'static, str>,
}

impl SystemNotice {
    /// Good news about the channel's changes.
    pub fn changes_ok(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            extension: Extension::PostgresChanges,
            status: Status::Ok,
            message: message.into(),
        }
    }

    /// Bad news about the channel's changes.
    pub fn changes_error(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            extension: Extension::PostgresChanges,
            status: Status::Error,
            message: message.into(),
        }
    }

    /// News about the channel itself.
    pub fn channel(status: Status, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            extension: Extension::System,
            status,
            message: message.into(),
        }
    }
}

/// A message to one socket. Row changes and broadcasts, whose bytes are shared by many, are
/// encoded by functions of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// `phx_reply` to a heartbeat.
    Heartbeat {
        /// The heartbeat's `ref`.
        reference: Option<Ref>,
    },
    /// `phx_reply`.
    Reply {
        /// The channel's join; `None` where there is no channel.
        join_ref: Option<Ref>,
        /// The `ref` of the push that is answered.
        reference: Option<Ref>,
        /// The full topic.
        topic: Arc<str>,
        /// The answer.
        reply: Reply,
    },
    /// `phx_close`: the channel is over, the socket stays.
    Close {
        /// The join that is over.
        join_ref: Option<Ref>,
        /// The full topic.
        topic: Arc<str>,
    },
    /// `system`.
    System {
        /// The channel's join.
        join_ref: Option<Ref>,
        /// The full topic.
        topic: Arc<str>,
        /// What is said.
        notice: SystemNotice,
    },
}

impl ServerMessage {
    /// Answers something else, if it is a reply.
    pub fn replace_reply(&mut self, other: Reply) {
        if let Self::Reply { reply, .. } = self {
            *reply = other;
        }
    }
}

/// The part of a topic behind `realtime:`.
pub fn sub_topic(topic: &str) -> &str {
    topic.strip_prefix(TOPIC_PREFIX).unwrap_or(topic)
}
