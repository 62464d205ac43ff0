//! Presence derived from open sockets: users connect and disconnect, and processes die.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio_postgres::Client;

use crate::support::chaos::ChaosProxy;
use crate::support::chat_server::Person;
use crate::support::chat_server::Person::{Ana, Ben};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::socket::PhoenixSocket;
use crate::support::whole_server::WholeServer;

/// A grace period and a lease that are short enough for a test.
const FAST: [(&str, &str); 2] = [
    ("RAPPORT_CHAT_PRESENCE_GRACE_MS", "300"),
    ("RAPPORT_CHAT_PRESENCE_LEASE_MS", "1500"),
];

/// A grace period that is longer than any test.
const PATIENT: [(&str, &str); 2] = [
    ("RAPPORT_CHAT_PRESENCE_GRACE_MS", "600000"),
    ("RAPPORT_CHAT_PRESENCE_LEASE_MS", "1500"),
];

/// Creates a database, connects to it, and starts a server that uses it.
async fn start(settings: &[(&str, &str)]) -> (TestDatabase, Client, WholeServer) {
    let database = TestDatabase::new().await;
    let owner = database.connect().await;
    let server = WholeServer::start(database.url(), settings).await;
    (database, owner, server.ready().await)
}

/// Returns a user's status and device count from the published row.
async fn shown_status(owner: &Client, person: Person) -> (String, i32) {
    let row = owner
        .query_opt(
            "select status, device_count from public.user_presence where user_id = $1",
            &[&person.id()],
        )
        .await
        .unwrap();
    row.map_or_else(|| ("offline".to_owned(), 0), |row| (row.get(0), row.get(1)))
}

async fn wait_until_shown(owner: &Client, person: Person, status: &str, devices: i32) {
    eventually(
        &format!("{person:?} is {status} with {devices} devices"),
        async || (shown_status(owner, person).await == (status.to_owned(), devices)).then_some(()),
    )
    .await;
}

async fn device(server: &WholeServer, person: Person) -> PhoenixSocket {
    server
        .join(person, "anything", json!({ "config": {} }))
        .await
}

/// Connects Ben and subscribes him to Ana's row of `user_presence`, as a client does that follows
/// presence through the table.
async fn watcher(server: &WholeServer) -> PhoenixSocket {
    let binding = json!({"event": "*", "schema": "public", "table": "user_presence",
        "filter": format!("user_id=eq.{}", Ana.id())});
    let payload = json!({"config": {"postgres_changes": [binding]}});
    let mut ben = server.join(Ben, "user-presence", payload).await;
    ben.expect_system("realtime:user-presence").await;
    ben
}

#[tokio::test]
async fn a_user_is_online_as_long_as_one_device_is() {
    let (_database, owner, server) = start(&FAST).await;
    let mut ben = watcher(&server).await;

    let first = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 1).await;
    let second = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 2).await;
    drop(first);
    wait_until_shown(&owner, Ana, "online", 1).await;
    drop(second);
    wait_until_shown(&owner, Ana, "offline", 0).await;

    let mut seen = Vec::new();
    while seen.last() != Some(&("offline".to_owned(), 0)) || seen.len() < 4 {
        let message = ben.receive().await;
        if message.event == "postgres_changes" {
            let record = &message.payload["data"]["record"];
            seen.push((
                record["status"].as_str().unwrap().to_owned(),
                record["device_count"].as_i64().unwrap(),
            ));
        }
    }
    seen.dedup();
    let expected = [("online", 1), ("online", 2), ("online", 1), ("offline", 0)];
    let expected = expected.map(|(status, devices)| (status.to_owned(), devices));
    assert!(seen.ends_with(&expected), "{seen:?}");
}

#[tokio::test]
async fn idle_users_cause_no_writes_and_reloading_a_page_does_not_end_presence() {
    let (_database, owner, server) = start(&PATIENT).await;
    let first = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 1).await;
    let version = async || -> String {
        let query = "select xmin::text from public.user_presence where user_id = $1";
        owner.query_one(query, &[&Ana.id()]).await.unwrap().get(0)
    };
    let lease = async || -> std::time::SystemTime {
        let query = "select lease_until from chat.presence_processes";
        owner.query_one(query, &[]).await.unwrap().get(0)
    };
    let before = version().await;
    drop(first);
    eventually("the socket is gone", async || {
        let sockets = server.metric("rapport_realtime_sockets").await;
        (sockets == 0.0).then_some(())
    })
    .await;
    let _second = device(&server, Ana).await;
    let renewed = lease().await;
    eventually("the lease is renewed twice", async || {
        let later = renewed + Duration::from_millis(900);
        (lease().await >= later).then_some(())
    })
    .await;
    assert_eq!(version().await, before, "no row of Ana's was written");
    assert_eq!(shown_status(&owner, Ana).await, ("online".to_owned(), 1));
}

#[tokio::test]
async fn signing_out_ends_presence_although_a_socket_is_open() {
    let (_database, owner, server) = start(&PATIENT).await;
    let _lingers = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 1).await;
    server
        .send(Ana, Method::DELETE, "/presence", json!({}))
        .await;
    wait_until_shown(&owner, Ana, "offline", 0).await;
    let _new = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 2).await;

    let share = json!({ "share_presence": false });
    server.send(Ana, Method::PUT, "/preferences", share).await;
    wait_until_shown(&owner, Ana, "offline", 0).await;
    let share = json!({ "share_presence": true });
    server.send(Ana, Method::PUT, "/preferences", share).await;
    wait_until_shown(&owner, Ana, "online", 2).await;
}

