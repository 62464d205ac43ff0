//! Tests of tables that leave the publication and return. Subscribers are notified, whatever the
//! state of the change stream.

use serde_json::{Value, json};

use super::postgres_changes::{Stack, subscribe, with_bindings};
use crate::support::socket::{PhoenixSocket, Version};

const TOPIC: &str = "realtime:notes";

fn notes() -> Value {
    json!([{"event": "*", "schema": "public", "table": "notes"}])
}

/// The notice for a table that is not published.
const REFUSED: &str = "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for \
                       the given connect parameters: [event: *, schema: public, table: notes, filters: [], select: nil]";

async fn expect_refused(client: &mut PhoenixSocket) {
    let (status, text) = client.expect_system(TOPIC).await;
    assert_eq!((&*status, &*text), ("error", REFUSED));
}

async fn expect_live(client: &mut PhoenixSocket) {
    let (status, text) = client.expect_system(TOPIC).await;
    assert_eq!((&*status, &*text), ("ok", "Subscribed to PostgreSQL"));
}

async fn expect_note(client: &mut PhoenixSocket, id: i64) {
    let message = client.expect(TOPIC, "postgres_changes").await;
    assert_eq!(message.payload["data"]["record"]["id"], id, "{message:?}");
}

/// Statements that remove a table from the publication, each with its reversal.
const WAYS: &[(&str, &str)] = &[
    (
        "alter publication supabase_realtime drop table notes",
        "alter publication supabase_realtime add table notes",
    ),
    (
        "create table others (id int primary key); alter publication supabase_realtime set table others",
        "alter publication supabase_realtime add table notes; drop table others",
    ),
    (
        "alter table notes rename to papers",
        "alter table papers rename to notes",
    ),
    (
        "create schema attic; alter table notes set schema attic",
        "alter table attic.notes set schema public; drop schema attic",
    ),
    (
        "drop table notes",
        "create table notes (id int8 primary key, owner uuid, text text);
         grant select on notes to anon, authenticated;
         alter publication supabase_realtime add table notes",
    ),
    (
        "drop publication supabase_realtime",
        "create publication supabase_realtime for table notes",
    ),
];

#[tokio::test]
async fn subscribers_are_notified_when_a_table_leaves_and_returns() {
    let stack = Stack::start("").await;
    let mut client = stack.server.client(Version::Two).await;
    subscribe(&mut client, "1", TOPIC, with_bindings(&notes())).await;
    for (id, (leave, come_back)) in (1..).zip(WAYS) {
        // No row is changed in the meantime.
        stack.run(leave).await;
        expect_refused(&mut client).await;
        // A new join receives the same notice and also waits.
        let mut late = stack.server.client(Version::Two).await;
        late.join("1", TOPIC, with_bindings(&notes())).await;
        late.expect_reply("1", "ok").await;
        expect_refused(&mut late).await;

        stack.run(come_back).await;
        expect_live(&mut client).await;
        expect_live(&mut late).await;
        if leave.contains("drop publication") {
            // Rows written before the stream reads the new publication are not delivered. Nothing
            // signals when the stream begins to read it.
            continue;
        }
        stack.run(&format!("insert into notes values ({id})")).await;
        expect_note(&mut client, id).await;
        expect_note(&mut late, id).await;
    }
}

#[tokio::test]
async fn a_missing_table_suspends_all_bindings_of_a_channel() {
    let stack = Stack::start(
        "create table tasks (id int8 primary key); grant select on tasks to anon;
         alter publication supabase_realtime add table tasks",
    )
    .await;
    let mut client = stack.server.client(Version::Two).await;
    let both = json!([
        {"event": "*", "schema": "public", "table": "tasks"},
        {"event": "*", "schema": "public", "table": "notes"},
    ]);
    subscribe(&mut client, "1", TOPIC, with_bindings(&both)).await;
    let everything = json!([{"event": "*", "schema": "public"}]);
    let all = "realtime:all";
    subscribe(&mut client, "2", all, with_bindings(&everything)).await;
    stack
        .run("alter publication supabase_realtime drop table notes")
        .await;
    expect_refused(&mut client).await;
    // The channel with a binding on `notes` receives no changes of `tasks` either, as after a
    // refused join. A binding without a table name continues with the remaining tables.
    stack.run("insert into tasks values (1)").await;
    let message = client.expect(all, "postgres_changes").await;
    assert_eq!(message.payload["data"]["record"]["id"], 1);
    client.expect_quiet().await;
    stack
        .run("alter publication supabase_realtime drop table tasks")
        .await;
    let (status, text) = client.expect_system(all).await;
    assert_eq!(status, "error");
    assert!(
        text.contains("[event: *, schema: public, table: *,"),
        "{text}"
    );

    stack
        .run("alter publication supabase_realtime add table tasks")
        .await;
    let (status, _) = client.expect_system(all).await;
    assert_eq!(status, "ok");
    stack
        .run("alter publication supabase_realtime add table notes")
        .await;
    expect_live(&mut client).await;
    stack.run("insert into notes values (2)").await;
    let mut heard = vec![client.receive().await.topic, client.receive().await.topic];
    heard.sort();
    assert_eq!(heard, [all, TOPIC]);
}

#[tokio::test]
async fn a_waiting_channel_gets_no_stream_notices_and_can_leave() {
    let stack = Stack::start(
        "create table tasks (id int8 primary key); grant select on tasks to anon;
         alter publication supabase_realtime add table tasks",
    )
    .await;
    let mut client = stack.server.client(Version::Two).await;
    subscribe(&mut client, "1", TOPIC, with_bindings(&notes())).await;
    stack
        .run("alter publication supabase_realtime drop table notes")
        .await;
    expect_refused(&mut client).await;
    let tasks = json!([{"event": "*", "schema": "public", "table": "tasks"}]);
    subscribe(&mut client, "2", "realtime:tasks", with_bindings(&tasks)).await;
    stack
        .run(
            "select pg_terminate_backend(active_pid) from pg_replication_slots
             where database = current_database() and active_pid is not null",
        )
        .await;
    for expected in ["error", "ok"] {
        let (status, text) = client.expect_system("realtime:tasks").await;
        assert_eq!(status, expected, "{text}");
    }
    client.expect_quiet().await;

    client
        .push(json!("1"), "3", TOPIC, "phx_leave", json!({}))
        .await;
    client.expect_reply("3", "ok").await;
    client.expect(TOPIC, "phx_close").await;
    let mut other = stack.server.client(Version::Two).await;
    other.join("1", TOPIC, with_bindings(&notes())).await;
    other.expect_reply("1", "ok").await;
    expect_refused(&mut other).await;
    stack
        .run("alter publication supabase_realtime add table notes")
        .await;
    expect_live(&mut other).await;
    assert_eq!(stack.server.visibility.subscribed_channels(), 2);
    client.expect_quiet().await;
}
