//! The messages of presence (protocol 5): the pushes of clients, and the maps that the server
//! sends.
//!
//! The values in a tracked payload are copied into the meta as the client wrote them. They are
//! parsed only to compare two payloads.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

use super::super::wire::body::Body;
use super::super::wire::frame::{Frame, FrameKind, push_frame};
use super::json::push_string;
use super::message::{Ref, push_ref};
use super::serializer::Serializer;

/// The keys of a meta that belong to the server. They are removed from a client's payload, because
/// clients would not agree on the value of a repeated key.
const SERVER_KEYS: [&str; 2] = ["phx_ref", "phx_ref_prev"];

/// The key that a state must not have at its top level. Clients treat every payload with `ids` as a
/// row change, so they would never process the state.
const KEY_OF_CHANGES: &str = "ids";

/// Approximate size of a meta without its payload, in bytes. A meta with an empty payload counts as
/// this many bytes.
const META_OVERHEAD_BYTES: usize = 64;

/// Maximum size of a payload that is compared as JSON, in bytes. Parsed values can take a hundred
/// times the memory of their text, and a payload may be as large as a broadcast. Payloads are small
/// in practice.
const MAX_COMPARED_BYTES: usize = 16 << 10;

/// The action that a `presence` push requests (protocol 5.1).
#[derive(Clone, Copy, Debug)]
pub enum PresenceCall<'a> {
    /// Add the channel to the presence of its topic, with this payload. An absent payload stands
    /// for an empty object.
    Track(Option<&'a RawValue>),
    /// Remove the channel from the presence of its topic.
    Untrack,
    /// The push has an unknown event.
    Unknown,
    /// The push has no event.
    Missing,
}

impl<'a> PresenceCall<'a> {
    /// Reads a `presence` push. If a key appears twice, the last one wins.
    pub fn parse(push: &'a RawValue) -> Self {
        let Ok(Fields(fields)) = serde_json::from_str::<Fields<'_>>(push.get()) else {
            // A payload that is not an object has no event. An object that cannot be read may have
            // an event.
            return match push.get().starts_with('{') {
                true => Self::Unknown,
                false => Self::Missing,
            };
        };
        let last = |name| {
            let field = fields.iter().rev().find(|(key, _)| key == name);
            field.map(|(_, value)| *value)
        };
        let Some(event) = last("event") else {
            return Self::Missing;
        };
        let event: String = serde_json::from_str(event.get()).unwrap_or_default();
        if event.eq_ignore_ascii_case("track") {
            Self::Track(last("payload"))
        } else if event.eq_ignore_ascii_case("untrack") {
            Self::Untrack
        } else {
            Self::Unknown
        }
    }
}

/// Returns whether a presence key is the name of a property that every JavaScript object has.
/// `realtime-js` before 2.100 looks keys up in an object. It fails on each state and diff with such
/// a key, so a single client could break presence for all others.
pub fn is_hostile_key(key: &str) -> bool {
    const NAMES: [&str; 12] = [
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    ];
    NAMES.binary_search(&key).is_ok()
}

/// Identifies a meta. Clients use only this reference to distinguish a user's devices, and old
/// metas from new ones (protocol 5.2). Written as 16 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhxRef([u8; 12]);

impl PhxRef {
    fn write(self, out: &mut Vec<u8>) {
        let mut text = [0; 16];
        // Twelve bytes become sixteen characters, so the buffer is always large enough.
        let _ = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        out.extend_from_slice(&text);
    }
}

impl fmt::Debug for PhxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Generates references. A process never generates one twice. Each process starts at a random value
/// of 96 bits, because a client that reconnects compares references of the old and the new process.
#[derive(Debug)]
pub struct PhxRefs {
    seed: [u8; 4],
    next: AtomicU64,
}

impl Default for PhxRefs {
    fn default() -> Self {
        Self {
            seed: fastrand::u32(..).to_be_bytes(),
            next: AtomicU64::new(fastrand::u64(..)),
        }
    }
}

impl PhxRefs {
    /// Returns a reference that has not been used.
    pub fn next(&self) -> PhxRef {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.seed);
        bytes[4..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        PhxRef(bytes)
    }
}

/// A track payload that is not a JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("The track payload is not a JSON object")]
pub struct NotAnObject;

/// A tracked payload: the fields of a JSON object as JSON text, without braces and without the
/// server's own keys.
#[derive(Clone, Debug, Default)]
pub struct TrackPayload(Box<str>);

