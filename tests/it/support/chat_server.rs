//! The chat routes on a real listener, with a separate database that contains the users of the
//! demonstration.

use rapport::auth::Verifier;
use rapport::bus::Bus;
use rapport::chat::{self, ChatState};
use rapport::config::Config;
use rapport::db::Db;
use rapport::db::connect::Connector;
use rapport::http::anonymous_limiter::AnonymousLimiter;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::serve::serve;
use rapport::http::{Authentication, finish, health};
use rapport::observability::metrics::{BusMetrics, Metrics};
use rapport::observability::readiness::Readiness;
use rapport::shutdown::Tasks;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::config::config;
use super::contract;
use super::database::TestDatabase;
use super::token::user_token;

/// A user of `sql/dev/people.sql`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Person {
    /// In one team with Ben and Ada.
    Ana,
    /// In one team with Ana and Ada.
    Ben,
    /// In a different team.
    Zoe,
    /// The admin of Ana's and Ben's team.
    Ada,
    /// The super admin, in a third team.
    Sue,
}

impl Person {
    /// Returns the user's id.
    pub(crate) fn id(self) -> Uuid {
        let last = match self {
            Self::Ana => 0xa,
            Self::Ben => 0xb,
            Self::Zoe => 0xc,
            Self::Ada => 0xd,
            Self::Sue => 0xe,
        };
        Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 | last)
    }
}

/// Settings of every server: a small pool, a long wait because the machine may be busy, and no rate
/// limits, because tests send requests as fast as they can. Tests of the limits set their own.
const DEFAULTS: &[(&str, &str)] = &[
    ("RAPPORT_DATABASE_REQUEST_POOL_SIZE", "4"),
    ("RAPPORT_DATABASE_POOL_WAIT_MS", "8000"),
    ("RAPPORT_CHAT_LIMITS_SEND_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_SEND_PER_MINUTE", "0"),
    ("RAPPORT_CHAT_LIMITS_OPEN_PER_MINUTE", "0"),
    ("RAPPORT_CHAT_LIMITS_MARK_READ_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_TYPING_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_SEARCH_PER_MINUTE", "0"),
    ("RAPPORT_CHAT_LIMITS_WRITE_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_CLIENT_ERRORS_PER_MINUTE", "0"),
];

/// A running server.
pub(crate) struct ChatServer {
    /// `http://127.0.0.1:<port>`.
    pub(crate) origin: String,
    /// The server's database.
    pub(crate) database: TestDatabase,
    /// The server's pool.
    pub(crate) db: Db,
    /// The server's readiness.
    pub(crate) readiness: Readiness,
    /// The server's metrics.
    pub(crate) metrics: Metrics,
    client: reqwest::Client,
    tasks: Tasks,
    state: ChatState,
    config: Box<Config>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body: JSON, or null if it is empty.
    pub(crate) body: Value,
}

impl Answer {
    /// Returns the text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the rows in the body.
    pub(crate) fn rows(&self) -> &[Value] {
        self.body.as_array().map_or(&[], Vec::as_slice)
    }

    /// Panics unless the response is this refusal in the common form.
    pub(crate) fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(
            fields(&self.body),
            [
                "code",
                "details",
                "error",
                "hint",
                "message",
                "request_id",
                "retry_after"
            ]
        );
        assert_eq!(self.body["error"], self.body["message"]);
        assert_eq!(
            self.body["request_id"].as_str(),
            self.header("x-request-id")
        );
    }
}

/// Returns the names of an object's fields, sorted.
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let fields = object.as_object().unwrap().keys();
    let mut fields: Vec<&str> = fields.map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

/// Panics unless the hint of a refusal names the only field that was sent, followed by an
/// explanation.
pub(crate) fn names_field(refused: &Answer, sent: &Value) {
    let field = sent.as_object().unwrap().keys().next().unwrap();
    let mut name = field.clone();
    name.retain(|letter| letter != '_');
    let hint = refused.body["hint"].as_str().unwrap_or_default();
    let first = hint.split(' ').next().unwrap_or_default().replace('_', "");
    assert!(
        first.eq_ignore_ascii_case(&name) && hint.contains(' '),
        "{sent}: {hint}"
    );
}

