//! Messages of a client that wait until the current work of their channel is done.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::super::protocol::{ClientEvent, ClientMessage, PayloadEncoding, Ref};

/// The waiting messages of one topic.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The messages in the order of arrival.
    pub messages: VecDeque<OwnedMessage>,
    bytes: usize,
}

/// Maximum number of waiting messages per topic. Client libraries buffer messages themselves until
/// a join is answered, so they never send more than a few.
pub const MAX_WAITING: usize = 64;

/// Maximum total size of the payloads of waiting messages per topic, in bytes.
pub const MAX_WAITING_BYTES: usize = 1 << 20;

impl Waiting {
    /// Returns whether another message with a payload of this many bytes fits. If `any_alone` is
    /// set and no other message waits, a message of any size fits.
    pub fn has_room(&self, bytes: usize, any_alone: bool) -> bool {
        (self.messages.len() < MAX_WAITING && self.bytes + bytes <= MAX_WAITING_BYTES)
            || (self.messages.is_empty() && any_alone)
    }

    /// Returns the total size of the payloads of all waiting messages, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a message.
    pub fn push(&mut self, message: OwnedMessage) {
        self.bytes += message.payload_bytes();
        self.messages.push_back(message);
    }
}

/// A client message that outlives its frame.
#[derive(Debug)]
pub struct OwnedMessage {
    join_ref: Option<Ref>,
    reference: Option<Ref>,
    topic: Arc<str>,
    event: OwnedEvent,
}

#[derive(Debug)]
enum OwnedEvent {
    Heartbeat,
    Join(Box<RawValue>),
    Leave,
    AccessToken(Box<RawValue>),
    Broadcast(Box<RawValue>),
    UserBroadcast {
        event: Box<str>,
        metadata: Box<str>,
        encoding: PayloadEncoding,
        payload: Box<[u8]>,
    },
    Presence(Box<RawValue>),
    Other(Box<str>),
}

impl OwnedMessage {
    /// Copies `message`. `topic` must be the topic of the message.
    pub fn new(message: &ClientMessage<'_>, topic: Arc<str>) -> Self {
        Self {
            join_ref: message.join_ref.clone(),
            reference: message.reference.clone(),
            topic,
            event: match &message.event {
                ClientEvent::Heartbeat => OwnedEvent::Heartbeat,
                ClientEvent::Join(payload) => OwnedEvent::Join((*payload).to_owned()),
                ClientEvent::Leave => OwnedEvent::Leave,
                ClientEvent::AccessToken(payload) => OwnedEvent::AccessToken((*payload).to_owned()),
                ClientEvent::Broadcast(payload) => OwnedEvent::Broadcast((*payload).to_owned()),
                ClientEvent::UserBroadcast {
                    event,
                    metadata,
                    encoding,
                    payload,
                } => OwnedEvent::UserBroadcast {
                    event: (*event).into(),
                    metadata: (*metadata).into(),
                    encoding: *encoding,
                    payload: (*payload).into(),
                },
                ClientEvent::Presence(payload) => OwnedEvent::Presence((*payload).to_owned()),
                ClientEvent::Other(name) => OwnedEvent::Other((**name).into()),
            },
        }
    }

    /// Returns the message as it was received.
    pub fn borrow(&self) -> ClientMessage<'_> {
        ClientMessage {
            join_ref: self.join_ref.clone(),
            reference: self.reference.clone(),
            topic: (&*self.topic).into(),
            event: match &self.event {
                OwnedEvent::Heartbeat => ClientEvent::Heartbeat,
                OwnedEvent::Join(payload) => ClientEvent::Join(payload),
                OwnedEvent::Leave => ClientEvent::Leave,
                OwnedEvent::AccessToken(payload) => ClientEvent::AccessToken(payload),
                OwnedEvent::Broadcast(payload) => ClientEvent::Broadcast(payload),
                OwnedEvent::UserBroadcast {
                    event,
                    metadata,
                    encoding,
                    payload,
                } => ClientEvent::UserBroadcast {
                    event,
                    metadata,
                    encoding: *encoding,
                    payload,
                },
                OwnedEvent::Presence(payload) => ClientEvent::Presence(payload),
                OwnedEvent::Other(name) => ClientEvent::Other((&**name).into()),
            },
        }
    }

    /// Returns the `ref` for a reply to the message.
    pub fn into_reference(self) -> Option<Ref> {
        self.reference
    }

    /// Returns the size of the payload in bytes.
    pub fn payload_bytes(&self) -> usize {
        match &self.event {
            OwnedEvent::Join(payload)
            | OwnedEvent::AccessToken(payload)
            | OwnedEvent::Broadcast(payload)
            | OwnedEvent::Presence(payload) => payload.get().len(),
            OwnedEvent::UserBroadcast {
                metadata, payload, ..
            } => metadata.len() + payload.len(),
            OwnedEvent::Heartbeat | OwnedEvent::Leave => 0,
            OwnedEvent::Other(name) => name.len(),
        }
    }
}
