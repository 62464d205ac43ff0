//! The sign-in of `rapport dev`, which has the interface of Supabase Auth.
//! `tests/compat/auth.test.mjs` also tests it with the official client.

use rapport::app::App;
use rapport::chat;
use rapport::dev::demonstration::{self, PASSWORD};
use rapport::dev::keys::Keys;
use rapport::dev::sign_in;
use rapport::shutdown::Tasks;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::chat_server::Person::Ana;
use crate::support::config::config;
use crate::support::database::TestDatabase;
use crate::support::process::Process;

/// A server as `rapport dev` runs it, with a separate database.
struct DevServer {
    origin: String,
    keys: Keys,
    client: reqwest::Client,
    tasks: Tasks,
    owner: Client,
    _app: App,
    _database: TestDatabase,
}

impl DevServer {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(settings: &[(&str, &str)]) -> Self {
        let database = TestDatabase::new().await;
        let owner = database.connect().await;
        demonstration::allow_sign_in(&owner).await.unwrap();
        let keys = Keys::load(tempfile::tempdir().unwrap().path()).unwrap();
        let mut environment = vec![
            ("SUPABASE_JWT_SECRET", keys.jwt_secret.as_str()),
            ("RAPPORT_SERVER_ALLOW_LOCALHOST_ORIGINS", "true"),
            ("RAPPORT_DEV_TOKEN_LIFETIME_S", "600"),
        ];
        environment.extend_from_slice(settings);
        let config = config(database.url(), &environment);
        let tasks = Tasks::new();
        let routes = sign_in::routes(&config, &keys, &tasks).unwrap();
        let app = App::start_with(&config, routes, &tasks).await.unwrap();
        Self {
            origin: format!("http://{}", app.local_address()),
            keys,
            client: reqwest::Client::new(),
            tasks,
            owner,
            _app: app,
            _database: database,
        }
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.client.post(self.address(path)).json(body)).await
    }

    async fn get(&self, path: &str, token: &str) -> (StatusCode, Value) {
        answer(self.client.get(self.address(path)).bearer_auth(token)).await
    }

    /// Signs Ana in and returns the new session.
    async fn sign_in(&self) -> Value {
        let body = json!({
            "email": "Ana@example.com", "password": PASSWORD, "gotrue_meta_security": {},
        });
        let (status, session) = self.post("/auth/v1/token?grant_type=password", &body).await;
        assert_eq!(status, 200, "{session}");
        session
    }

    async fn refresh(&self, token: &Value) -> (StatusCode, Value) {
        let body = json!({ "refresh_token": token });
        self.post("/auth/v1/token?grant_type=refresh_token", &body)
            .await
    }

    async fn sign_out(&self, scope: &str, session: &Value) -> StatusCode {
        let address = self.address(&format!("/auth/v1/logout{scope}"));
        let token = session["access_token"].as_str().unwrap();
        let sent = self.client.post(address).bearer_auth(token).send().await;
        sent.unwrap().status()
    }
}

