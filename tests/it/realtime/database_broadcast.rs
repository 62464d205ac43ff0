//! Tests of broadcasts from the database, by functions, triggers and plain inserts, to sockets of
//! both versions.

use rapport::change::StreamEvent;
use rapport::config::RealtimeConfig;
use rapport::replication::Replication;
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{Server, config, replicate};
use crate::support::database::TestDatabase;
use crate::support::slot::kill_walsender;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};
use crate::support::token::user_token;

/// Policies that grant permissions by the name of the topic.
const POLICIES: &str = "
create policy \"people listen\" on realtime.messages for select to authenticated
  using (realtime.topic() like 'room:%' and (extension = 'broadcast' or realtime.topic() = 'room:presence'));
create policy \"people look\" on realtime.messages for select to authenticated
  using (realtime.topic() = 'look:1' and extension = 'presence');
create policy \"people send\" on realtime.messages for insert to authenticated
  with check (realtime.topic() = 'room:1');
";

/// A server on a separate database with the schema. Broadcasts from the database are live.
pub(super) struct Stack {
    pub server: Server,
    pub admin: Client,
    pub database: TestDatabase,
    _replication: Replication,
}

impl Stack {
    pub(super) async fn start(config: RealtimeConfig) -> Self {
        let database = TestDatabase::new().await;
        let admin = database.connect().await;
        admin.batch_execute(POLICIES).await.unwrap();
        let server = Server::start_over(config, database.url()).await;
        let replication = replicate(&server, database.url()).await;
        Self {
            server,
            admin,
            database,
            _replication: replication,
        }
    }

    pub(super) async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    /// Connects a user and joins a topic.
    pub(super) async fn member(
        &self,
        version: Version,
        topic: &str,
        private: bool,
    ) -> PhoenixSocket {
        let mut client = self.server.client(version).await;
        client.join("1", topic, join(private)).await;
        client.expect_reply("1", "ok").await;
        client
    }
}

pub(super) fn join(private: bool) -> Value {
    json!({
        "config": { "private": private, "presence": { "enabled": false } },
        "access_token": user_token(Uuid::new_v4()),
    })
}

/// A row as a member receives it.
#[derive(Debug, PartialEq)]
pub(super) struct Got {
    pub id: String,
    pub event: String,
    pub payload: Value,
}

/// Receives the next message, which must be a row of the database: kind 4 in version 2, text in
/// version 1.
pub(super) async fn row(client: &mut PhoenixSocket, version: Version, topic: &str) -> Got {
    match version {
        Version::One => {
            let message = client.expect(topic, "broadcast").await;
            let payload = message.payload;
            assert_eq!(payload["type"], "broadcast");
            assert_eq!(payload["meta"].as_object().unwrap().len(), 1, "{payload}");
            Got {
                id: payload["meta"]["id"].as_str().unwrap().to_owned(),
                event: payload["event"].as_str().unwrap().to_owned(),
                payload: payload["payload"].clone(),
            }
        }
        Version::Two => {
            let (event, metadata, encoding, payload) = kind_4(client.frame().await, topic);
            assert_eq!(metadata.as_object().unwrap().len(), 1, "{metadata}");
            Got {
                id: metadata["id"].as_str().unwrap().to_owned(),
                event,
                payload: match encoding {
                    1 => serde_json::from_slice(&payload).unwrap(),
                    _ => json!(payload),
                },
            }
        }
    }
}

/// Returns event, metadata, encoding and payload of a binary broadcast.
pub(super) fn kind_4(frame: Message, topic: &str) -> (String, Value, u8, Vec<u8>) {
    let Message::Binary(bytes) = frame else {
        panic!("expected a binary frame, got {frame:?}");
    };
    let [
        4,
        topic_length,
        event_length,
        metadata_length,
        encoding,
        rest @ ..,
    ] = &*bytes
    else {
        panic!("not of kind 4: {bytes:?}");
    };
    let (found, rest) = rest.split_at(usize::from(*topic_length));
    assert_eq!(found, topic.as_bytes());
    let (event, rest) = rest.split_at(usize::from(*event_length));
    let (metadata, payload) = rest.split_at(usize::from(*metadata_length));
    (
        String::from_utf8(event.to_vec()).unwrap(),
        serde_json::from_slice(metadata).unwrap(),
        *encoding,
        payload.to_vec(),
    )
}

