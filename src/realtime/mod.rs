//! The realtime service: clients connect over WebSocket, join channels and receive what is sent to
//! them.
//!
//! A *socket* is a WebSocket connection. A *session* is the protocol state of a socket, without any
//! I/O. A *channel* is the participation of a session in a *topic*, the address to which messages
//! are sent. There are three kinds of input:
//!
//! - Messages of clients and broadcasts over HTTP. A session turns a client's message into effects:
//!   the actions that the socket's task then executes.
//! - Row changes, which replication passes through the bus (`src/bus`). The change feed delivers
//!   each of them to the channels that may see it.
//! - Rows of `realtime.messages` and the server's own broadcasts. They are delivered to the members
//!   of their topic.
//!
//! All output passes through the outgoing side of a socket (`wire/outbound.rs`), whose queue is
//! bounded. Each topic holds its presence, and the presence feed sends every change of the presence
//! to the topic's members.
//!
//! To see how a message reaches a socket, read `wire`, `protocol` and `hub` first. To see what a
//! client's message does, continue with `channel`, `session`, `work` and `socket`. `service`
//! constructs all of them. `ARCHITECTURE.md` lists the parts in an order in which each uses only
//! those before it.

pub mod api;
pub mod change_feed;
pub mod channel;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hub;
pub mod key_changes;
pub mod messages;
pub mod permissions;
pub mod protocol;
pub mod publication_feed;
pub mod recheck;
mod routes;
pub mod server_broadcast;
mod service;
pub mod session;
pub mod socket;
pub mod wire;
pub mod work;

pub use self::routes::routes;
pub use self::service::Realtime;
