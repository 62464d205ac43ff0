//! Parses requests to broadcast (protocol 1.5), without any I/O.
//!
//! Payloads are forwarded as they were written, without being decoded and encoded again. Numbers
//! therefore keep their digits, and a large payload is copied at most once.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::protocol::json_string;

/// The error for a required field that is absent, null or white space.
const BLANK: &str = "can't be blank";
/// The error for a field of the wrong type.
const INVALID: &str = "is invalid";
/// The error for a payload that is too large.
const TOO_LARGE: &str = "Payload size exceeds tenant limit";

/// Maximum number of messages per batch. Errors are reported for each message, and the errors of an
/// empty message take hundreds of times the two bytes of the message. The default rate of Supabase
/// Realtime allows a hundred messages.
const MAX_MESSAGES: usize = 10_000;

/// The field names that are read, in a body and in its messages.
const NAMES: [&str; 6] = ["messages", "topic", "event", "payload", "private", "id"];

/// One message of a batch.
#[derive(Debug)]
pub struct BatchMessage {
    /// The sub-topic.
    pub topic: String,
    /// Whether the message is for members of the private channel with this name.
    pub is_private: bool,
    /// The complete payload of the text broadcast.
    pub payload: Box<RawValue>,
}

/// The reason why a request cannot be read.
#[derive(Debug, PartialEq)]
pub enum Unreadable {
    /// The body is not JSON.
    NotJson,
    /// There are too many messages in the request.
    TooManyMessages,
    /// A field is missing, invalid or too large. Contains the `errors` of the response.
    Fields(Value),
}

impl Unreadable {
    /// Returns whether a payload was too large.
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::NotJson | Self::TooManyMessages => false,
            Self::Fields(errors) => {
                let of_batch = errors["messages"].as_array().into_iter().flatten();
                of_batch
                    .chain([errors])
                    .any(|errors| errors["payload"][0] == TOO_LARGE)
            }
        }
    }
}

/// Parses a batch. `max_payload` limits the size of each payload in bytes.
///
/// # Errors
/// Fails with [`Unreadable`]. All messages are checked, so that one response reports all mistakes.
pub fn batch(body: &[u8], max_payload: usize) -> Result<Vec<BatchMessage>, Unreadable> {
    let list_error = |text| Unreadable::Fields(json!({ "messages": [text] }));
    let raw: &RawValue = match body {
        [] => return Err(list_error(BLANK)),
        body => serde_json::from_slice(body).map_err(|_| Unreadable::NotJson)?,
    };
    let list = fields(raw).and_then(|fields| fields.get("messages").copied());
    let list = match list.map(RawValue::get) {
        None | Some("null") => return Err(list_error(BLANK)),
        Some(list) => list,
    };
    let list: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| list_error(INVALID))?;
    if list.is_empty() {
        return Err(list_error(BLANK));
    }
    if list.len() > MAX_MESSAGES {
        return Err(Unreadable::TooManyMessages);
    }
    let list: Option<Vec<_>> = list.into_iter().map(fields).collect();
    let list = list.ok_or_else(|| list_error(INVALID))?;
    let (mut messages, mut errors) = (Vec::with_capacity(list.len()), Vec::new());
    let mut is_valid = true;
    for fields in list {
        let mut mistakes = Map::new();
        messages.extend(message(&fields, max_payload, &mut mistakes));
        is_valid &= mistakes.is_empty();
        errors.push(Value::Object(mistakes));
    }
    if is_valid {
        Ok(messages)
    } else {
        Err(Unreadable::Fields(json!({ "messages": errors })))
    }
}