#[tokio::test]
async fn rows_reach_the_members_of_their_topic_in_the_form_of_their_version() {
    let stack = Stack::start(config()).await;
    for version in VERSIONS {
        let mut public = stack.member(version, "realtime:room:1", false).await;
        let mut private = stack.member(version, "realtime:room:1", true).await;
        let mut elsewhere = stack.member(version, "realtime:room:2", true).await;
        stack
            .run("select realtime.send('{\"a\": 1}', 'hi', 'room:1', false)")
            .await;
        let got = row(&mut public, version, "realtime:room:1").await;
        assert_eq!(got.event, "hi");
        assert_eq!(got.payload, json!({"a": 1, "id": got.id}));
        // The function sends private messages by default.
        stack
            .run("select realtime.send('{\"id\": 7}', 'hi', 'room:1')")
            .await;
        let got = row(&mut private, version, "realtime:room:1").await;
        assert_eq!(got.payload, json!({"id": 7}));
        let id = Uuid::new_v4();
        stack
            .run(&format!(
                "insert into realtime.messages (id, topic, extension, event, payload, private)
                 values ('{id}', 'room:1', 'broadcast', 'direct', '[1, \"ä\\n\"]', true)"
            ))
            .await;
        let got = row(&mut private, version, "realtime:room:1").await;
        assert_eq!(
            got,
            Got {
                id: id.to_string(),
                event: "direct".to_owned(),
                payload: json!([1, "ä\n"]),
            }
        );
        stack
            .run("select realtime.send_binary('\\x00ff7b', 'raw', 'room:1')")
            .await;
        if version == Version::Two {
            let got = row(&mut private, version, "realtime:room:1").await;
            assert_eq!((&*got.event, got.payload), ("raw", json!([0, 255, 0x7b])));
        }
        // Version 1 has no form for binary messages.
        stack
            .run("select realtime.send('{}', 'last', 'room:1')")
            .await;
        let got = row(&mut private, version, "realtime:room:1").await;
        assert_eq!(got.event, "last");
        for client in [&mut public, &mut private, &mut elsewhere] {
            client.expect_quiet().await;
        }
    }
}

#[tokio::test]
async fn a_member_with_permission_for_presence_only_receives_no_broadcasts() {
    let stack = Stack::start(config()).await;
    let mut looks = stack.server.client(Version::Two).await;
    let payload = json!({
        "config": {"private": true, "presence": {"enabled": true}},
        "access_token": user_token(Uuid::new_v4()),
    });
    looks.join("1", "realtime:look:1", payload).await;
    looks.expect_reply("1", "ok").await;
    looks.expect("realtime:look:1", "presence_state").await;
    let mut listens = stack.member(Version::Two, "realtime:room:1", true).await;
    stack
        .run(
            "select realtime.send('{}', 'hi', 'look:1');
             select realtime.send('{}', 'hi', 'room:1');",
        )
        .await;
    row(&mut listens, Version::Two, "realtime:room:1").await;
    looks.expect_quiet().await;
}