impl ChatServer {
    /// Starts with default settings.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with additional settings (`RAPPORT_<SECTION>_<KEY>`).
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new().await;
        let url = database.url().to_owned();
        Self::start_on(database, &url, settings).await
    }

    /// Starts a server that uses a different connection string for the database.
    pub(crate) async fn start_on(
        database: TestDatabase,
        request_url: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let request_url = [("RAPPORT_DATABASE_REQUEST_URL", request_url)];
        let config = Box::new(config(
            database.url(),
            &[&request_url, DEFAULTS, settings].concat(),
        ));
        let tasks = Tasks::new();
        let metrics = Metrics::new();
        let readiness = Readiness::new();
        let connector = Connector::new(config.database.request_url.expose()).unwrap();
        let db = Db::new(connector, &config.database, readiness.clone(), &tasks).unwrap();
        let verifier = Verifier::from_config(&config.auth)
            .unwrap()
            .for_chat(&config.chat);
        let anonymous_limiter =
            AnonymousLimiter::new(verifier.clone(), &config.server, metrics.http.clone());
        let authentication = Authentication::new(verifier, &config.server, &config.auth);
        let (bus, _) = Bus::new(1, BusMetrics::default());
        let state = ChatState::new(
            authentication,
            db.clone(),
            bus,
            config.chat_limits.clone(),
            metrics.chat.clone(),
            &tasks,
        )
        .with_anonymous_limiter(anonymous_limiter.clone());
        let router = chat::routes(state.clone()).merge(health::routes(readiness.clone()));
        let router = finish(
            router.into_parts().0,
            metrics.http.clone(),
            anonymous_limiter,
        );

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let heads = Heads::new(HEAD_DEADLINE, usize::MAX, &metrics.http);
        let serving = serve(listener, router, heads, tasks.token().clone());
        tasks.spawn("test server", serving);
        Self {
            origin,
            database,
            db,
            readiness,
            client: reqwest::Client::new(),
            metrics,
            tasks,
            state,
            config,
        }
    }

    /// Starts the background tasks, which are off by default because they write at unpredictable
    /// times.
    pub(crate) fn start_background_tasks(&self) {
        let metrics = self.metrics.presence.clone();
        self.state.start(&self.config.chat, metrics, &self.tasks);
    }

    /// Ends a user's memberships in conversations, as the application may do.
    pub(crate) async fn end_memberships(&self, person: Person) {
        let update =
            "update public.user_conversation_members set left_at = now() where user_id = $1";
        let owner = self.database.connect().await;
        owner.execute(update, &[&person.id()]).await.unwrap();
    }

    /// Returns the full URL of a chat route.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{}{path}", self.origin, chat::BASE_PATH)
    }

    /// Builds a request without a token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.address(path))
    }

    /// Builds a request by a user.
    pub(crate) fn request(&self, person: Person, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path)
            .bearer_auth(user_token(person.id()))
    }

    /// Sends a `GET` request by a user.
    pub(crate) async fn get(&self, person: Person, path: &str) -> Answer {
        answer(self.request(person, Method::GET, path)).await
    }

    /// Sends a write with a JSON body by a user.
    pub(crate) async fn send(
        &self,
        person: Person,
        method: Method,
        path: &str,
        body: Value,
    ) -> Answer {
        answer(self.request(person, method, path).json(&body)).await
    }

    /// Sends a `POST` request with a JSON body by a user.
    pub(crate) async fn post(&self, person: Person, path: &str, body: Value) -> Answer {
        self.send(person, Method::POST, path, body).await
    }

    /// Opens the conversation of two users and returns its id.
    pub(crate) async fn open(&self, person: Person, other: Person) -> String {
        let opened = self
            .post(
                person,
                "/conversations",
                json!({ "other_user_id": other.id() }),
            )
            .await;
        assert!(opened.status.is_success(), "{opened:?}");
        opened.body["id"].as_str().unwrap().to_owned()
    }

    /// Sends a text and returns the message.
    pub(crate) async fn say(&self, person: Person, conversation: &str, content: &str) -> Value {
        let sent = self
            .post(
                person,
                "/messages",
                json!({ "conversation_id": conversation, "content": content }),
            )
            .await;
        assert_eq!(sent.status, 201, "{sent:?}");
        sent.body
    }
}

impl Drop for ChatServer {
    fn drop(&mut self) {
        self.db.close();
        self.tasks.stop();
    }
}

/// Sends a request and reads the response, which must conform to the OpenAPI document.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap()
    };
    let answer = Answer {
        status,
        headers,
        body,
    };
    contract::check(&method, &path, &answer);
    answer
}
