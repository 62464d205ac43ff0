//! The wire format: the Phoenix messages of both protocol versions, as two enums and two encodings.
//!
//! Only this module reads and writes the messages. It does no I/O. References such as "protocol
//! 2.1" name a section of `docs/protocol.md`.
//!
//! Read `message` first: it defines the typed messages. `payload` parses what clients send in them.
//! `v1` and `v2` are the two encodings, `envelope` contains what they share, and `serializer`
//! chooses between them. `broadcast`, `presence` and `change` encode what many members receive.
//! `persist` parses the request to store a broadcast.

mod broadcast;
mod change;
mod envelope;
mod json;
mod message;
mod payload;
mod persist;
mod presence;
mod serializer;
mod v1;
mod v2;

pub use broadcast::{Broadcast, BroadcastError, UserPayload, push_replayed};
pub use change::{ChangeData, RowData};
pub use json::json_string;
pub use message::{
    ClientEvent, ClientMessage, Extension, MalformedMessage, PayloadEncoding, Ref, Reply,
    ServerMessage, Status, SystemNotice, TOPIC_PREFIX, sub_topic,
};
pub use payload::{
    AccessToken, BindingParams, BroadcastConfig, JoinConfig, JoinPayload, PostgresChangesOptions,
    PresenceConfig, ReplayConfig,
};
pub use persist::{Persist, PersistError};
pub use presence::{
    Meta, NotAnObject, PhxRef, PhxRefs, PresenceCall, TrackPayload, is_hostile_key, presence_diff,
    presence_state,
};
pub use serializer::Serializer;

#[cfg(test)]
mod tests;
