//! Rate limits of the chat routes.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use rapport::observability::metrics::RateLimitLabels;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::chat_server::Person::{self, Ada, Ana, Ben, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer};

/// Returns the values of the headers `x-ratelimit-limit`, `-remaining` and `-reset`.
fn status(answer: &Answer) -> [u64; 3] {
    ["limit", "remaining", "reset"].map(|name| {
        let name = format!("x-ratelimit-{name}");
        answer
            .header(&name)
            .unwrap_or_else(|| panic!("{name}: {answer:?}"))
            .parse()
            .unwrap()
    })
}

fn retry_after(answer: &Answer) -> u64 {
    answer.assert_refused(429, "rate_limited");
    let seconds = answer.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(answer.body["retry_after"], seconds);
    seconds
}

#[tokio::test]
async fn a_client_that_waits_for_retry_after_is_admitted() {
    let server = ChatServer::start_with(&[
        ("RAPPORT_CHAT_LIMITS_SEND_BURST", "3"),
        ("RAPPORT_CHAT_LIMITS_SEND_PER_SECOND", "2"),
    ])
    .await;
    let conversation = server.open(Ana, Ben).await;
    let body = json!({ "conversation_id": conversation, "content": "x" });
    let send = async || server.post(Ana, "/messages", body.clone()).await;
    let mut refusals = 0;
    while refusals < 2 {
        let sent = send().await;
        let [limit, remaining, reset] = status(&sent);
        assert_eq!(limit, 3);
        assert!(remaining < 3 && (1..=2).contains(&reset), "{sent:?}");
        if sent.status == 201 {
            continue;
        }
        assert_eq!(remaining, 0);
        refusals += 1;
        let seconds = retry_after(&sent);
        assert_eq!(seconds, 1);
        // Other users and other classes are not affected.
        let bens = server.post(Ben, "/messages", body.clone()).await;
        assert_eq!((bens.status.as_u16(), status(&bens)[1]), (201, 2));
        assert_eq!(server.get(Ana, "/conversations").await.status, 200);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(send().await.status, 201);
    }
    let labels = RateLimitLabels { class: "send" };
    let counted = server
        .metrics
        .chat
        .rate_limited
        .get_or_create(&labels)
        .get();
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn replays_and_existing_conversations_cost_no_token_of_their_class() {
    let server = ChatServer::start_with(&[
        ("RAPPORT_CHAT_LIMITS_SEND_PER_MINUTE", "2"),
        ("RAPPORT_CHAT_LIMITS_OPEN_PER_MINUTE", "2"),
    ])
    .await;
    let conversation = server.open(Ana, Ben).await;
    for _ in 0..5 {
        let found = server
            .post(Ana, "/conversations", json!({ "other_user_id": Ben.id() }))
            .await;
        assert_eq!((found.status.as_u16(), status(&found)[1]), (200, 1));
    }
    let send = async |body| {
        let request = server
            .request(Ana, Method::POST, "/messages")
            .header("idempotency-key", "k")
            .json(&body);
        answer(request).await
    };
    let to_ben = json!({ "other_user_id": Ben.id(), "content": "x" });
    for _ in 0..5 {
        let sent = send(to_ben.clone()).await;
        assert_eq!((sent.status.as_u16(), status(&sent)[1]), (201, 1));
    }
    // A message to a new recipient opens a conversation and counts as such.
    let to_ada = json!({ "other_user_id": Ada.id(), "content": "x" });
    let sent = server.post(Ana, "/messages", to_ada).await;
    assert_eq!((sent.status.as_u16(), status(&sent)[1]), (201, 0));
    let body = json!({ "conversation_id": conversation, "content": "x" });
    let refused = server.post(Ana, "/messages", body).await;
    assert!((1..=30).contains(&retry_after(&refused)));
    assert_eq!(status(&refused)[..2], [2, 0]);
    let found = server
        .post(Ana, "/conversations", json!({ "other_user_id": Ben.id() }))
        .await;
    assert_eq!((found.status.as_u16(), status(&found)[1]), (200, 0));
}

#[tokio::test]
async fn only_new_conversations_count_as_opened() {
    let server = ChatServer::start_with(&[
        ("RAPPORT_CHAT_LIMITS_OPEN_PER_MINUTE", "1"),
        ("RAPPORT_CHAT_LIMITS_READ_BURST", "30"),
        ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "1"),
    ])
    .await;
    let keyed = async |key: &str, path: &str, body: Value| {
        let request = server.request(Ana, Method::POST, path);
        answer(request.header("idempotency-key", key).json(&body)).await
    };
    let post = async |person, path: &str, body: &Value| {
        let answer = server.post(person, path, body.clone()).await;
        answer.status.as_u16()
    };
    let with = |person: Person| json!({ "other_user_id": person.id() });
    let look = |person: Person| json!({ "other_user_id": person.id(), "prevent_creation": true });
    let say = |person: Person| json!({ "other_user_id": person.id(), "content": "x" });
    let say_once = |person: Person| json!({ "other_user_id": person.id(), "content": "x", "client_message_id": "once" });

    // Finding a conversation does not count as opening one. Neither does a request that is refused
    // after it has opened one.
    let empty = json!({ "other_user_id": Ben.id(), "content": " " });
    for _ in 0..3 {
        assert_eq!(post(Ana, "/conversations", &look(Ben)).await, 404);
        assert_eq!(post(Ana, "/messages", &empty).await, 422);
    }
    assert_eq!(post(Ana, "/messages", &say(Ben)).await, 201);

    // Without any tokens left, a message to a user with an existing conversation is still sent.
    let found = server.post(Ana, "/conversations", with(Ben)).await;
    assert_eq!((found.status.as_u16(), status(&found)[1]), (200, 0));
    assert_eq!(post(Ana, "/conversations", &look(Ben)).await, 200);
    assert_eq!(keyed("a", "/conversations", with(Ben)).await.status, 200);
    assert_eq!(post(Ana, "/messages", &say(Ben)).await, 201);
    assert_eq!(post(Ana, "/messages", &say_once(Ben)).await, 201);
    assert_eq!(post(Ana, "/messages", &say_once(Ben)).await, 200);
    for _ in 0..2 {
        assert_eq!(keyed("b", "/messages", say(Ben)).await.status, 201);
    }

    // No new conversation can be opened.
    for refused in [
        server.post(Ana, "/conversations", with(Ada)).await,
        keyed("c", "/conversations", with(Ada)).await,
        server.post(Ana, "/messages", say(Ada)).await,
        server.post(Ana, "/messages", say_once(Ada)).await,
        keyed("d", "/messages", say(Ada)).await,
    ] {
        assert!(retry_after(&refused) > 1, "{refused:?}");
    }
    assert_eq!(post(Ana, "/conversations", &look(Ada)).await, 404);

    // Finding a conversation counts as a read, so it is refused when no read tokens are left.
    let mut found = 0;
    while post(Ana, "/conversations", &with(Ben)).await == 200 {
        found += 1;
        assert!(found < 100, "the flood was never refused");
    }
    assert_eq!(post(Ana, "/conversations", &look(Ben)).await, 429);
    assert_eq!(post(Ana, "/messages", &say(Ben)).await, 429);
}