impl TrackPayload {
    /// Reads the payload of a track.
    ///
    /// # Errors
    /// Fails with [`NotAnObject`] if the payload is not a JSON object.
    pub fn parse(payload: &RawValue) -> Result<Self, NotAnObject> {
        let text = payload.get();
        let Fields(fields) = serde_json::from_str(text).map_err(|_| NotAnObject)?;
        let is_ours = |(key, _): &(Cow<'_, str>, &RawValue)| SERVER_KEYS.contains(&&**key);
        if !fields.iter().any(is_ours) {
            let inside = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
            return Ok(Self(inside.ok_or(NotAnObject)?.trim().into()));
        }
        let mut out = Vec::with_capacity(text.len());
        for (key, value) in fields.iter().filter(|field| !is_ours(field)) {
            if !out.is_empty() {
                out.push(b',');
            }
            push_string(&mut out, key);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        Ok(Self(String::from_utf8_lossy(&out).into()))
    }

    /// Returns the approximate size of the meta in a state, in bytes.
    pub fn meta_bytes(&self) -> usize {
        META_OVERHEAD_BYTES + self.0.len()
    }

    fn value(&self) -> Option<Value> {
        serde_json::from_str(&format!("{{{}}}", self.0)).ok()
    }
}

/// Compares payloads as JSON, in which the order of keys does not matter. Payloads that are large
/// or cannot be parsed are compared as text.
impl PartialEq for TrackPayload {
    fn eq(&self, other: &Self) -> bool {
        let is_small = self.0.len().max(other.0.len()) <= MAX_COMPARED_BYTES;
        self.0 == other.0
            || (is_small
                && self
                    .value()
                    .is_some_and(|value| other.value() == Some(value)))
    }
}

/// The fields of a JSON object in order, with unescaped names.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A name, borrowed from the text if it has no escapes.
        #[derive(Deserialize, PartialEq, Eq, Hash)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// One entry of a presence: a tracked payload and its reference.
#[derive(Debug)]
pub struct Meta {
    /// The meta's own reference.
    pub phx_ref: PhxRef,
    /// The reference of the meta that this one replaces, if clients know that meta.
    pub replaces: Option<PhxRef>,
    /// The tracked payload.
    pub payload: TrackPayload,
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"phx_ref\":\"");
        self.phx_ref.write(out);
        out.push(b'"');
        if let Some(replaced) = self.replaces {
            out.extend_from_slice(b",\"phx_ref_prev\":\"");
            replaced.write(out);
            out.push(b'"');
        }
        if !self.payload.0.is_empty() {
            out.push(b',');
            out.extend_from_slice(self.payload.0.as_bytes());
        }
        out.push(b'}');
    }
}

impl Serializer {
    /// Encodes the `presence_state` for one channel. The bytes of the payload `state` are shared by
    /// all channels that receive it. `topic` is the topic as JSON text.
    pub fn encode_presence_state(self, join_ref: Option<&Ref>, topic: &str, state: Body) -> Frame {
        let head = |out: &mut Vec<u8>| match self {
            Self::V1 => {
                out.extend_from_slice(b"{\"topic\":");
                out.extend_from_slice(topic.as_bytes());
                out.extend_from_slice(b",\"event\":\"presence_state\",\"payload\":");
            }
            Self::V2 => {
                out.push(b'[');
                push_ref(out, join_ref);
                out.extend_from_slice(b",null,");
                out.extend_from_slice(topic.as_bytes());
                out.extend_from_slice(b",\"presence_state\",");
            }
        };
        Frame::text(head, state, self.tail())
    }

    /// Appends the whole frame of a `presence_diff`, which is the same for all members with this
    /// version.
    pub fn push_presence_diff(self, topic: &str, diff: &[u8], out: &mut Vec<u8>) {
        let (head, event): (&[u8], &[u8]) = match self {
            Self::V1 => (b"{\"topic\":", b",\"event\":\"presence_diff\",\"payload\":"),
            Self::V2 => (b"[null,null,", b",\"presence_diff\","),
        };
        let parts = [head, topic.as_bytes(), event, diff, self.tail()];
        push_frame(FrameKind::Text, &parts, out);
    }

    /// Returns the bytes after the payload of a message without a reference.
    fn tail(self) -> &'static [u8] {
        match self {
            Self::V1 => b",\"ref\":null}",
            Self::V2 => b"]",
        }
    }
}

