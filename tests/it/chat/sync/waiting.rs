//! Requests that wait for a change.

use std::collections::BTreeMap;
use std::time::Duration;

use rapport::app::App;
use rapport::config::{Config, Inputs};
use rapport::shutdown::Tasks;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::support::chat_server::ChatServer;
use crate::support::chat_server::Person::{self, Ana, Ben, Zoe};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::token::{JWT_SECRET, user_token};

/// Shorter than the wait of a request, so that a timeout is not mistaken for a signal.
const SOON: Duration = Duration::from_secs(20);

/// The whole server with its change stream.
struct Whole {
    app: App,
    tasks: Tasks,
    client: reqwest::Client,
    _database: TestDatabase,
}

impl Whole {
    async fn start() -> Self {
        let database = TestDatabase::new().await;
        let environment: BTreeMap<String, String> = [
            ("DATABASE_URL", database.url()),
            ("SUPABASE_JWT_SECRET", JWT_SECRET),
            ("RAPPORT_SERVER_PORT", "0"),
            ("RAPPORT_SERVER_METRICS_TOKEN", "scrape"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let config = Config::load(&Inputs {
            file: None,
            environment: &environment,
            flags: Vec::new(),
        })
        .unwrap();
        let tasks = Tasks::new();
        let app = App::start(&config, &tasks).await.unwrap();
        timeout(SOON, app.readiness().wait_until_ready())
            .await
            .unwrap();
        Self {
            app,
            tasks,
            client: reqwest::Client::new(),
            _database: database,
        }
    }

    fn address(&self, path: &str) -> String {
        let address = self.app.local_address();
        format!("http://{address}{}{path}", rapport::chat::BASE_PATH)
    }

    async fn send(&self, person: Person, method: Method, path: &str, body: Value) -> Value {
        let request = self.client.request(method, self.address(path));
        let request = request.bearer_auth(user_token(person.id())).json(&body);
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{path} {response:?}");
        let text = response.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn get(&self, person: Person, path: &str) -> Value {
        self.send(person, Method::GET, path, json!({})).await
    }

    /// Starts a waiting request, and returns when it is registered.
    async fn wait(&self, person: Person, cursor: &Value) -> JoinHandle<Value> {
        let address = self.address(&format!("/sync?wait=25&since={}", cursor.as_str().unwrap()));
        let request = self
            .client
            .get(address)
            .bearer_auth(user_token(person.id()));
        let before = self.waiting().await;
        let answer = self.tasks.spawn("waiting client", async move {
            request.send().await.unwrap().json().await.unwrap()
        });
        eventually("the request waits", async || {
            (self.waiting().await > before).then_some(())
        })
        .await;
        answer
    }

    /// Number of waiting requests, from the metrics.
    async fn waiting(&self) -> u64 {
        let address = format!("http://{}/metrics", self.app.local_address());
        let request = self.client.get(address).bearer_auth("scrape");
        let text = request.send().await.unwrap().text().await.unwrap();
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix("rapport_chat_sync_waiting "))
            .unwrap()
            .parse()
            .unwrap()
    }
}

#[tokio::test]
async fn changes_wake_only_the_requests_that_they_concern() {
    let server = Whole::start().await;
    let opened = json!({ "other_user_id": Ben.id() });
    let conversation = server
        .send(Ana, Method::POST, "/conversations", opened)
        .await;
    let conversation = conversation["id"].as_str().unwrap().to_owned();
    let said = json!({ "conversation_id": conversation, "content": "1" });
    let message = server
        .send(Ana, Method::POST, "/messages", said.clone())
        .await;
    let message = format!("/messages/{}", message["id"].as_str().unwrap());
    let path = format!("/conversations/{conversation}");

    let stranger = server.get(Zoe, "/sync").await["cursor"].clone();
    let stranger = server.wait(Zoe, &stranger).await;
    let mut cursor = server.get(Ben, "/sync").await["cursor"].clone();
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
        // Ben's other devices.
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
        let waiting = server.wait(Ben, &cursor).await;
        server.send(who, method.clone(), path, body).await;
        let page = timeout(SOON, waiting).await.expect(path).unwrap();
        assert_ne!(page[part], json!([]), "{method} {path}: {page}");
        cursor = page["cursor"].clone();
    }
    assert!(!stranger.is_finished(), "no change concerns Zoe");

    // A person who is added to a conversation is signalled; here by the first message.
    let opened = json!({ "other_user_id": Zoe.id() });
    let sue = Person::Sue;
    server
        .send(sue, Method::POST, "/conversations", opened)
        .await;
    let page = timeout(SOON, stranger).await.unwrap().unwrap();
    assert_eq!(page["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(server.waiting().await, 0);
}

#[tokio::test]
async fn the_waiting_requests_per_user_are_limited() {
    let server = Whole::start().await;
    let cursor = server.get(Ana, "/sync").await["cursor"].clone();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(server.wait(Ana, &cursor).await);
    }
    let address = server.address(&format!("/sync?wait=25&since={}", cursor.as_str().unwrap()));
    let refused = server.client.get(address).bearer_auth(user_token(Ana.id()));
    let refused = refused.send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let others = server.get(Ben, "/sync").await["cursor"].clone();
    let others = server.wait(Ben, &others).await;
    assert!(timeout(SOON, server.app.stop()).await.unwrap());
    for waiting in waiting.into_iter().chain([others]) {
        assert_eq!(waiting.await.unwrap()["has_more"], false);
    }
}

#[tokio::test]
async fn a_shutdown_ends_waiting_requests() {
    let server = Whole::start().await;
    let cursor = server.get(Ana, "/sync").await["cursor"].clone();
    let waiting = server.wait(Ana, &cursor).await;
    assert!(timeout(SOON, server.app.stop()).await.unwrap());
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

    // A commit during the wait is in the response, unless the machine is so slow that the wait
    // ended first.
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

    // A request does not wait if there are changes already, and neither does a first load.
    let begun = Instant::now();
    server.get(Ben, &path.replace("wait=1", "wait=25")).await;
    server.get(Zoe, "/sync?wait=25").await;
    assert!(begun.elapsed() < SOON);
    server
        .get(Ben, &path.replace("wait=1", "wait=x"))
        .await
        .assert_refused(422, "validation_failed");
}