/// Uses up Ana's tokens of a class, waits for `Retry-After`, and sends another request.
async fn exhaust_and_wait(
    server: &ChatServer,
    class: &'static str,
    (method, path): (Method, &str),
    (spent_on, then): (Value, Value),
) {
    let ask = async |body: &Value| server.send(Ana, method.clone(), path, body.clone()).await;
    // More requests than any burst plus the tokens refilled in the meantime.
    let mut tries = 0..500;
    let refused = loop {
        let asked = ask(&spent_on).await;
        if asked.status == 429 {
            break asked;
        }
        assert!(
            tries.next().is_some(),
            "{class} was never refused: {asked:?}"
        );
    };
    let seconds = retry_after(&refused);
    assert_eq!(seconds, 1, "{class}");
    let [limit, remaining, reset] = status(&refused);
    assert!(limit > 0 && remaining == 0 && reset > 0, "{class}");
    let labels = RateLimitLabels { class };
    let metrics = &server.metrics.chat;
    assert_eq!(
        metrics.rate_limited.get_or_create(&labels).get(),
        1,
        "{class}"
    );
    // The limits use the system's clock, which may run slower than the timer while it is corrected.
    let until = SystemTime::now() + Duration::from_secs(seconds);
    while let Ok(left) = until.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.max(Duration::from_millis(1))).await;
    }
    let asked = ask(&then).await;
    assert!(asked.status.is_success(), "{class}: {asked:?}");
}