/// Ana inserts a row of the extension `presence`. A policy of the chat allows it, because she may
/// track presence in her conversation. The row is still not broadcast.
#[tokio::test]
async fn rows_of_other_extensions_are_not_broadcast() {
    const ANA: &str = "00000000-0000-4000-8000-00000000000a";
    const BEN: &str = "00000000-0000-4000-8000-00000000000b";
    let stack = Stack::start(config()).await;
    let conversation: Uuid = stack
        .admin
        .query_one(
            &format!(
                "insert into user_conversations (participant_1_id, participant_2_id) values ('{ANA}', '{BEN}') returning id"
            ),
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let topic = format!("realtime:conversation:{conversation}");
    let mut ben = stack.server.client(Version::Two).await;
    let payload = json!({
        "config": { "private": true, "presence": { "enabled": false } },
        "access_token": user_token(BEN.parse().unwrap()),
    });
    ben.join("1", &topic, payload).await;
    ben.expect_reply("1", "ok").await;
    let claims = json!({"sub": ANA, "role": "authenticated"});
    stack
        .run(&format!(
            "begin;
             set local role authenticated;
             select set_config('request.jwt.claims', '{claims}', true),
               set_config('realtime.topic', 'conversation:{conversation}', true);
             insert into realtime.messages (topic, extension, event, payload, private)
             values ('conversation:{conversation}', 'presence', 'forged', '{{}}', true);
             commit;
             select realtime.send('{{}}', 'genuine', 'conversation:{conversation}');"
        ))
        .await;
    let got = row(&mut ben, Version::Two, &topic).await;
    assert_eq!(got.event, "genuine");
}

#[tokio::test]
async fn a_trigger_sends_what_the_policies_allow_the_user_of_the_statement() {
    let stack = Stack::start(config()).await;
    stack
        .run(
            "create table things (id int primary key, topic text);
             grant all on things to authenticated;
             create function tell() returns trigger language plpgsql as $$
             begin
               perform realtime.broadcast_changes(coalesce(new.topic, old.topic), tg_op, tg_op,
                 tg_table_name, tg_table_schema, new, old, tg_level);
               return null;
             end
             $$;
             create trigger tell after insert or update or delete on things
               for each row execute function tell();",
        )
        .await;
    let topic = "realtime:room:1";
    let mut one = stack.member(Version::One, topic, true).await;
    let mut two = stack.member(Version::Two, topic, true).await;
    let mut refused = stack.member(Version::Two, "realtime:room:2", true).await;
    let claims = json!({"sub": Uuid::new_v4(), "role": "authenticated"});
    stack
        .run(&format!(
            "begin;
             set local role authenticated;
             select set_config('request.jwt.claims', '{claims}', true);
             insert into things values (1, 'room:1'), (2, 'room:2');
             update things set id = 3 where id = 1;
             delete from things where id = 3;
             commit;"
        ))
        .await;
    let thing = |id| json!({"id": id, "topic": "room:1"});
    for (client, version) in [(&mut one, Version::One), (&mut two, Version::Two)] {
        for (operation, record, old_record) in [
            ("INSERT", thing(1), Value::Null),
            ("UPDATE", thing(3), thing(1)),
            ("DELETE", Value::Null, thing(3)),
        ] {
            let got = row(client, version, topic).await;
            assert_eq!(got.event, operation);
            assert_eq!(
                got.payload,
                json!({
                    "schema": "public", "table": "things", "operation": operation,
                    "record": record, "old_record": old_record, "id": got.id,
                })
            );
        }
    }
    refused.expect_quiet().await;
}

#[tokio::test]
async fn rows_of_a_transaction_arrive_in_order_and_none_after_a_rollback() {
    let stack = Stack::start(config()).await;
    let topic = "realtime:room:1";
    let mut one = stack.member(Version::One, topic, true).await;
    let mut two = stack.member(Version::Two, topic, true).await;
    stack
        .run(
            "begin;
             select realtime.send('{}', 'never', 'room:1');
             rollback;
             select count(realtime.send(jsonb_build_object('n', n), 'n', 'room:1')::text) from generate_series(1, 1000) n;",
        )
        .await;
    for (client, version) in [(&mut one, Version::One), (&mut two, Version::Two)] {
        for n in 1..=1000 {
            let got = row(client, version, topic).await;
            assert_eq!(got.payload["n"], n);
        }
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn rows_that_cannot_be_broadcast_are_counted_and_skipped() {
    let stack = Stack::start(RealtimeConfig {
        max_broadcast_bytes: 1_000,
        ..config()
    })
    .await;
    let topic = "realtime:room:1";
    let mut client = stack.member(Version::Two, topic, true).await;
    stack
        .run(
            "insert into realtime.messages (topic, extension, event, private)
               values ('room:1', 'broadcast', null, true), ('room:1', 'broadcast', 'e', null),
                      ('room:1', 'broadcast', repeat('x', 256), true), (repeat('x', 256), 'broadcast', 'e', true);
             select realtime.send(jsonb_build_object('x', repeat('x', 1000)), 'large', 'room:1');
             select realtime.send_binary(decode(repeat('00', 1001), 'hex'), 'large', 'room:1');
             select realtime.send_binary(decode(repeat('00', 1000), 'hex'), 'fits', 'room:1');",
        )
        .await;
    let got = row(&mut client, Version::Two, topic).await;
    assert_eq!(got.event, "fits");
    client.expect_quiet().await;
    let metrics = &stack.server.metrics;
    assert_eq!(metrics.database_broadcasts_refused.get(), 6);
    assert_eq!(metrics.database_broadcasts.get(), 1);
}

#[tokio::test]
async fn a_broadcast_does_not_wait_for_a_check_of_a_row_change() {
    let stack = Stack::start(config()).await;
    // The policy of the row change cannot be evaluated until this test releases the lock.
    stack
        .run(
            "create table gate (open bool);
             create function is_open() returns boolean language plpgsql volatile security definer as
               $$ begin lock table public.gate in access share mode; return true; end $$;
             create table slow (id int primary key);
             alter table slow enable row level security;
             create policy slow on slow for select to authenticated using (is_open());
             grant select on slow to authenticated;
             alter publication supabase_realtime add table slow;",
        )
        .await;
    let topic = "realtime:room:1";
    let mut client = stack.server.client(Version::Two).await;
    let mut payload = join(true);
    payload["config"]["postgres_changes"] =
        json!([{"event": "INSERT", "schema": "public", "table": "slow"}]);
    client.join("1", topic, payload).await;
    client.expect_reply("1", "ok").await;
    assert_eq!(
        client.expect_system(topic).await.1,
        "Subscribed to PostgreSQL"
    );
    let mut keeper = stack.database.connect().await;
    let held = keeper.transaction().await.unwrap();
    held.batch_execute("lock table public.gate in access exclusive mode")
        .await
        .unwrap();
    stack
        .run(
            "begin;
             insert into slow values (1);
             select realtime.send('{}', 'quick', 'room:1');
             commit;",
        )
        .await;
    let got = row(&mut client, Version::Two, topic).await;
    assert_eq!(got.event, "quick");
    held.rollback().await.unwrap();
    let change = client.expect(topic, "postgres_changes").await;
    assert_eq!(change.payload["data"]["record"]["id"], 1);
}

#[tokio::test]
async fn rows_arrive_once_although_walsenders_are_killed() {
    let stack = Stack::start(config()).await;
    let topic = "realtime:room:1";
    let mut client = stack.member(Version::Two, topic, false).await;
    for round in 0..4 {
        stack
            .run(&format!(
                "select count(realtime.send(jsonb_build_object('n', {round} * 500 + n), 'n', 'room:1', false)::text)
                 from generate_series(1, 500) n"
            ))
            .await;
        kill_walsender(&stack.admin).await;
    }
    for n in 1..=2000 {
        let got = row(&mut client, Version::Two, topic).await;
        assert_eq!(got.payload["n"], n);
    }
    client.expect_quiet().await;
}

#[tokio::test]
async fn the_table_of_messages_never_causes_row_changes() {
    let stack = Stack::start(config()).await;
    stack
        .run("alter publication supabase_realtime add table realtime.messages")
        .await;
    let topic = "realtime:room:1";
    let mut client = stack.server.client(Version::Two).await;
    let mut payload = join(false);
    payload["config"]["postgres_changes"] =
        json!([{"event": "INSERT", "schema": "realtime", "table": "messages"}]);
    client.join("1", topic, payload).await;
    client.expect_reply("1", "ok").await;
    let (status, text) = client.expect_system(topic).await;
    assert_eq!(status, "error", "{text}");
    stack
        .run("select realtime.send('{}', 'hi', 'room:1', false)")
        .await;
    let got = row(&mut client, Version::Two, topic).await;
    assert_eq!(got.event, "hi");
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_channel_can_ask_for_a_notice_when_messages_are_live() {
    let database = TestDatabase::new().await;
    let server = Server::start_over(config(), database.url()).await;
    server.sinks.changes.send(StreamEvent::Live).await.unwrap();
    let topic = "realtime:room:1";
    let mut clients = Vec::new();
    for version in VERSIONS {
        let mut client = server.client(version).await;
        let mut payload = join(false);
        payload["config"]["broadcast"] = json!({"replication_ready": true});
        client.join("1", topic, payload).await;
        client.expect_reply("1", "ok").await;
        client.expect_quiet().await;
        clients.push(client);
    }
    server.sinks.messages_live.send_replace(true);
    for client in &mut clients {
        let heard = client.expect_system(topic).await;
        assert_eq!(
            heard,
            (
                "ok".to_owned(),
                "Replication connection established".to_owned()
            )
        );
        client.expect_quiet().await;
    }
}
