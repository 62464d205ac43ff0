//! How often somebody may do what.

use std::time::Duration;

use rapport::observability::metrics::RateLimitLabels;
use reqwest::Method;
use serde_json::json;

use crate::support::chat_server::Person::{Ada, Ana, Ben};
use crate::support::chat_server::{Answer, ChatServer, answer};

/// Limit, remaining and reset.
fn standing(answer: &Answer) -> [u64; 3] {
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
async fn a_client_that_waits_as_told_gets_through() {
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
        let [limit, remaining, reset] = standing(&sent);
        assert_eq!(limit, 3);
        assert!(remaining < 3 && (1..=2).contains(&reset), "{sent:?}");
        if sent.status == 201 {
            continue;
        }
        assert_eq!(remaining, 0);
        refusals += 1;
        let seconds = retry_after(&sent);
        assert_eq!(seconds, 1);
        // Somebody else, and something else, is not held up by it.
        let bens = server.post(Ben, "/messages", body.clone()).await;
        assert_eq!((bens.status.as_u16(), standing(&bens)[1]), (201, 2));
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
async fn a_replay_and_a_conversation_that_is_there_cost_nothing() {
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
        assert_eq!((found.status.as_u16(), standing(&found)[1]), (200, 1));
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
        assert_eq!((sent.status.as_u16(), standing(&sent)[1]), (201, 1));
    }
    // A message to somebody new opens a conversation, which counts as one.
    let to_ada = json!({ "other_user_id": Ada.id(), "content": "x" });
    let sent = server.post(Ana, "/messages", to_ada).await;
    assert_eq!((sent.status.as_u16(), standing(&sent)[1]), (201, 0));
    let body = json!({ "conversation_id": conversation, "content": "x" });
    let refused = server.post(Ana, "/messages", body).await;
    assert!((1..=30).contains(&retry_after(&refused)));
    assert_eq!(standing(&refused)[..2], [2, 0]);
    let refused = server
        .post(Ana, "/conversations", json!({ "other_user_id": Ben.id() }))
        .await;
    retry_after(&refused);
}

#[tokio::test]
async fn only_people_are_counted() {
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
    assert_eq!((read.status.as_u16(), standing(&read)), (200, [1, 0, 1]));
    let write = server
        .post(Ana, "/presence", json!({ "status": "online" }))
        .await;
    assert_eq!(write.header("x-ratelimit-limit"), None, "no limit");
}
