//! Attacks. Each has a control, which is honest use of the same kind and must succeed.

mod close_codes;
mod held_connections;
mod held_rows;
mod idle_connections;
mod locks;
mod log_lines;
mod memory;
mod old_rows;
mod old_snapshots;
mod presence_keys;
mod revocation;
mod strangers;
mod tokens;
mod unauthorized;
mod unfinished_requests;
mod unread_responses;
mod unseen;
mod waits;
mod without_superuser;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::chat_server::Person;
use crate::support::database::TestDatabase;
use crate::support::socket::{PhoenixSocket, Version};

/// Creates the database for the attacks. `without_superuser.rs` runs the attacks on a different
/// one.
async fn database() -> TestDatabase {
    TestDatabase::new().await
}

/// Begins a transaction of this user with an isolation level.
async fn begin_as(client: &Client, person: Person, level: &str) {
    let claims = format!(r#"{{"sub":"{}","role":"authenticated"}}"#, person.id());
    let sql = format!(
        "begin isolation level {level}; set local role authenticated;
         set local request.jwt.claims = '{claims}'"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Opens a socket with this token and joins a topic. Returns the socket and, if the join was
/// refused, the reason. The socket speaks version 1, which has no binary frames.
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
