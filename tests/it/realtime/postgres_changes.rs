//! Tests of row changes, from the database to the clients that may see them.

use rapport::change::StreamEvent;
use rapport::config::{RealtimeConfig, VisibilityConfig};
use rapport::observability::metrics::{CloseLabel, Limit};
use rapport::replication::Replication;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{Server, config, replicate};
use crate::support::chaos::ChaosProxy;
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};
use crate::support::supabase::{AUTH, ROLES, create_roles};
use crate::support::token::{mint, user_claims, user_token};
use crate::visibility::bench::strict;

/// A table of the application, readable by all users and published.
const NOTES: &str = "
create publication supabase_realtime;
create table notes (id int8 primary key, owner uuid, text text);
grant select on notes to anon, authenticated;
alter publication supabase_realtime add table notes;
";

async fn set_up(admin: &Client) {
    create_roles(admin, ROLES).await;
    admin.batch_execute(AUTH).await.unwrap();
    admin.batch_execute(NOTES).await.unwrap();
}

/// A policy under which a note is visible only to its owner.
const OWN_NOTES: &str = "
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = auth.uid());
";

/// A server on a separate database, with a live change stream.
pub(super) struct Stack {
    pub(super) server: Server,
    pub(super) admin: Client,
    /// The connection string of the database.
    pub(super) url: String,
    _replication: Replication,
    _database: TestDatabase,
}

impl Stack {
    pub(super) async fn start(sql: &str) -> Self {
        let database = TestDatabase::bare().await;
        let url = database.url().to_owned();
        Self::start_through(database, &url, sql).await
    }

    /// Like [`Self::start`], but the server connects to the database through `url`.
    async fn start_through(database: TestDatabase, url: &str, sql: &str) -> Self {
        Self::start_with(config(), database, url, sql).await
    }

    /// Like [`Self::start_through`], with custom limits.
    async fn start_with(
        config: RealtimeConfig,
        database: TestDatabase,
        url: &str,
        sql: &str,
    ) -> Self {
        Self::start_with_settings(config, &strict(), database, url, sql).await
    }

    /// Like [`Self::start`], with custom visibility settings.
    pub(super) async fn start_with_visibility(visibility: &VisibilityConfig, sql: &str) -> Self {
        let database = TestDatabase::bare().await;
        let url = database.url().to_owned();
        Self::start_with_settings(config(), visibility, database, &url, sql).await
    }

    async fn start_with_settings(
        config: RealtimeConfig,
        visibility: &VisibilityConfig,
        database: TestDatabase,
        url: &str,
        sql: &str,
    ) -> Self {
        let admin = database.connect().await;
        set_up(&admin).await;
        admin.batch_execute(sql).await.unwrap();
        let server = Server::start_with_settings(config, visibility, url).await;
        let replication = replicate(&server, url).await;
        Self {
            server,
            admin,
            url: database.url().to_owned(),
            _replication: replication,
            _database: database,
        }
    }

    pub(super) async fn run(&self, sql: &str) {
        self.admin.batch_execute(sql).await.unwrap();
    }

