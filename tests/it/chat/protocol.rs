//! Behaviour common to all routes: headers, bodies, caching, origins.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ana, Ben};
use crate::support::chat_server::{ChatServer, answer};
use crate::support::log::Log;

const APP: &str = "https://app.example";

async fn with_origin() -> ChatServer {
    ChatServer::start_with(&[("RAPPORT_SERVER_ALLOWED_ORIGINS", APP)]).await
}

#[tokio::test]
async fn responses_are_cached_by_their_body() {
    let server = ChatServer::start().await;
    server.open(Ana, Ben).await;
    let first = server.get(Ana, "/conversations").await;
    let tag = first.header("etag").unwrap();
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    assert_eq!(
        first.header("vary"),
        Some("Authorization, Cookie, Origin, Accept-Encoding")
    );
    assert_eq!(first.header("content-type"), Some("application/json"));
    let again = |tag: String| {
        answer(
            server
                .request(Ana, Method::GET, "/conversations")
                .header("if-none-match", tag),
        )
    };
    for known in [tag.to_owned(), format!("\"x\", W/{tag}")] {
        let same = again(known).await;
        assert_eq!((same.status.as_u16(), &same.body), (304, &Value::Null));
        assert_eq!(
            (same.header("etag"), same.header("cache-control")),
            (Some(tag), Some("private, no-cache"))
        );
    }
    server
        .post(Ben, "/presence", json!({ "status": "online" }))
        .await;
    let changed = again(tag.to_owned()).await;
    assert_eq!(
        changed.status, 200,
        "the rows contain a colleague's presence"
    );
    assert_ne!(changed.header("etag"), Some(tag));

    let page = "/conversations?format=page";
    let first = server.get(Ana, page).await;
    let again = server
        .request(Ana, Method::GET, page)
        .header("if-none-match", first.header("etag").unwrap());
    assert_eq!(
        answer(again).await.status,
        304,
        "a different time alone does not change the ETag"
    );
}

#[tokio::test]
async fn malformed_bodies_are_refused() {
    let server = ChatServer::start().await;
    let post = |media_type: &'static str, body: Vec<u8>| {
        answer(
            server
                .request(Ana, Method::POST, "/messages")
                .header("content-type", media_type)
                .body(body),
        )
    };
    post("application/json", b"{".to_vec())
        .await
        .assert_refused(400, "malformed_request");
    post("application/json", b"{\"content\":\"\xff\"}".to_vec())
        .await
        .assert_refused(400, "malformed_request");
    post("application/json", b"[]".to_vec())
        .await
        .assert_refused(422, "validation_failed");
    post("text/plain", b"{}".to_vec())
        .await
        .assert_refused(415, "unsupported_media_type");
    post("application/x-www-form-urlencoded", b"a=b".to_vec())
        .await
        .assert_refused(415, "unsupported_media_type");
    let untyped = answer(server.request(Ana, Method::POST, "/messages").body("{}")).await;
    untyped.assert_refused(415, "unsupported_media_type");
    let large = format!("{{\"content\":\"{}\"}}", "x".repeat(1024 * 1024));
    post("application/json", large.into_bytes())
        .await
        .assert_refused(413, "payload_too_large");
    post("Application/JSON; charset=utf-8", b"{}".to_vec())
        .await
        .assert_refused(422, "validation_failed");
}

#[tokio::test]
async fn request_ids_are_echoed_and_part_of_refusals() {
    let server = ChatServer::start().await;
    let given = server
        .request(Ana, Method::GET, "/conversations/x")
        .header("x-request-id", "mine-1");
    let given = answer(given).await;
    given.assert_refused(404, "not_found");
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
    let made = server.get(Ana, "/conversations").await;
    assert!(uuid::Uuid::try_parse(made.header("x-request-id").unwrap()).is_ok());
    let unfit = server
        .request(Ana, Method::GET, "/conversations")
        .header("x-request-id", "{\"a\": 1}");
    assert_ne!(
        answer(unfit).await.header("x-request-id"),
        Some("{\"a\": 1}")
    );
}