/// Returns the payload of a `presence_state`. If a presence has the key `ids`, which only a diff
/// can contain, also returns the payload of a `presence_diff` to send directly after the state.
pub fn presence_state<'a, M>(
    presences: impl Iterator<Item = (&'a str, M)> + Clone,
) -> (Vec<u8>, Option<Vec<u8>>)
where
    M: IntoIterator<Item = &'a Meta>,
{
    let mut state = Vec::new();
    push_presences(
        presences.clone().filter(|(key, _)| *key != KEY_OF_CHANGES),
        &mut state,
    );
    let mut hidden = presences
        .filter(|(key, _)| *key == KEY_OF_CHANGES)
        .peekable();
    let rest = hidden.peek().is_some().then(|| {
        let empty = std::iter::empty::<(&str, [&Meta; 0])>();
        presence_diff(hidden, empty)
    });
    (state, rest)
}

/// Returns the payload of a `presence_diff`. Clients require both maps.
pub fn presence_diff<'a, J, L>(
    joins: impl Iterator<Item = (&'a str, J)>,
    leaves: impl Iterator<Item = (&'a str, L)>,
) -> Vec<u8>
where
    J: IntoIterator<Item = &'a Meta>,
    L: IntoIterator<Item = &'a Meta>,
{
    let mut out = b"{\"joins\":".to_vec();
    push_presences(joins, &mut out);
    out.extend_from_slice(b",\"leaves\":");
    push_presences(leaves, &mut out);
    out.push(b'}');
    out
}

fn push_presences<'a, M>(presences: impl Iterator<Item = (&'a str, M)>, out: &mut Vec<u8>)
where
    M: IntoIterator<Item = &'a Meta>,
{
    out.push(b'{');
    for (at, (key, metas)) in presences.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_string(out, key);
        out.extend_from_slice(b":{\"metas\":[");
        for (at, meta) in metas.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            meta.write(out);
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(text: &str) -> Result<TrackPayload, NotAnObject> {
        TrackPayload::parse(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn payloads_are_copied_without_the_keys_of_the_server() {
        let cases = [
            ("{}", Some("")),
            ("{ }", Some("")),
            (r#"{ "b" : 1.0, "a":"}" }"#, Some(r#""b" : 1.0, "a":"}""#)),
            (r#"{"phx_ref":1}"#, Some("")),
            (
                r#"{"a":1,"phx_ref":"x","b":{"phx_ref":2},"phx_ref_prev":null}"#,
                Some(r#""a":1,"b":{"phx_ref":2}"#),
            ),
            (r#"{"phx\u005fref":1,"\u0061":2}"#, Some(r#""a":2"#)),
            ("[]", None),
            ("null", None),
            ("3", None),
            (r#""{}""#, None),
        ];
        for (text, expected) in cases {
            let parsed = payload(text);
            assert_eq!(parsed.as_ref().ok().map(|it| &*it.0), expected, "{text}");
        }
    }

    #[test]
    fn large_payloads_are_compared_as_text() {
        let one = format!(r#"{{"a":1,"b":"{}"}}"#, "x".repeat(MAX_COMPARED_BYTES));
        let other = format!(r#"{{"a": 1,"b":"{}"}}"#, "x".repeat(MAX_COMPARED_BYTES));
        assert!(payload(&one).unwrap() == payload(&one).unwrap());
        assert!(payload(&one).unwrap() != payload(&other).unwrap());
    }

    #[test]
    fn payloads_are_compared_as_json() {
        let cases = [
            (r#"{"a":1,"b":2}"#, r#"{ "b":2, "a":1 }"#, true),
            (r#"{"a":1}"#, r#"{"a":1,"phx_ref":"mine"}"#, true),
            (r#"{"a":1}"#, r#"{"a":2}"#, false),
            (r#"{"a":1e999}"#, r#"{"a":1e999}"#, true),
            (r#"{"a":1e999}"#, r#"{"a":2e999}"#, false),
        ];
        for (left, right, expected) in cases {
            let is_equal = payload(left).unwrap() == payload(right).unwrap();
            assert_eq!(is_equal, expected, "{left} {right}");
        }
    }

    #[test]
    fn pushes_are_read_leniently() {
        let cases = [
            (
                r#"{"type":"presence","event":"track","payload":{"a":1}}"#,
                "track {\"a\":1}",
            ),
            (r#"{"event":"TRACK"}"#, "track without payload"),
            (r#"{"event":"Track","payload":null}"#, "track null"),
            (r#"{"event":"untrack","payload":3}"#, "untrack"),
            (r#"{"event":"x","event":"unTrack"}"#, "untrack"),
            (r#"{"event":"leave"}"#, "unknown"),
            (r#"{"event":3}"#, "unknown"),
            (r#"{"event":null}"#, "unknown"),
            (r#"{"\ud800":1,"event":"track"}"#, "unknown"),
            (r#"{"type":"presence"}"#, "missing"),
            ("{}", "missing"),
            ("[]", "missing"),
            (r#""track""#, "missing"),
        ];
        for (text, expected) in cases {
            let push = RawValue::from_string(text.to_owned()).unwrap();
            let call = match PresenceCall::parse(&push) {
                PresenceCall::Track(None) => "track without payload".to_owned(),
                PresenceCall::Track(Some(payload)) => format!("track {payload}"),
                PresenceCall::Untrack => "untrack".to_owned(),
                PresenceCall::Unknown => "unknown".to_owned(),
                PresenceCall::Missing => "missing".to_owned(),
            };
            assert_eq!(call, expected, "{text}");
        }
    }

    #[test]
    fn property_names_of_javascript_objects_are_recognized() {
        for (key, expected) in [
            ("__proto__", true),
            ("valueOf", true),
            ("__defineGetter__", true),
            ("constructor", true),
            ("ids", false),
            ("ann", false),
        ] {
            assert_eq!(is_hostile_key(key), expected, "{key}");
        }
    }

    #[test]
    fn states_and_diffs_have_the_envelope_of_each_version() {
        let join_ref = Ref::from_text("1");
        let text = |frame: &[u8]| {
            let start = frame.iter().position(|byte| b"[{".contains(byte)).unwrap();
            String::from_utf8(frame[start..].to_vec()).unwrap()
        };
        for (serializer, state, diff) in [
            (
                Serializer::V2,
                r#"["1",null,"realtime:a","presence_state",{}]"#,
                r#"[null,null,"realtime:a","presence_diff",{"joins":{}}]"#,
            ),
            (
                Serializer::V1,
                r#"{"topic":"realtime:a","event":"presence_state","payload":{},"ref":null}"#,
                r#"{"topic":"realtime:a","event":"presence_diff","payload":{"joins":{}},"ref":null}"#,
            ),
        ] {
            let topic = r#""realtime:a""#;
            let frame = serializer.encode_presence_state(
                join_ref.as_ref(),
                topic,
                Body::from(b"{}".to_vec()),
            );
            assert_eq!(text(&frame.parts().concat()), state);
            let mut frame = Vec::new();
            serializer.push_presence_diff(topic, br#"{"joins":{}}"#, &mut frame);
            assert_eq!(text(&frame), diff);
        }
    }

    #[test]
    fn references_are_unique_and_have_sixteen_characters() {
        let refs = PhxRefs::default();
        let (first, second) = (refs.next(), refs.next());
        assert_ne!(first, second);
        let mut text = Vec::new();
        first.write(&mut text);
        assert_eq!(String::from_utf8(text).unwrap(), format!("{first:?}"));
        assert_eq!(format!("{first:?}").len(), 16);
    }

    #[test]
    fn the_key_of_changes_is_sent_in_a_diff() {
        let refs = PhxRefs::default();
        let meta = Meta {
            phx_ref: refs.next(),
            replaces: None,
            payload: payload(r#"{"a":1}"#).unwrap(),
        };
        let all = [("a", [&meta]), ("ids", [&meta])];
        let (state, rest) = presence_state(all.into_iter());
        let phx_ref = format!("{:?}", meta.phx_ref);
        let entry = serde_json::json!({"metas": [{"phx_ref": phx_ref, "a": 1}]});
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
        assert_eq!(read(&state), serde_json::json!({"a": entry}));
        assert_eq!(
            read(&rest.unwrap()),
            serde_json::json!({"joins": {"ids": entry}, "leaves": {}})
        );
        let (state, rest) = presence_state(all[..1].iter().copied());
        assert_eq!(
            (read(&state), rest),
            (serde_json::json!({"a": entry}), None)
        );
        let empty = std::iter::empty::<(&str, [&Meta; 0])>();
        assert_eq!(presence_state(empty), (b"{}".to_vec(), None));
    }
}
