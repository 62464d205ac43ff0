//! A stored message that is replayed to a channel at its join, and its frame.

use uuid::Uuid;

use super::super::protocol::{Broadcast, Ref, Serializer, UserPayload, push_replayed};
use super::topic_name::TopicName;

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedMessage {
    /// The id of the row, by which clients recognize the message.
    pub id: Uuid,
    /// The user's own event name.
    pub event: String,
    /// The payload.
    pub payload: ReplayedPayload,
}

/// The payload of a [`ReplayedMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayedPayload {
    /// One JSON value.
    Json(String),
    /// Arbitrary bytes.
    Binary(Vec<u8>),
}

/// Appends the frame of a stored message. A message with a JSON payload becomes a text push on the
/// channel. A message with a binary payload becomes a binary broadcast, for which version 1 has no
/// frame (protocol 4.7).
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
            // A row whose names are too long for a frame was not broadcast live either.
            if broadcast.check(topic.key().topic()).is_ok() {
                broadcast.push_frame(serializer, topic.key().topic(), topic.json(), frames);
            }
        }
    }
}
