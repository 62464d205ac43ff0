//! Tests of broadcasts between sockets of both versions.

use std::time::Duration;

use rapport::observability::metrics::CloseLabel;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::{Server, config};
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};

const TOPIC: &str = "realtime:room";

/// Returns a binary push (kind 3 of protocol 2.4).
fn push(reference: &str, event: &str, metadata: &str, encoding: u8, payload: &[u8]) -> Vec<u8> {
    let parts = ["1", reference, TOPIC, event, metadata];
    let mut bytes = vec![3];
    bytes.extend(parts.map(|part| u8::try_from(part.len()).unwrap()));
    bytes.push(encoding);
    bytes.extend(parts.concat().as_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns the frame that members receive for a binary push (kind 4).
fn delivered(event: &str, encoding: u8, payload: &[u8]) -> Message {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut bytes = vec![4, length(TOPIC), length(event), 0, encoding];
    bytes.extend([TOPIC, event].concat().as_bytes());
    bytes.extend(payload);
    Message::binary(bytes)
}

fn join(echo: bool, ack: bool) -> Value {
    json!({ "config": {
        "broadcast": { "self": echo, "ack": ack },
        "presence": { "enabled": false },
    } })
}

/// Connects a client and joins the room.
async fn member(server: &Server, version: Version, payload: Value) -> PhoenixSocket {
    let mut client = server.client(version).await;
    client.join("1", TOPIC, payload).await;
    client.expect_reply("1", "ok").await;
    client
}

/// Expects the text form of a broadcast as the next message.
async fn expect_text(client: &mut PhoenixSocket, payload: &Value) {
    let message = client.expect(TOPIC, "broadcast").await;
    assert_eq!(&message.payload, payload);
    assert_eq!(
        (message.join_ref, message.reference),
        (Value::Null, Value::Null)
    );
}

#[tokio::test]
async fn a_binary_push_reaches_each_version_in_its_own_form() {
    let server = Server::start(config()).await;
    let mut sender = member(&server, Version::Two, join(false, false)).await;
    let mut two = member(&server, Version::Two, join(false, false)).await;
    let mut one = member(&server, Version::One, join(false, false)).await;
    let mut elsewhere = server.client(Version::Two).await;
    elsewhere
        .join("1", "realtime:rooms", join(true, false))
        .await;
    elsewhere.expect_reply("1", "ok").await;

    // The payload is unchanged, including its white space. The metadata is omitted.
    let payload = br#"{ "a":1.0, "b":"\u00e4" }"#;
    let metadata = r#"{"other":true}"#;
    sender
        .send(Message::binary(push("2", "hi", metadata, 1, payload)))
        .await;
    assert_eq!(two.frame().await, delivered("hi", 1, payload));
    let text = json!({"type": "broadcast", "event": "hi", "payload": {"a": 1.0, "b": "ä"}});
    expect_text(&mut one, &text).await;

    // Version 2 receives any payload. Version 1 has no form for binary payloads.
    let payload = b"\x00\xff\x80[";
    sender
        .send(Message::binary(push("3", "raw", "", 0, payload)))
        .await;
    assert_eq!(two.frame().await, delivered("raw", 0, payload));
    for client in [&mut sender, &mut two, &mut one, &mut elsewhere] {
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_text_push_is_text_for_both_versions() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut sender = member(&server, version, join(true, false)).await;
        let mut two = member(&server, Version::Two, join(false, false)).await;
        let mut one = member(&server, Version::One, join(false, false)).await;
        let payload = json!({"type": "broadcast", "event": "hi", "payload": [1], "more": null});
        sender
            .push(json!("1"), "2", TOPIC, "broadcast", payload.clone())
            .await;
        for client in [&mut sender, &mut two, &mut one] {
            expect_text(client, &payload).await;
            client.expect_quiet().await;
        }
    }
}

#[tokio::test]
async fn own_broadcasts_are_sent_to_channels_that_ask_for_them() {
    let server = Server::start(config()).await;
    let mut sender = member(&server, Version::Two, join(true, true)).await;
    // The same user on another socket counts as another member.
    let mut other = member(&server, Version::Two, join(false, true)).await;
    sender
        .send(Message::binary(push("2", "hi", "", 1, b"{}")))
        .await;
    assert_eq!(other.frame().await, delivered("hi", 1, b"{}"));
    // The acknowledgement and the message may arrive in either order.
    let mut frames = [sender.frame().await, sender.frame().await];
    frames.sort_by_key(Message::is_text);
    assert_eq!(frames[0], delivered("hi", 1, b"{}"));
    let reply: Value = serde_json::from_str(frames[1].to_text().unwrap()).unwrap();
    assert_eq!(
        reply,
        json!(["1", "2", TOPIC, "phx_reply", {"status": "ok", "response": {}}])
    );
    sender.expect_quiet().await;
    other.expect_quiet().await;
}

#[tokio::test]
async fn refused_broadcasts_are_reported_to_the_sender_and_not_sent() {
    let mut config = config();
    config.max_broadcast_bytes = 100;
    let server = Server::start(config).await;
    let mut two = member(&server, Version::Two, join(false, false)).await;
    let mut one = member(&server, Version::One, join(false, false)).await;
    let mut acked = member(&server, Version::Two, join(true, true)).await;
    let mut silent = member(&server, Version::Two, join(true, false)).await;
    let large = [b' '; 101];
    let not_json = json!({"reason": "The payload of a broadcast is not JSON"});
    let cases: [(&[u8], u8, Value); 5] = [
        (&large, 0, json!("payload_size_exceeded")),
        (b"{\"a\":", 1, not_json.clone()),
        (b"{}},\"ref\":{}", 1, not_json.clone()),
        (b"{\"a\":\"\xff\"}", 7, not_json.clone()),
        (b"", 1, not_json),
    ];
    for (payload, encoding, response) in cases {
        let bytes = push("2", "hi", "", encoding, payload);
        acked.send(Message::binary(bytes.clone())).await;
        assert_eq!(acked.expect_reply("2", "error").await, response);
        silent.send(Message::binary(bytes)).await;
        let (status, text) = silent.expect_system(TOPIC).await;
        assert_eq!(status, "error");
        match response.get("reason") {
            Some(reason) => assert_eq!(reason, &json!(text)),
            None => assert!(text.contains("at most 100 bytes"), "{text}"),
        }
    }
    // A text push has the same limits and must be an object.
    let large = json!({ "payload": "x".repeat(100) });
    let cases = [
        (large, json!("payload_size_exceeded")),
        (
            json!([1]),
            json!({"reason": "The payload of a broadcast must be a JSON object"}),
        ),
    ];
    for (payload, response) in cases {
        acked
            .push(json!("1"), "3", TOPIC, "broadcast", payload)
            .await;
        assert_eq!(acked.expect_reply("3", "error").await, response);
    }
    // The number of notices is limited, but all dropped pushes are counted.
    for _ in 0..100 {
        silent
            .send(Message::binary(push("2", "hi", "", 1, b"{")))
            .await;
    }
    silent
        .push(Value::Null, "end", "phoenix", "heartbeat", json!({}))
        .await;
    let mut notices = 0;
    while silent.receive().await.event == "system" {
        notices += 1;
    }
    assert!(notices < 20, "{notices} notices");
    for client in [&mut two, &mut one, &mut acked] {
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn messages_of_one_sender_keep_their_order_in_any_encoding() {
    let server = Server::start(config()).await;
    let mut sender = member(&server, Version::Two, join(true, true)).await;
    let mut two = member(&server, Version::Two, join(false, false)).await;
    let mut one = member(&server, Version::One, join(false, false)).await;
    let number = |at: usize| format!("{{\"n\":{at}}}");
    // Many messages in one segment, alternating between text and binary, and a leave at the end.
    let mut bytes = Vec::new();
    let mut add = |first: u8, payload: &[u8]| {
        bytes.extend([first, 0x80 | 126]);
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
    };
    const COUNT: usize = 300;
    for at in 0..COUNT {
        if at % 3 == 0 {
            let text = format!(
                "[\"1\",\"r\",\"{TOPIC}\",\"broadcast\",{{\"payload\":{}}}]",
                number(at)
            );
            add(0x81, text.as_bytes());
        } else {
            add(0x82, &push("r", "e", "", 1, number(at).as_bytes()));
        }
    }
    add(
        0x81,
        format!("[\"1\",\"leave\",\"{TOPIC}\",\"phx_leave\",{{}}]").as_bytes(),
    );
    sender.tcp().write_all(&bytes).await.unwrap();

    let (mut echoes, mut replies) = (0, 0);
    loop {
        match sender.frame().await {
            Message::Binary(frame) => {
                assert!(frame.ends_with(number(echoes).as_bytes()));
                echoes += 1;
            }
            Message::Text(text) if text.contains("\"broadcast\"") => {
                assert!(text.contains(&number(echoes)));
                echoes += 1;
            }
            Message::Text(text) if text.contains("\"leave\"") => break,
            _ => replies += 1,
        }
    }
    assert_eq!(
        (echoes, replies),
        (COUNT, COUNT),
        "all messages precede the end of the channel"
    );
    for at in 0..COUNT {
        let message = one.expect(TOPIC, "broadcast").await;
        assert_eq!(message.payload["payload"], json!({ "n": at }));
        let frame = two.frame().await;
        assert_eq!(frame.is_text(), at % 3 == 0);
        assert!(
            String::from_utf8_lossy(&frame.into_data()).contains(&number(at)),
            "{at}"
        );
    }
}

#[tokio::test]
async fn a_client_receives_nothing_between_leaving_and_rejoining() {
    let server = Server::start(config()).await;
    let mut sender = member(&server, Version::Two, join(false, true)).await;
    let mut member = member(&server, Version::Two, join(true, false)).await;
    for round in 0..3 {
        let reference = format!("leave {round}");
        member
            .push(json!("1"), &reference, TOPIC, "phx_leave", json!({}))
            .await;
        member.expect_reply(&reference, "ok").await;
        member.expect(TOPIC, "phx_close").await;
        sender
            .send(Message::binary(push("2", "hi", "", 1, b"{}")))
            .await;
        sender.expect_reply("2", "ok").await;
        member.expect_quiet().await;
        // A push to a topic that is not joined receives a reply like any other push.
        member
            .send(Message::binary(push("9", "hi", "", 1, b"{}")))
            .await;
        member.expect_reply("9", "error").await;
        member.join("1", TOPIC, join(true, false)).await;
        member.expect_reply("1", "ok").await;
        sender
            .send(Message::binary(push("2", "hi", "", 1, b"{}")))
            .await;
        sender.expect_reply("2", "ok").await;
        assert_eq!(member.frame().await, delivered("hi", 1, b"{}"));
    }
}

#[tokio::test]
async fn a_member_that_does_not_read_is_closed_without_affecting_others() {
    let mut config = config();
    config.queue_max_bytes = 1 << 20;
    let server = Server::start(config).await;
    let mut sender = member(&server, Version::Two, join(false, true)).await;
    let mut reader = member(&server, Version::Two, join(false, false)).await;
    let mut stuck = member(&server, Version::Two, join(false, false)).await;
    let payload = vec![b'x'; 200_000];
    while server.metrics.closed(CloseLabel::SlowConsumer).get() == 0 {
        sender
            .send(Message::binary(push("2", "hi", "", 0, &payload)))
            .await;
        sender.expect_reply("2", "ok").await;
        assert_eq!(reader.frame().await, delivered("hi", 0, &payload));
    }
    assert_eq!(stuck.read_until_close().await.0, 1013);
    assert_eq!(server.metrics.closed(CloseLabel::SlowConsumer).get(), 1);
    eventually("the slow socket is gone", async || {
        (server.metrics.channels.get() == 2).then_some(())
    })
    .await;
    reader.expect_quiet().await;
}

#[tokio::test]
async fn the_private_and_the_public_topic_of_one_name_are_separate() {
    // The server has no database, so the private join and its push are refused. The refused push
    // must not reach the public topic.
    let server = Server::start(config()).await;
    let mut public = member(&server, Version::Two, join(true, false)).await;
    let mut private = server.client(Version::Two).await;
    let mut payload = join(true, true);
    payload["config"]["private"] = true.into();
    private.join("1", TOPIC, payload).await;
    private
        .send(Message::binary(push("2", "hi", "", 1, b"{}")))
        .await;
    let refused = tokio::time::timeout(Duration::from_secs(15), private.receive())
        .await
        .unwrap();
    assert_eq!(refused.payload["status"], "error");
    private.expect_reply("2", "error").await;
    public.expect_quiet().await;
}
