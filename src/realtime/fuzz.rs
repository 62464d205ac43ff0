//! Properties that must hold for frames, messages and sessions, whatever a client sends. Fuzzing
//! tries to break them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use serde_json::value::RawValue;

use super::api::request as body;
use super::channel::{Holder, TokenMarks, postgres_changes};
use super::hub::Hub;
use super::protocol::{
    AccessToken, Broadcast, ClientEvent, ClientMessage, JoinPayload, Ref, Reply, Serializer,
    ServerMessage, SystemNotice, UserPayload, json_string,
};
use super::session::{Effect, Session, Shared};
use super::wire::frame::{Frame, FrameError, FrameReader, Received};
use crate::auth::{Claims, KeySet, Requirements, Verifier};
use crate::config::{Config, Inputs, RealtimeConfig};
use crate::limits::UnixMillis;
use crate::observability::metrics::RealtimeMetrics;

/// The size limit for messages in these properties, in bytes.
const LIMIT: usize = 1_000;

/// Checks that bytes yield the same messages and the same error, regardless of the size of the
/// pieces in which they are read. Also checks that a message is read as it was sent, regardless of
/// its fragments.
///
/// The first byte chooses the size of the pieces.
pub fn frames(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else {
        return;
    };
    let whole = read(bytes, bytes.len());
    assert_eq!(read(bytes, usize::from(step)), whole);
    assert_eq!(read(bytes, 1), whole);

    let payload = &bytes[..bytes.len().min(LIMIT)];
    let sent = fragments(payload, usize::from(step));
    let (found, fault) = read(&sent, usize::from(step) + 1);
    assert_eq!(fault, None);
    assert_eq!(found, [Message::Binary(payload.to_vec())]);

    // The server's frames have the same format, but without a mask, which only clients use.
    let (head, body) = payload.split_at(payload.len() / 2);
    let frame = Frame::text(
        |out| out.extend_from_slice(head),
        body.to_vec().into(),
        b"]",
    );
    let text = unframed(&frame);
    assert_eq!(text, [payload, b"]"].concat());
}

/// A [`Received`] that owns its contents.
#[derive(Debug, PartialEq)]
enum Message {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// Reads `bytes` in pieces of `step` bytes.
fn read(bytes: &[u8], step: usize) -> (Vec<Message>, Option<FrameError>) {
    let mut reader = FrameReader::default();
    let mut found = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        let result = reader.read(&mut piece.to_vec(), LIMIT, |received| {
            found.push(match received {
                Received::Text(text) => Message::Text(text.into_owned()),
                Received::Binary(data) => Message::Binary(data.into_owned()),
                Received::Ping(data) => Message::Ping(data.to_vec()),
                Received::Pong => Message::Pong,
                Received::Close(code) => Message::Close(code),
            });
            ControlFlow::Continue(LIMIT)
        });
        if let Err(error) = result {
            return (found, Some(error));
        }
    }
    (found, None)
}