#[tokio::test]
async fn every_class_has_a_limit_and_admits_clients_that_wait() {
    let server = ChatServer::start_with(&[
        // In each of these classes, one token is refilled per second.
        ("RAPPORT_CHAT_LIMITS_OPEN_PER_MINUTE", "60"),
        ("RAPPORT_CHAT_LIMITS_MARK_READ_BURST", "2"),
        ("RAPPORT_CHAT_LIMITS_MARK_READ_PER_SECOND", "1"),
        ("RAPPORT_CHAT_LIMITS_TYPING_BURST", "2"),
        ("RAPPORT_CHAT_LIMITS_TYPING_PER_SECOND", "1"),
        ("RAPPORT_CHAT_LIMITS_SEARCH_PER_MINUTE", "60"),
        ("RAPPORT_CHAT_LIMITS_WRITE_BURST", "2"),
        ("RAPPORT_CHAT_LIMITS_WRITE_PER_SECOND", "1"),
        ("RAPPORT_CHAT_LIMITS_READ_BURST", "2"),
        ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "1"),
        ("RAPPORT_CHAT_LIMITS_CLIENT_ERRORS_PER_MINUTE", "60"),
    ])
    .await;
    let conversation = server.open(Ben, Ana).await;
    let [read, typing] =
        ["read", "typing"].map(|what| format!("/conversations/{conversation}/{what}"));
    let cases = [
        (
            "open",
            (Method::POST, "/conversations"),
            (
                json!({ "other_user_id": Uuid::new_v4() }),
                json!({ "other_user_id": Ada.id() }),
            ),
        ),
        ("mark_read", (Method::POST, read.as_str()), same(json!({}))),
        ("typing", (Method::POST, typing.as_str()), same(json!({}))),
        ("search", (Method::GET, "/search?q=be"), same(json!({}))),
        (
            "write",
            (Method::PATCH, "/preferences"),
            same(json!({ "digest_hour": 7 })),
        ),
        ("read", (Method::GET, "/conversations"), same(json!({}))),
        (
            "client_errors",
            (Method::POST, "/client-errors"),
            same(json!({ "message": "x" })),
        ),
    ];
    join_all(cases.map(|(class, route, bodies)| exhaust_and_wait(&server, class, route, bodies)))
        .await;
}

fn same(body: Value) -> (Value, Value) {
    (body.clone(), body)
}

