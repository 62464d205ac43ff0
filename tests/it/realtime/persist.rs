//! Tests of broadcasts that clients store, over sockets and HTTP. The broadcasts are sent live once
//! and can be replayed.

use rapport::config::RealtimeConfig;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::config;
use super::database_broadcast::Stack;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::{anon_key, user_token};

const TOPIC: &str = "realtime:room:1";

const PERSIST: &str = r#"{"persist":true}"#;

/// Connects a user and joins a topic.
async fn member(stack: &Stack, version: Version, topic: &str, broadcast: Value) -> PhoenixSocket {
    let mut client = stack.server.client(version).await;
    let payload = json!({
        "config": { "private": true, "presence": { "enabled": false }, "broadcast": broadcast },
        "access_token": user_token(Uuid::new_v4()),
    });
    client.join("1", topic, payload).await;
    client.expect_reply("1", "ok").await;
    client
}

/// Returns a binary push (kind 3 of protocol 2.4).
fn push(
    reference: &str,
    topic: &str,
    event: &str,
    metadata: &str,
    payload: (u8, &[u8]),
) -> Message {
    let parts = ["1", reference, topic, event, metadata];
    let mut bytes = vec![3];
    bytes.extend(parts.map(|part| u8::try_from(part.len()).unwrap()));
    bytes.push(payload.0);
    bytes.extend(parts.concat().as_bytes());
    bytes.extend(payload.1);
    Message::binary(bytes)
}