#[tokio::test]
async fn only_configured_origins_may_read_responses() {
    let server = with_origin().await;
    let preflight = |origin: &'static str| {
        let request = server
            .anonymous(Method::OPTIONS, "/messages")
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header(
                "access-control-request-headers",
                "authorization,content-type,idempotency-key",
            );
        answer(request)
    };
    let allowed = preflight(APP).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(APP));
    assert_eq!(
        allowed.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        Some(
            "authorization, apikey, x-client-info, x-supabase-api-version, content-type, idempotency-key, if-match, if-none-match, prefer"
        )
    );
    assert!(
        allowed
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PATCH")
    );
    assert_eq!(allowed.header("vary"), Some("Origin"));

    let refused = preflight("https://evil.example").await;
    assert_eq!(
        refused
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control"))
            .count(),
        0
    );

    for (origin, expected) in [
        (APP, Some(APP)),
        ("https://evil.example", None),
        ("null", None),
    ] {
        let read = answer(
            server
                .request(Ana, Method::GET, "/conversations")
                .header("origin", origin),
        )
        .await;
        assert_eq!(read.status, 200);
        assert_eq!(read.header("access-control-allow-origin"), expected);
        assert_eq!(
            read.header("access-control-allow-credentials"),
            expected.map(|_| "true")
        );
        let exposed = read
            .header("access-control-expose-headers")
            .unwrap_or_default();
        assert_eq!(
            exposed.contains("x-total-unread") && exposed.contains("etag"),
            expected.is_some()
        );
    }
    let unauthorized = answer(
        server
            .anonymous(Method::GET, "/conversations")
            .header("origin", APP),
    )
    .await;
    unauthorized.assert_refused(401, "unauthorized");
    assert_eq!(
        unauthorized.header("access-control-allow-origin"),
        Some(APP),
        "a page may read why it was refused"
    );
    let unknown = server
        .request(Ana, Method::GET, "/nothing")
        .header("origin", APP);
    let unknown = answer(unknown).await;
    unknown.assert_refused(404, "not_found");
    assert_eq!(unknown.header("access-control-allow-origin"), Some(APP));
    let preflight = server
        .anonymous(Method::OPTIONS, "/nothing")
        .header("origin", APP)
        .header("access-control-request-method", "GET");
    assert_eq!(
        answer(preflight).await.status,
        204,
        "the preflight lets the page read the 404"
    );
}

#[tokio::test]
async fn a_query_with_another_callers_id_is_refused_everywhere() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "1").await;
    let (message, other) = (message["id"].as_str().unwrap(), Ben.id());
    let paths = [
        (Method::GET, "/conversations?".to_owned()),
        (Method::POST, "/conversations?".to_owned()),
        (Method::GET, format!("/conversations/{conversation}?")),
        (Method::POST, format!("/conversations/{conversation}/read?")),
        (
            Method::POST,
            format!("/conversations/{conversation}/typing?"),
        ),
        (
            Method::GET,
            format!("/messages?conversation_id={conversation}&"),
        ),
        (Method::POST, "/messages?".to_owned()),
        (Method::PATCH, "/messages?".to_owned()),
        (Method::GET, format!("/messages/{message}?")),
        (Method::GET, "/presence?".to_owned()),
        (Method::POST, "/presence?".to_owned()),
        (Method::DELETE, "/presence?".to_owned()),
        (Method::POST, "/presence/typing?".to_owned()),
        (Method::GET, "/search?q=be&".to_owned()),
        (Method::GET, "/unread-count?".to_owned()),
    ];
    for (method, path) in paths {
        for name in ["current_user_id", "currentUserId"] {
            let path = format!("{path}{name}={other}");
            answer(server.request(Ana, method.clone(), &path))
                .await
                .assert_refused(403, "identity_mismatch");
        }
    }
    let own = format!("/unread-count?currentUserId={}", Ana.id());
    assert_eq!(server.get(Ana, &own).await.status, 200);
}

#[tokio::test]
async fn local_origins_can_be_allowed_for_development() {
    let server =
        ChatServer::start_with(&[("RAPPORT_SERVER_ALLOW_LOCALHOST_ORIGINS", "true")]).await;
    for (origin, expected) in [
        ("http://localhost:3000", true),
        ("http://localhost.evil.example", false),
    ] {
        let read = answer(
            server
                .request(Ana, Method::GET, "/conversations")
                .header("origin", origin),
        )
        .await;
        assert_eq!(
            read.header("access-control-allow-origin").is_some(),
            expected,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn a_request_is_one_log_line_without_private_data() {
    let log = Log::of_this_thread();
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let token = crate::support::token::user_token(Ana.id());
    let path = format!("/conversations/{conversation}?search=private-search");
    let read = server
        .anonymous(Method::GET, &path)
        .bearer_auth(&token)
        .header("x-request-id", "the-read");
    answer(read.header("cookie", "sb-a-auth-token=private-cookie")).await;
    server.say(Ana, &conversation, "private-content").await;
    server
        .post(
            Ana,
            "/messages",
            json!({ "content": "private-content", "conversation_id": "x" }),
        )
        .await;

    let text = log.text();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("the-read"))
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    for part in [
        "method=GET",
        "route=\"/api/supabase/user-chat/conversations/{id}\"",
        "status=200",
        "ms=",
    ] {
        assert!(lines[0].contains(part), "{part} is missing in {}", lines[0]);
    }
    for private in [token.as_str(), &conversation, "private"] {
        assert!(!text.contains(private), "{private} is in the log: {text}");
    }
}
