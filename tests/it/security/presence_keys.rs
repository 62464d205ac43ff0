//! Presence on the topics of the chat. A user cannot appear under another user's key.

use serde_json::{Value, json};

use super::{database, join};
use crate::support::chat_server::Person::{Ana, Ben};
use crate::support::socket::PhoenixSocket;
use crate::support::token::{mint, service_role_key, user_claims, user_token};
use crate::support::whole_server::WholeServer;

fn keyed(key: &str, private: bool) -> Value {
    json!({ "private": private, "presence": { "enabled": true, "key": key } })
}

async fn track(socket: &mut PhoenixSocket, topic: &str) {
    let push = json!({ "type": "presence", "event": "track", "payload": { "user_id": Ben.id() } });
    let topic = format!("realtime:{topic}");
    socket.push(json!("1"), "t", &topic, "presence", push).await;
}

/// Returns the keys in `joins` of the next diff.
async fn next_joins(socket: &mut PhoenixSocket) -> Vec<String> {
    loop {
        let message = socket.receive().await;
        if message.event == "presence_diff" {
            let joins = message.payload["joins"].as_object().unwrap();
            return joins.keys().cloned().collect();
        }
    }
}

#[tokio::test]
async fn the_key_is_the_subject_whatever_the_client_requests() {
    let database = database().await;
    let owner = database.connect().await;
    owner
        .batch_execute(
            "create policy \"own topics are shown\" on realtime.messages for insert to authenticated
             with check (realtime.topic() like 'user:%' or realtime.topic() = 'room:1');
             create policy \"rooms are open\" on realtime.messages for select to authenticated
             using (realtime.topic() = 'room:1');",
        )
        .await
        .unwrap();
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = format!("conversation:{}", server.open(Ana, Ben).await);
    let own = format!("user:{}", Ana.id());
    let (ana, ben) = (Ana.id().to_string(), Ben.id().to_string());
    // The topic, whether it is private, and Ana's key if she requests Ben's.
    let cases = [
        (conversation.as_str(), true, &ana),
        (own.as_str(), true, &ana),
        // A topic of the application, and the public topic with the conversation's name. A public
        // topic is different from a private one of the same name.
        ("room:1", true, &ben),
        (conversation.as_str(), false, &ben),
    ];
    for (topic, private, key) in cases {
        let token = user_token(Ana.id());
        let config = keyed(&ben, private);
        let (mut socket, reason) = join(server.address(), &token, topic, config).await;
        assert_eq!(reason, None, "{topic}");
        track(&mut socket, topic).await;
        assert_eq!(next_joins(&mut socket).await, [key.as_str()], "{topic}");
    }

    // A service has no `sub`. Its key is not the requested one either.
    let key = service_role_key();
    let (mut server_side, reason) =
        join(server.address(), &key, &conversation, keyed(&ben, true)).await;
    assert_eq!(reason, None);
    track(&mut server_side, &conversation).await;
    let joined = next_joins(&mut server_side).await;
    assert!(joined.len() == 1 && joined[0] != ben, "{joined:?}");
}

#[tokio::test]
async fn a_token_of_another_user_changes_the_key() {
    let database = database().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = format!("conversation:{}", server.open(Ana, Ben).await);
    let full = format!("realtime:{conversation}");
    let token = user_token(Ana.id());
    let (mut socket, _) = join(server.address(), &token, &conversation, keyed("x", true)).await;
    track(&mut socket, &conversation).await;
    assert_eq!(next_joins(&mut socket).await, [Ana.id().to_string()]);
    // Another token of the same user does not end the presence.
    let mut next = user_claims(Ana.id());
    next["session_id"] = "another".into();
    for (token, leaves) in [(mint(&next), false), (user_token(Ben.id()), true)] {
        let payload = json!({ "access_token": token });
        socket
            .push(json!("1"), "a", &full, "access_token", payload)
            .await;
        socket
            .push(Value::Null, "h", "phoenix", "heartbeat", json!({}))
            .await;
        if leaves {
            loop {
                let message = socket.receive().await;
                if message.event == "presence_diff" {
                    let gone = message.payload["leaves"].as_object().unwrap();
                    assert!(gone.contains_key(&Ana.id().to_string()), "{gone:?}");
                    break;
                }
            }
        } else {
            // The reply shows that the server has checked the token. No diff precedes the reply.
            track(&mut socket, &conversation).await;
            loop {
                let message = socket.receive().await;
                assert_ne!(message.event, "presence_diff");
                if message.reference == json!("t") {
                    break;
                }
            }
        }
    }
    track(&mut socket, &conversation).await;
    assert_eq!(next_joins(&mut socket).await, [Ben.id().to_string()]);
}
