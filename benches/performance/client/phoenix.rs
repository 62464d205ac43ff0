//! Messages as current clients send them: protocol version 2.0.0, with binary broadcasts.

use serde_json::{Value, json};

/// The reference of every join, which identifies its reply.
pub(crate) const JOIN_REF: &str = "1";

/// A heartbeat in version 2.0.0.
pub(crate) const HEARTBEAT: &str = r#"[null,"7","phoenix","heartbeat",{}]"#;

/// Interval of heartbeats, the default of the official clients.
pub(crate) const HEARTBEAT_SECONDS: f64 = 25.0;

/// Returns the path and query of a socket with `token`.
pub(crate) fn path(token: &str) -> String {
    format!("/realtime/v1/websocket?vsn=2.0.0&apikey={token}")
}

/// Options of a join.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinConfig {
    /// Whether the channel is private, so that policies on `realtime.messages` apply.
    pub(crate) is_private: bool,
    /// The presence key, if presence is enabled.
    pub(crate) presence_key: Option<String>,
    /// The `postgres_changes` bindings.
    pub(crate) bindings: Vec<Value>,
}

/// Returns a message that joins `topic` (including its prefix `realtime:`).
pub(crate) fn join(topic: &str, token: &str, config: &JoinConfig) -> String {
    let payload = join_payload(token, config);
    json!([JOIN_REF, JOIN_REF, topic, "phx_join", payload]).to_string()
}

/// Returns the payload of a join, which is the same in both protocol versions.
pub(crate) fn join_payload(token: &str, config: &JoinConfig) -> Value {
    json!({
        "config": {
            "broadcast": {"ack": false, "self": false},
            "presence": {
                "key": config.presence_key.as_deref().unwrap_or_default(),
                "enabled": config.presence_key.is_some(),
            },
            "postgres_changes": config.bindings,
            "private": config.is_private,
        },
        "access_token": token,
    })
}

/// Returns a user broadcast with a JSON payload as a binary frame of kind 3 (protocol 2.4). The
/// frame contains the lengths and the encoding, then join reference, message reference, topic,
/// event, (empty) metadata and payload.
pub(crate) fn broadcast(join_ref: &str, topic: &str, payload: &str) -> Vec<u8> {
    const REF: &str = "9";
    const EVENT: &str = "message";
    const JSON: u8 = 1;
    let mut out = vec![3];
    for name in [join_ref, REF, topic, EVENT, ""] {
        // No name in the benchmarks is too long for one byte. The server would reject such a frame.
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    }
    out.push(JSON);
    for part in [join_ref, REF, topic, EVENT, payload] {
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// Returns a message that tracks presence with one marker.
pub(crate) fn track(topic: &str, marker: &str) -> String {
    let payload = json!({
        "type": "presence", "event": "track",
        "payload": {"marker": marker, "status": "online"},
    });
    json!([JOIN_REF, "8", topic, "presence", payload]).to_string()
}

/// The meaning of a version 2.0.0 text frame for a measuring client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// The join was accepted.
    Joined,
    /// Row changes are live.
    Subscribed,
    /// A message was refused, or the channel failed. Contains the whole server message.
    Refused(String),
    /// The channel was closed permanently.
    Closed(String),
    /// The server reported an error; the channel stays open.
    Warned(String),
    Other,
}

/// Interprets a frame without a marker.
pub(crate) fn control(payload: &[u8]) -> Control {
    let Ok([_, reference, _, event, body]) = serde_json::from_slice::<[Value; 5]>(payload) else {
        return Control::Other;
    };
    let whole = || String::from_utf8_lossy(payload).into_owned();
    match event.as_str().unwrap_or_default() {
        "phx_reply" if body["status"] != "ok" => Control::Refused(whole()),
        "phx_reply" if reference == JOIN_REF => Control::Joined,
        "phx_error" => Control::Refused(whole()),
        "phx_close" => Control::Closed(whole()),
        "system" if body["status"] == "error" => Control::Warned(whole()),
        "system" if body["extension"] == "postgres_changes" => Control::Subscribed,
        _ => Control::Other,
    }
}
