//! A user whose requests wait for a lock occupies only a part of the database connections, for a
//! limited time, and none of those that the server needs for its own statements.

use std::time::Duration;

use futures_util::future::join_all;
use rapport::auth::Claims;
use rapport::db::Query;
use reqwest::Method;
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::begin_as;
use crate::support::chat_server::Person::{Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{ChatServer, Person};
use crate::support::eventually::eventually;

/// Connections for the requests of all users. One user may occupy a third of them.
const CONNECTIONS: &str = "6";
const PER_USER: usize = 2;

/// Waits for an advisory lock, which a test holds.
const WAIT: &str = "select pg_advisory_xact_lock(7)";

/// How long a request waits for a permit or a lock in these tests, in milliseconds.
const SHORT: (&str, &str) = ("RAPPORT_DATABASE_POOL_WAIT_MS", "2000");

async fn start(settings: &[(&str, &str)]) -> (ChatServer, Client) {
    let mut all = vec![("RAPPORT_DATABASE_REQUEST_POOL_SIZE", CONNECTIONS)];
    all.extend(settings);
    let server = ChatServer::start_with(&all).await;
    let holder = server.database.connect().await;
    (server, holder)
}

fn claims(person: Person) -> Claims {
    Claims {
        json: json!({ "sub": person.id(), "role": "authenticated" })
            .to_string()
            .into(),
        role: "authenticated".to_owned(),
        subject: Some(person.id().to_string()),
        expires_at: i64::MAX,
        signer: None,
    }
}

/// Returns the number of statements of the server that wait for a lock.
async fn waiting(client: &Client) -> usize {
    let query = "select pid from pg_stat_activity
        where application_name = 'rapport' and wait_event_type = 'Lock'
          and datname = current_database()";
    client.query(query, &[]).await.unwrap().len()
}

/// Waits until at least this many statements wait for a lock.
async fn eventually_waiting(client: &Client, number: usize) {
    eventually("the statements wait for the lock", async || {
        (waiting(client).await >= number).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_user_who_holds_a_row_delays_only_their_own_requests() {
    let (server, holder) = start(&[SHORT]).await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "hello").await;
    let id = message["id"].as_str().unwrap();
    let reaction = |number: usize| {
        let path = format!("/messages/{id}/reactions/{number}");
        let server = &server;
        async move { server.send(Ana, Method::PUT, &path, json!({})).await }
    };
    begin_as(&holder, Ana, "read committed").await;
    let own: Uuid = id.parse().unwrap();
    let edit = "update public.user_messages set content = content || '.' where id = $1";
    holder.execute(edit, &[&own]).await.unwrap();

    let observer = server.database.connect().await;
    let attack = join_all((0..12).map(reaction));
    let honest = async {
        eventually_waiting(&observer, PER_USER).await;
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(server.get(Zoe, "/conversations").await.status.as_u16());
        }
        (answers, waiting(&observer).await <= PER_USER)
    };
    let (attack, (honest, is_bounded)) = tokio::join!(attack, honest);
    assert_eq!(honest, [200; 5]);
    assert!(is_bounded);
    let mut codes = Vec::new();
    for answer in &attack {
        codes.push(answer.body["code"].as_str().unwrap_or("none"));
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    }
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, ["rate_limited", "row_locked"], "{attack:?}");

    holder.batch_execute("rollback").await.unwrap();
    let retried = join_all((0..12).map(reaction)).await;
    assert!(retried.iter().all(|answer| answer.status.is_success()));
}

#[tokio::test]
async fn a_request_that_needs_a_held_row_is_refused_as_row_locked() {
    let (server, holder) = start(&[SHORT]).await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "hello").await;
    let path = format!("/messages/{}/pin", message["id"].as_str().unwrap());
    holder.batch_execute("begin").await.unwrap();
    let lock = "select from public.user_conversations where id = $1::text::uuid for update";
    holder.execute(lock, &[&conversation]).await.unwrap();
    let refused = server.send(Ben, Method::PUT, &path, json!({})).await;
    refused.assert_refused(503, "row_locked");
    assert_eq!(refused.header("retry-after"), Some("1"));
    holder.batch_execute("rollback").await.unwrap();
    let retried = server.send(Ben, Method::PUT, &path, json!({})).await;
    assert!(retried.status.is_success(), "{retried:?}");
}