/// Encodes one binary message of a client as fragments of `step` bytes.
fn fragments(payload: &[u8], step: usize) -> Vec<u8> {
    let mask = [0x5a, 0, 0xff, u8::try_from(step).unwrap_or(0)];
    let mut pieces: Vec<&[u8]> = payload.chunks(step.max(1)).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let last = pieces.len() - 1;
    let mut out = Vec::new();
    for (at, piece) in pieces.into_iter().enumerate() {
        let opcode = if at == 0 { 2 } else { 0 };
        out.push(if at == last { 0x80 } else { 0 } | opcode);
        match u8::try_from(piece.len()) {
            Ok(length @ 0..126) => out.push(0x80 | length),
            _ => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(
            piece
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
    }
    out
}

/// Returns the payload of a frame of the server. Panics if the header is wrong.
fn unframed(frame: &Frame) -> Vec<u8> {
    let bytes = frame.parts().concat();
    assert_eq!(bytes.len(), frame.wire_len());
    payload_of(&bytes)
}

/// Returns the payload of an encoded frame of the server. Panics if the header is wrong.
fn payload_of(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes[0] & 0x70, 0, "no extension");
    let (header, length) = match bytes[1] {
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        127 => {
            let length: [u8; 8] = bytes[2..10].try_into().unwrap();
            (10, usize::try_from(u64::from_be_bytes(length)).unwrap())
        }
        length @ 0..126 => (2, usize::from(length)),
        _ => panic!("a server does not mask its frames"),
    };
    let payload = bytes[header..].to_vec();
    assert_eq!(payload.len(), length);
    payload
}

/// Checks messages of clients. A decoded message can be encoded in either version, and decoding it
/// again yields the same message. The server's replies are JSON of the right shape, and repeat the
/// references exactly.
///
/// The first byte chooses the version and whether the frame is binary.
pub fn messages(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let serializer = if choice & 1 == 0 {
        Serializer::V2
    } else {
        Serializer::V1
    };
    if choice & 2 != 0 {
        if let Ok(message) = serializer.decode_binary(data) {
            assert_eq!(serializer, Serializer::V2, "version 1 has no binary frames");
            check_binary(data, &message);
            check_answers(&message);
        }
        return;
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(message) = serializer.decode_text(text) else {
        return;
    };
    check_text(&message);
    check_answers(&message);
}

/// Checks that a binary push consists of exactly its parts, in order.
fn check_binary(data: &[u8], message: &ClientMessage<'_>) {
    let ClientEvent::UserBroadcast {
        event,
        metadata,
        payload,
        ..
    } = &message.event
    else {
        return;
    };
    let reference = |reference: &Option<Ref>| -> String {
        reference.as_ref().map_or_else(String::new, |it| {
            serde_json::from_str(it.as_json()).unwrap()
        })
    };
    let parts = [
        &*reference(&message.join_ref),
        &*reference(&message.reference),
        &*message.topic,
        event,
        metadata,
    ];
    let mut again = vec![3];
    again.extend(parts.iter().map(|part| u8::try_from(part.len()).unwrap()));
    again.push(data[6]);
    again.extend(parts.concat().bytes());
    again.extend_from_slice(payload);
    assert_eq!(again, data);
    let payload = match data[6] {
        0 => Ok(UserPayload::Binary(payload)),
        _ => UserPayload::json(payload),
    };
    if let Ok(payload) = payload {
        check_delivery(&message.topic, event, payload);
    }
}

/// Checks what members receive for a binary push. In version 2 they receive a frame of kind 4 with
/// the same parts. In version 1 they receive JSON text with the same payload. A client's metadata
/// is not forwarded.
fn check_delivery(topic: &str, event: &str, payload: UserPayload<'_>) {
    let broadcast = Broadcast::User {
        event,
        metadata: "",
        payload,
    };
    if broadcast.check(topic).is_err() {
        return;
    }
    let delivered = |serializer: Serializer| {
        let mut out = Vec::new();
        broadcast.push_frame(serializer, topic, &json_string(topic), &mut out);
        out
    };
    let binary = payload_of(&delivered(Serializer::V2));
    let [4, topic_length, event_length, 0, encoding, parts @ ..] = &*binary else {
        panic!("not kind 4: {binary:?}");
    };
    let (found_topic, rest) = parts.split_at(usize::from(*topic_length));
    let (found_event, found_payload) = rest.split_at(usize::from(*event_length));
    assert_eq!(
        (found_topic, found_event, found_payload),
        (topic.as_bytes(), event.as_bytes(), payload.bytes())
    );
    let text = delivered(Serializer::V1);
    let UserPayload::Json(json) = payload else {
        assert_eq!(*encoding, 0);
        assert!(text.is_empty(), "version 1 receives no binary payloads");
        return;
    };
    assert_eq!(*encoding, 1);
    let text = payload_of(&text);
    // The text is parsed without building values, because a number may be out of range and a string
    // may contain half of a surrogate pair.
    let object: BTreeMap<String, &RawValue> = serde_json::from_slice(&text).unwrap();
    assert_eq!(object["topic"].get(), &*json_string(topic));
    let inner: BTreeMap<String, &RawValue> = serde_json::from_str(object["payload"].get()).unwrap();
    assert_eq!(inner["event"].get(), &*json_string(event));
    let space = [' ', '\t', '\n', '\r'];
    assert_eq!(inner["payload"].get(), json.trim_matches(space));
}

/// Checks bodies of broadcast requests. Each accepted message of a batch is an object with `type`,
/// `event` and a payload within the limit. An accepted body of a single message becomes a JSON
/// object.
pub fn request(data: &[u8]) {
    /// The maximum payload size. It is small, so that some payloads exceed it.
    const MAX_PAYLOAD: usize = 64;
    if let Ok(messages) = body::batch(data, MAX_PAYLOAD) {
        assert!(!messages.is_empty());
        for message in messages {
            let broadcast = Broadcast::Text {
                payload: &message.payload,
            };
            broadcast.check(&message.topic).unwrap();
            let fields: BTreeMap<String, &RawValue> =
                serde_json::from_str(message.payload.get()).unwrap();
            assert!(fields["payload"].get().len() <= MAX_PAYLOAD);
            assert_eq!(fields["type"].get(), "\"broadcast\"");
            assert!(fields.contains_key("event"));
        }
    }
    if let Ok(payload) = body::json_payload(data) {
        assert!(payload.starts_with('{'));
        UserPayload::json(payload.as_bytes()).unwrap();
    }
}

fn check_text(message: &ClientMessage<'_>) {
    let (event, payload) = match &message.event {
        ClientEvent::Heartbeat => ("heartbeat", None),
        ClientEvent::Join(payload) => ("phx_join", Some(*payload)),
        ClientEvent::Leave => ("phx_leave", None),
        ClientEvent::AccessToken(payload) => ("access_token", Some(*payload)),
        ClientEvent::Broadcast(payload) => ("broadcast", Some(*payload)),
        ClientEvent::UserBroadcast { .. } => panic!("a text frame was decoded as a binary push"),
        ClientEvent::Presence(payload) => ("presence", Some(*payload)),
        ClientEvent::Other(name) => (&**name, None),
    };
    let json_of = |it: &Option<Ref>| it.as_ref().map_or("null", Ref::as_json).to_owned();
    let (join_ref, reference) = (json_of(&message.join_ref), json_of(&message.reference));
    let (topic, event) = (json_string(&message.topic), json_string(event));
    let payload = payload.map_or("{}", RawValue::get);
    let array = format!("[{join_ref},{reference},{topic},{event},{payload}]");
    let object = format!(
        r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference},"join_ref":{join_ref}}}"#
    );
    for (serializer, text) in [(Serializer::V2, array), (Serializer::V1, object)] {
        let again = serializer
            .decode_text(&text)
            .expect("a decoded message can be decoded again");
        assert_eq!(again.join_ref, message.join_ref);
        assert_eq!(again.reference, message.reference);
        assert_eq!(again.topic, message.topic);
        assert_eq!(
            std::mem::discriminant(&again.event),
            std::mem::discriminant(&message.event)
        );
    }
}

