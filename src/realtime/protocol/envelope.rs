//! What both encodings of a server message have in common: the fields of the envelope, and the
//! payload.

use super::json::push_string;
use super::message::{Ref, Reply, ServerMessage, sub_topic};

/// The fields around a payload.
pub(super) struct Envelope<'a> {
    pub(super) join_ref: Option<&'a Ref>,
    pub(super) reference: Option<&'a Ref>,
    pub(super) topic: &'a str,
    pub(super) event: &'static str,
}

/// Returns the envelope of a message (protocol 2.2). Version 1 does not write `join_ref`.
pub(super) fn envelope(message: &ServerMessage) -> Envelope<'_> {
    match message {
        ServerMessage::Heartbeat { reference } => Envelope {
            join_ref: None,
            reference: reference.as_ref(),
            topic: "phoenix",
            event: "phx_reply",
        },
        ServerMessage::Reply {
            join_ref,
            reference,
            topic,
            ..
        } => Envelope {
            join_ref: join_ref.as_ref(),
            reference: reference.as_ref(),
            topic,
            event: "phx_reply",
        },
        // The `ref` of a close is the `ref` of the join, because clients ignore a close with any
        // other `ref`.
        ServerMessage::Close { join_ref, topic } => Envelope {
            join_ref: join_ref.as_ref(),
            reference: join_ref.as_ref(),
            topic,
            event: "phx_close",
        },
        ServerMessage::System {
            join_ref, topic, ..
        } => Envelope {
            join_ref: join_ref.as_ref(),
            reference: None,
            topic,
            event: "system",
        },
    }
}

/// Writes the payload, which is the same in both versions.
pub(super) fn push_payload(message: &ServerMessage, out: &mut Vec<u8>) {
    match message {
        ServerMessage::Heartbeat { .. } => push_reply(&Reply::Ok, out),
        ServerMessage::Reply { reply, .. } => push_reply(reply, out),
        ServerMessage::Close { .. } => out.extend_from_slice(b"{}"),
        ServerMessage::System { topic, notice, .. } => {
            out.extend_from_slice(b"{\"extension\":");
            push_string(out, notice.extension.as_str());
            out.extend_from_slice(b",\"status\":");
            push_string(out, notice.status.as_str());
            out.extend_from_slice(b",\"message\":");
            push_string(out, &notice.message);
            out.extend_from_slice(b",\"channel\":");
            push_string(out, sub_topic(topic));
            out.push(b'}');
        }
    }
}

fn push_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok => out.extend_from_slice(b"{\"status\":\"ok\",\"response\":{}}"),
        Reply::Joined(bindings) => {
            out.extend_from_slice(b"{\"status\":\"ok\",\"response\":{\"postgres_changes\":");
            out.extend_from_slice(bindings.as_bytes());
            out.extend_from_slice(b"}}");
        }
        Reply::Error(reason) => {
            out.extend_from_slice(b"{\"status\":\"error\",\"response\":{\"reason\":");
            push_string(out, reason);
            out.extend_from_slice(b"}}");
        }
        Reply::Stored(id) => {
            out.extend_from_slice(b"{\"status\":\"ok\",\"response\":{\"id\":");
            push_string(out, &id.to_string());
            out.extend_from_slice(b"}}");
        }
        Reply::NotStored(error) => {
            out.extend_from_slice(b"{\"status\":\"error\",\"response\":{\"error\":");
            push_string(out, error);
            out.extend_from_slice(b"}}");
        }
        Reply::Refused => out.extend_from_slice(b"{\"status\":\"error\",\"response\":{}}"),
        Reply::PayloadSizeExceeded => {
            out.extend_from_slice(b"{\"status\":\"error\",\"response\":\"payload_size_exceeded\"}")
        }
    }
}
