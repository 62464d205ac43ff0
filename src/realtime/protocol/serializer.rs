//! The two versions of the protocol, and the frames that each encodes and decodes.

use super::super::wire::body::Body;
use super::super::wire::frame::Frame;
use super::message::{ClientMessage, MalformedMessage, ServerMessage};
use super::{v1, v2};

/// The protocol version that a socket uses, chosen by the `vsn` parameter of its URL (section 1.3
/// of `docs/protocol.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Serializer {
    /// `1.0.0`: JSON objects, no binary frames.
    V1,
    /// `2.0.0`: JSON arrays, and binary frames for broadcasts.
    V2,
}

impl Serializer {
    /// Returns the serializer for a `vsn`: version 1.0.x or 2.0.x as in semantic versioning.
    /// Without a `vsn`, it is 1.0.0. Returns `None` for any other version.
    pub fn negotiate(vsn: Option<&str>) -> Option<Self> {
        let Some(vsn) = vsn else {
            return Some(Self::V1);
        };
        let mut parts = vsn.splitn(3, '.');
        let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
        let is_number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match (major, minor) {
            ("1", "0") if is_number(patch) => Some(Self::V1),
            ("2", "0") if is_number(patch) => Some(Self::V2),
            _ => None,
        }
    }

    /// Reads a text frame.
    ///
    /// # Errors
    /// Fails if the frame is not a message of this version (protocol 2.3). The caller drops and
    /// counts it, and the socket stays open.
    pub fn decode_text(self, text: &str) -> Result<ClientMessage<'_>, MalformedMessage> {
        match self {
            Self::V1 => v1::decode(text),
            Self::V2 => v2::decode(text),
        }
    }

    /// Reads a binary frame (protocol 2.4).
    ///
    /// # Errors
    /// Fails if the frame is not a push of this version. Version 1.0.0 has no binary frames.
    pub fn decode_binary(self, data: &[u8]) -> Result<ClientMessage<'_>, MalformedMessage> {
        match self {
            Self::V1 => Err(MalformedMessage),
            Self::V2 => v2::decode_binary(data),
        }
    }

    /// Encodes a message for one socket as a frame.
    pub fn encode(self, message: &ServerMessage) -> Frame {
        Frame::text(
            |out| match self {
                Self::V1 => v1::encode(message, out),
                Self::V2 => v2::encode(message, out),
            },
            Body::default(),
            b"",
        )
    }

    /// Encodes a row change (protocol 6.4). All receivers share `data`, and only the envelope is
    /// written here. `topic` is the topic as JSON text. `ids` are the ids of the channel's matching
    /// bindings.
    pub fn encode_change(self, topic: &str, ids: &[u32], data: Body) -> Frame {
        match self {
            Self::V1 => Frame::text(
                |out| v1::change_head(topic, ids, out),
                data,
                v1::CHANGE_TAIL,
            ),
            Self::V2 => Frame::text(
                |out| v2::change_head(topic, ids, out),
                data,
                v2::CHANGE_TAIL,
            ),
        }
    }

    /// Encodes a row change for a channel that joined without a `config` (protocol 3.1). `event` is
    /// the kind of the change, and `data` is the payload.
    pub fn encode_legacy_change(self, topic: &str, event: &str, data: Body) -> Frame {
        match self {
            Self::V1 => Frame::text(
                |out| v1::legacy_change_head(topic, event, out),
                data,
                v1::LEGACY_CHANGE_TAIL,
            ),
            Self::V2 => Frame::text(
                |out| v2::legacy_change_head(topic, event, out),
                data,
                v2::LEGACY_CHANGE_TAIL,
            ),
        }
    }
}