/// Checks the server's replies to the sender of `message`.
fn check_answers(message: &ClientMessage<'_>) {
    let topic: Arc<str> = (*message.topic).into();
    let (join_ref, reference) = (&message.join_ref, &message.reference);
    let answers = [
        ServerMessage::Reply {
            join_ref: join_ref.clone(),
            reference: reference.clone(),
            topic: Arc::clone(&topic),
            reply: Reply::Error(message.topic.clone().into_owned().into()),
        },
        ServerMessage::Close {
            join_ref: join_ref.clone(),
            topic: Arc::clone(&topic),
        },
        ServerMessage::System {
            join_ref: join_ref.clone(),
            topic: Arc::clone(&topic),
            notice: SystemNotice::changes_error(message.topic.clone().into_owned()),
        },
    ];
    let value_of = |it: &Option<Ref>| {
        it.as_ref().map_or(Value::Null, |it| {
            serde_json::from_str(it.as_json()).unwrap()
        })
    };
    for answer in answers {
        let array = check_json(Serializer::V2, &answer);
        assert_eq!(array[0], value_of(join_ref));
        assert_eq!(array[2], *topic);
        let object = check_json(Serializer::V1, &answer);
        assert_eq!(object["topic"], *topic);
        if let ServerMessage::Reply { .. } = answer {
            assert_eq!(array[1], value_of(reference));
            assert_eq!(object["ref"], array[1]);
            assert_eq!(object["payload"], array[4]);
        }
    }
}

