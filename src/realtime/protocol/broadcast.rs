//! Broadcasts (protocol 4), encoded as whole WebSocket frames for the members of a topic.
//!
//! The payload is never decoded, so members receive the client's bytes.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use thiserror::Error;

use super::super::wire::frame::{FrameKind, push_frame};
use super::json::json_string;
use super::message::{Ref, push_ref};
use super::serializer::Serializer;

/// The first byte of a binary frame that contains a broadcast to a member.
const KIND_USER_BROADCAST: u8 = 4;

/// Maximum length in bytes of a topic, event or metadata in a binary frame. The header has one byte
/// for each length (protocol 2.4).
const MAX_NAME_BYTES: usize = 255;

/// One message to the members of a topic.
#[derive(Clone, Copy, Debug)]
pub enum Broadcast<'a> {
    /// A binary push, a single message over REST, or a row of `realtime.messages`. Members with
    /// version 2 receive it as a binary frame. Members with version 1 receive it as text if the
    /// payload is JSON, and otherwise not at all.
    User {
        /// The user's own event name.
        event: &'a str,
        /// The text of a JSON object, or empty.
        metadata: &'a str,
        /// The payload.
        payload: UserPayload<'a>,
    },
    /// A text push, or one message of a batch over REST. All members receive it as text.
    Text {
        /// The payload of the push, a JSON object.
        payload: &'a RawValue,
    },
}

/// The payload of a [`Broadcast::User`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserPayload<'a> {
    /// One JSON value. It is inserted into text frames, and clients parse it: see
    /// [`UserPayload::json`].
    Json(&'a str),
    /// Arbitrary bytes.
    Binary(&'a [u8]),
}

/// The reason why a broadcast is not sent. It never depends on the members of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BroadcastError {
    /// The full topic does not fit into a binary frame.
    #[error("The topic is too long to broadcast to: at most {MAX_NAME_BYTES} bytes")]
    TopicTooLong,
    /// The event does not fit into a binary frame.
    #[error("The event of a broadcast is too long: at most {MAX_NAME_BYTES} bytes")]
    EventTooLong,
    /// The metadata does not fit into a binary frame.
    #[error("The metadata of a broadcast is too long: at most {MAX_NAME_BYTES} bytes")]
    MetadataTooLong,
    /// The payload of a text push is not a JSON object. Clients fail on other payloads.
    #[error("The payload of a broadcast must be a JSON object")]
    NotAnObject,
    /// The payload is declared as JSON but is not JSON.
    #[error("The payload of a broadcast is not JSON")]
    NotJson,
}