impl Drop for DevServer {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn assert_refused((status, body): &(StatusCode, Value), expected: u16, code: &str) {
    assert_eq!(
        (status.as_u16(), &body["code"], &body["error_code"]),
        (expected, &json!(expected), &json!(code)),
        "{body}"
    );
    assert!(body["msg"].is_string(), "{body}");
}

#[tokio::test]
async fn a_session_identifies_its_user_on_all_routes() {
    let server = DevServer::start().await;
    let session = server.sign_in().await;
    assert_eq!(session["token_type"], "bearer");
    assert_eq!(session["expires_in"], 600);
    let user = &session["user"];
    for (field, expected) in [
        ("id", json!(Ana.id())),
        ("aud", json!("authenticated")),
        ("role", json!("authenticated")),
        ("email", json!("ana@example.com")),
    ] {
        assert_eq!(user[field], expected, "{field}");
    }
    assert_eq!(user["app_metadata"]["provider"], "email");
    assert_eq!(user["user_metadata"]["full_name"], "Ana Alvarez");
    let token = session["access_token"].as_str().unwrap();
    let (status, found) = server.get("/auth/v1/user", token).await;
    assert_eq!((status.as_u16(), &found), (200, user));
    let me = format!("{}/me", chat::BASE_PATH);
    let (status, me) = server.get(&me, token).await;
    assert_eq!((status.as_u16(), &me["id"]), (200, &json!(Ana.id())));
}

#[tokio::test]
async fn wrong_credentials_and_requests_get_the_error_codes_of_supabase_auth() {
    let server = DevServer::start().await;
    let password = "/auth/v1/token?grant_type=password";
    for (path, body, code) in [
        (
            password,
            json!({ "email": "ana@example.com", "password": "x" }),
            "invalid_credentials",
        ),
        (
            password,
            json!({ "email": "nobody@example.com", "password": PASSWORD }),
            "invalid_credentials",
        ),
        (
            password,
            json!({ "email": "ana@example.com" }),
            "validation_failed",
        ),
        (password, json!([1]), "bad_json"),
        // PostgreSQL cannot store this character in a text.
        (
            password,
            json!({ "email": "ana@example.com\0", "password": PASSWORD }),
            "invalid_credentials",
        ),
        (
            password,
            json!({ "email": "ana@example.com", "password": format!("{PASSWORD}\0") }),
            "invalid_credentials",
        ),
        (
            "/auth/v1/token?grant_type=password%00",
            json!({ "email": "ana@example.com", "password": PASSWORD }),
            "invalid_credentials",
        ),
        (
            "/auth/v1/token?grant_type=password&expires_in=%00",
            json!({ "email": "ana@example.com", "password": PASSWORD }),
            "validation_failed",
        ),
        (
            "/auth/v1/token?grant_type=refresh_token",
            json!({ "refresh_token": "\0.\0" }),
            "refresh_token_not_found",
        ),
        (
            "/auth/v1/token?grant_type=refresh_token",
            json!({ "refresh_token": format!("{}.\0", uuid::Uuid::nil()) }),
            "refresh_token_not_found",
        ),
        (
            "/auth/v1/token?grant_type=pkce",
            json!({}),
            "invalid_credentials",
        ),
        ("/auth/v1/token", json!({}), "invalid_credentials"),
        (
            "/auth/v1/token?grant_type=refresh_token",
            json!({ "refresh_token": "x" }),
            "refresh_token_not_found",
        ),
        (
            "/auth/v1/token?grant_type=password&expires_in=0",
            json!({ "email": "ana@example.com", "password": PASSWORD }),
            "validation_failed",
        ),
        (
            "/auth/v1/token?grant_type=password&expires_in=86401",
            json!({ "email": "ana@example.com", "password": PASSWORD }),
            "validation_failed",
        ),
    ] {
        assert_refused(&server.post(path, &body).await, 400, code);
    }
    let user = server.client.get(server.address("/auth/v1/user"));
    assert_refused(&answer(user).await, 401, "no_authorization");
    for token in ["x", &server.keys.anon_key] {
        assert_refused(&server.get("/auth/v1/user", token).await, 403, "bad_jwt");
    }
}

#[tokio::test]
async fn a_refresh_replaces_the_token_and_an_old_one_ends_the_session() {
    let server = DevServer::start().await;
    let first = server.sign_in().await;
    let (status, second) = server.refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(second["user"]["id"], json!(Ana.id()));
    // Another tab that refreshes at the same time gets the same successor.
    let (status, repeated) = server.refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200, "{repeated}");
    assert_eq!(repeated["refresh_token"], second["refresh_token"]);

    let (_, third) = server.refresh(&second["refresh_token"]).await;
    assert_refused(
        &server.refresh(&first["refresh_token"]).await,
        400,
        "refresh_token_already_used",
    );
    assert_refused(
        &server.refresh(&third["refresh_token"]).await,
        400,
        "refresh_token_not_found",
    );
}