#[tokio::test]
async fn without_remaining_tokens_only_retries_succeed() {
    let server = ChatServer::start_with(&[
        ("RAPPORT_CHAT_LIMITS_SEND_PER_MINUTE", "2"),
        ("RAPPORT_CHAT_LIMITS_OPEN_PER_MINUTE", "1"),
        ("RAPPORT_CHAT_LIMITS_READ_BURST", "20"),
        ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "1"),
    ])
    .await;
    let conversation = server.open(Ben, Ana).await;
    let keyed = async |key: &str, path: &str, body: Value| {
        let request = server.request(Ana, Method::POST, path);
        answer(request.header("idempotency-key", key).json(&body)).await
    };
    let message = |content: &str, id: &str| json!({ "conversation_id": conversation, "content": content, "client_message_id": id });
    let send =
        async |content: &str, id: &str| server.post(Ana, "/messages", message(content, id)).await;
    let told = |answer: &Answer| (answer.status.as_u16(), status(answer)[1]);

    let first = send("a", "a").await;
    assert_eq!(told(&first), (201, 1));
    assert_eq!(told(&send("a", "a").await), (200, 1), "found again");
    let by_key = json!({ "conversation_id": conversation, "content": "b" });
    let second = keyed("k", "/messages", by_key.clone()).await;
    assert_eq!(told(&second), (201, 0));
    let with_ada = json!({ "other_user_id": Ada.id() });
    let opened = keyed("open", "/conversations", with_ada.clone()).await;
    assert_eq!(told(&opened), (201, 0));

    // Sends more retries than there are read tokens.
    for _ in 0..25 {
        let again = send("a", "a").await;
        assert_eq!(
            (told(&again), &again.body["id"]),
            ((200, 0), &first.body["id"])
        );
    }
    let to_ben = json!({ "other_user_id": Ben.id(), "content": "a", "client_message_id": "a" });
    let again = server.post(Ana, "/messages", to_ben).await;
    assert_eq!(
        (told(&again), &again.body["id"]),
        ((200, 0), &first.body["id"])
    );
    let again = keyed("k", "/messages", by_key).await;
    assert_eq!(
        (told(&again), &again.body["id"]),
        ((201, 0), &second.body["id"])
    );
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let again = keyed("open", "/conversations", with_ada.clone()).await;
    assert_eq!(
        (told(&again), &again.body["id"]),
        ((201, 0), &opened.body["id"])
    );

    let other = send("other", "a").await;
    other.assert_refused(409, "client_message_id_conflict");
    let with_zoe = json!({ "other_user_id": Zoe.id() });
    let to_ada = json!({ "other_user_id": Ada.id(), "content": "a", "client_message_id": "a" });
    for new in [
        send("new", "new").await,
        server.post(Ana, "/messages", to_ada).await,
        keyed("new", "/messages", message("new", "new")).await,
        keyed("new", "/conversations", with_zoe).await,
    ] {
        assert!(retry_after(&new) > 1, "{new:?}");
        assert_eq!(status(&new)[1], 0);
    }
    // A refused write leaves neither a message nor a key.
    let history = format!("/messages?conversation_id={conversation}");
    assert_eq!(server.get(Ben, &history).await.rows().len(), 2);
    let database = server.database.connect().await;
    let keys = "select count(*) from chat.idempotency_keys";
    let keys: i64 = database.query_one(keys, &[]).await.unwrap().get(0);
    assert_eq!(keys, 2);

    // The lookup of an earlier request with the same key counts as a read, so a flood of new writes
    // ends at that limit.
    let mut readings = 0;
    while server.get(Ana, "/unread-count").await.status == 200 {
        readings += 1;
        assert!(readings < 5, "the flood used no read tokens");
        for n in 0..30 {
            retry_after(&send("new", &format!("{readings} {n}")).await);
        }
    }
}

#[tokio::test]
async fn only_authenticated_requests_are_counted() {
    let server = ChatServer::start_with(&[
        ("RAPPORT_CHAT_LIMITS_READ_BURST", "1"),
        ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "1"),
    ])
    .await;
    for _ in 0..3 {
        let refused = answer(server.anonymous(Method::GET, "/conversations")).await;
        refused.assert_refused(401, "unauthorized");
        assert_eq!(refused.header("x-ratelimit-limit"), None);
    }
    let read = server.get(Ana, "/conversations").await;
    assert_eq!((read.status.as_u16(), status(&read)), (200, [1, 0, 1]));
    let write = server
        .post(Ana, "/presence", json!({ "status": "online" }))
        .await;
    assert_eq!(write.header("x-ratelimit-limit"), None, "no limit");
}

/// A request to a path that does not exist costs a token like any other. Requests to paths without
/// a limit cost none.
#[tokio::test]
async fn requests_without_a_route_are_limited_by_their_method() {
    let server = ChatServer::start_with(&[
        ("RAPPORT_CHAT_LIMITS_READ_BURST", "10"),
        ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "1"),
        ("RAPPORT_CHAT_LIMITS_WRITE_BURST", "20"),
        ("RAPPORT_CHAT_LIMITS_WRITE_PER_SECOND", "1"),
    ])
    .await;
    for (method, path, expected, limit) in [
        (Method::GET, "/nothing", 404, Some("10")),
        (Method::DELETE, "/nothing", 404, Some("20")),
        (Method::GET, "/presence/typing", 405, Some("10")),
        (Method::DELETE, "/messages", 405, Some("20")),
        (Method::OPTIONS, "/messages", 204, None),
        (Method::GET, "/config", 200, None),
        (Method::DELETE, "/config", 405, None),
    ] {
        let place = format!("{method} {path}");
        let answer = answer(server.request(Ana, method, path)).await;
        let found = (answer.status.as_u16(), answer.header("x-ratelimit-limit"));
        assert_eq!(found, (expected, limit), "{place}");
    }
}
