//! Version 2.0.0: JSON arrays `[join_ref, ref, topic, event, payload]` (protocol 2.2) and binary
//! pushes (protocol 2.4).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{envelope, push_payload};
use super::json::{push_ids, push_string};
use super::message::{
    ClientEvent, ClientMessage, MalformedMessage, PayloadEncoding, Ref, ServerMessage, push_ref,
};

/// The bytes after the value of `data` in the payload of a change.
pub(super) const CHANGE_TAIL: &[u8] = b"}]";
/// The bytes after the payload of a change on a channel that joined without a `config`. There, the
/// data is the whole payload.
pub(super) const LEGACY_CHANGE_TAIL: &[u8] = b"]";

/// The first byte of a binary frame that contains an ordinary push.
const KIND_PUSH: u8 = 0;
/// The first byte of a binary frame that contains a broadcast.
const KIND_USER_BROADCAST_PUSH: u8 = 3;

/// The five elements of a frame. Further elements are ignored.
struct Array<'a> {
    join_ref: &'a RawValue,
    reference: &'a RawValue,
    topic: Cow<'a, str>,
    event: Cow<'a, str>,
    payload: &'a RawValue,
}

/// A string, borrowed from the frame if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Array<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;

        impl<'de> Visitor<'de> for Elements {
            type Value = Array<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of at least five elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
                    array: &mut A,
                ) -> Result<T, A::Error> {
                    array
                        .next_element()?
                        .ok_or_else(|| A::Error::custom("too short"))
                }
                let found = Array {
                    join_ref: next(&mut array)?,
                    reference: next(&mut array)?,
                    topic: next::<Text<'de>, A>(&mut array)?.0,
                    event: next::<Text<'de>, A>(&mut array)?.0,
                    payload: next(&mut array)?,
                };
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(found)
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

/// Reads a text frame.
pub(super) fn decode(text: &str) -> Result<ClientMessage<'_>, MalformedMessage> {
    let array: Array<'_> = serde_json::from_str(text).map_err(|_| MalformedMessage)?;
    Ok(ClientMessage {
        join_ref: Ref::from_json(array.join_ref)?,
        reference: Ref::from_json(array.reference)?,
        topic: array.topic,
        event: ClientEvent::from_text(array.event, array.payload),
    })
}

/// Reads a binary frame: the kind, one byte for the length of each part except the payload, then
/// the parts without separators. Kind 3 has one more byte before the parts, for the encoding of the
/// payload.
pub(super) fn decode_binary(data: &[u8]) -> Result<ClientMessage<'_>, MalformedMessage> {
    match data {
        [KIND_PUSH, join_ref, reference, topic, event, rest @ ..] => {
            let mut parts = Parts(rest);
            Ok(ClientMessage {
                join_ref: Ref::from_text(parts.take(*join_ref)?),
                reference: Ref::from_text(parts.take(*reference)?),
                topic: parts.take(*topic)?.into(),
                event: ClientEvent::Other(parts.take(*event)?.into()),
            })
        }
        [
            KIND_USER_BROADCAST_PUSH,
            join_ref,
            reference,
            topic,
            event,
            metadata,
            encoding,
            rest @ ..,
        ] => {
            let mut parts = Parts(rest);
            Ok(ClientMessage {
                join_ref: Ref::from_text(parts.take(*join_ref)?),
                reference: Ref::from_text(parts.take(*reference)?),
                topic: parts.take(*topic)?.into(),
                event: ClientEvent::UserBroadcast {
                    event: parts.take(*event)?,
                    metadata: parts.take(*metadata)?,
                    // As in Supabase Realtime, every value except 0 stands for JSON.
                    encoding: match encoding {
                        0 => PayloadEncoding::Binary,
                        _ => PayloadEncoding::Json,
                    },
                    payload: parts.0,
                },
            })
        }
        _ => Err(MalformedMessage),
    }
}

/// The bytes of a binary frame that have not been read yet.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, length: u8) -> Result<&'a str, MalformedMessage> {
        let (part, rest) = self
            .0
            .split_at_checked(usize::from(length))
            .ok_or(MalformedMessage)?;
        self.0 = rest;
        std::str::from_utf8(part).map_err(|_| MalformedMessage)
    }
}

/// Writes a message.
pub(super) fn encode(message: &ServerMessage, out: &mut Vec<u8>) {
    let envelope = envelope(message);
    out.push(b'[');
    push_ref(out, envelope.join_ref);
    out.push(b',');
    push_ref(out, envelope.reference);
    out.push(b',');
    push_string(out, envelope.topic);
    out.push(b',');
    push_string(out, envelope.event);
    out.push(b',');
    push_payload(message, out);
    out.push(b']');
}

/// Writes the bytes before the value of `data` in the payload of a change.
pub(super) fn change_head(topic: &str, ids: &[u32], out: &mut Vec<u8>) {
    out.extend_from_slice(b"[null,null,");
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(b",\"postgres_changes\",{\"ids\":[");
    push_ids(out, ids);
    out.extend_from_slice(b"],\"data\":");
}

/// Writes the bytes before the payload of a change on a channel that joined without a `config`.
pub(super) fn legacy_change_head(topic: &str, event: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"[null,null,");
    out.extend_from_slice(topic.as_bytes());
    out.push(b',');
    push_string(out, event);
    out.push(b',');
}
