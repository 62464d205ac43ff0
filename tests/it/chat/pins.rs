//! Pinning and reporting messages.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{self, Ana, Ben, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer};

async fn request_pin(
    server: &ChatServer,
    person: Person,
    message: &Value,
    method: Method,
) -> Answer {
    let path = format!("/messages/{}/pin", message["id"].as_str().unwrap());
    answer(server.request(person, method, &path)).await
}

fn contents(list: &Answer) -> Vec<&str> {
    list.rows()
        .iter()
        .map(|row| row["content"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn pins_are_shared_and_paged() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let mut sent = Vec::new();
    for text in ["1", "2", "3", "4"] {
        sent.push(server.say(Ana, &conversation, text).await);
    }
    for (person, index) in [(Ben, 2), (Ana, 0), (Ana, 3), (Ana, 2)] {
        let pinned = request_pin(&server, person, &sent[index], Method::PUT).await;
        assert_eq!((pinned.status.as_u16(), &pinned.body), (204, &Value::Null));
    }
    let path = format!("/conversations/{conversation}/pins");
    for person in [Ana, Ben] {
        let list = server.get(person, &path).await;
        assert_eq!(contents(&list), ["4", "1", "3"]);
        assert!(list.rows().iter().all(|row| row["is_pinned"] == true));
        assert!(
            list.rows()[2]["rev"].as_i64() > sent[3]["rev"].as_i64(),
            "a pin changes the revision of its message"
        );
    }
    let first = server.get(Ana, &format!("{path}?limit=2")).await;
    assert_eq!(contents(&first), ["4", "1"]);
    let cursor = first.header("x-next-cursor").unwrap();
    let second = server
        .get(Ana, &format!("{path}?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(contents(&second), ["3"]);
    assert_eq!(second.header("x-next-cursor"), None);

    for _ in 0..2 {
        let unpinned = request_pin(&server, Ben, &sent[0], Method::DELETE).await;
        assert_eq!(unpinned.status, 204);
    }
    // A message deleted for everyone, or only for the caller, is no longer pinned.
    let deleted = format!("/messages/{}", sent[3]["id"].as_str().unwrap());
    answer(server.request(Ana, Method::DELETE, &deleted)).await;
    assert_eq!(contents(&server.get(Ana, &path).await), ["3"]);
    request_pin(&server, Ana, &sent[3], Method::PUT)
        .await
        .assert_refused(409, "message_deleted");
    let hidden = format!("/messages/{}?for=me", sent[2]["id"].as_str().unwrap());
    answer(server.request(Ben, Method::DELETE, &hidden)).await;
    assert_eq!(server.get(Ben, &path).await.body, json!([]));
    assert_eq!(contents(&server.get(Ana, &path).await), ["3"]);
}

#[tokio::test]
async fn only_members_can_pin_and_see_pins() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "1").await;
    for method in [Method::PUT, Method::DELETE] {
        request_pin(&server, Zoe, &message, method)
            .await
            .assert_refused(404, "not_found");
    }
    let path = format!("/conversations/{conversation}/pins");
    server
        .get(Zoe, &path)
        .await
        .assert_refused(404, "not_found");
    server
        .get(Ana, &format!("{path}?cursor=x"))
        .await
        .assert_refused(400, "malformed_request");
    server
        .post(Ben, "/blocks", json!({ "user_id": Ana.id() }))
        .await;
    request_pin(&server, Ana, &message, Method::PUT)
        .await
        .assert_refused(403, "not_allowed_recipient");
}

#[tokio::test]
async fn a_report_keeps_the_content_from_before_an_edit() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "rude").await;
    let id = message["id"].as_str().unwrap();
    let path = format!("/messages/{id}/report");
    let report = json!({ "reason": "harassment", "note": "see above" });
    for status in [201, 200] {
        let reported = server.post(Ben, &path, report.clone()).await;
        assert_eq!(reported.status, status, "{reported:?}");
        assert_eq!(reported.body, json!({ "success": true, "message_id": id }));
    }
    server
        .send(
            Ana,
            Method::PATCH,
            &format!("/messages/{id}"),
            json!({ "content": "kind" }),
        )
        .await;
    let database = server.database.connect().await;
    let kept =
        "select string_agg(concat_ws(' ', content, reason, note), ',') from chat.message_reports";
    let kept: String = database.query_one(kept, &[]).await.unwrap().get(0);
    assert_eq!(kept, "rude harassment see above");
    for (person, body, status, code) in [
        (Zoe, json!({ "reason": "spam" }), 404, "not_found"),
        (Ana, json!({ "reason": "spam" }), 422, "validation_failed"),
        (Ben, json!({ "reason": "boring" }), 422, "validation_failed"),
        (
            Ben,
            json!({ "note": "x".repeat(2001) }),
            422,
            "validation_failed",
        ),
    ] {
        server
            .post(person, &path, body)
            .await
            .assert_refused(status, code);
    }
}