/// Returns the JSON of a message. Panics if it does not have the shape of its version (protocol
/// 2.1, 2.2).
fn check_json(serializer: Serializer, message: &ServerMessage) -> Value {
    let text = unframed(&serializer.encode(message));
    let value: Value = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    match serializer {
        Serializer::V1 => assert_eq!(value.as_object().map(serde_json::Map::len), Some(4)),
        Serializer::V2 => assert_eq!(value.as_array().map(Vec::len), Some(5)),
    }
    value
}

/// Checks payloads of joins and token refreshes. Every binding is echoed exactly as it was sent,
/// with an added id. Two bindings have the same id if and only if they are equal.
pub fn join(data: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<&RawValue>(data) else {
        return;
    };
    if let AccessToken::Token(token) = AccessToken::parse(payload) {
        assert!(!crate::auth::is_opaque_key(&token));
    }
    let Ok(join) = JoinPayload::parse(payload) else {
        return;
    };
    let bindings = join
        .config
        .map(|config| config.postgres_changes)
        .unwrap_or_default();
    let ids = postgres_changes::assign_ids(&bindings);
    let echo: Vec<Value> = serde_json::from_str(&postgres_changes::echo(&bindings, &ids)).unwrap();
    assert_eq!(echo.len(), bindings.len());
    for ((shown, binding), id) in echo.iter().zip(&bindings).zip(&ids) {
        let mut expected = binding.params.clone();
        expected["id"] = (*id).into();
        assert_eq!(*shown, expected);
        assert!((1..1 << 27).contains(id));
    }
    let different: HashSet<String> = bindings.iter().map(|it| it.params.to_string()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), different.len());
    // The bindings may be invalid, but then the error must have a text.
    if let Err(error) = postgres_changes::parse(&bindings, &ids) {
        assert!(!error.client_text().is_empty());
    }
}

/// The secret for signing tokens, which no client knows.
const SECRET: &str = "a-secret-that-no-client-knows-0123456789";

/// Returns the default settings, but with few channels per socket.
fn config() -> &'static RealtimeConfig {
    static CONFIG: LazyLock<RealtimeConfig> = LazyLock::new(read_config);
    &CONFIG
}