impl<'a> UserPayload<'a> {
    /// Checks bytes that a client declares as JSON, once for all receivers. Members with version 1
    /// receive them inside a text frame, which must remain UTF-8 and a single JSON value. Clients
    /// with version 2 parse the bytes without handling errors. The check does not depend on the
    /// receivers, so a refusal does not either.
    ///
    /// # Errors
    /// Fails if the bytes are not one JSON value in UTF-8.
    pub fn json(bytes: &'a [u8]) -> Result<Self, BroadcastError> {
        let text = std::str::from_utf8(bytes).map_err(|_| BroadcastError::NotJson)?;
        // Values are skipped instead of built, and nesting does not use the stack.
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| BroadcastError::NotJson)?;
        Ok(Self::Json(text))
    }

    /// Returns the bytes of the payload.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Json(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl Broadcast<'_> {
    /// Checks whether the broadcast can be sent to the members of `topic`, which is the full topic
    /// (with `realtime:`).
    ///
    /// # Errors
    /// See [`BroadcastError`].
    pub fn check(&self, topic: &str) -> Result<(), BroadcastError> {
        match self {
            Self::User {
                event, metadata, ..
            } => {
                if topic.len() > MAX_NAME_BYTES {
                    Err(BroadcastError::TopicTooLong)
                } else if event.len() > MAX_NAME_BYTES {
                    Err(BroadcastError::EventTooLong)
                } else if metadata.len() > MAX_NAME_BYTES {
                    Err(BroadcastError::MetadataTooLong)
                } else {
                    Ok(())
                }
            }
            Self::Text { payload } if payload.get().starts_with('{') => Ok(()),
            Self::Text { .. } => Err(BroadcastError::NotAnObject),
        }
    }

    /// Appends the frame for members with this version, or nothing if the version has no frame for
    /// the broadcast. `topic` is the full topic, and `topic_json` is the same topic as JSON text.
    /// [`Broadcast::check`] must have accepted the lengths.
    pub fn push_frame(
        &self,
        serializer: Serializer,
        topic: &str,
        topic_json: &str,
        out: &mut Vec<u8>,
    ) {
        let topic_json = topic_json.as_bytes();
        match (serializer, self) {
            (
                Serializer::V2,
                Self::User {
                    event,
                    metadata,
                    payload,
                },
            ) => {
                let is_json = matches!(payload, UserPayload::Json(_));
                // The lengths have been checked, so none is truncated here.
                let length = |name: &str| u8::try_from(name.len()).unwrap_or(u8::MAX);
                let head = [
                    KIND_USER_BROADCAST,
                    length(topic),
                    length(event),
                    length(metadata),
                    u8::from(is_json),
                ];
                let parts = [
                    &head,
                    topic.as_bytes(),
                    event.as_bytes(),
                    metadata.as_bytes(),
                    payload.bytes(),
                ];
                push_frame(FrameKind::Binary, &parts, out);
            }
            (
                Serializer::V1,
                Self::User {
                    event,
                    metadata,
                    payload: UserPayload::Json(json),
                },
            ) => {
                let event = json_string(event);
                let meta_key: &[u8] = if metadata.is_empty() {
                    b""
                } else {
                    b",\"meta\":"
                };
                let parts = [
                    b"{\"topic\":",
                    topic_json,
                    b",\"event\":\"broadcast\",\"payload\":{\"event\":",
                    event.as_bytes(),
                    b",\"payload\":",
                    json.as_bytes(),
                    b",\"type\":\"broadcast\"",
                    meta_key,
                    metadata.as_bytes(),
                    b"},\"ref\":null}",
                ];
                push_frame(FrameKind::Text, &parts, out);
            }
            (
                Serializer::V1,
                Self::User {
                    payload: UserPayload::Binary(_),
                    ..
                },
            ) => {}
            (Serializer::V2, Self::Text { payload }) => {
                let parts = [
                    b"[null,null,",
                    topic_json,
                    b",\"broadcast\",",
                    payload.get().as_bytes(),
                    b"]",
                ];
                push_frame(FrameKind::Text, &parts, out);
            }
            (Serializer::V1, Self::Text { payload }) => {
                let parts = [
                    b"{\"topic\":",
                    topic_json,
                    b",\"event\":\"broadcast\",\"payload\":",
                    payload.get().as_bytes(),
                    b",\"ref\":null}",
                ];
                push_frame(FrameKind::Text, &parts, out);
            }
        }
    }
}

