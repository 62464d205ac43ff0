//! The subset of both protocol versions that the soak test uses.

use serde_json::{Value, json};

use crate::client::frame::{BINARY, TEXT};
use crate::client::phoenix::{self, JoinConfig};

/// The protocol version of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// JSON objects, text frames only.
    V1,
    /// JSON arrays, broadcasts in binary frames.
    V2,
}

impl Version {
    /// Returns the path and query of a socket.
    pub(super) fn path(self, token: &str) -> String {
        let version = match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        };
        format!("/realtime/v1/websocket?vsn={version}&apikey={token}")
    }

    /// Returns one message of a channel.
    fn message(
        self,
        references: (Option<&str>, &str),
        topic: &str,
        event: &str,
        payload: &Value,
    ) -> String {
        let (join_ref, reference) = references;
        match self {
            Self::V1 => json!({"topic": topic, "event": event, "payload": payload,
                "ref": reference, "join_ref": join_ref}),
            Self::V2 => json!([join_ref, reference, topic, event, payload]),
        }
        .to_string()
    }

    pub(super) fn heartbeat(self) -> String {
        self.message((None, "heartbeat"), "phoenix", "heartbeat", &json!({}))
    }

    pub(super) fn join(
        self,
        join_ref: &str,
        topic: &str,
        token: &str,
        config: &JoinConfig,
    ) -> String {
        let payload = phoenix::join_payload(token, config);
        self.message((Some(join_ref), join_ref), topic, "phx_join", &payload)
    }

    pub(super) fn leave(self, join_ref: &str, topic: &str) -> String {
        self.message((Some(join_ref), "leave"), topic, "phx_leave", &json!({}))
    }

    /// Returns the opcode and payload of a broadcast.
    pub(super) fn broadcast(self, join_ref: &str, topic: &str, marker: &str) -> (u8, Vec<u8>) {
        let payload = json!({"m": marker});
        match self {
            Self::V1 => {
                let wrapped = json!({"type": "broadcast", "event": "message", "payload": payload});
                let references = (Some(join_ref), "broadcast");
                let text = self.message(references, topic, "broadcast", &wrapped);
                (TEXT, text.into_bytes())
            }
            Self::V2 => {
                let frame = phoenix::broadcast(join_ref, topic, &payload.to_string());
                (BINARY, frame)
            }
        }
    }

    /// Returns a message that tracks or untracks presence.
    pub(super) fn presence(self, join_ref: &str, topic: &str, is_present: bool) -> String {
        let event = if is_present { "track" } else { "untrack" };
        let payload = json!({"type": "presence", "event": event, "payload": {"status": "online"}});
        self.message((Some(join_ref), "presence"), topic, "presence", &payload)
    }

    /// Parses a text frame. Returns its topic, event, reference and payload.
    pub(super) fn read(self, text: &[u8]) -> Option<(String, String, String, Value)> {
        let mut value: Value = serde_json::from_slice(text).ok()?;
        let (reference, topic, event, payload) = match self {
            Self::V1 => (
                value["ref"].take(),
                value["topic"].take(),
                value["event"].take(),
                value["payload"].take(),
            ),
            Self::V2 => (
                value[1].take(),
                value[2].take(),
                value[3].take(),
                value[4].take(),
            ),
        };
        Some((
            topic.as_str()?.to_owned(),
            event.as_str()?.to_owned(),
            reference.as_str().unwrap_or_default().to_owned(),
            payload,
        ))
    }
}

/// Returns the topic of a binary frame of kind 4 (protocol 2.4), a broadcast from the server.
pub(super) fn topic_of_binary(frame: &[u8]) -> Option<&str> {
    let &[4, topic, _event, _metadata, _encoding, ref rest @ ..] = frame else {
        return None;
    };
    std::str::from_utf8(rest.get(..usize::from(topic))?).ok()
}
