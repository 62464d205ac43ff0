//! Attacks, each with a control: honest use of the same kind, which must succeed.

mod close_codes;
mod locks;
mod memory;
mod old_rows;
mod presence_keys;
mod revocation;
mod strangers;
mod tokens;
mod unauthorized;
mod unfinished_requests;
mod unseen;
mod without_superuser;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::database::TestDatabase;
use crate::support::socket::{PhoenixSocket, Version};

/// The database for the attacks. `without_superuser.rs` runs them on another one.
async fn database() -> TestDatabase {
    TestDatabase::new().await
}

/// Opens a socket with this token and joins a topic. Returns the socket and the reason of a
/// refusal, or `None` if the join succeeded. The socket speaks version 1, which has no binary
/// frames.
async fn join(
    address: SocketAddr,
    token: &str,
    topic: &str,
    config: Value,
) -> (PhoenixSocket, Option<String>) {
    let mut socket = PhoenixSocket::connect(address, token, Version::One).await;
    let topic = format!("realtime:{topic}");
    socket.join("1", &topic, json!({ "config": config })).await;
    let reply = socket.expect(&topic, "phx_reply").await;
    let reason = &reply.payload["response"]["reason"];
    (socket, reason.as_str().map(str::to_owned))
}