/// Parses one message of a batch. Adds its mistakes to `errors`.
fn message(
    fields: &HashMap<&'static str, &RawValue>,
    max_payload: usize,
    errors: &mut Map<String, Value>,
) -> Option<BatchMessage> {
    let mut reader = Fields { fields, errors };
    let topic = reader.required("topic", text);
    let event = reader.required("event", text);
    let payload = reader.required("payload", |raw| raw.get().starts_with('{').then_some(raw));
    let is_private = reader.optional("private", flag).unwrap_or(false);
    let id = reader.optional("id", text);
    if payload.is_some_and(|payload| payload.get().len() > max_payload) {
        reader.refuse("payload", TOO_LARGE);
    }
    let (topic, event, payload) = (topic?, event?, payload?);
    let mut whole = format!(
        r#"{{"event":{},"payload":{},"type":"broadcast""#,
        json_string(&event),
        payload.get()
    );
    if let Some(id) = id {
        whole.push_str(&format!(r#","meta":{{"id":{}}}"#, json_string(&id)));
    }
    whole.push('}');
    Some(BatchMessage {
        topic,
        is_private,
        // The text consists of JSON texts, so it is valid JSON.
        payload: RawValue::from_string(whole).ok()?,
    })
}

/// Reads fields in the same way as Supabase Realtime: null, an empty string and white space count
/// as absent.
struct Fields<'f, 'a> {
    fields: &'f HashMap<&'static str, &'a RawValue>,
    errors: &'f mut Map<String, Value>,
}

impl<'a> Fields<'_, 'a> {
    fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        let before = self.errors.len();
        let value = self.optional(name, read);
        if value.is_none() && self.errors.len() == before {
            self.refuse(name, BLANK);
        }
        value
    }

    fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        let raw = *self.fields.get(name)?;
        if is_blank(raw) {
            return None;
        }
        let value = read(raw);
        if value.is_none() {
            self.refuse(name, INVALID);
        }
        value
    }

    fn refuse(&mut self, name: &str, text: &str) {
        self.errors.insert(name.to_owned(), json!([text]));
    }
}

/// Returns the known members of an object, or `None` for any other value. If a name appears twice,
/// the last one wins.
fn fields(raw: &RawValue) -> Option<HashMap<&'static str, &RawValue>> {
    serde_json::from_str::<Known<'_>>(raw.get())
        .ok()
        .map(|known| known.0)
}

/// The known members of an object; see [`fields`]. Unknown members are not kept, because a body has
/// room for a million of them.
struct Known<'a>(HashMap<&'static str, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Known<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Known<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut known = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if let Some(name) = NAMES.into_iter().find(|known| *known == name) {
                        known.insert(name, value);
                    }
                }
                Ok(Known(known))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

fn is_blank(raw: &RawValue) -> bool {
    raw.get() == "null" || text(raw).is_some_and(|text| text.trim().is_empty())
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn flag(raw: &RawValue) -> Option<bool> {
    match raw.get() {
        "true" | "\"true\"" | "\"1\"" => Some(true),
        "false" | "\"false\"" | "\"0\"" => Some(false),
        _ => None,
    }
}

/// The format in which the payload of a single message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// JSON text.
    Json,
    /// Opaque bytes.
    Binary,
}

impl PayloadKind {
    /// Returns the kind for a `Content-Type`, or `None` for an unsupported type. Without the
    /// header, the payload is JSON. Supabase Realtime accepts a message without the header and
    /// loses its payload.
    pub fn of(content_type: Option<&[u8]>) -> Option<Self> {
        let Some(content_type) = content_type else {
            return Some(Self::Json);
        };
        let essence = content_type.split(|byte| *byte == b';').next()?;
        let essence = essence.trim_ascii().to_ascii_lowercase();
        match &*essence {
            b"application/json" => Some(Self::Json),
            b"application/octet-stream" => Some(Self::Binary),
            _ => None,
        }
    }
}

/// Returns the JSON payload of a single message: the whole body, or `{}` if it is empty. A value
/// that is not an object is wrapped in an object.
///
/// # Errors
/// Fails if the body is not JSON.
pub fn json_payload(body: &[u8]) -> Result<String, Unreadable> {
    if body.is_empty() {
        return Ok("{}".to_owned());
    }
    let raw: &RawValue = serde_json::from_slice(body).map_err(|_| Unreadable::NotJson)?;
    let raw = raw.get();
    Ok(if raw.starts_with('{') {
        raw.to_owned()
    } else {
        format!(r#"{{"_json":{raw}}}"#)
    })
}

/// Returns the refusal of a payload that is too large.
pub fn payload_too_large() -> Unreadable {
    Unreadable::Fields(json!({ "payload": [TOO_LARGE] }))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
