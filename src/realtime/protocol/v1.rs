//! Version 1.0.0: every frame is a JSON object (protocol 2.1).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{envelope, push_payload};
use super::json::{push_ids, push_string};
use super::message::{ClientEvent, ClientMessage, MalformedMessage, Ref, ServerMessage, push_ref};

/// The bytes after the value of `data` in the payload of a change.
pub(super) const CHANGE_TAIL: &[u8] = b"},\"ref\":null}";
/// The bytes after the payload of a change on a channel that joined without a `config`. There, the
/// data is the whole payload.
pub(super) const LEGACY_CHANGE_TAIL: &[u8] = b",\"ref\":null}";

/// A frame as a JSON object. All keys except `join_ref` must be present. Only `payload` and the
/// references may be `null`.
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, rename = "ref")]
    reference: &'a RawValue,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

/// Reads a text frame.
pub(super) fn decode(text: &str) -> Result<ClientMessage<'_>, MalformedMessage> {
    let object: Object<'_> = serde_json::from_str(text).map_err(|_| MalformedMessage)?;
    Ok(ClientMessage {
        join_ref: match object.join_ref {
            Some(value) => Ref::from_json(value)?,
            None => None,
        },
        reference: Ref::from_json(object.reference)?,
        topic: object.topic,
        event: ClientEvent::from_text(object.event, object.payload),
    })
}

/// Writes a message as topic, event, payload and `ref`, without `join_ref`.
pub(super) fn encode(message: &ServerMessage, out: &mut Vec<u8>) {
    let envelope = envelope(message);
    out.extend_from_slice(b"{\"topic\":");
    push_string(out, envelope.topic);
    out.extend_from_slice(b",\"event\":");
    push_string(out, envelope.event);
    out.extend_from_slice(b",\"payload\":");
    push_payload(message, out);
    out.extend_from_slice(b",\"ref\":");
    push_ref(out, envelope.reference);
    out.push(b'}');
}

/// Writes the bytes before the value of `data` in the payload of a change.
pub(super) fn change_head(topic: &str, ids: &[u32], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(b",\"event\":\"postgres_changes\",\"payload\":{\"ids\":[");
    push_ids(out, ids);
    out.extend_from_slice(b"],\"data\":");
}

/// Writes the bytes before the payload of a change on a channel that joined without a `config`.
pub(super) fn legacy_change_head(topic: &str, event: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(b",\"event\":");
    push_string(out, event);
    out.extend_from_slice(b",\"payload\":");
}
