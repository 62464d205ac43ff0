//! Reactions to messages.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ana, Ben, Zoe};
use crate::support::chat_server::{ChatServer, answer};

fn entry(reaction: &str, me: bool, people: &[crate::support::chat_server::Person]) -> Value {
    let ids: Vec<_> = people.iter().map(|person| person.id()).collect();
    json!({ "reaction": reaction, "emoji": reaction, "count": ids.len(), "me": me, "user_ids": ids })
}

#[tokio::test]
async fn reactions_are_added_and_removed_idempotently() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "hi").await;
    let path = format!("/messages/{}/reactions", message["id"].as_str().unwrap());
    // A heart that consists of two code points, percent-encoded.
    let heart = format!("{path}/%E2%9D%A4%EF%B8%8F");
    for _ in 0..2 {
        let added = answer(server.request(Ben, Method::PUT, &heart)).await;
        assert_eq!(added.status, 200, "{added:?}");
        assert_eq!(added.body, json!([entry("\u{2764}\u{fe0f}", true, &[Ben])]));
    }
    let body = json!({ "emoji": ":white_check_mark:" });
    let added = server.post(Ana, &path, body).await;
    let check = ":white_check_mark:";
    let both = json!([
        entry("\u{2764}\u{fe0f}", false, &[Ben]),
        entry(check, true, &[Ana])
    ]);
    assert_eq!((added.status.as_u16(), &added.body), (200, &both));
    assert_eq!(server.get(Ana, &path).await.body, both);
    let row = server
        .get(Ana, path.trim_end_matches("/reactions"))
        .await
        .body;
    assert_eq!(row["reactions"], both);
    assert!(row["rev"].as_i64() > message["rev"].as_i64());
    assert_eq!(
        row["updated_at"], message["updated_at"],
        "the revision is unchanged"
    );

    // Without `toggle`, a repeated request has no effect. With `toggle`, it removes and adds the
    // reaction in turn.
    let again = server.post(Ana, &path, json!({ "reaction": check })).await;
    assert_eq!(again.body, both);
    for is_there in [false, true, false] {
        let toggled = server
            .post(Ana, &path, json!({ "reaction": check, "toggle": true }))
            .await;
        assert_eq!(
            toggled.body.as_array().unwrap().len(),
            1 + usize::from(is_there)
        );
    }
    for _ in 0..2 {
        let removed = answer(server.request(Ben, Method::DELETE, &heart)).await;
        assert_eq!((removed.status.as_u16(), &removed.body), (200, &json!([])));
    }
}

#[tokio::test]
async fn invalid_reactions_are_refused() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "hi").await;
    let id = message["id"].as_str().unwrap();
    let path = format!("/messages/{id}/reactions");
    for (body, code) in [
        (json!({}), "validation_failed"),
        (json!({ "reaction": "" }), "validation_failed"),
        (json!({ "reaction": "x".repeat(65) }), "validation_failed"),
        (
            json!({ "reaction": "x", "toggle": "yes" }),
            "validation_failed",
        ),
    ] {
        server
            .post(Ben, &path, body)
            .await
            .assert_refused(422, code);
    }
    server
        .post(Ben, &path, json!({ "reaction": "x", "user_id": Ana.id() }))
        .await
        .assert_refused(403, "identity_mismatch");
    // For users outside the conversation, the message does not exist.
    server
        .get(Zoe, &path)
        .await
        .assert_refused(404, "not_found");
    server
        .post(Zoe, &path, json!({ "reaction": "x" }))
        .await
        .assert_refused(404, "not_found");
    for method in [Method::PUT, Method::DELETE] {
        for path in [format!("{path}/x"), "/messages/1/reactions/x".to_owned()] {
            answer(server.request(Zoe, method.clone(), &path))
                .await
                .assert_refused(404, "not_found");
        }
    }
    answer(server.request(Ana, Method::DELETE, &format!("/messages/{id}"))).await;
    server
        .post(Ben, &path, json!({ "reaction": "x" }))
        .await
        .assert_refused(409, "message_deleted");
    let list = server.get(Ana, &path).await;
    assert_eq!(list.body, json!([]));
}