fn read_config() -> RealtimeConfig {
    let environment: BTreeMap<String, String> = [
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("SUPABASE_JWT_SECRET", SECRET),
        ("RAPPORT_REALTIME_MAX_CHANNELS_PER_SOCKET", "3"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let inputs = Inputs {
        file: None,
        environment: &environment,
        flags: Vec::new(),
    };
    Config::load(&inputs).unwrap().realtime
}

/// Returns a session with an anonymous token, and a time 1000 seconds before the token expires.
fn new_session() -> (Session, UnixMillis) {
    let keys = KeySet::new(Some(SECRET), None, None).unwrap();
    let marks = TokenMarks::default();
    let connection = Holder {
        mark: marks.of("key"),
        claims: Arc::new(Claims {
            expires_at: 2_000_000_000,
            signer: None,
            ..Claims::of_nobody()
        }),
    };
    let shared = Arc::new(Shared {
        verifier: Verifier::new(keys, Requirements::default()),
        config: config().clone(),
        hub: Arc::new(Hub::new(RealtimeMetrics::default())),
        marks,
        is_managed: |_| false,
    });
    let now = UnixMillis::from_seconds(1_999_999_000);
    (Session::new(shared, connection, "{}".into(), now), now)
}

/// Checks binary frames of a socket that has joined a channel. None of them joins, leaves or ends a
/// channel. Each resulting broadcast has the payload that was sent and the topic that was joined.
///
/// The first byte chooses the size of the fragments. Each message is preceded by its length in two
/// bytes. The last message ends with the data.
pub fn joined(data: &[u8]) {
    const TOPIC: &str = "realtime:a";
    const JOIN: &str = r#"["1","1","realtime:a","phx_join",{"config":{"broadcast":{"ack":true,"self":true},"presence":{"enabled":false}}}]"#;
    let Some((&step, mut rest)) = data.split_first() else {
        return;
    };
    let (mut session, now) = new_session();
    let mut effects = Vec::new();
    session.receive(
        &Serializer::V2.decode_text(JOIN).unwrap(),
        now,
        &mut effects,
    );
    assert!(session.has_joined());
    let held = session.held_bytes();
    let mut reader = FrameReader::default();
    while let Some((&[high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])) % LIMIT;
        let (message, after) = after.split_at(length.min(after.len()));
        rest = after;
        let mut effects = Vec::new();
        let mut sent = fragments(message, usize::from(step));
        let read = reader.read(&mut sent, LIMIT, |received| {
            let Received::Binary(data) = received else {
                panic!("a binary message became {received:?}");
            };
            assert_eq!(*data, *message);
            if let Ok(message) = Serializer::V2.decode_binary(&data) {
                session.receive(&message, now, &mut effects);
            }
            ControlFlow::Continue(LIMIT)
        });
        assert_eq!((read, reader.unfinished()), (Ok(()), None));
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    check_json(Serializer::V1, &message);
                    check_json(Serializer::V2, &message);
                }
                Effect::Broadcast(order) => {
                    assert_eq!(&**order.topic.topic(), TOPIC);
                    assert!(order.except.is_none() && order.reply.is_some());
                    let Broadcast::User { event, payload, .. } = order.message.borrow() else {
                        panic!("a binary push became a text broadcast");
                    };
                    assert!(message.ends_with(payload.bytes()));
                    assert!(order.message.borrow().check(TOPIC).is_ok());
                    check_delivery(TOPIC, event, payload);
                }
                other => panic!("a binary frame led to {other:?}"),
            }
        }
        assert_eq!(session.held_bytes(), held);
    }
}

/// Checks a whole session. With any messages in any order, the number of channels stays within the
/// limit, no channel is attached twice or outlives the session, and all output is valid JSON.
///
/// Each message is preceded by one byte. Its lowest bit is set for a binary message. The other bits
/// are the number of seconds that pass before the message. A text message ends with a line feed,
/// and a binary message with the data.
pub fn session(data: &[u8]) {
    let (mut session, mut now) = new_session();
    let limit = config().max_channels_per_socket;
    let mut attached = HashSet::new();
    let mut rest = data;
    while let Some((&first, after)) = rest.split_first() {
        now = UnixMillis(now.0 + i64::from(first >> 1) * 1000);
        let (message, after) = if first & 1 == 1 {
            (after, &[][..])
        } else {
            let end = after
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(after.len());
            (&after[..end], &after[(end + 1).min(after.len())..])
        };
        rest = after;
        let decoded = match std::str::from_utf8(message) {
            Ok(text) if first & 1 == 0 => Serializer::V2.decode_text(text),
            _ => Serializer::V2.decode_binary(message),
        };
        let mut effects = Vec::new();
        if let Ok(message) = decoded {
            session.receive(&message, now, &mut effects);
        }
        if session.deadline().is_some_and(|at| at <= now) {
            session.tick(now, &mut effects);
        }
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    check_json(Serializer::V1, &message);
                    check_json(Serializer::V2, &message);
                }
                Effect::Attach(channel, _) => assert!(attached.insert(channel), "attached twice"),
                Effect::Detach(channel) => {
                    attached.remove(&channel);
                }
                _ => {}
            }
        }
        assert!(attached.len() <= limit);
    }
    let mut effects = Vec::new();
    session.end(&mut effects);
    for effect in effects {
        if let Effect::Detach(channel) = effect {
            attached.remove(&channel);
        }
    }
    assert!(attached.is_empty(), "channels outlive their session");
}
