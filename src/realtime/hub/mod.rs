//! The joined channels of this process, its open sockets, and fan-out to them.
//!
//! Read `topic_name`, `member` and `topic` first: they determine who receives a message to a topic.
//! `registry` holds all topics and members, and `deliveries` writes to the members. `presence` is
//! the presence of one topic, and `presence_feed` sends its changes. `presence_changes` lists the
//! topics with changes for `presence_feed`. `rate`, `stream`, `own_ids` and `replayed` are small
//! and independent. `drain` closes all sockets.

mod deliveries;
pub mod drain;
mod member;
mod own_ids;
pub mod presence;
mod presence_changes;
pub mod presence_feed;
pub mod rate;
mod registry;
mod replayed;
mod stream;
mod topic;
mod topic_name;

pub use self::deliveries::Deliveries;
pub use self::member::MemberSpec;
pub use self::registry::Hub;
pub use self::replayed::{ReplayedMessage, ReplayedPayload};
pub use self::stream::{GAP, StreamState};
pub use self::topic_name::TopicKey;

#[cfg(test)]
mod tests;
