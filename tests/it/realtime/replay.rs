//! Tests of the replay of stored messages to a channel that joins.

use std::sync::Arc;

use rapport::change::{
    Column, ColumnValue, InsertedMessages, Relation, ReplicaIdentity, Row, TableName,
    TimestampMicros,
};
use rapport::config::RealtimeConfig;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::database_broadcast::{Stack, kind_4, row};
use super::{Server, config};
use crate::support::database::TestDatabase;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};
use crate::support::token::user_token;

const TOPIC: &str = "realtime:room:1";

/// Policies under which signed-in users may read rooms, and only presence in halls.
const POLICIES: &str = "
create policy \"people listen\" on realtime.messages for select to authenticated
  using (realtime.topic() like 'room:%' and extension = 'broadcast'
    or realtime.topic() like 'hall:%' and extension = 'presence');
";

/// Stores messages at intervals of one second, oldest first. The last one is 10 s old.
async fn store(admin: &Client, count: i32) {
    admin
        .execute(
            "insert into realtime.messages (topic, extension, event, payload, private, inserted_at)
             select 'room:1', 'broadcast', 'e', jsonb_build_object('n', n), true,
                    (now() at time zone 'utc') - ($1 - n + 10) * interval '1 second'
             from generate_series(1, $1) n",
            &[&count],
        )
        .await
        .unwrap();
}

/// Starts a server that has no change stream and receives inserted rows from the test.
async fn start(config: RealtimeConfig) -> (Server, TestDatabase, Client) {
    let database = TestDatabase::new().await;
    let admin = database.connect().await;
    admin.batch_execute(POLICIES).await.unwrap();
    let server = Server::start_over(config, database.url()).await;
    (server, database, admin)
}

fn join(private: bool, replay: Value) -> Value {
    json!({
        "config": {
            "private": private, "presence": { "enabled": true },
            "broadcast": { "replay": replay },
        },
        "access_token": user_token(Uuid::new_v4()),
    })
}

async fn member(server: &Server, version: Version, replay: Value) -> PhoenixSocket {
    let mut client = server.client(version).await;
    client.join("7", TOPIC, join(true, replay)).await;
    client.expect_reply("7", "ok").await;
    client
}

/// Returns `n` and id of the next message, which must be a replayed one.
async fn replayed(client: &mut PhoenixSocket, version: Version) -> (i64, String) {
    let message = client.expect(TOPIC, "broadcast").await;
    let join_ref = match version {
        Version::One => Value::Null,
        Version::Two => json!("7"),
    };
    assert_eq!(
        (message.join_ref, message.reference),
        (join_ref, Value::Null)
    );
    let payload = message.payload;
    assert_eq!(
        (&payload["type"], &payload["event"]),
        (&json!("broadcast"), &json!("e"))
    );
    let meta = payload["meta"].as_object().unwrap();
    assert_eq!((meta.len(), &meta["replayed"]), (2, &json!(true)));
    (
        payload["payload"]["n"].as_i64().unwrap(),
        meta["id"].as_str().unwrap().to_owned(),
    )
}

/// Expects the end of the replay. No presence follows, because no user may read presence in a room.
async fn expect_end(client: &mut PhoenixSocket) {
    client.expect_quiet().await;
}

