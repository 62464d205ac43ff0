//! Tests of broadcasting over HTTP: every response under both base paths, and the messages that
//! sockets receive.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::private_channels::{create_messages, create_partitioned_messages};
use super::{OPAQUE_PUBLIC_KEY, OPAQUE_SERVICE_KEY, Server, config, plain_join};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::{anon_key, mint, now_s, service_role_key, user_token};

const FAMILIES: [&str; 2] = ["/realtime/v1/api", "/api"];

impl Server {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, format!("http://{}{path}", self.address))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
            .header("apikey", anon_key())
    }

    async fn joined(&self, version: Version, topic: &str) -> PhoenixSocket {
        let mut client = self.client(version).await;
        client.join("1", topic, plain_join()).await;
        client.expect_reply("1", "ok").await;
        client
    }
}

async fn outcome(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn refusal(request: RequestBuilder) -> (u16, Value) {
    let (status, body) = outcome(request).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

/// Returns a frame of kind 4 (protocol 2.4). The `encoding` of JSON is 1.
fn user_broadcast(topic: &str, event: &str, encoding: u8, payload: &[u8]) -> Message {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut frame = vec![4, length(topic), length(event), 0, encoding];
    frame.extend(topic.as_bytes());
    frame.extend(event.as_bytes());
    frame.extend(payload);
    Message::binary(frame)
}

#[tokio::test]
async fn a_batch_reaches_the_members_of_each_topic_in_order() {
    let server = Server::start(config()).await;
    for family in FAMILIES {
        let mut members = [
            server.joined(Version::One, "realtime:room").await,
            server.joined(Version::Two, "realtime:room").await,
        ];
        let mut other = server.joined(Version::Two, "realtime:other").await;
        let body = json!({"messages": [
            {"topic": "room", "event": "first", "payload": {"n": 1}},
            {"topic": "other", "event": "elsewhere", "payload": {}},
            {"topic": "room", "event": "second", "payload": {"n": 2}, "id": "m-2"},
            {"topic": "nobody", "event": "unheard", "payload": {}},
        ]});
        let request = server.post(&format!("{family}/broadcast")).json(&body);
        assert_eq!(outcome(request).await, (202, String::new()));
        for member in &mut members {
            for expected in [
                json!({"type": "broadcast", "event": "first", "payload": {"n": 1}}),
                json!({"type": "broadcast", "event": "second", "payload": {"n": 2}, "meta": {"id": "m-2"}}),
            ] {
                let message = member.expect("realtime:room", "broadcast").await;
                assert_eq!(message.payload, expected);
                assert_eq!(
                    (message.join_ref, message.reference),
                    (Value::Null, Value::Null)
                );
            }
            member.expect_quiet().await;
        }
        let message = other.expect("realtime:other", "broadcast").await;
        assert_eq!(message.payload["event"], "elsewhere");
        other.expect_quiet().await;
    }
}

/// The content type and body of a request, the payload that members receive in version 1 and in
/// version 2, and the encoding.
type Sent = (
    Option<&'static str>,
    &'static [u8],
    Option<Value>,
    &'static [u8],
    u8,
);

#[tokio::test]
async fn a_single_message_is_a_user_broadcast() {
    let server = Server::start(config()).await;
    let topic = "realtime:räume/1 ?";
    for family in FAMILIES {
        let mut old = server.joined(Version::One, topic).await;
        let mut new = server.joined(Version::Two, topic).await;
        let query = format!("apikey={}&vsn=2.0.0&other=60", anon_key());
        let path = format!("{family}/broadcast/r%C3%A4ume%2F1%20%3F/events/a%2Fb?{query}");
        let cases: [Sent; 6] = [
            (
                Some("application/json"),
                b"{\"n\": 1.50}",
                Some(json!({"n": 1.5})),
                b"{\"n\": 1.50}",
                1,
            ),
            (
                Some("application/json; charset=utf-8"),
                b" [1]",
                Some(json!({"_json": [1]})),
                b"{\"_json\":[1]}",
                1,
            ),
            (
                Some("application/octet-stream"),
                b"\x00\xff",
                None,
                b"\x00\xff",
                0,
            ),
            (Some("application/octet-stream"), b"", None, b"", 0),
            (None, b"", Some(json!({})), b"{}", 1),
            (None, b"{\"a\":1}", Some(json!({"a": 1})), b"{\"a\":1}", 1),
        ];
        for (kind, body, to_old, to_new, encoding) in cases {
            let mut request = server.request(Method::POST, &path).body(body.to_vec());
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            assert_eq!(outcome(request).await, (202, String::new()), "{kind:?}");
            let expected = user_broadcast(topic, "a/b", encoding, to_new);
            assert_eq!(new.frame().await, expected);
            match to_old {
                Some(payload) => {
                    let message = old.expect(topic, "broadcast").await;
                    let expected = json!({"type": "broadcast", "event": "a/b", "payload": payload});
                    assert_eq!(message.payload, expected);
                }
                None => old.expect_quiet().await,
            }
        }
    }
}

#[tokio::test]
async fn the_caller_is_identified_by_token_then_key_then_query() {
    let server = Server::start(config()).await;
    let expired = mint(&json!({"role": "anon", "exp": now_s() - 1}));
    let (key, opaque) = (anon_key(), OPAQUE_PUBLIC_KEY);
    let bearer = |scheme: &str, token: &str| Some(format!("{scheme} {token}"));
    // Authorization, apikey, parameter, and whether the request is admitted.
    let cases = [
        (bearer("Bearer", &key), None, None, true),
        (
            bearer("bEARER", &user_token(uuid::Uuid::new_v4())),
            None,
            None,
            true,
        ),
        (bearer("Bearer", &service_role_key()), None, None, true),
        (bearer("Bearer", "x.y.z"), Some(&*key), None, false),
        (bearer("Bearer", &expired), Some(&*key), None, false),
        (bearer("Basic", "eA=="), Some(&*key), None, true),
        (Some("nonsense".to_owned()), Some(&*key), None, true),
        (Some("nonsense".to_owned()), None, None, false),
        (bearer("Bearer", opaque), Some(opaque), None, true),
        (bearer("Bearer", opaque), Some(&*key), None, true),
        (bearer("Bearer", OPAQUE_SERVICE_KEY), None, None, true),
        (None, Some(opaque), None, true),
        (None, Some("sb_publishable_other"), Some(&*key), false),
        (None, None, Some(opaque), true),
        (None, None, Some(&*key), true),
        (None, None, Some("x"), false),
        (None, None, None, false),
    ];
    let body = json!({"messages": [{"topic": "t", "event": "e", "payload": {}}]});
    for (authorization, apikey, parameter, is_admitted) in cases {
        for path in ["/broadcast", "/broadcast/t/events/e"] {
            for family in FAMILIES {
                let query = parameter.map_or(String::new(), |key| format!("?apikey={key}"));
                let path = format!("{family}{path}{query}");
                let mut request = server.request(Method::POST, &path).json(&body);
                if let Some(value) = &authorization {
                    request = request.header("authorization", value);
                }
                if let Some(value) = apikey {
                    request = request.header("apikey", value);
                }
                let expected = if is_admitted {
                    (202, Value::Null)
                } else {
                    (401, json!({"message": "Unauthorized"}))
                };
                assert_eq!(
                    refusal(request).await,
                    expected,
                    "{authorization:?} {apikey:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn invalid_requests_are_refused_with_the_texts_of_the_protocol() {
    let mut config = config();
    config.max_broadcast_bytes = 1_000;
    config.max_request_bytes = 2_000;
    let server = Server::start(config).await;
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(1_000));
    let batch_of = |payload: &str| {
        format!("{{\"messages\":[{{\"topic\":\"t\",\"event\":\"e\",\"payload\":{payload}}}]}}")
    };
    let long_topic = format!("/broadcast/{}/events/e", "t".repeat(247));
    let long_event = format!("/broadcast/t/events/{}", "e".repeat(256));
    let single = "/broadcast/t/events/e";
    let json_type = "application/json";
    let too_large = "Payload size exceeds tenant limit";
    let media = "Unsupported Media Type. Use application/json or application/octet-stream";
    let too_long = |what| format!("{what} too long: at most 255 bytes");
    // Path, content type, body, status, and response.
    let cases: [(&str, &str, &str, u16, Value); 15] = [
        (
            "/broadcast",
            json_type,
            "{}",
            422,
            json!({"errors": {"messages": ["can't be blank"]}}),
        ),
        (
            "/broadcast",
            json_type,
            "",
            422,
            json!({"errors": {"messages": ["can't be blank"]}}),
        ),
        (
            "/broadcast",
            json_type,
            r#"{"messages":[{"topic":"t","event":"e","payload":{}},{"topic":"t"}]}"#,
            422,
            json!({"errors": {"messages": [
                {}, {"payload": ["can't be blank"], "event": ["can't be blank"]}
            ]}}),
        ),
        (
            "/broadcast",
            json_type,
            &batch_of(&large),
            422,
            json!({"errors": {"messages": [{"payload": [too_large]}]}}),
        ),
        (
            "/broadcast",
            json_type,
            "{",
            400,
            json!({"message": "The body is not JSON"}),
        ),
        (
            "/broadcast",
            json_type,
            &" ".repeat(2_001),
            413,
            json!({"message": "The body is too large"}),
        ),
        (
            single,
            json_type,
            &large,
            422,
            json!({"errors": {"payload": [too_large]}}),
        ),
        (
            single,
            "application/octet-stream",
            &large,
            422,
            json!({"errors": {"payload": [too_large]}}),
        ),
        (
            single,
            json_type,
            &"9".repeat(2_001),
            413,
            json!({"message": "The body is too large"}),
        ),
        (
            single,
            json_type,
            "{\"a\":",
            400,
            json!({"message": "The body is not JSON"}),
        ),
        (single, "text/plain", "{}", 415, json!({"error": media})),
        (
            single,
            "application/x-www-form-urlencoded",
            "a=b",
            415,
            json!({"error": media}),
        ),
        (
            &long_topic,
            json_type,
            "{}",
            422,
            json!({"errors": {"topic": [too_long("The topic is")
                .replace("long:", "long to broadcast to:")]}}),
        ),
        (
            &long_event,
            json_type,
            "{}",
            422,
            json!({"errors": {"event": [too_long("The event of a broadcast is")]}}),
        ),
        (
            "/broadcast/%FF/events/e",
            json_type,
            "{}",
            400,
            json!({"message": "The path of the request is not valid UTF-8"}),
        ),
    ];
    for (path, kind, body, status, answer) in &cases {
        for family in FAMILIES {
            let request = server
                .post(&format!("{family}{path}"))
                .header("content-type", *kind)
                .body((*body).to_owned());
            assert_eq!(
                &refusal(request).await,
                &(*status, answer.clone()),
                "{path} {body:.60}"
            );
        }
    }
}

#[tokio::test]
async fn any_page_may_call_without_credentials() {
    let server = Server::start(config()).await;
    for family in FAMILIES {
        for path in ["/broadcast", "/broadcast/t/events/e", "/ping"] {
            let path = format!("{family}{path}");
            let asked = "authorization,apikey,content-type,x-client-info,x-what-comes-next";
            let preflight = server
                .request(Method::OPTIONS, &path)
                .header("origin", "https://page.example")
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", asked);
            let response = preflight.send().await.unwrap();
            assert!(response.status().is_success(), "{response:?}");
            assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
            assert_eq!(
                header(&response, "access-control-allow-methods"),
                Some("POST")
            );
            assert_eq!(
                header(&response, "access-control-allow-headers"),
                Some(asked)
            );
            assert_eq!(header(&response, "access-control-allow-credentials"), None);
        }
        // The page can also read refusals.
        let request = server
            .request(Method::POST, &format!("{family}/broadcast"))
            .header("origin", "https://page.example");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
        assert_eq!(header(&response, "access-control-allow-credentials"), None);
    }
}

#[tokio::test]
async fn health_checks_are_answered() {
    let server = Server::start(config()).await;
    let ping = json!({"message": "Success"}).to_string();
    let bearer = format!("Bearer {}", anon_key());
    let health = "/api/tenants/realtime-dev/health";
    for (path, body) in [
        ("/api/ping", &*ping),
        ("/realtime/v1/api/ping", &*ping),
        ("/healthcheck", "ok"),
    ] {
        let get = server.request(Method::GET, path);
        assert_eq!(outcome(get).await, (200, body.to_owned()), "{path}");
        let head = server.request(Method::HEAD, path);
        assert_eq!(outcome(head).await, (200, String::new()), "{path}");
    }
    for method in [Method::GET, Method::HEAD] {
        let request = server.request(method.clone(), health);
        assert_eq!(outcome(request).await, (403, String::new()));
        let request = server
            .request(method.clone(), health)
            .header("authorization", &bearer);
        let (status, body) = refusal(request).await;
        assert_eq!(status, 200);
        if method == Method::GET {
            // The server has not yet received a report about the database.
            assert_eq!(
                body,
                json!({"data": {
                    "healthy": false, "db_connected": false, "replication_connected": false,
                    "connected_cluster": 0, "region": null, "node": "rapport"
                }})
            );
        }
    }
    let outside = server
        .request(Method::GET, &format!("/realtime/v1{health}"))
        .header("authorization", &bearer);
    assert_eq!(outcome(outside).await.0, 404);
}

#[tokio::test]
async fn rates_are_reported_and_an_excess_is_refused() {
    let mut config = config();
    config.max_events_per_second = 4;
    let server = Server::start(config).await;
    let message = json!({"topic": "t", "event": "e", "payload": {}});
    let post = |count: usize| {
        server
            .post("/api/broadcast")
            .json(&json!({"messages": vec![message.clone(); count]}))
    };
    let response = post(4).send().await.unwrap();
    assert_eq!(response.status(), 202);
    for (name, value) in [
        ("x-rate-rolling", "0"),
        ("x-rate-limit", "4"),
        ("x-rate-limit-remaining", "4"),
    ] {
        assert_eq!(header(&response, name), Some(value), "{name}");
    }
    let too_many = "Too many messages to broadcast, please reduce the batch size";
    assert_eq!(refusal(post(5)).await, (429, json!({"message": too_many})));
    // The limit is 4 per second over at least five seconds, so the twentieth message exceeds it.
    let single = || server.post("/realtime/v1/api/broadcast/t/events/e");
    let refused = eventually("the rate is exceeded", async || {
        let response = single().send().await.unwrap();
        (response.status() == 429).then_some(response)
    })
    .await;
    let rolling: u64 = header(&refused, "x-rate-rolling").unwrap().parse().unwrap();
    assert!(rolling >= 4, "{rolling}");
    assert_eq!(header(&refused, "x-rate-limit-remaining"), Some("0"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body, json!({"message": "Too many requests"}));
    // The request is refused before it is authenticated.
    let nobody = server.request(Method::POST, "/api/broadcast");
    assert_eq!(
        refusal(nobody).await,
        (429, json!({"message": "Too many requests"}))
    );
}

/// Policies that grant the right to write by topic, and that fail for some topics in different
/// ways. Signed-in users may read every topic.
const WRITERS: &str = r"
create function fail_with(state text) returns boolean language plpgsql as
  $$ begin raise exception using errcode = state, message = 'as the test wants it'; end $$;
create policy readers on realtime.messages for select to authenticated using (true);
create policy team on realtime.messages for insert to authenticated with check (
  extension = 'broadcast' and case
    when realtime.topic() like 'team:%' then true
    when realtime.topic() like 'fails:%' then fail_with(split_part(realtime.topic(), ':', 2))
    when realtime.topic() = 'slow' then pg_advisory_xact_lock(7) is not null
    when realtime.topic() = 'house' then
      current_setting('request.headers')::json ->> 'x-floor' = '2'
      and current_setting('request.headers')::json ->> 'authorization' is null
    else false
  end
);
";

async fn private_server() -> (TestDatabase, Server) {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    create_messages(&admin).await;
    admin.batch_execute(WRITERS).await.unwrap();
    let server = Server::start_over(config(), database.url()).await;
    (database, server)
}

impl Server {
    async fn private_member(&self, token: &str, topic: &str) -> PhoenixSocket {
        let mut client = self.client(Version::Two).await;
        let mut join = plain_join();
        join["config"]["private"] = true.into();
        join["access_token"] = token.into();
        client.join("1", topic, join).await;
        client.expect_reply("1", "ok").await;
        client
    }
}

#[tokio::test]
async fn policies_decide_about_single_private_messages() {
    let (_database, server) = private_server().await;
    let token = user_token(uuid::Uuid::new_v4());
    let mut inside = server.private_member(&token, "realtime:team:1").await;
    let mut outside = server.joined(Version::Two, "realtime:team:1").await;
    let send = |topic: &str, query: &str, token: &str| {
        let path = format!("/realtime/v1/api/broadcast/{topic}/events/e?{query}");
        server
            .request(Method::POST, &path)
            .header("authorization", format!("Bearer {token}"))
            .body("{}")
    };
    let frame = user_broadcast("realtime:team:1", "e", 1, b"{}");
    let request = send("team:1", "private=true", &token);
    assert_eq!(outcome(request).await, (202, String::new()));
    assert_eq!(inside.frame().await, frame);
    outside.expect_quiet().await;
    // Only `private=true` means private, in exactly this spelling.
    for query in [
        "private=True",
        "private=1",
        "private=",
        "private=true&private=no",
        "",
    ] {
        let request = send("team:1", query, &anon_key());
        assert_eq!(outcome(request).await, (202, String::new()), "{query}");
        assert_eq!(outside.frame().await, frame);
    }
    inside.expect_quiet().await;
    // Topic, status, message.
    let cases = [
        ("elsewhere", 403, "Unauthorized"),
        ("fails:22023", 422, "RLS policy error"),
        ("fails:57014", 422, "Query canceled"),
        (
            "fails:53300",
            422,
            "Tenant database has too many connections",
        ),
        ("fails:XX000", 500, "Unable to authorize broadcast"),
    ];
    for (topic, status, message) in cases {
        let request = send(topic, "private=true", &token);
        assert_eq!(
            refusal(request).await,
            (status, json!({"message": message})),
            "{topic}"
        );
    }
    for (floor, status) in [("2", 202), ("3", 403)] {
        let request = send("house", "private=true", &token).header("x-floor", floor);
        assert_eq!(outcome(request).await.0, status);
    }
}

#[tokio::test]
async fn a_batch_lists_the_private_messages_that_were_not_sent() {
    let (_database, server) = private_server().await;
    let token = user_token(uuid::Uuid::new_v4());
    let mut inside = server.private_member(&token, "realtime:team:1").await;
    let mut outside = server.joined(Version::One, "realtime:elsewhere").await;
    let message = |topic: &str, is_private: bool| json!({"topic": topic, "event": "e", "payload": {}, "private": is_private});
    let body = json!({"messages": [
        message("elsewhere", true),
        message("elsewhere", true),
        message("elsewhere", false),
        message("team:1", true),
        message("fails:22023", true),
        message("fails:57014", true),
        message("team:2", true),
    ]});
    let request = server
        .post("/api/broadcast")
        .bearer_auth(&token)
        .json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(
        header(&response, "x-broadcast-refused"),
        // The last topic is not checked, because the database failed on the topic before it.
        Some("0-1;reason=forbidden, 4;reason=policy_error, 5-6;reason=query_canceled")
    );
    assert_eq!(response.text().await.unwrap(), "");
    inside.expect("realtime:team:1", "broadcast").await;
    outside.expect("realtime:elsewhere", "broadcast").await;
    inside.expect_quiet().await;
    outside.expect_quiet().await;
    // If every message was sent, the response has no such header.
    let body = json!({"messages": [message("team:1", true)]});
    let request = server
        .post("/api/broadcast")
        .bearer_auth(&token)
        .json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(header(&response, "x-broadcast-refused"), None);
    inside.expect("realtime:team:1", "broadcast").await;
}

#[tokio::test]
async fn a_missing_partition_is_reported() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    create_partitioned_messages(&admin).await;
    // If the table has a trigger, only an insert can evaluate the policies.
    admin
        .batch_execute(
            "create function keep() returns trigger language plpgsql as 'begin return new; end';
             create trigger keep before insert on realtime.messages for each row execute function keep();",
        )
        .await
        .unwrap();
    let server = Server::start_over(config(), database.url()).await;
    let single = server.post("/api/broadcast/t/events/e?private=true");
    assert_eq!(
        refusal(single).await,
        (422, json!({"message": "Missing messages partition"}))
    );
}

#[tokio::test]
async fn a_check_without_a_free_connection_is_refused() {
    let (database, server) = private_server().await;
    let admin = database.connect().await;
    admin
        .batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        // Each request has a different user. Otherwise, a single check for all of them would use
        // only one connection.
        let request = server
            .request(Method::POST, "/api/broadcast/slow/events/e?private=true")
            .bearer_auth(user_token(uuid::Uuid::new_v4()));
        answers.spawn(refusal(request));
    }
    // Four checks wait for the lock, and one waits for a connection.
    assert_eq!(
        answers.join_next().await.unwrap().unwrap(),
        (429, json!({"message": "Connection pool exhausted"}))
    );
    admin
        .batch_execute("select pg_advisory_unlock(7)")
        .await
        .unwrap();
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().0, 202);
    }
}

#[tokio::test]
async fn without_a_database_only_private_messages_fail() {
    let server = Server::start(config()).await;
    let mut member = server.joined(Version::Two, "realtime:t").await;
    let single = server.post("/api/broadcast/t/events/e?private=true");
    assert_eq!(
        refusal(single).await,
        (422, json!({"message": "Tenant database unavailable"}))
    );
    let single = server.post("/api/broadcast/t/events/e");
    assert_eq!(outcome(single).await.0, 202);
    assert_eq!(
        member.frame().await,
        user_broadcast("realtime:t", "e", 1, b"{}")
    );
    let message = |is_private: bool| json!({"topic": "t", "event": "e", "payload": {}, "private": is_private});
    let body = json!({"messages": [message(true), message(false)]});
    let response = server
        .post("/api/broadcast")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(
        header(&response, "x-broadcast-refused"),
        Some("0;reason=database_unavailable")
    );
    member.expect("realtime:t", "broadcast").await;
    member.expect_quiet().await;
}
