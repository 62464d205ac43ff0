//! The whole server with a key set that is fetched.

use rapport::chat;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::claims;
use super::server::{A, B, KeyServer, Reply, set};
use crate::support::chat_server::{Answer, Person::Ana, answer};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::process::Process;
use crate::support::socket::{PhoenixSocket, Version, refused_handshake, url};
use crate::support::whole_server::WholeServer;

const OPAQUE_KEY: &str = "sb_publishable_for_tests";

/// Returns the settings of a server with this key set and without a secret.
fn settings(url: &str) -> [(&str, &str); 3] {
    [
        ("SUPABASE_JWT_SECRET", ""),
        ("RAPPORT_AUTH_JWKS", url),
        ("RAPPORT_AUTH_PUBLISHABLE_KEYS", OPAQUE_KEY),
    ]
}

/// Returns the options of a channel that receives nothing by itself.
fn quiet() -> Value {
    json!({ "presence": { "enabled": false } })
}

async fn conversations(server: &WholeServer, token: &str) -> Answer {
    let url = format!(
        "http://{}{}/conversations",
        server.address(),
        chat::BASE_PATH
    );
    answer(reqwest::Client::new().get(url).bearer_auth(token)).await
}

#[tokio::test]
async fn until_the_keys_are_known_requests_can_be_repeated() {
    let database = TestDatabase::new().await;
    // This port was free a moment ago, so connections to it are refused.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let keys_url = format!("http://{address}/keys");
    let server = WholeServer::start(database.url(), &settings(&keys_url))
        .await
        .ready()
        .await;
    let token = A.sign(&claims(&json!({})));

    let refused = conversations(&server, &token).await;
    refused.assert_refused(503, "keys_unavailable");
    assert_eq!(refused.header("retry-after"), Some("2"));
    let handshake = url(server.address(), &token, Some("1.0.0"));
    let (status, ..) = refused_handshake(&handshake).await;
    assert_eq!(status, 503);
    let mut socket = PhoenixSocket::connect(server.address(), OPAQUE_KEY, Version::One).await;
    let payload = json!({ "config": quiet(), "access_token": token });
    socket.join("1", "realtime:room", payload.clone()).await;
    let reply = socket.expect_reply("1", "error").await;
    assert_eq!(
        reply["reason"],
        "JwtSignerError: The keys of this token's issuer are not available, try again"
    );

    let listener = TcpListener::bind(address).await.unwrap();
    let _keys = KeyServer::on(listener, |_, _| Reply::ok(set(&[&A])));
    eventually("the keys are fetched", async || {
        let found = conversations(&server, &token).await;
        (found.status == StatusCode::OK).then_some(())
    })
    .await;
    socket.join("2", "realtime:room", payload).await;
    socket.expect_reply("2", "ok").await;
}

#[tokio::test]
async fn channels_end_when_the_key_of_their_token_disappears() {
    let database = TestDatabase::new().await;
    let mut keys = KeyServer::start(set(&[&A, &B])).await;
    let server = WholeServer::start(database.url(), &settings(&keys.url()))
        .await
        .ready()
        .await;
    let token = A.sign(&claims(&json!({})));
    let mut socket = PhoenixSocket::connect(server.address(), OPAQUE_KEY, Version::One).await;
    let private = json!({
        "config": { "private": true, "presence": { "enabled": false } },
        "access_token": token,
    });
    socket
        .join("1", &format!("realtime:user:{}", Ana.id()), private)
        .await;
    socket.expect_reply("1", "ok").await;
    let public = json!({ "config": quiet(), "access_token": B.sign(&claims(&json!({}))) });
    socket.join("2", "realtime:room", public).await;
    socket.expect_reply("2", "ok").await;
    assert_eq!(conversations(&server, &token).await.status, StatusCode::OK);

    keys.publish(set(&[&B]));
    server.refresh_keys();
    keys.requested(2).await;
    let topic = format!("realtime:user:{}", Ana.id());
    let (status, text) = socket.expect_system(&topic).await;
    let gone = "Failed to generate JWT signer for key ID (kid) \"a\", check your JWT secret or JWKS configuration";
    assert_eq!((&*status, &*text), ("error", gone));
    socket.expect(&topic, "phx_close").await;
    conversations(&server, &token)
        .await
        .assert_refused(401, "unauthorized");
    // The channel whose token has the other key stays open.
    let broadcast = json!({ "type": "broadcast", "event": "x", "payload": {} });
    socket
        .push(json!("2"), "3", "realtime:room", "broadcast", broadcast)
        .await;
    socket.heartbeat("4").await;
}

#[tokio::test]
async fn a_new_token_waits_for_its_keys_without_ending_the_channel() {
    let database = TestDatabase::new().await;
    let keys = KeyServer::start(set(&[&A])).await;
    let server = WholeServer::start(database.url(), &settings(&keys.url()))
        .await
        .ready()
        .await;
    let mut socket = PhoenixSocket::connect(server.address(), OPAQUE_KEY, Version::One).await;
    let old = json!({ "config": quiet(), "access_token": A.sign(&claims(&json!({}))) });
    for (reference, topic) in [("1", "realtime:new"), ("2", "realtime:old")] {
        socket.join(reference, topic, old.clone()).await;
        socket.expect_reply(reference, "ok").await;
    }

    // The issuer replaces its key, and one of the two channels receives a token that the new key
    // signed.
    keys.publish(set(&[&B]));
    let new = json!({ "access_token": B.sign(&claims(&json!({}))) });
    let push = async |socket: &mut PhoenixSocket, reference, payload| {
        let topic = "realtime:new";
        socket
            .push(json!("1"), reference, topic, "access_token", payload)
            .await;
    };
    push(&mut socket, "3", new).await;
    // The new token causes the fetch, which also removes the old key.
    let (_, text) = socket.expect_system("realtime:old").await;
    assert!(text.contains("(kid) \"a\""), "{text}");
    socket.expect("realtime:old", "phx_close").await;
    socket.heartbeat("4").await;
    // Only a channel that still exists responds to an invalid token.
    push(&mut socket, "5", json!({ "access_token": "nonsense" })).await;
    let (_, text) = socket.expect_system("realtime:new").await;
    assert_eq!(text, "The token provided is not a valid JWT");
}

#[tokio::test]
async fn sighup_fetches_the_key_sets() {
    let database = TestDatabase::new().await;
    let mut keys = KeyServer::start(set(&[&A])).await;
    let process = Process::start(database.url(), &settings(&keys.url())).await;
    keys.requested(1).await;
    let pid = process.pid().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", "HUP", &pid])
        .status();
    assert!(sent.unwrap().success());
    keys.requested(2).await;
    let (status, _, log) = process.stop().await;
    assert!(status.success(), "{log}");
}
