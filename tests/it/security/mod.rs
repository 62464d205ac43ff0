//! Attacks, each beside a control: honest use of the same kind, which must succeed.

mod close_codes;
mod memory;
mod strangers;
mod tokens;
mod unfinished_requests;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::socket::{PhoenixSocket, Version};

/// A socket that was opened with this token, with the answer to its join of a topic: `None` when it
/// was let in, else the reason.
async fn join(
    address: SocketAddr,
    token: &str,
    topic: &str,
    config: Value,
) -> (PhoenixSocket, Option<String>) {
    let mut socket = PhoenixSocket::connect(address, token, Version::Two).await;
    let topic = format!("realtime:{topic}");
    socket.join("1", &topic, json!({ "config": config })).await;
    let reply = socket.expect(&topic, "phx_reply").await;
    let reason = &reply.payload["response"]["reason"];
    (socket, reason.as_str().map(str::to_owned))
}