#[tokio::test]
async fn a_token_lifetime_belongs_to_the_session() {
    let server = DevServer::start().await;
    let body = json!({ "email": "ana@example.com", "password": PASSWORD });
    let path = "/auth/v1/token?grant_type=password&expires_in=5";
    let (_, session) = server.post(path, &body).await;
    assert_eq!(session["expires_in"], 5);
    let (_, refreshed) = server.refresh(&session["refresh_token"]).await;
    assert_eq!(refreshed["expires_in"], 5);
    let body = json!({ "refresh_token": refreshed["refresh_token"] });
    let path = "/auth/v1/token?grant_type=refresh_token&expires_in=7";
    let (_, changed) = server.post(path, &body).await;
    assert_eq!(changed["expires_in"], 7);
}

#[tokio::test]
async fn a_signed_out_session_cannot_be_refreshed() {
    let server = DevServer::start().await;
    for (scope, ends) in [
        ("", [true, true]),
        ("?scope=global", [true, true]),
        ("?scope=local", [true, false]),
        ("?scope=others", [false, true]),
    ] {
        let sessions = [server.sign_in().await, server.sign_in().await];
        assert_eq!(server.sign_out(scope, &sessions[0]).await, 204, "{scope}");
        for (session, is_ended) in sessions.iter().zip(ends) {
            let token = session["access_token"].as_str().unwrap();
            let found = server.get("/auth/v1/user", token).await;
            let refreshed = server.refresh(&session["refresh_token"]).await;
            if is_ended {
                assert_refused(&found, 403, "session_not_found");
                assert_refused(&refreshed, 400, "refresh_token_not_found");
            } else {
                assert_eq!(
                    (found.0, refreshed.0),
                    (StatusCode::OK, StatusCode::OK),
                    "{scope}"
                );
            }
        }
    }
    let session = server.sign_in().await;
    assert_eq!(server.sign_out("?scope=x", &session).await, 400);
}

#[tokio::test]
async fn a_page_can_list_the_users_who_can_sign_in() {
    let server = DevServer::start().await;
    let request = server.client.get(server.address("/dev/people"));
    let (status, found) = answer(request.header("origin", "http://localhost:5173")).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["url"], server.origin);
    assert_eq!(found["anon_key"], server.keys.anon_key);
    assert_eq!(found["password"], PASSWORD);
    let people = found["people"].as_array().unwrap();
    assert_eq!(people.len(), 5);
    assert_eq!(
        people[4],
        json!({
            "id": "00000000-0000-4000-8000-00000000000e", "name": "Sue Summers",
            "email": "sue@example.com", "avatar_url": null, "role": "super_admin", "team": "Operations",
        })
    );
}

#[tokio::test]
async fn old_sessions_are_removed() {
    let server = DevServer::start().await;
    let first = server.sign_in().await;
    let forgotten = server.sign_in().await;
    let id = forgotten["refresh_token"].as_str().unwrap();
    let id = id.split_once('.').unwrap().0;
    let age = format!(
        "update rapport_dev.sessions set rotated_at = now() - interval '31 days' where id = '{id}'"
    );
    server.owner.batch_execute(&age).await.unwrap();
    // Gives every user 99 more sessions. The limit counts the sessions of each user separately.
    let fill =
        "insert into rapport_dev.sessions (id, user_id, secret, token_lifetime_s, rotated_at)
        select gen_random_uuid(), u.id, 'x', 60, now() - interval '1 hour'
        from auth.users u, generate_series(1, 99)";
    server.owner.batch_execute(fill).await.unwrap();
    let used = server.sign_in().await;
    let count = "select count(*) from rapport_dev.sessions where user_id = $1";
    let row = server.owner.query_one(count, &[&Ana.id()]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 100);
    for (session, is_kept) in [(&first, true), (&forgotten, false), (&used, true)] {
        let (status, _) = server.refresh(&session["refresh_token"]).await;
        assert_eq!(status == 200, is_kept);
    }
}