#[tokio::test]
async fn cancelled_requests_occupy_their_connections_until_their_statements_end() {
    let (server, holder) = start(&[]).await;
    let observer = server.database.connect().await;
    holder
        .batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let (ana, zoe) = (claims(Ana), claims(Zoe));
    for number in 1..=PER_USER {
        let cancelled = server.db.query_as(&ana, WAIT, &[]);
        tokio::select! {
            result = cancelled => panic!("the lock was not held: {result:?}"),
            () = eventually_waiting(&observer, number) => {}
        }
    }
    assert_eq!(server.db.status().available, 0, "the connections are busy");
    let next = server.db.query_as(&ana, "select 1", &[]);
    let next = tokio::time::timeout(Duration::from_millis(100), next).await;
    assert!(next.is_err(), "{next:?}");
    // Other users get clean connections, without a wait for these statements.
    server.db.query_as(&zoe, "select 1", &[]).await.unwrap();
    assert_eq!(waiting(&observer).await, PER_USER);
    holder
        .batch_execute("select pg_advisory_unlock(7)")
        .await
        .unwrap();
    let row = server.db.query_as(&ana, "select current_user::text", &[]);
    let role: String = row.await.unwrap()[0].get(0);
    assert_eq!(role, "authenticated");
}

#[tokio::test]
async fn the_server_has_connections_when_users_occupy_all_of_theirs() {
    let (server, holder) = start(&[]).await;
    let observer = server.database.connect().await;
    holder
        .batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let callers: Vec<Claims> = [Ana, Ana, Ben, Ben, Sue, Sue].map(claims).into();
    let all = join_all(
        callers
            .iter()
            .map(|caller| server.db.query_as(caller, WAIT, &[])),
    );
    let check = async {
        eventually_waiting(&observer, callers.len()).await;
        server.start_background_tasks();
        eventually("the server takes its presence lease", async || {
            let lease = "select from chat.presence_processes where lease_until > now()";
            let lease = observer.query_opt(lease, &[]).await.unwrap();
            lease.map(drop)
        })
        .await;
        server.db.ping().await.unwrap();
        let own = Claims::of_service();
        server.db.query_as(&own, "select 1", &[]).await.unwrap();
        assert_eq!(waiting(&observer).await, callers.len(), "still occupied");
        holder
            .batch_execute("select pg_advisory_unlock(7)")
            .await
            .unwrap();
    };
    let (all, ()) = tokio::join!(all, check);
    assert!(all.iter().all(Result::is_ok), "{all:?}");
}

#[tokio::test]
async fn the_time_of_a_statement_does_not_include_the_wait_for_a_connection() {
    let (server, holder) = start(&[("RAPPORT_DATABASE_REQUEST_POOL_SIZE", "1")]).await;
    let observer = server.database.connect().await;
    holder
        .batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let (ana, ada) = (claims(Ana), claims(Ada));
    let (mut of_first, mut of_second) = (Duration::ZERO, Duration::ZERO);
    let query = |sql| Query {
        sql,
        parameters: &[],
    };
    let first = server.db.query_timed(&ana, query(WAIT), &mut of_first);
    let second = server
        .db
        .query_timed(&ada, query("select 1"), &mut of_second);
    let release = async {
        eventually("both wait", async || {
            let is_waiting = waiting(&observer).await == 1 && server.db.status().waiting == 1;
            is_waiting.then_some(())
        })
        .await;
        observer
            .batch_execute("select pg_sleep(0.3)")
            .await
            .unwrap();
        holder
            .batch_execute("select pg_advisory_unlock(7)")
            .await
            .unwrap();
    };
    let (first, second, ()) = tokio::join!(first, second, release);
    first.unwrap();
    second.unwrap();
    assert!(of_second < of_first / 2, "{of_second:?}, {of_first:?}");
}
