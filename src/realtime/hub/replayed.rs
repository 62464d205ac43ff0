//! A stored message that is replayed to a channel at its join, and its frame.

use uuid::Uuid;

use super::super::protocol::{Broadcast, Ref, Serializer, UserPayload, push_replayed};
use super::topic_name::TopicName;

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedMessage {
    /// The row's id, by which clients recognize it.
    pub id: Uuid,
    /// The user's own event name.
    pub event: String,
    /// The payload.
    pub payload: ReplayedPayload,
}

/// See [`ReplayedMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayedPayload {
    /// One JSON value.
    Json(String),
    /// Arbitrary bytes.
    Binary(Vec<u8>),
}

/// Appends the frame of a stored message. A JSON payload becomes a text push of the channel. A
/// binary payload becomes a broadcast; version 1 has no frame for it (protocol 4.7).
pub(super) fn push_frame(
    serializer: Serializer,
    topic: &TopicName,
    join_ref: Option<&Ref>,
    message: &ReplayedMessage,
    frames: &mut Vec<u8>,
) {
    let metadata = format!("{{\"replayed\":true,\"id\":\"{}\"}}", message.id);
    match &message.payload {
        ReplayedPayload::Json(payload) => push_replayed(
            serializer,
            (topic.json(), join_ref),
            (&message.event, payload, &metadata),
            frames,
        ),
        ReplayedPayload::Binary(payload) => {
            let broadcast = Broadcast::User {
                event: &message.event,
                metadata: &metadata,
                payload: UserPayload::Binary(payload),
            };
            // A row whose names are too long for a frame was refused as a live broadcast too.
            if broadcast.check(topic.key().topic()).is_ok() {
                broadcast.push_frame(serializer, topic.key().topic(), topic.json(), frames);
            }
        }
    }
}