/// A website can make its own name resolve to this machine. Its page is then of the same origin as
/// the server.
#[tokio::test]
async fn a_page_under_a_foreign_name_cannot_sign_in() {
    let server =
        DevServer::start_with(&[("RAPPORT_SERVER_PUBLIC_URL", "https://chat.example")]).await;
    let session = server.sign_in().await;
    let token = session["access_token"].as_str().unwrap();
    let port = server.origin.rsplit_once(':').unwrap().1;
    let body = json!({ "email": "ana@example.com", "password": PASSWORD });
    let requests = |host: &str| {
        let request = |method, path: &str| {
            let request = server.client.request(method, server.address(path));
            request.bearer_auth(token).header("host", host)
        };
        [
            request(Method::GET, "/dev/people"),
            request(Method::GET, "/auth/v1/user"),
            request(Method::POST, "/auth/v1/token?grant_type=password").json(&body),
            request(Method::POST, "/auth/v1/token?grant_type=refresh_token")
                .json(&json!({ "refresh_token": "x" })),
            request(Method::POST, "/auth/v1/logout?scope=others"),
        ]
    };
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "x@127.0.0.1.evil.example",
    ] {
        for request in requests(&format!("{host}:{port}")) {
            assert_refused(&answer(request).await, 403, "host_not_allowed");
        }
    }
    for host in [
        "localhost",
        "ana.localhost",
        "127.0.0.1",
        "[::1]",
        "chat.example",
    ] {
        for request in requests(&format!("{host}:{port}")) {
            let (status, found) = answer(request).await;
            let code = &found["error_code"];
            assert!(
                status.is_success() || code == "refresh_token_not_found",
                "{host}: {found}"
            );
        }
    }
    // The routes of the chat are served under every name, because they require a token, which such
    // a page does not have.
    let me = server
        .client
        .get(server.address(&format!("{}/me", chat::BASE_PATH)));
    let me = me.bearer_auth(token).header("host", "proxy.internal");
    assert_eq!(answer(me).await.0, 200);
}

#[tokio::test]
async fn pages_on_this_machine_may_sign_in() {
    let server = DevServer::start().await;
    let address = server.address("/auth/v1/token?grant_type=password");
    for (origin, expected) in [
        ("http://localhost:3000", Some("http://localhost:3000")),
        ("https://elsewhere.example", None),
    ] {
        let preflight = server
            .client
            .request(Method::OPTIONS, &address)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .send()
            .await
            .unwrap();
        let header = |name| {
            preflight
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        assert_eq!(header("access-control-allow-origin"), expected);
        let allowed = header("access-control-allow-headers").unwrap_or_default();
        assert_eq!(
            allowed.contains("x-supabase-api-version"),
            expected.is_some()
        );
    }
}

#[tokio::test]
async fn a_server_with_a_real_database_has_no_development_sign_in() {
    let database = TestDatabase::new().await;
    let owner = database.connect().await;
    demonstration::allow_sign_in(&owner).await.unwrap();
    let server = Process::start(database.url(), &[("RAPPORT_SERVER_DEMO_PAGE", "true")]).await;
    let client = reqwest::Client::new();
    let body = json!({ "email": "ana@example.com", "password": PASSWORD });
    // The paths of Supabase Auth belong to the project, which has no URL here.
    for (path, expected) in [
        (
            "/auth/v1/token?grant_type=password",
            (503, "upstream_not_configured"),
        ),
        (
            "/auth/v1/token?grant_type=refresh_token",
            (503, "upstream_not_configured"),
        ),
        ("/auth/v1/logout", (503, "upstream_not_configured")),
        ("/auth/v1/user", (503, "upstream_not_configured")),
        ("/dev/people", (404, "not_found")),
    ] {
        let address = format!("http://{}{path}", server.address);
        for request in [client.post(&address).json(&body), client.get(&address)] {
            let (status, found) = answer(request).await;
            let code = found["code"].as_str().unwrap();
            assert_eq!((status.as_u16(), code), expected, "{path}");
        }
    }
    server.stop().await;
}