    /// Returns the major version of PostgreSQL.
    pub(super) async fn version(&self) -> i32 {
        let sql = "select current_setting('server_version_num')::int / 10000";
        self.admin.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Runs a statement that PostgreSQL refuses, and returns the error text.
    pub(super) async fn refused(&self, sql: &str) -> String {
        let refused = self.admin.batch_execute(sql).await.unwrap_err();
        refused.as_db_error().unwrap().message().to_owned()
    }
}

/// Returns the payload of a join that requests only these bindings.
pub(super) fn with_bindings(bindings: &Value) -> Value {
    json!({"config": {"presence": {"enabled": false}, "postgres_changes": bindings}})
}

fn all_notes() -> Value {
    json!([{"event": "*", "schema": "public", "table": "notes"}])
}

const LIVE: (&str, &str) = ("ok", "Subscribed to PostgreSQL");

async fn expect_live(client: &mut PhoenixSocket, topic: &str) {
    let (status, text) = client.expect_system(topic).await;
    assert_eq!((&*status, &*text), LIVE);
}

/// Joins with bindings and waits for the notice that changes are live. Returns the ids of the
/// bindings.
pub(super) async fn subscribe(
    client: &mut PhoenixSocket,
    reference: &str,
    topic: &str,
    payload: Value,
) -> Vec<Value> {
    client.join(reference, topic, payload).await;
    let response = client.expect_reply(reference, "ok").await;
    expect_live(client, topic).await;
    let bindings = response["postgres_changes"].as_array().unwrap();
    bindings
        .iter()
        .map(|binding| binding["id"].clone())
        .collect()
}

#[tokio::test]
async fn rows_committed_after_the_reply_arrive_in_commit_order() {
    let stack = Stack::start("alter table notes replica identity full;").await;
    for version in VERSIONS {
        let mut client = stack.server.client(version).await;
        let bindings = json!([
            {"event": "*", "schema": "public", "table": "notes", "n": 1.50},
            {"event": "INSERT", "schema": "public", "table": "notes"},
            {"event": "DELETE", "schema": "public", "table": "other"},
            {"event": "*", "schema": "public", "table": "notes", "filter": "id=eq.2"},
        ]);
        client
            .join("1", "realtime:notes", with_bindings(&bindings))
            .await;
        let response = client.expect_reply("1", "ok").await;
        // One binding names a table that is not published, so none of the bindings is registered.
        let (status, text) = client.expect_system("realtime:notes").await;
        assert_eq!(status, "error");
        assert!(
            text.starts_with("Unable to subscribe to changes with given parameters. "),
            "{text}"
        );
        let mut echoed = response["postgres_changes"].clone();
        for binding in echoed.as_array_mut().unwrap() {
            let id = binding.as_object_mut().unwrap().remove("id").unwrap();
            assert!(id.as_u64().unwrap() > 0);
        }
        assert_eq!(echoed, bindings, "bindings are echoed unchanged");

        let mut bindings = bindings;
        bindings.as_array_mut().unwrap().remove(2);
        client
            .join("2", "realtime:notes", with_bindings(&bindings))
            .await;
        let response = client.expect_reply("2", "ok").await;
        // These rows are committed before the client knows that it is subscribed.
        stack
            .run("insert into notes values (1, null, 'ä'); insert into notes values (2, null, 'b')")
            .await;
        stack.run("update notes set text = 'c' where id = 2").await;
        stack.run("delete from notes").await;
        client.expect("realtime:notes", "phx_close").await;
        expect_live(&mut client, "realtime:notes").await;
        let id = |at: usize| response["postgres_changes"][at]["id"].as_u64().unwrap();
        let sorted = |ids: &[usize]| {
            let mut ids: Vec<_> = ids.iter().map(|at| id(*at)).collect();
            ids.sort_unstable();
            json!(ids)
        };
        let row = |id: i32, text: &str| json!({"id": id, "owner": null, "text": text});
        let expected = [
            ("INSERT", sorted(&[0, 1]), row(1, "ä"), Value::Null),
            ("INSERT", sorted(&[0, 1, 2]), row(2, "b"), Value::Null),
            ("UPDATE", sorted(&[0, 2]), row(2, "c"), row(2, "b")),
            ("DELETE", sorted(&[0]), Value::Null, row(1, "ä")),
            ("DELETE", sorted(&[0, 2]), Value::Null, row(2, "c")),
        ];
        for (kind, ids, record, old_record) in expected {
            let message = client.expect("realtime:notes", "postgres_changes").await;
            let data = &message.payload["data"];
            assert_eq!(message.payload["ids"], ids, "{data}");
            assert_eq!(data["type"], kind);
            assert_eq!(data["record"], record);
            assert_eq!(data["old_record"], old_record);
        }
    }
}

#[tokio::test]
async fn rows_reach_the_clients_that_may_see_them_after_a_new_token_too() {
    let stack = Stack::start(OWN_NOTES).await;
    let (ann, bob) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut client = stack.server.client(Version::Two).await;
    let mut payload = with_bindings(&all_notes());
    payload["access_token"] = user_token(ann).into();
    subscribe(&mut client, "1", "realtime:notes", payload).await;
    stack
        .run(&format!(
            "insert into notes values (1, '{bob}', 'of bob'), (2, '{ann}', 'of ann')"
        ))
        .await;
    let message = client.expect("realtime:notes", "postgres_changes").await;
    assert_eq!(message.payload["data"]["record"]["id"], 2);
    client
        .push(
            json!("1"),
            "2",
            "realtime:notes",
            "access_token",
            json!({"access_token": user_token(bob)}),
        )
        .await;
    expect_live(&mut client, "realtime:notes").await;
    stack
        .run(&format!(
            "insert into notes values (3, '{ann}', 'of ann'), (4, '{bob}', 'of bob')"
        ))
        .await;
    let message = client.expect("realtime:notes", "postgres_changes").await;
    assert_eq!(message.payload["data"]["record"]["id"], 4);
    client
        .push(json!("1"), "3", "realtime:notes", "phx_leave", json!({}))
        .await;
    client.expect_reply("3", "ok").await;
    client.expect("realtime:notes", "phx_close").await;
    stack
        .run(&format!("insert into notes values (5, '{bob}', 'of bob')"))
        .await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_new_token_that_cannot_subscribe_ends_the_subscription() {
    let stack = Stack::start(OWN_NOTES).await;
    let ann = uuid::Uuid::new_v4();
    let mut payload = with_bindings(&all_notes());
    payload["access_token"] = user_token(ann).into();
    let mut witness = stack.server.client(Version::Two).await;
    subscribe(&mut witness, "1", "realtime:notes", payload.clone()).await;
    let mut client = stack.server.client(Version::Two).await;
    subscribe(&mut client, "1", "realtime:notes", payload).await;
    let mut claims = user_claims(uuid::Uuid::new_v4());
    claims["role"] = "nobody_of_this_name".into();
    client
        .push(
            json!("1"),
            "2",
            "realtime:notes",
            "access_token",
            json!({"access_token": mint(&claims)}),
        )
        .await;
    let (status, text) = client.expect_system("realtime:notes").await;
    assert_eq!(status, "error");
    assert!(text.contains("does not exist"), "{text}");
    stack
        .run(&format!("insert into notes values (1, '{ann}', 'of ann')"))
        .await;
    witness.expect("realtime:notes", "postgres_changes").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_filter_follows_a_change_of_its_columns_type() {
    let stack = Stack::start("").await;
    let mut client = stack.server.client(Version::Two).await;
    let binding =
        json!({"event": "*", "schema": "public", "table": "notes", "filter": "text=eq.a"});
    let topic = "realtime:notes";
    subscribe(&mut client, "1", topic, with_bindings(&json!([binding]))).await;
    for (number, column_type) in (1..).zip(["varchar(9)", "char(3)", "text"]) {
        stack
            .run(&format!(
                "alter table notes alter column text type {column_type};
                 insert into notes values ({number}, null, 'a')"
            ))
            .await;
        let message = client.expect(topic, "postgres_changes").await;
        assert_eq!(message.payload["data"]["record"]["id"], number);
    }
    // A filter that no longer fits is reported.
    stack
        .run(
            "alter table notes drop column text;
             alter table notes add column text int;
             insert into notes values (9, null, 1)",
        )
        .await;
    let (status, text) = client.expect_system(topic).await;
    assert_eq!(status, "error");
    assert!(
        text.contains("invalid input syntax for type integer"),
        "{text}"
    );
}

#[tokio::test]
async fn a_join_without_config_gets_the_old_shape() {
    let stack = Stack::start("").await;
    for (version, number) in VERSIONS.into_iter().zip(1..) {
        let mut client = stack.server.client(version).await;
        let topic = "realtime:public:notes";
        subscribe(&mut client, "1", topic, json!({})).await;
        stack
            .run(&format!("insert into notes values ({number}, null, 'x')"))
            .await;
        let message = client.expect(topic, "INSERT").await;
        assert_eq!(message.payload["record"]["id"], number);
        assert_eq!(message.payload["type"], "INSERT");
        assert_eq!(message.payload["ids"], Value::Null);
        stack
            .run(&format!("delete from notes where id = {number}"))
            .await;
        let message = client.expect(topic, "DELETE").await;
        assert_eq!(message.payload["old_record"]["id"], number);
    }
}

#[tokio::test]
async fn large_integers_are_strings_on_request() {
    let stack = Stack::start("").await;
    let mut client = stack.server.client(Version::Two).await;
    let mut payload = with_bindings(&all_notes());
    payload["config"]["postgres_changes_options"] = json!({"bigint": "string"});
    subscribe(&mut client, "1", "realtime:exact", payload).await;
    stack
        .run("insert into notes values (9007199254740993, null, 'x')")
        .await;
    let message = client.expect("realtime:exact", "postgres_changes").await;
    assert_eq!(message.payload["data"]["record"]["id"], "9007199254740993");
}

#[tokio::test]
async fn changes_of_the_streams_state_are_reported_in_order() {
    let stack = Stack::start("").await;
    let mut client = stack.server.client(Version::Two).await;
    let notes = with_bindings(&all_notes());
    subscribe(&mut client, "1", "realtime:notes", notes).await;
    client
        .join("2", "realtime:plain", super::plain_join())
        .await;
    client.expect_reply("2", "ok").await;
    for event in [
        StreamEvent::Interrupted,
        StreamEvent::Gap,
        StreamEvent::Live,
    ] {
        stack.server.sinks.changes.send(event).await.unwrap();
    }
    for expected in ["error", "error"] {
        let (status, text) = client.expect_system("realtime:notes").await;
        assert_eq!(status, expected, "{text}");
    }
    expect_live(&mut client, "realtime:notes").await;
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_join_before_the_stream_is_live_is_notified_later() {
    let database = TestDatabase::bare().await;
    set_up(&database.connect().await).await;
    let server = Server::start_over(config(), database.url()).await;
    let mut client = server.client(Version::Two).await;
    client
        .join("1", "realtime:notes", with_bindings(&all_notes()))
        .await;
    client.expect_reply("1", "ok").await;
    let (status, _) = client.expect_system("realtime:notes").await;
    assert_eq!(status, "error");
    let mut waiting = with_bindings(&all_notes());
    waiting["config"]["postgres_changes_options"] = json!({"wait": true});
    client.join("2", "realtime:waiting", waiting).await;
    client.expect_quiet().await;
    server.sinks.changes.send(StreamEvent::Live).await.unwrap();
    // The two topics may be notified in either order.
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let message = client.receive().await;
        heard.push((
            message.topic,
            message.event,
            message.payload["status"].clone(),
        ));
    }
    let entry = |topic: &str, event: &str| (topic.to_owned(), event.to_owned(), json!("ok"));
    assert!(
        heard.contains(&entry("realtime:notes", "system")),
        "{heard:?}"
    );
    let place = |event: &str| {
        let entry = entry("realtime:waiting", event);
        heard.iter().position(|it| *it == entry)
    };
    assert!(
        place("phx_reply").unwrap() < place("system").unwrap(),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_join_during_an_outage_is_subscribed_after_it() {
    let database = TestDatabase::bare().await;
    let (proxy, url) = ChaosProxy::before(database.url()).await;
    let stack = Stack::start_through(database, &url, "").await;
    proxy.refuse(true);
    proxy.cut();
    let mut client = stack.server.client(Version::Two).await;
    client
        .join("1", "realtime:notes", with_bindings(&all_notes()))
        .await;
    client.expect_reply("1", "ok").await;
    let (status, _) = client.expect_system("realtime:notes").await;
    assert_eq!(status, "error");
    // Joins of public channels work during the outage.
    client
        .join("2", "realtime:plain", super::plain_join())
        .await;
    client.expect_reply("2", "ok").await;
    proxy.refuse(false);
    // One more error notice may precede the success notice.
    while client.expect_system("realtime:notes").await.0 != "ok" {}
    stack.run("insert into notes values (1, null, 'x')").await;
    loop {
        let message = client.receive().await;
        if message.event == "postgres_changes" {
            assert_eq!(message.payload["data"]["record"]["id"], 1);
            break;
        }
        assert_eq!(message.event, "system", "{message:?}");
    }
}

#[tokio::test]
async fn a_dead_network_does_not_block_a_socket() {
    let database = TestDatabase::bare().await;
    let (proxy, url) = ChaosProxy::before(database.url()).await;
    let stack = Stack::start_through(database, &url, "").await;
    proxy.pause();
    let mut client = stack.server.client(Version::Two).await;
    client
        .join("1", "realtime:notes", with_bindings(&all_notes()))
        .await;
    client
        .push(json!("1"), "2", "realtime:notes", "presence", json!({}))
        .await;
    client
        .join("3", "realtime:plain", super::plain_join())
        .await;
    client.expect_reply("3", "ok").await;
    client.expect_quiet().await;
    // The reply to the join arrives before clients give up. The failure of the subscription is
    // reported after the reply.
    client.expect_reply("1", "ok").await;
    let (status, _) = client.expect_system("realtime:notes").await;
    assert_eq!(status, "error");
    client.expect_reply("2", "ok").await;
    proxy.resume();
    while client.expect_system("realtime:notes").await.0 != "ok" {}
}

#[tokio::test]
async fn a_transaction_larger_than_the_queue_reaches_a_client_that_reads() {
    let stack = Stack::start("").await;
    let mut client = stack.server.client(Version::Two).await;
    let notes = with_bindings(&all_notes());
    subscribe(&mut client, "1", "realtime:notes", notes).await;
    stack
        .run("insert into notes select n, null, 'x' from generate_series(1, 5000) n")
        .await;
    for number in 1..=5000 {
        let message = client.expect("realtime:notes", "postgres_changes").await;
        assert_eq!(message.payload["data"]["record"]["id"], number);
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_closed_without_delaying_others() {
    let stack = Stack::start("").await;
    let mut slow = stack.server.client(Version::Two).await;
    let mut quick = stack.server.client(Version::Two).await;
    for client in [&mut slow, &mut quick] {
        subscribe(client, "1", "realtime:notes", with_bindings(&all_notes())).await;
    }
    let mut number = 0;
    while stack.server.metrics.closed(CloseLabel::SlowConsumer).get() == 0 {
        number += 1;
        stack
            .run(&format!(
                "insert into notes select {number}, null, repeat('x', 500000)"
            ))
            .await;
        let message = quick.expect("realtime:notes", "postgres_changes").await;
        assert_eq!(message.payload["data"]["record"]["id"], number);
    }
    let (code, reason) = slow.read_until_close().await;
    assert_eq!(code, 1013);
    assert!(!reason.is_empty());
    quick.expect_quiet().await;
    // The setting bounds the queue. Kernel buffers hold a few more megabytes.
    let waited = number * 500_000;
    assert!(
        waited < 64 << 20,
        "{waited} bytes waited for a client that does not read"
    );
}

#[tokio::test]
async fn changes_above_the_rate_are_dropped_with_one_notice_per_channel() {
    let mut config = config();
    config.max_events_per_second = 2;
    let database = TestDatabase::bare().await;
    let url = database.url().to_owned();
    let stack = Stack::start_with(config, database, &url, "").await;
    let topic = "realtime:notes";
    let mut client = stack.server.client(Version::Two).await;
    subscribe(&mut client, "1", topic, with_bindings(&all_notes())).await;
    // The limit is two per second over at least five seconds.
    let mut id = 0;
    eventually("two changes are dropped", async || {
        id += 1;
        stack
            .run(&format!("insert into notes values ({id}, null, '')"))
            .await;
        (stack.server.limited(Limit::Events) >= 2).then_some(())
    })
    .await;
    let mut delivered = 0;
    let (status, text) = loop {
        let message = client.receive().await;
        if message.event != "postgres_changes" {
            assert_eq!(message.event, "system");
            break (
                message.payload["status"].clone(),
                message.payload["message"].clone(),
            );
        }
        delivered += 1;
        assert_eq!(message.payload["data"]["record"]["id"], delivered);
    };
    assert!(delivered >= 10, "{delivered}");
    assert_eq!(status, "error");
    assert_eq!(
        text,
        "Too many changes per second: some are left out, read again what you need"
    );
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_join_that_timed_out_leaves_no_subscription() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    set_up(&admin).await;
    // Without a change stream, waiting for it never ends.
    let server = Server::start_over(config(), database.url()).await;
    let mut client = server.client(Version::Two).await;
    let join = |options: Value| {
        json!({ "config": {
            "postgres_changes": [{ "event": "*", "schema": "public", "table": "notes" }],
            "postgres_changes_options": options,
        }})
    };
    // The timeout refuses the join before the catalogue can have been read.
    let waits = join(json!({ "wait": true, "timeout": 0 }));
    client.join("1", "realtime:gave-up", waits).await;
    let refusal = client.expect_reply("1", "error").await;
    assert_eq!(
        refusal["reason"],
        "PostgresChangesSubscribeTimeout: Timed out after 0ms waiting for the postgres_changes subscription"
    );
    // This join is registered after the first one, because the catalogue is read for one join at a
    // time.
    client.join("2", "realtime:stays", join(json!({}))).await;
    client.expect_reply("2", "ok").await;
    let (_, message) = client.expect_system("realtime:stays").await;
    assert!(message.contains("not live yet"), "{message}");
    assert_eq!(server.visibility.subscribed_channels(), 1);
}

#[tokio::test]
async fn a_join_that_waits_for_an_impossible_subscription_is_refused() {
    let stack = Stack::start("").await;
    let mut client = stack.server.client(Version::Two).await;
    let notes = json!({ "event": "*", "schema": "public", "table": "notes" });
    let unpublished = json!({ "event": "*", "schema": "public", "table": "unpublished" });
    let unreadable =
        json!({ "event": "*", "schema": "public", "table": "notes", "filter": "nothing=eq.1" });
    for (reference, bindings) in [
        ("1", json!([unpublished])),
        ("2", json!([notes, unpublished])),
        ("3", json!([unreadable])),
    ] {
        let payload = json!({ "config": {
            "postgres_changes": bindings,
            "postgres_changes_options": { "wait": true },
        }});
        client.join(reference, "realtime:waits", payload).await;
        let refusal = client.expect_reply(reference, "error").await;
        let reason = refusal["reason"].as_str().unwrap();
        assert!(
            reason.starts_with(
                "RealtimeDisabledForConfiguration: Unable to subscribe to changes with given parameters"
            ),
            "{reason}"
        );
    }
    assert_eq!(stack.server.visibility.subscribed_channels(), 0);
    // Without `wait`, the join succeeds and the reason follows.
    let payload = json!({ "config": { "postgres_changes": [unpublished] }});
    client.join("4", "realtime:waits", payload).await;
    client.expect_reply("4", "ok").await;
    let (status, text) = client.expect_system("realtime:waits").await;
    assert_eq!(status, "error");
    assert!(text.starts_with("Unable to subscribe to changes"), "{text}");
}