/// Appends the frame of a stored JSON message (protocol 4.7). The frame is a push on one channel,
/// which is given by its topic as JSON text and its `join_ref`. `payload` and `metadata` are JSON
/// texts.
pub fn push_replayed(
    serializer: Serializer,
    (topic_json, join_ref): (&str, Option<&Ref>),
    (event, payload, metadata): (&str, &str, &str),
    out: &mut Vec<u8>,
) {
    let event = json_string(event);
    let mut reference = Vec::new();
    push_ref(&mut reference, join_ref);
    let (head, middle, tail): (&[&[u8]], &[u8], &[u8]) = match serializer {
        Serializer::V1 => (
            &[b"{\"topic\":"],
            b",\"event\":\"broadcast\",\"payload\":",
            b",\"ref\":null}",
        ),
        Serializer::V2 => (&[b"[", &reference, b",null,"], b",\"broadcast\",", b"]"),
    };
    let parts: Vec<&[u8]> = head
        .iter()
        .copied()
        .chain([
            topic_json.as_bytes(),
            middle,
            b"{\"event\":",
            event.as_bytes(),
            b",\"payload\":",
            payload.as_bytes(),
            b",\"type\":\"broadcast\",\"meta\":",
            metadata.as_bytes(),
            b"}",
            tail,
        ])
        .collect();
    push_frame(FrameKind::Text, &parts, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "realtime:room";

    fn frame(serializer: Serializer, broadcast: Broadcast<'_>, topic: &str) -> Vec<u8> {
        let mut out = Vec::new();
        broadcast.check(topic).unwrap();
        broadcast.push_frame(serializer, topic, &json_string(topic), &mut out);
        out
    }

    fn user<'a>(event: &'a str, metadata: &'a str, payload: UserPayload<'a>) -> Broadcast<'a> {
        Broadcast::User {
            event,
            metadata,
            payload,
        }
    }

    /// Returns an unmasked frame that begins with the byte `first` and has this payload of at most
    /// 65,535 bytes.
    fn framed(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match u8::try_from(payload.len()) {
            Ok(length @ 0..=125) => bytes.push(length),
            _ => {
                bytes.push(126);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn user_broadcasts_are_binary_for_version_2_and_text_for_version_1() {
        let json = UserPayload::Json("{\"a\":1}");
        let raw = UserPayload::Binary(b"\x00\xff{");
        // (broadcast, frame payload in version 2, frame payload in version 1)
        let cases: [(_, &[u8], Option<&str>); 4] = [
            (
                user("hi", "", json),
                b"\x04\x0d\x02\x00\x01realtime:roomhi{\"a\":1}",
                Some(
                    r#"{"topic":"realtime:room","event":"broadcast","payload":{"event":"hi","payload":{"a":1},"type":"broadcast"},"ref":null}"#,
                ),
            ),
            (
                user("hi", "{\"id\":\"5b0e\"}", json),
                b"\x04\x0d\x02\x0d\x01realtime:roomhi{\"id\":\"5b0e\"}{\"a\":1}",
                Some(
                    r#"{"topic":"realtime:room","event":"broadcast","payload":{"event":"hi","payload":{"a":1},"type":"broadcast","meta":{"id":"5b0e"}},"ref":null}"#,
                ),
            ),
            (
                user("hi", "", raw),
                b"\x04\x0d\x02\x00\x00realtime:roomhi\x00\xff{",
                None,
            ),
            (
                user("\u{e4}\"\n", "", UserPayload::Json("[1, \"\\u00e4\"]")),
                b"\x04\x0d\x04\x00\x01realtime:room\xc3\xa4\"\n[1, \"\\u00e4\"]",
                Some(
                    "{\"topic\":\"realtime:room\",\"event\":\"broadcast\",\"payload\":{\"event\":\
                     \"\u{e4}\\\"\\n\",\"payload\":[1, \"\\u00e4\"],\"type\":\"broadcast\"},\"ref\":null}",
                ),
            ),
        ];
        for (broadcast, v2, v1) in cases {
            let got = frame(Serializer::V2, broadcast, TOPIC);
            assert_eq!(got, framed(0x82, v2), "{broadcast:?}");
            let got = frame(Serializer::V1, broadcast, TOPIC);
            let expected = v1.map_or(Vec::new(), |text| framed(0x81, text.as_bytes()));
            assert_eq!(got, expected, "{broadcast:?}");
        }
    }

    #[test]
    fn text_broadcasts_are_text_for_both_versions() {
        let payload = r#"{"type": "broadcast","event":"hi","payload":{"n":1e400}}"#;
        let raw = RawValue::from_string(payload.to_owned()).unwrap();
        let broadcast = Broadcast::Text { payload: &raw };
        // A text frame may have any topic; JSON escapes it.
        let topic = format!("realtime:\"{}", "x".repeat(300));
        let json = json_string(&topic);
        for (serializer, text) in [
            (
                Serializer::V2,
                format!("[null,null,{json},\"broadcast\",{payload}]"),
            ),
            (
                Serializer::V1,
                format!(
                    "{{\"topic\":{json},\"event\":\"broadcast\",\"payload\":{payload},\"ref\":null}}"
                ),
            ),
        ] {
            assert_eq!(
                frame(serializer, broadcast, &topic),
                framed(0x81, text.as_bytes())
            );
        }
    }

    #[test]
    fn stored_messages_are_pushes_on_the_channel() {
        let join_ref = Ref::from_text("7");
        let message = ("h\"i", "{\"a\": 1}", "{\"replayed\":true,\"id\":\"x\"}");
        let payload = r#"{"event":"h\"i","payload":{"a": 1},"type":"broadcast","meta":{"replayed":true,"id":"x"}}"#;
        for (serializer, text) in [
            (
                Serializer::V2,
                format!("[\"7\",null,\"realtime:room\",\"broadcast\",{payload}]"),
            ),
            (
                Serializer::V1,
                format!(
                    "{{\"topic\":\"realtime:room\",\"event\":\"broadcast\",\"payload\":{payload},\"ref\":null}}"
                ),
            ),
        ] {
            let mut out = Vec::new();
            let channel = ("\"realtime:room\"", join_ref.as_ref());
            push_replayed(serializer, channel, message, &mut out);
            assert_eq!(out, framed(0x81, text.as_bytes()));
        }
    }

    #[test]
    fn frames_of_every_length_have_the_right_header() {
        for (length, header) in [
            (110, vec![0x82, 125]),
            (111, vec![0x82, 126, 0, 126]),
            (65_520, vec![0x82, 126, 0xff, 0xff]),
            (65_521, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![7; length];
            let broadcast = user("", "", UserPayload::Binary(&payload));
            let got = frame(Serializer::V2, broadcast, "realtime:t");
            assert_eq!(got[..header.len()], header, "{length}");
            assert_eq!(got.len(), header.len() + 15 + length);
        }
    }

    #[test]
    fn lengths_and_payloads_of_broadcasts_are_checked() {
        let long = "x".repeat(256);
        let fits = "x".repeat(255);
        let json = UserPayload::Json("{}");
        let array = RawValue::from_string("[1]".to_owned()).unwrap();
        let null = RawValue::from_string("null".to_owned()).unwrap();
        let cases = [
            (TOPIC, user(&fits, &fits, json), Ok(())),
            (&*fits, user("e", "", json), Ok(())),
            (
                &*long,
                user("e", "", json),
                Err(BroadcastError::TopicTooLong),
            ),
            (
                TOPIC,
                user(&long, "", json),
                Err(BroadcastError::EventTooLong),
            ),
            (
                TOPIC,
                user("e", &long, json),
                Err(BroadcastError::MetadataTooLong),
            ),
            (
                TOPIC,
                Broadcast::Text { payload: &array },
                Err(BroadcastError::NotAnObject),
            ),
            (
                TOPIC,
                Broadcast::Text { payload: &null },
                Err(BroadcastError::NotAnObject),
            ),
        ];
        for (topic, broadcast, expected) in cases {
            assert_eq!(broadcast.check(topic), expected, "{topic} {broadcast:?}");
        }
    }

    #[test]
    fn payloads_declared_as_json_are_checked() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let good: [&[u8]; 6] = [
            b"{\"a\":1}",
            b" \n[1e999,\"\\ud800\"]",
            b"null",
            b"\"\xc3\xa4\"",
            b"1",
            deep.as_bytes(),
        ];
        for bytes in good {
            assert_eq!(UserPayload::json(bytes).unwrap().bytes(), bytes);
        }
        let bad: [&[u8]; 7] = [
            b"",
            b"{\"a\":1",
            b"{} {}",
            b"},\"ref\":1",
            b"\"\xff\"",
            b"{\"a\":\xc3}",
            b"\"\n\"",
        ];
        for bytes in bad {
            assert_eq!(
                UserPayload::json(bytes),
                Err(BroadcastError::NotJson),
                "{bytes:?}"
            );
        }
    }
}
