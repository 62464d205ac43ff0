//! Private settings of a conversation.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{self, Ana, Ben, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer, names_field};

async fn set(server: &ChatServer, person: Person, id: &str, settings: Value) -> Answer {
    let path = format!("/conversations/{id}");
    server.send(person, Method::PATCH, &path, settings).await
}

#[tokio::test]
async fn settings_are_set_separately_and_are_private() {
    let server = ChatServer::start().await;
    let id = server.open(Ana, Ben).await;
    let until = "2999-01-31T12:00:00+00:00";
    for (settings, shown) in [
        (
            json!({ "is_archived": true }),
            json!({ "is_archived": true, "is_pinned": false }),
        ),
        (
            json!({ "isPinned": true }),
            json!({ "is_archived": true, "is_pinned": true }),
        ),
        (
            json!({ "is_archived": false, "is_pinned": null }),
            json!({ "is_archived": false, "is_pinned": true }),
        ),
        (
            json!({ "notification_level": "mentions" }),
            json!({ "notification_level": "mentions" }),
        ),
        (json!({ "draft": "so far" }), json!({ "draft": "so far" })),
        (json!({ "draft": null }), json!({ "draft": null })),
        (
            json!({ "marked_unread": true }),
            json!({ "marked_unread": true }),
        ),
        (
            json!({ "muted_until": "2999-01-31T13:00:00+01:00" }),
            json!({ "is_muted": true, "muted_until": until }),
        ),
        // Mutes again, this time without an end.
        (
            json!({ "is_muted": true }),
            json!({ "is_muted": true, "muted_until": null }),
        ),
        (
            json!({ "is_muted": false }),
            json!({ "is_muted": false, "muted_until": null }),
        ),
        (json!({ "unknown": 1 }), json!({ "is_pinned": true })),
        (json!({}), json!({ "is_pinned": true })),
    ] {
        let answered = set(&server, Ana, &id, settings.clone()).await;
        assert_eq!(answered.status, 200, "{settings}: {answered:?}");
        let read = server.get(Ana, &format!("/conversations/{id}")).await;
        assert_eq!(answered.body, read.body);
        for (name, value) in shown.as_object().unwrap() {
            assert_eq!(&read.body[name], value, "{settings}");
        }
    }
    let bens = server.get(Ben, &format!("/conversations/{id}")).await.body;
    for (name, value) in [
        ("is_pinned", json!(false)),
        ("draft", Value::Null),
        ("marked_unread", json!(false)),
    ] {
        assert_eq!(bens[name], value, "{name}");
    }
    let path = format!("/conversations/{id}");
    let put = server
        .send(Ana, Method::PUT, &path, json!({ "is_pinned": false }))
        .await;
    assert_eq!(put.body["is_pinned"], false);
}

#[tokio::test]
async fn invalid_settings_are_refused() {
    let server = ChatServer::start().await;
    let id = server.open(Ana, Ben).await;
    for settings in [
        json!({ "is_archived": "yes" }),
        json!({ "notification_level": "loud" }),
        json!({ "muted_until": "tomorrow" }),
        json!({ "draft": 1 }),
    ] {
        let refused = set(&server, Ana, &id, settings.clone()).await;
        refused.assert_refused(422, "validation_failed");
        names_field(&refused, &settings);
    }
    let long = json!({ "draft": "x".repeat(20_001) });
    let refused = set(&server, Ana, &id, long.clone()).await;
    refused.assert_refused(422, "message_too_long");
    names_field(&refused, &long);
    set(
        &server,
        Ana,
        &id,
        json!({ "user_id": Ben.id(), "is_pinned": true }),
    )
    .await
    .assert_refused(403, "identity_mismatch");
    for id in [id.as_str(), "x"] {
        set(&server, Zoe, id, json!({ "is_pinned": true }))
            .await
            .assert_refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_message_unarchives_the_conversation_and_clears_the_draft() {
    let server = ChatServer::start().await;
    let id = server.open(Ana, Ben).await;
    server.say(Ben, &id, "1").await;
    set(
        &server,
        Ana,
        &id,
        json!({ "is_archived": true, "draft": "so far" }),
    )
    .await;
    assert_eq!(server.get(Ana, "/conversations").await.rows().len(), 0);
    assert_eq!(
        server.get(Ana, "/unread-count").await.body["total"],
        0,
        "archived conversations do not count"
    );
    server.say(Ben, &id, "2").await;
    let listed = server.get(Ana, "/conversations").await;
    assert_eq!(listed.rows()[0]["unread_count"], 2);
    assert_eq!(listed.rows()[0]["draft"], "so far");
    server.say(Ana, &id, "3").await;
    assert_eq!(
        server.get(Ana, "/conversations").await.rows()[0]["draft"],
        Value::Null
    );
}

#[tokio::test]
async fn read_messages_can_be_marked_unread() {
    let server = ChatServer::start().await;
    let id = server.open(Ana, Ben).await;
    let mut sent = Vec::new();
    for text in ["1", "2", "3"] {
        sent.push(server.say(Ana, &id, text).await);
    }
    server
        .post(Ben, &format!("/conversations/{id}/read"), json!({}))
        .await;
    let path = format!("/conversations/{id}/unread");
    let whole = server.post(Ben, &path, json!({})).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    assert_eq!(
        (&whole.body["marked_unread"], &whole.body["unread_count"]),
        (&json!(true), &json!(0))
    );
    let from = server
        .post(Ben, &path, json!({ "message_id": sent[1]["id"] }))
        .await;
    assert_eq!(from.body["unread_count"], 2);
    // The read position that is shown to Ana does not move back.
    let last = server
        .get(
            Ana,
            &format!("/messages/{}", sent[2]["id"].as_str().unwrap()),
        )
        .await;
    assert_eq!(last.body["delivery_status"], "read");
    server
        .post(Ben, &format!("/conversations/{id}/read"), json!({}))
        .await;
    let row = server.get(Ben, &format!("/conversations/{id}")).await.body;
    assert_eq!(
        (&row["marked_unread"], &row["unread_count"]),
        (&json!(false), &json!(0))
    );

    server
        .post(Zoe, &path, json!({}))
        .await
        .assert_refused(404, "not_found");
    server
        .post(Ben, &path, json!({ "message_id": Ana.id() }))
        .await
        .assert_refused(404, "not_found");
}

#[tokio::test]
async fn a_deleted_conversation_is_empty_only_for_its_deleter() {
    let server = ChatServer::start().await;
    let id = server.open(Ana, Ben).await;
    server.say(Ana, &id, "1").await;
    let path = format!("/conversations/{id}");
    let deleted = answer(server.request(Ben, Method::DELETE, &path)).await;
    let expected =
        json!({ "message": "Conversation deleted successfully", "success": true, "id": id });
    assert_eq!((deleted.status.as_u16(), deleted.body), (200, expected));
    assert_eq!(server.get(Ben, "/conversations").await.rows().len(), 0);
    assert_eq!(server.get(Ben, "/unread-count").await.body["total"], 0);
    let messages = format!("/messages?conversation_id={id}");
    assert_eq!(server.get(Ben, &messages).await.rows().len(), 0);
    assert_eq!(server.get(Ana, &messages).await.rows().len(), 1);
    server.say(Ana, &id, "2").await;
    assert_eq!(
        server.get(Ben, "/conversations").await.rows()[0]["unread_count"],
        1
    );
    let seen = server.get(Ben, &messages).await;
    assert_eq!(seen.rows().len(), 1);
    assert_eq!(seen.rows()[0]["content"], "2");
    answer(server.request(Zoe, Method::DELETE, &path))
        .await
        .assert_refused(404, "not_found");
}