#[tokio::test]
async fn the_newest_messages_follow_the_reply_oldest_first() {
    let small = RealtimeConfig {
        replay_max_messages: 60,
        ..config()
    };
    let (server, _database, admin) = start(small).await;
    store(&admin, 100).await;
    // These rows are not replayed: public messages, other topics, other extensions, rows without an
    // event, and rows from the future.
    admin
        .batch_execute(
            "insert into realtime.messages (topic, extension, event, private, inserted_at) values
               ('room:1', 'broadcast', 'e', false, now()), ('room:2', 'broadcast', 'e', true, now()),
               ('room:1', 'presence', 'e', true, now()), ('room:1', 'broadcast', null, true, now()),
               ('room:1', 'broadcast', 'e', true, now() + interval '1 day')",
        )
        .await
        .unwrap();
    let since_50: f64 = admin
        .query_one(
            "select (extract(epoch from inserted_at) * 1000)::float8 from realtime.messages where payload ->> 'n' = '50'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let since_50 = since_50.floor() as i64;
    // The requested replay, and the first replayed message.
    let cases = [
        (json!({"since": 0}), 76),
        (json!({"since": 0, "limit": 3}), 98),
        (json!({"since": 0, "limit": 0}), 100),
        (
            json!({"since": -9_000_000_000_000_000_000_i64, "limit": 1_000}),
            41,
        ),
        (json!({"since": since_50, "limit": 1_000}), 50),
        (json!({"since": 9_000_000_000_000_000_000_i64}), 101),
    ];
    for version in VERSIONS {
        for (replay, first) in &cases {
            let mut client = member(&server, version, replay.clone()).await;
            for n in *first..=100 {
                assert_eq!(replayed(&mut client, version).await.0, n, "{replay}");
            }
            expect_end(&mut client).await;
        }
    }
}

#[tokio::test]
async fn binary_payloads_are_replayed_only_to_version_2() {
    let (server, _database, admin) = start(config()).await;
    admin
        .batch_execute(
            "select realtime.send_binary('\\x00ff', 'raw', 'room:1');
             select realtime.send('{\"n\": 1}', 'e', 'room:1');",
        )
        .await
        .unwrap();
    for version in VERSIONS {
        let mut client = member(&server, version, json!({"since": 0})).await;
        if version == Version::Two {
            let (event, metadata, encoding, payload) = kind_4(client.frame().await, TOPIC);
            assert_eq!((&*event, encoding, &*payload), ("raw", 0, &b"\x00\xff"[..]));
            assert_eq!(metadata["replayed"], json!(true));
            assert!(metadata["id"].as_str().unwrap().parse::<Uuid>().is_ok());
        }
        assert_eq!(replayed(&mut client, version).await.0, 1);
        expect_end(&mut client).await;
    }
}

#[tokio::test]
async fn a_replayed_row_is_not_sent_again_live() {
    let (server, _database, admin) = start(config()).await;
    store(&admin, 3).await;
    for version in VERSIONS {
        let mut client = member(&server, version, json!({"since": 0, "limit": 2})).await;
        let mut without = server.client(version).await;
        let payload = join(true, Value::Null);
        without.join("7", TOPIC, payload).await;
        without.expect_reply("7", "ok").await;
        let mut ids = Vec::new();
        for n in 2..=3 {
            let (found, id) = replayed(&mut client, version).await;
            assert_eq!(found, n);
            ids.push(id);
        }
        ids.push(Uuid::new_v4().to_string());
        server.sinks.messages.send(inserted(&ids)).await.unwrap();
        let got = row(&mut client, version, TOPIC).await;
        assert_eq!(got.id, ids[2]);
        client.expect_quiet().await;
        for id in &ids {
            assert_eq!(&row(&mut without, version, TOPIC).await.id, id);
        }
        without.expect_quiet().await;
    }
}

/// Returns rows as replication delivers them.
fn inserted(ids: &[String]) -> InsertedMessages {
    let names = [
        "id",
        "topic",
        "extension",
        "event",
        "private",
        "inserted_at",
        "payload",
    ];
    let relation = Arc::new(Relation {
        oid: 1,
        table: TableName::new("realtime", "messages"),
        identity: ReplicaIdentity::Default,
        columns: names
            .map(|name| Column {
                name: name.to_owned(),
                type_oid: 25,
                type_modifier: -1,
                is_identity: false,
            })
            .into(),
    });
    let value = |text: &str| ColumnValue::Text(text.to_owned().into());
    let rows = ids
        .iter()
        .map(|id| {
            let at = "2026-11-24 10:00:00";
            let values = [id, "room:1", "broadcast", "e", "t", at, "{}"].map(value);
            (Arc::clone(&relation), Row(values.into()))
        })
        .collect();
    InsertedMessages {
        committed_at: TimestampMicros(0),
        rows,
    }
}

#[tokio::test]
async fn no_message_is_lost_or_repeated_between_replay_and_stream() {
    let stack = Stack::start(config()).await;
    // Messages are sent continuously while clients join.
    let sender = stack.database.connect().await;
    let sending = async {
        for n in 1..=300 {
            sender
                .execute(
                    "select realtime.send(jsonb_build_object('n', $1::int), 'e', 'room:1')",
                    &[&n],
                )
                .await
                .unwrap();
        }
    };
    let joining = async {
        let mut clients = Vec::new();
        for _ in 0..5 {
            for version in VERSIONS {
                let replay = json!({"since": 0, "limit": 500});
                clients.push((version, member(&stack.server, version, replay).await));
            }
        }
        clients
    };
    let ((), clients) = tokio::join!(sending, joining);
    for (version, mut client) in clients {
        let mut seen = Vec::new();
        while seen.last() != Some(&300) {
            let n = match version {
                Version::One => {
                    client.expect(TOPIC, "broadcast").await.payload["payload"]["n"].clone()
                }
                Version::Two => match client.frame().await {
                    tokio_tungstenite::tungstenite::Message::Text(text) => {
                        serde_json::from_str::<Value>(&text).unwrap()[4]["payload"]["n"].clone()
                    }
                    frame => {
                        let (_, _, _, payload) = kind_4(frame, TOPIC);
                        serde_json::from_slice::<Value>(&payload).unwrap()["n"].clone()
                    }
                },
            };
            seen.push(n.as_i64().unwrap());
        }
        assert_eq!(seen, (1..=300).collect::<Vec<_>>());
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn refused_replays_have_a_reason() {
    let (server, _database, admin) = start(config()).await;
    store(&admin, 1).await;
    let unable = |why| format!("UnableToReplayMessages: {why}");
    let cases = [
        (
            TOPIC,
            false,
            json!({"since": 0}),
            unable("Replay is not allowed for public channels"),
        ),
        (
            TOPIC,
            true,
            json!({"limit": 3}),
            unable("Replay params are not valid"),
        ),
        (
            TOPIC,
            true,
            json!({"since": "0"}),
            unable("Replay params are not valid"),
        ),
        (
            "realtime:hall:1",
            true,
            json!({"since": 0}),
            "Unauthorized: You do not have permissions to read from this Channel topic: hall:1"
                .to_owned(),
        ),
    ];
    for version in VERSIONS {
        let mut client = server.client(version).await;
        for (topic, private, replay, reason) in &cases {
            client
                .join("1", topic, join(*private, replay.clone()))
                .await;
            assert_eq!(
                client.expect_reply("1", "error").await,
                json!({"reason": reason})
            );
        }
        // On a private channel, a value that is not an object is ignored.
        client.join("2", TOPIC, join(true, json!(true))).await;
        client.expect_reply("2", "ok").await;
        expect_end(&mut client).await;
    }
    // The table has a different column than expected. Permissions can be checked, but messages
    // cannot be read.
    admin
        .batch_execute("alter table realtime.messages rename column event to occasion")
        .await
        .unwrap();
    let mut client = server.client(Version::Two).await;
    client
        .join("1", TOPIC, join(true, json!({"since": 0})))
        .await;
    assert_eq!(
        client.expect_reply("1", "error").await,
        json!({"reason": unable("Realtime was unable to replay messages")})
    );
}

#[tokio::test]
async fn a_table_without_binary_payloads_is_replayed() {
    let (server, _database, admin) = start(config()).await;
    admin
        .batch_execute("alter table realtime.messages drop column binary_payload cascade")
        .await
        .unwrap();
    store(&admin, 2).await;
    let mut client = member(&server, Version::Two, json!({"since": 0})).await;
    assert_eq!(replayed(&mut client, Version::Two).await.0, 1);
    assert_eq!(replayed(&mut client, Version::Two).await.0, 2);
    expect_end(&mut client).await;
}

#[tokio::test]
async fn a_replay_uses_only_part_of_the_sockets_queue() {
    let (server, _database, admin) = start(RealtimeConfig {
        queue_max_bytes: 5_000_000,
        ..config()
    })
    .await;
    // There are 20 messages of 100 kB, of which 12 fit into a quarter of the queue.
    admin
        .batch_execute(
            "insert into realtime.messages (topic, extension, event, payload, private, inserted_at)
             select 'room:1', 'broadcast', 'e', jsonb_build_object('n', n, 'x', repeat('x', 100000)), true,
                    (now() at time zone 'utc') - (30 - n) * interval '1 second'
             from generate_series(1, 20) n",
        )
        .await
        .unwrap();
    let mut client = member(&server, Version::Two, json!({"since": 0})).await;
    for n in 9..=20 {
        assert_eq!(replayed(&mut client, Version::Two).await.0, n);
    }
    expect_end(&mut client).await;
}
