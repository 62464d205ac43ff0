//! Requests that wait for a change.

use std::time::Duration;

use rapport::shutdown::Tasks;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::support::chat_server::Person::{self, Ana, Ben, Zoe};
use crate::support::chat_server::{ChatServer, answer};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::whole_server::WholeServer;

/// Shorter than the wait of a request, so that a timeout cannot be mistaken for a signal.
const SOON: Duration = Duration::from_secs(20);

/// Starts a server with its change stream, on a separate database.
async fn start() -> (TestDatabase, WholeServer) {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    (database, server)
}

async fn cursor_of(server: &WholeServer, person: Person) -> Value {
    server.get(person, "/sync").await.body["cursor"].clone()
}

/// Returns the number of waiting requests.
async fn waiting(server: &WholeServer) -> f64 {
    server.metric("rapport_chat_sync_waiting").await
}

/// Builds a request that waits for changes since the cursor.
fn request(server: &WholeServer, person: Person, cursor: &Value) -> RequestBuilder {
    let path = format!("/sync?wait=25&since={}", cursor.as_str().unwrap());
    server.request(person, Method::GET, &path)
}

/// Starts a waiting request. Returns once the server has registered it.
async fn wait(server: &WholeServer, person: Person, cursor: &Value) -> JoinHandle<Value> {
    let before = waiting(server).await;
    let request = request(server, person, cursor);
    let answer = Tasks::new().spawn("waiting client", async move {
        request.send().await.unwrap().json().await.unwrap()
    });
    eventually("the request waits", async || {
        (waiting(server).await > before).then_some(())
    })
    .await;
    answer
}

#[tokio::test]
async fn changes_wake_only_the_requests_that_they_concern() {
    let (_database, server) = start().await;
    let conversation = server.open(Ana, Ben).await;
    let said = json!({ "conversation_id": conversation, "content": "1" });
    let message = server.say(Ana, &conversation, "1").await;
    let message = format!("/messages/{}", message["id"].as_str().unwrap());
    let path = format!("/conversations/{conversation}");

    let stranger = cursor_of(&server, Zoe).await;
    let stranger = wait(&server, Zoe, &stranger).await;
    let mut cursor = cursor_of(&server, Ben).await;
    let me = json!({ "user_id": Ana.id() });
    for (who, method, path, body, part) in [
        (Ana, Method::POST, "/messages", said, "messages"),
        (
            Ana,
            Method::PATCH,
            &*message,
            json!({ "content": "2" }),
            "messages",
        ),
        (
            Ana,
            Method::PUT,
            &*format!("{message}/pin"),
            json!({}),
            "messages",
        ),
        (
            Ben,
            Method::POST,
            &*format!("{message}/reactions"),
            json!({ "reaction": "x" }),
            "messages",
        ),
        (
            Ana,
            Method::POST,
            &*format!("{path}/read"),
            json!({}),
            "conversations",
        ),
        // Ben acts on one device, which wakes the request of his other device.
        (
            Ben,
            Method::POST,
            &*format!("{path}/read"),
            json!({}),
            "conversations",
        ),
        (
            Ben,
            Method::PATCH,
            &*path,
            json!({ "draft": "d" }),
            "conversations",
        ),
        (
            Ben,
            Method::DELETE,
            &*format!("{message}?for=me"),
            json!({}),
            "removed_message_ids",
        ),
        (Ben, Method::POST, "/blocks", me, "conversations"),
        (
            Ben,
            Method::DELETE,
            &*path,
            json!({}),
            "removed_conversation_ids",
        ),
    ] {
        let waiting = wait(&server, Ben, &cursor).await;
        server.send(who, method.clone(), path, body).await;
        let page = timeout(SOON, waiting).await.expect(path).unwrap();
        assert_ne!(page[part], json!([]), "{method} {path}: {page}");
        cursor = page["cursor"].clone();
    }
    assert!(!stranger.is_finished(), "no change concerns Zoe");

    // Opening a conversation wakes the request of the other user.
    server.open(Person::Sue, Zoe).await;
    let page = timeout(SOON, stranger).await.unwrap().unwrap();
    assert_eq!(page["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(waiting(&server).await, 0.0);
}

#[tokio::test]
async fn the_waiting_requests_per_user_are_limited() {
    let (_database, server) = start().await;
    let cursor = cursor_of(&server, Ana).await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(wait(&server, Ana, &cursor).await);
    }
    let refused = answer(request(&server, Ana, &cursor)).await;
    refused.assert_refused(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let others = cursor_of(&server, Ben).await;
    let others = wait(&server, Ben, &others).await;
    assert!(timeout(SOON, server.stop()).await.unwrap());
    for waiting in waiting.into_iter().chain([others]) {
        assert_eq!(waiting.await.unwrap()["has_more"], false);
    }
}

#[tokio::test]
async fn a_shutdown_ends_waiting_requests() {
    let (_database, server) = start().await;
    let cursor = cursor_of(&server, Ana).await;
    let waiting = wait(&server, Ana, &cursor).await;
    assert!(timeout(SOON, server.stop()).await.unwrap());
    assert_eq!(waiting.await.unwrap()["has_more"], false);
}

#[tokio::test]
async fn without_the_change_stream_a_request_ends_at_its_timeout() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let cursor = server.get(Ben, "/sync").await.body["cursor"].clone();
    let path = format!("/sync?wait=1&since={}", cursor.as_str().unwrap());
    let begun = Instant::now();
    let answer = server.get(Ben, &path).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(
        (answer.status.as_u16(), &answer.body["messages"]),
        (200, &json!([]))
    );

    // A commit during the wait is in the response. If the machine is so slow that the wait has
    // already ended, the attempt is repeated.
    loop {
        let waiting = server.request(Ben, Method::GET, &path).send();
        let waiting = Tasks::new().spawn("waiting client", waiting);
        let said = server.say(Ana, &conversation, "1").await;
        if waiting.is_finished() {
            continue;
        }
        let page: Value = waiting.await.unwrap().unwrap().json().await.unwrap();
        let told = page["messages"].as_array().unwrap();
        assert!(told.iter().any(|message| message["id"] == said["id"]));
        break;
    }

    // A request does not wait if there are changes already. A first load does not wait either.
    let begun = Instant::now();
    server.get(Ben, &path.replace("wait=1", "wait=25")).await;
    server.get(Zoe, "/sync?wait=25").await;
    assert!(begun.elapsed() < SOON);
    server
        .get(Ben, &path.replace("wait=1", "wait=x"))
        .await
        .assert_refused(422, "validation_failed");
}
