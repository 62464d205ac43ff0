//! The whole server in this process: chat routes, change stream and sockets. Its database contains
//! the users of the demonstration.

use std::net::SocketAddr;

use rapport::app::App;
use rapport::chat;
use rapport::shutdown::Tasks;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::chat_server::{Answer, Person, answer};
use super::config::config;
use super::socket::{PhoenixSocket, Received, Version};
use super::token::user_token;

/// A running server, whose tasks end when it is dropped.
pub(crate) struct WholeServer {
    app: App,
    _tasks: StopOnDrop,
    client: reqwest::Client,
}

impl WholeServer {
    /// Starts a server with this database and additional settings (`RAPPORT_<SECTION>_<KEY>`).
    pub(crate) async fn start(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("RAPPORT_SERVER_METRICS_TOKEN", "scrape")], settings].concat();
        let tasks = Tasks::new();
        // The future is large, and so would be the future of every test that contains it.
        let config = config(database_url, &settings);
        let app = Box::pin(App::start(&config, &tasks)).await.unwrap();
        Self {
            app,
            _tasks: StopOnDrop(tasks),
            client: reqwest::Client::new(),
        }
    }

    /// Waits until the database and the change stream are available.
    pub(crate) async fn ready(self) -> Self {
        let ready = self.app.readiness().wait_until_ready();
        tokio::time::timeout(std::time::Duration::from_secs(30), ready)
            .await
            .unwrap();
        self
    }

    /// Returns the address of the listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.app.local_address()
    }

    /// Returns the text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let address = format!("http://{}/metrics", self.address());
        let answer = self
            .client
            .get(address)
            .bearer_auth("scrape")
            .send()
            .await
            .unwrap();
        answer.text().await.unwrap()
    }

    /// Returns the value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(found, _)| *found == name).unwrap();
        value.parse().unwrap()
    }

    /// Fetches all published key sets again.
    pub(crate) fn refresh_keys(&self) {
        self.app.refresh_keys();
    }

    /// Stops the server in an orderly way. Returns whether it stopped within its deadline.
    pub(crate) async fn stop(self) -> bool {
        self.app.stop().await
    }

    /// Builds a request by a user.
    pub(crate) fn request(&self, person: Person, method: Method, path: &str) -> RequestBuilder {
        let address = format!("http://{}{}{path}", self.address(), chat::BASE_PATH);
        let request = self.client.request(method, address);
        request.bearer_auth(user_token(person.id()))
    }

    /// Sends a `GET` request by a user. It must succeed.
    pub(crate) async fn get(&self, person: Person, path: &str) -> Answer {
        let answer = answer(self.request(person, Method::GET, path)).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer
    }

    /// Sends a request with a JSON body by a user. It must succeed.
    pub(crate) async fn send(
        &self,
        person: Person,
        method: Method,
        path: &str,
        body: Value,
    ) -> Answer {
        let answer = answer(self.request(person, method, path).json(&body)).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        answer
    }

    /// Sends a `POST` request with a JSON body by a user. It must succeed.
    pub(crate) async fn post(&self, person: Person, path: &str, body: Value) -> Answer {
        self.send(person, Method::POST, path, body).await
    }

    /// Opens the conversation of two users and returns its id.
    pub(crate) async fn open(&self, person: Person, other: Person) -> String {
        let body = json!({ "other_user_id": other.id() });
        let opened = self.post(person, "/conversations", body).await;
        opened.body["id"].as_str().unwrap().to_owned()
    }

    /// Sends a text and returns the message.
    pub(crate) async fn say(&self, person: Person, conversation: &str, content: &str) -> Value {
        let body = json!({ "conversation_id": conversation, "content": content });
        self.post(person, "/messages", body).await.body
    }

    /// Opens a user's socket and joins a private topic.
    pub(crate) async fn listen(&self, person: Person, topic: &str) -> PhoenixSocket {
        self.join(person, topic, json!({"config": {"private": true}}))
            .await
    }

    /// Opens a user's socket and joins a topic.
    pub(crate) async fn join(&self, person: Person, topic: &str, payload: Value) -> PhoenixSocket {
        let token = user_token(person.id());
        let mut socket = PhoenixSocket::connect(self.address(), &token, Version::One).await;
        socket
            .join("1", &format!("realtime:{topic}"), payload)
            .await;
        socket.expect_reply("1", "ok").await;
        socket
    }
}

/// A separate type that stops the tasks, so that [`WholeServer::stop`] can move fields out of the
/// server.
struct StopOnDrop(Tasks);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Returns the payload of the next broadcast with this event. Earlier broadcasts are skipped.
pub(crate) async fn next_event(socket: &mut PhoenixSocket, event: &str) -> Value {
    loop {
        let Received {
            event: kind,
            payload,
            ..
        } = socket.receive().await;
        if kind == "broadcast" && payload["event"] == event {
            assert_eq!(payload["type"], "broadcast");
            return payload["payload"].clone();
        }
    }
}