fn json_push(reference: &str, event: &str, metadata: &str) -> Message {
    push(reference, TOPIC, event, metadata, (1, br#"{"n": 1}"#))
}

/// Returns the event and id of the next message of a version 2 client. The id is null if the
/// message is not stored.
async fn next(client: &mut PhoenixSocket) -> (String, Value) {
    event_and_id(client.frame().await)
}

/// Returns the event and id of a frame of kind 4.
fn event_and_id(frame: Message) -> (String, Value) {
    let Message::Binary(bytes) = frame else {
        panic!("expected a broadcast, got {frame:?}");
    };
    let [4, topic, event, metadata, _, rest @ ..] = &bytes[..] else {
        panic!("expected a broadcast, got {bytes:?}");
    };
    let (_, rest) = rest.split_at(usize::from(*topic));
    let (event, rest) = rest.split_at(usize::from(*event));
    let metadata = match usize::from(*metadata) {
        0 => Value::Null,
        length => serde_json::from_slice(&rest[..length]).unwrap(),
    };
    let event = String::from_utf8(event.to_vec()).unwrap();
    (event, metadata["id"].clone())
}

/// Returns the number of stored messages in all topics.
async fn stored(admin: &Client) -> i64 {
    let count = "select count(*) from realtime.messages where event is not null";
    admin.query_one(count, &[]).await.unwrap().get(0)
}

/// Sends a message from the database. Once it arrives, everything that precedes it in the WAL has
/// been received.
async fn mark(stack: &Stack, members: &mut [&mut PhoenixSocket]) {
    stack
        .run("select realtime.send('{}', 'mark', 'room:1')")
        .await;
    for member in members {
        assert_eq!(next(member).await.0, "mark");
    }
}

/// Returns the event and id of each message that is replayed to a new member.
async fn replayed(stack: &Stack) -> Vec<(String, Value)> {
    let replay = json!({ "replay": { "since": 0 } });
    let mut client = member(stack, Version::Two, TOPIC, replay).await;
    client
        .push(Value::Null, "9", "phoenix", "heartbeat", json!({}))
        .await;
    let mut messages = Vec::new();
    loop {
        match client.frame().await {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message[3] == "phx_reply" {
                    return messages;
                }
                let payload = &message[4];
                messages.push((
                    payload["event"].as_str().unwrap().to_owned(),
                    payload["meta"]["id"].clone(),
                ));
            }
            frame => messages.push(event_and_id(frame)),
        }
    }
}

#[tokio::test]
async fn a_stored_broadcast_is_sent_once_and_replayed() {
    let stack = Stack::start(config()).await;
    let mut sender = member(&stack, Version::Two, TOPIC, json!({ "ack": true })).await;
    let mut other = member(&stack, Version::Two, TOPIC, json!({})).await;
    let mut old = member(&stack, Version::One, TOPIC, json!({})).await;
    sender.send(json_push("2", "kept", PERSIST)).await;
    let id = sender.expect_reply("2", "ok").await["id"].clone();
    assert!(id.is_string(), "{id}");
    assert_eq!(next(&mut other).await, ("kept".to_owned(), id.clone()));
    let message = old.expect(TOPIC, "broadcast").await;
    let expected = json!({ "event": "kept", "payload": { "n": 1 }, "type": "broadcast", "meta": { "id": id } });
    assert_eq!(message.payload, expected);

    // Binary payloads are stored as bytes.
    sender
        .send(push("3", TOPIC, "raw", PERSIST, (0, b"\x00\xff")))
        .await;
    let raw = sender.expect_reply("3", "ok").await["id"].clone();
    assert_eq!(next(&mut other).await, ("raw".to_owned(), raw.clone()));
    // A message without `persist` is not stored and has no id.
    sender.send(json_push("4", "fleeting", "")).await;
    assert_eq!(sender.expect_reply("4", "ok").await, json!({}));
    assert_eq!(next(&mut other).await, ("fleeting".to_owned(), Value::Null));

    // By now, the rows have returned through the WAL. They were not sent again.
    mark(&stack, &mut [&mut sender, &mut other]).await;
    let row =
        "select topic, extension, event, private, payload = '{\"n\": 1}', binary_payload, id::text
               from realtime.messages where event in ('kept', 'raw') order by inserted_at";
    let rows = stack.admin.query(row, &[]).await.unwrap();
    for (row, event) in rows.iter().zip(["kept", "raw"]) {
        let text = |at: usize| row.get::<_, &str>(at);
        assert_eq!([text(0), text(1), text(2)], ["room:1", "broadcast", event]);
        assert!(row.get::<_, bool>(3), "private");
    }
    assert_eq!(rows[0].get::<_, Option<bool>>(4), Some(true));
    assert_eq!(rows[1].get::<_, Option<&[u8]>>(5), Some(&b"\x00\xff"[..]));
    assert_eq!(id, rows[0].get::<_, &str>(6));

    let mut replayed = replayed(&stack).await;
    replayed.pop_if(|(event, _)| event == "mark");
    let expected = [("kept".to_owned(), id), ("raw".to_owned(), raw)];
    assert_eq!(replayed, expected);
    let metrics = &stack.server.metrics;
    assert_eq!(metrics.broadcasts_stored.get(), 2);
    assert_eq!(metrics.database_broadcasts.get(), 1, "only the mark");
}

#[tokio::test]
async fn the_messages_of_one_sender_keep_their_order() {
    let stack = Stack::start(config()).await;
    let mut sender = member(&stack, Version::Two, TOPIC, json!({ "self": true })).await;
    let mut other = member(&stack, Version::Two, TOPIC, json!({})).await;
    for n in 0..20 {
        let metadata = if n % 3 == 0 { PERSIST } else { "" };
        sender.send(json_push("2", &n.to_string(), metadata)).await;
    }
    for client in [&mut sender, &mut other] {
        for n in 0..20 {
            let (event, id) = next(client).await;
            assert_eq!((event, id.is_string()), (n.to_string(), n % 3 == 0));
        }
    }
    let events: Vec<_> = replayed(&stack)
        .await
        .into_iter()
        .map(|(event, _)| event)
        .collect();
    assert_eq!(events, ["0", "3", "6", "9", "12", "15", "18"]);
}

#[tokio::test]
async fn a_started_store_is_finished_without_its_sender() {
    let stack = Stack::start(config()).await;
    let mut other = member(&stack, Version::Two, TOPIC, json!({})).await;
    let mut sender = member(&stack, Version::Two, TOPIC, json!({ "ack": true })).await;
    // The reply shows that the policies have been checked, so the next message is stored at once.
    sender.send(json_push("2", "first", "")).await;
    sender.expect_reply("2", "ok").await;
    assert_eq!(next(&mut other).await.0, "first");
    stack.run("begin; lock table realtime.messages").await;
    sender.send(json_push("3", "kept", PERSIST)).await;
    let waits = "select count(*) from pg_stat_activity where application_name = 'rapport stored broadcasts' and wait_event_type = 'Lock'";
    let observer = stack.database.connect().await;
    eventually("the message waits for the lock", async || {
        let waiting: i64 = observer.query_one(waits, &[]).await.unwrap().get(0);
        (waiting == 1).then_some(())
    })
    .await;
    drop(sender);
    stack.run("commit").await;
    let (event, id) = next(&mut other).await;
    assert_eq!(event, "kept");
    assert_eq!(replayed(&stack).await, [(event, id)]);
}

#[tokio::test]
async fn a_message_is_not_replayed_after_its_ttl() {
    let short = RealtimeConfig {
        message_days_kept: 2,
        ..config()
    };
    let stack = Stack::start(short).await;
    let mut sender = member(&stack, Version::Two, TOPIC, json!({ "ack": true })).await;
    for (ttl, error) in [
        (
            "172801",
            "`persist` must have a ttl from 1 to 172800 seconds",
        ),
        ("0", "`persist` must have a ttl from 1 to 172800 seconds"),
        (
            "\"60\"",
            "`persist` must be true, or an object whose ttl is a whole number of seconds",
        ),
    ] {
        let metadata = format!(r#"{{"persist":{{"ttl":{ttl}}}}}"#);
        sender.send(json_push("2", "refused", &metadata)).await;
        let refused = sender.expect_reply("2", "error").await;
        assert_eq!(refused, json!({ "error": error }));
    }
    sender
        .send(json_push("3", "kept", r#"{"persist":{"ttl":172800}}"#))
        .await;
    let id = sender.expect_reply("3", "ok").await["id"].clone();
    let remaining = "select extract(epoch from expires_at - inserted_at)::int from realtime.messages where event = 'kept'";
    let remaining: i32 = stack.admin.query_one(remaining, &[]).await.unwrap().get(0);
    assert_eq!(remaining, 172_800);
    assert_eq!(replayed(&stack).await, [("kept".to_owned(), id)]);

    stack
        .run("update realtime.messages set expires_at = now() at time zone 'utc'")
        .await;
    assert_eq!(replayed(&stack).await, []);
    stack.run("select chat.maintain_message_partitions()").await;
    assert_eq!(stored(&stack.admin).await, 0);
}

#[tokio::test]
async fn a_broadcast_that_cannot_be_stored_is_not_sent() {
    let stack = Stack::start(config()).await;
    stack
        .run(
            "create policy \"but not so loud\" on realtime.messages as restrictive for insert to authenticated
               with check (event is distinct from 'loud' and payload is distinct from '{\"n\": 2}')",
        )
        .await;
    let mut sender = member(&stack, Version::Two, TOPIC, json!({ "ack": true })).await;
    let mut other = member(&stack, Version::Two, TOPIC, json!({})).await;
    let forbidden = "You do not have permissions to store messages of this Channel topic: room:1";
    let unfit = "The payload of the broadcast cannot be stored";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&str, &[u8], &str); 4] = [
        ("loud", b"{}", forbidden),
        ("hi", br#"{"n":2}"#, forbidden),
        ("hi", br#"{"n":"\u0000"}"#, unfit),
        ("hi", deep.as_bytes(), unfit),
    ];
    for (event, payload, error) in cases {
        sender
            .send(push("2", TOPIC, event, PERSIST, (1, payload)))
            .await;
        let refused = sender.expect_reply("2", "error").await;
        assert_eq!(refused, json!({ "error": error }));
        // The connection is still usable.
        sender.send(json_push("3", "loud", "")).await;
        sender.expect_reply("3", "ok").await;
        assert_eq!(next(&mut other).await, ("loud".to_owned(), Value::Null));
    }
    assert_eq!(stored(&stack.admin).await, 0);

    // A channel without acknowledgements receives a notice.
    let mut silent = member(&stack, Version::Two, TOPIC, json!({})).await;
    silent.send(json_push("2", "loud", PERSIST)).await;
    let notice = silent.expect_system(TOPIC).await;
    assert_eq!(notice, ("error".to_owned(), forbidden.to_owned()));

    // No policy decides who may read the stored messages of a public channel, so none are stored.
    let mut public = stack.member(Version::Two, TOPIC, false).await;
    public.send(json_push("2", "hi", PERSIST)).await;
    let (status, text) = public.expect_system(TOPIC).await;
    assert_eq!(status, "error");
    assert_eq!(text, "`persist` can only be used on private channels");
    mark(&stack, &mut [&mut other]).await;
    assert_eq!(stack.server.metrics.broadcasts_not_stored.get(), 5);
}

#[tokio::test]
async fn the_right_to_store_is_checked_if_policies_mention_it() {
    let stack = Stack::start(config()).await;
    let ann = Uuid::new_v4();
    stack
        .run(&format!(
            "drop policy \"people send\" on realtime.messages;
             create policy \"people send\" on realtime.messages for insert to authenticated
               with check (realtime.topic() = 'room:1' and extension = 'broadcast');
             create policy \"ann stores\" on realtime.messages for insert to authenticated
               with check (realtime.topic() = 'room:1' and extension = 'persistence' and auth.uid() = '{ann}')"
        ))
        .await;
    let post = |person: Uuid| {
        let path = "/api/broadcast/room:1/events/hi?private=true&persist=true";
        let request = reqwest::Client::new().post(format!("http://{}{path}", stack.server.address));
        request.bearer_auth(user_token(person)).json(&json!({}))
    };
    assert_eq!(outcome(post(ann)).await.0, 202);
    assert_eq!(stored(&stack.admin).await, 1);
    assert_eq!(outcome(post(Uuid::new_v4())).await.0, 403);
    assert_eq!(stored(&stack.admin).await, 1);
}

async fn outcome(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_broadcast_over_http_can_be_stored() {
    let stack = Stack::start(config()).await;
    let mut member = member(&stack, Version::Two, TOPIC, json!({})).await;
    let post = |topic: &str, query: &str| {
        let path = format!("/realtime/v1/api/broadcast/{topic}/events/hi?{query}");
        let request = reqwest::Client::new().post(format!("http://{}{path}", stack.server.address));
        request
            .header("apikey", anon_key())
            .json(&json!({ "n": 1 }))
    };
    let signed_in = |request: RequestBuilder| request.bearer_auth(user_token(Uuid::new_v4()));
    for query in ["private=true&persist=true", "private=true&persist[ttl]=60"] {
        let sent = outcome(signed_in(post("room:1", query))).await;
        assert_eq!(sent, (202, Value::Null), "{query}");
        let (event, id) = next(&mut member).await;
        assert!(event == "hi" && id.is_string());
    }
    let path = "/api/broadcast/room:1/events/hi?private=true&persist=true";
    let bytes = reqwest::Client::new()
        .post(format!("http://{}{path}", stack.server.address))
        .header("content-type", "application/octet-stream")
        .body("\u{0}bytes");
    assert_eq!(outcome(signed_in(bytes)).await.0, 202);
    next(&mut member).await;
    assert_eq!(stored(&stack.admin).await, 3);

    let persist = |text: &str| json!({ "message": format!("persist: {text}"), "errors": { "persist": [text] } });
    let public = "can only be used on private channels";
    let ttl = "must have a ttl from 1 to 259200 seconds";
    for (request, status, body) in [
        (
            signed_in(post("room:1", "persist=true")),
            422,
            persist(public),
        ),
        (
            signed_in(post("room:1", "private=true&persist[ttl]=259201")),
            422,
            persist(ttl),
        ),
        // The user may not send to room:2, and anonymous callers may not send to room:1.
        (
            signed_in(post("room:2", "private=true&persist=true")),
            403,
            json!({ "message": "Unauthorized" }),
        ),
        (
            post("room:1", "private=true&persist=true"),
            403,
            json!({ "message": "Unauthorized" }),
        ),
        (
            signed_in(post("room:1", "private=true&persist=true")).json(&json!({ "n": "\u{0}" })),
            422,
            json!({
                "message": "payload: The payload of the broadcast cannot be stored",
                "errors": { "payload": ["The payload of the broadcast cannot be stored"] },
            }),
        ),
    ] {
        assert_eq!(outcome(request).await, (status, body));
    }
    mark(&stack, &mut [&mut member]).await;
    let events = replayed(&stack).await;
    assert_eq!(events.len(), 4, "{events:?}");
}