#[tokio::test]
async fn a_status_chosen_over_rest_reaches_subscribers_of_the_table() {
    let (_database, owner, server) = start(&PATIENT).await;
    let _device = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 1).await;
    let mut ben = watcher(&server).await;
    for (body, status, chosen) in [
        (json!({ "status": "busy" }), "busy", json!("busy")),
        (
            json!({ "status": "online", "manual_until": null }),
            "online",
            json!(null),
        ),
    ] {
        server.send(Ana, Method::POST, "/presence", body).await;
        // Ben may first receive the earlier change, by which Ana came online.
        loop {
            let told = ben.receive().await;
            let record = &told.payload["data"]["record"];
            if record["status"] == status && record["manual_status"] == chosen {
                break;
            }
        }
    }
}

#[tokio::test]
async fn the_users_of_a_dead_process_go_offline() {
    let database = TestDatabase::new().await;
    let owner = database.connect().await;
    let one = WholeServer::start(database.url(), &FAST)
        .await
        .ready()
        .await;
    // Only the first process reads the slot, so the second one is never reported as ready. It
    // accepts sockets anyway.
    let two = WholeServer::start(database.url(), &FAST).await;
    let _at_one = device(&one, Ana).await;
    let _at_two = device(&two, Ana).await;
    let _ben = device(&one, Ben).await;
    wait_until_shown(&owner, Ana, "online", 2).await;
    wait_until_shown(&owner, Ben, "online", 1).await;

    // The process stops without any cleanup, as after a SIGKILL.
    drop(one);
    wait_until_shown(&owner, Ana, "online", 1).await;
    wait_until_shown(&owner, Ben, "offline", 0).await;
    eventually("the other process has recorded the change", async || {
        let query = "select status from public.user_presence where user_id = $1";
        let status: String = owner.query_one(query, &[&Ben.id()]).await.unwrap().get(0);
        (status == "offline").then_some(())
    })
    .await;
}

#[tokio::test]
async fn changes_during_an_outage_are_written_after_it() {
    let database = TestDatabase::new().await;
    let owner = database.connect().await;
    let (proxy, through) = ChaosProxy::before(database.url()).await;
    let server = WholeServer::start(&through, &FAST).await.ready().await;
    let ana = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 1).await;
    proxy.refuse(true);
    proxy.cut();
    drop(ana);
    let _ben = device(&server, Ben).await;
    proxy.refuse(false);
    wait_until_shown(&owner, Ben, "online", 1).await;
    wait_until_shown(&owner, Ana, "offline", 0).await;
}

/// Begins a transaction on `client` as Ben, and runs a statement in it that takes a lock. The lock
/// is held until the transaction ends.
async fn hold_as_ben(client: &Client, statement: &str) {
    let claims = format!(r#"{{"sub":"{}","role":"authenticated"}}"#, Ben.id());
    let sql = format!(
        "begin; set local role authenticated; set local request.jwt.claims = '{claims}'; {statement}"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_user_who_holds_a_lock_delays_only_their_own_presence() {
    let database = TestDatabase::new().await;
    let (owner, held) = (database.connect().await, database.connect().await);
    let server = WholeServer::start(database.url(), &FAST)
        .await
        .ready()
        .await;
    hold_as_ben(&held, "select chat.lock_own_presence()").await;
    let _bens = device(&server, Ben).await;
    eventually("Ben's report was postponed twice", async || {
        let metrics = server.metrics().await;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("rapport_presence_reports_held_total "))?;
        let count: u64 = line.rsplit_once(' ')?.1.parse().ok()?;
        (count >= 2).then_some(())
    })
    .await;
    let anas = device(&server, Ana).await;
    wait_until_shown(&owner, Ana, "online", 1).await;
    drop(anas);
    wait_until_shown(&owner, Ana, "offline", 0).await;
    assert_eq!(shown_status(&owner, Ben).await, ("offline".to_owned(), 0));
    held.batch_execute("rollback").await.unwrap();
    wait_until_shown(&owner, Ben, "online", 1).await;
}

#[tokio::test]
async fn a_user_who_holds_a_lock_delays_only_their_own_deliveries() {
    let database = TestDatabase::new().await;
    let (owner, held) = (database.connect().await, database.connect().await);
    let server = WholeServer::start(database.url(), &FAST)
        .await
        .ready()
        .await;
    let conversation = server.open(Ana, Ben).await;
    for _ in 0..2 {
        server.say(Ana, &conversation, "hello").await;
    }
    let delivered = async |person: Person| -> i64 {
        let query =
            "select last_delivered_seq from public.conversation_receipts where user_id = $1";
        let row = owner.query_one(query, &[&person.id()]).await.unwrap();
        row.get(0)
    };
    hold_as_ben(
        &held,
        &format!("select chat.mark_delivered('{conversation}', 1)"),
    )
    .await;
    let page = format!("/messages?conversation_id={conversation}");
    server.send(Ben, Method::GET, &page, json!(null)).await;
    eventually("the delivery to Ben was postponed", async || {
        let metrics = server.metrics().await;
        let put_off = |line: &str| {
            line.starts_with("rapport_bus_deliveries_held_total ") && !line.ends_with(" 0")
        };
        metrics.lines().any(put_off).then_some(())
    })
    .await;
    held.batch_execute("rollback").await.unwrap();
    eventually("the messages are delivered to Ben", async || {
        (delivered(Ben).await == 2).then_some(())
    })
    .await;
}
