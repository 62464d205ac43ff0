//! Editing and deleting messages, and their earlier versions.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ana, Ben, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer};

/// Opens a conversation of Ana and Ben, and sends its first message from Ana.
async fn one_message() -> (ChatServer, String, String) {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let sent = server.say(Ana, &conversation, "one").await;
    let id = sent["id"].as_str().unwrap().to_owned();
    (server, conversation, id)
}

/// Edits a message if its tag matches.
async fn edit_if(server: &ChatServer, id: &str, tag: &str, content: &str) -> Answer {
    let request = server
        .request(Ana, Method::PATCH, &format!("/messages/{id}"))
        .header("if-match", tag);
    answer(request.json(&json!({ "content": content }))).await
}

#[tokio::test]
async fn an_edited_message_keeps_its_earlier_versions() {
    let (server, conversation, id) = one_message().await;
    let path = format!("/messages/{id}");
    for (method, content) in [(Method::PATCH, "two"), (Method::PUT, " three ")] {
        let edited = server
            .send(Ana, method, &path, json!({ "content": content }))
            .await;
        assert_eq!(edited.status, 200, "{edited:?}");
        assert_eq!(edited.body["content"], content.trim());
        assert_eq!(edited.body["is_edited"], true);
        assert!(edited.body["edited_at"].is_string());
        let tag = format!("\"m{}\"", edited.body["rev"]);
        assert_eq!(edited.header("etag"), Some(tag.as_str()));
    }
    let history = server.get(Ben, &format!("{path}/history")).await;
    let wordings: Vec<_> = history
        .rows()
        .iter()
        .map(|row| {
            (
                row["version"].as_i64().unwrap(),
                row["previous_content"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(wordings, [(1, "one"), (2, "two")]);
    assert_eq!(history.rows()[0]["edited_by"], json!(Ana.id()));
    assert!(
        history.rows()[0]["edited_at"]
            .as_str()
            .unwrap()
            .ends_with("+00:00")
    );

    // Sending the same text again does not count as an edit.
    let rev = &server.get(Ben, &path).await.body["rev"];
    let same = server
        .send(Ana, Method::PATCH, &path, json!({ "content": "three" }))
        .await;
    assert_eq!((same.status.as_u16(), &same.body["rev"]), (200, rev));
    let list = server
        .get(Ben, &format!("/messages?conversation_id={conversation}"))
        .await;
    assert_eq!(list.rows()[0]["content"], "three");
}

#[tokio::test]
async fn only_the_sender_can_edit_a_message_with_valid_content() {
    let (server, _, id) = one_message().await;
    let path = format!("/messages/{id}");
    let edit = async |person, content: Value| {
        server
            .send(person, Method::PATCH, &path, json!({ "content": content }))
            .await
    };
    edit(Ben, json!("x")).await.assert_refused(403, "forbidden");
    edit(Zoe, json!("x")).await.assert_refused(404, "not_found");
    edit(Ana, json!(" \u{200b}"))
        .await
        .assert_refused(422, "message_empty");
    edit(Ana, Value::Null)
        .await
        .assert_refused(422, "validation_failed");
    edit(Ana, json!(7))
        .await
        .assert_refused(422, "validation_failed");
    for path in [
        "/messages/x",
        "/messages/00000000-0000-4000-8000-000000000000",
    ] {
        server
            .send(Ana, Method::PATCH, path, json!({ "content": "x" }))
            .await
            .assert_refused(404, "not_found");
    }
    assert_eq!(server.get(Ana, &path).await.body["content"], "one");
    server
        .get(Zoe, &format!("{path}/history"))
        .await
        .assert_refused(404, "not_found");
    assert_eq!(
        server.get(Ana, &format!("{path}/history")).await.body,
        json!([])
    );
}

#[tokio::test]
async fn an_edit_can_require_a_revision() {
    let (server, _, id) = one_message().await;
    let path = format!("/messages/{id}");
    let tag = server
        .get(Ana, &path)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    for condition in [
        tag.clone(),
        format!("\"x\", {tag}"),
        format!("W/{tag}"),
        "*".to_owned(),
    ] {
        // Each edit is based on the previous one, so only the last revision matches.
        let current = server
            .get(Ana, &path)
            .await
            .header("etag")
            .unwrap()
            .to_owned();
        let condition = condition.replace(&tag, &current);
        let edited = edit_if(&server, &id, &condition, &format!("after {condition}")).await;
        assert_eq!(edited.status, 200, "{condition}: {edited:?}");
    }
    for stale in [
        tag.clone(),
        format!("W/{tag}"),
        "W/nonsense".to_owned(),
        "nonsense".to_owned(),
        "\"m-1\"".to_owned(),
    ] {
        edit_if(&server, &id, &stale, "lost")
            .await
            .assert_refused(412, "stale_revision");
    }
    let rev = server.get(Ana, &path).await.body["rev"].as_i64().unwrap();
    server
        .send(
            Ana,
            Method::PATCH,
            &path,
            json!({ "content": "lost", "expected_rev": rev - 1 }),
        )
        .await
        .assert_refused(409, "stale_revision");
    server
        .send(
            Ana,
            Method::DELETE,
            &path,
            json!({ "expectedRev": rev - 1 }),
        )
        .await
        .assert_refused(409, "stale_revision");
    let edited = server
        .send(
            Ana,
            Method::PATCH,
            &path,
            json!({ "content": "kept", "expectedRev": rev }),
        )
        .await;
    assert_eq!(
        (edited.status.as_u16(), &edited.body["content"]),
        (200, &json!("kept"))
    );
    let stale = server
        .request(Ana, Method::DELETE, &path)
        .header("if-match", tag);
    answer(stale).await.assert_refused(412, "stale_revision");
}

#[tokio::test]
async fn both_conditions_of_an_edit_must_hold() {
    let (server, _, id) = one_message().await;
    let path = format!("/messages/{id}");
    let rev = server.get(Ana, &path).await.body["rev"].as_i64().unwrap();
    let (current, other) = (format!("\"m{rev}\""), format!("\"m{}\"", rev + 1));
    let either = format!("{other}, {current}");
    let changes = [
        (Method::PATCH, path.clone()),
        (Method::PUT, path.clone()),
        (Method::DELETE, format!("{path}?for=me")),
        (Method::DELETE, path.clone()),
    ];
    let change = async |(method, path): &(Method, String), tag: &str, expected: Value| {
        let request = server
            .request(Ana, method.clone(), path)
            .header("if-match", tag);
        let body = json!({ "content": "changed", "expected_rev": expected });
        answer(request.json(&body)).await
    };
    for route in &changes {
        for (tag, expected) in [(&current, rev + 1), (&either, rev + 1), (&other, rev)] {
            change(route, tag, json!(expected))
                .await
                .assert_refused(412, "stale_revision");
        }
        change(route, "*", json!(rev + 1))
            .await
            .assert_refused(409, "stale_revision");
        change(route, &current, json!("x"))
            .await
            .assert_refused(422, "validation_failed");
    }
    assert_eq!(server.get(Ana, &path).await.body["content"], "one");

    let edited = change(&changes[0], &either, json!(rev)).await;
    assert_eq!(edited.body["content"], "changed", "{edited:?}");
}

#[tokio::test]
async fn hiding_a_message_respects_the_condition() {
    let (server, _, id) = one_message().await;
    let path = format!("/messages/{id}?for=me");
    let hide_if = async |tag: &str| {
        let request = server
            .request(Ben, Method::DELETE, &path)
            .header("if-match", tag);
        answer(request).await
    };
    hide_if("\"m0\"")
        .await
        .assert_refused(412, "stale_revision");
    let shown = server.get(Ben, &format!("/messages/{id}")).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let tag = shown.header("etag").unwrap().to_owned();
    assert_eq!(hide_if(&tag).await.status, 200);
    server
        .get(Ben, &format!("/messages/{id}"))
        .await
        .assert_refused(404, "not_found");
    let elsewhere = server
        .request(Zoe, Method::DELETE, &path)
        .header("if-match", "\"m0\"");
    answer(elsewhere).await.assert_refused(404, "not_found");
}

#[tokio::test]
async fn a_deleted_message_is_removed_for_everyone() {
    let (server, conversation, id) = one_message().await;
    let path = format!("/messages/{id}");
    let reply = json!({ "conversation_id": conversation, "content": "re", "reply_to_id": id });
    let reply = server.post(Ben, "/messages", reply).await;
    server
        .send(Ana, Method::PATCH, &path, json!({ "content": "secret" }))
        .await;
    server
        .post(
            Ben,
            &format!("{path}/reactions"),
            json!({ "reaction": "x" }),
        )
        .await;
    let unread = server.get(Ben, "/unread-count").await.body["total"].as_i64();
    assert_eq!(unread, Some(1));

    server
        .send(Ben, Method::DELETE, &path, json!({}))
        .await
        .assert_refused(403, "forbidden");
    server
        .send(Zoe, Method::DELETE, &path, json!({}))
        .await
        .assert_refused(404, "not_found");
    for _ in 0..2 {
        let deleted = answer(server.request(Ana, Method::DELETE, &path)).await;
        assert_eq!(deleted.status, 200, "{deleted:?}");
        let expected =
            json!({ "message": "Message deleted successfully", "success": true, "id": id });
        assert_eq!(deleted.body, expected);
    }
    let tombstone = server.get(Ben, &path).await.body;
    assert_eq!(tombstone["is_deleted"], true);
    assert_eq!(tombstone["content"], "");
    assert!(tombstone["deleted_at"].is_string());
    assert_eq!(server.get(Ben, "/unread-count").await.body["total"], 0);
    assert_eq!(
        server.get(Ben, &format!("{path}/history")).await.body,
        json!([])
    );
    let list = format!("/messages?conversation_id={conversation}");
    let contents = |answer: Answer| -> Vec<Value> {
        answer
            .rows()
            .iter()
            .map(|row| row["content"].clone())
            .collect()
    };
    assert_eq!(contents(server.get(Ben, &list).await), ["re"]);
    let with_deleted = server
        .get(Ben, &format!("{list}&include_deleted=true"))
        .await;
    assert_eq!(contents(with_deleted), ["", "re"]);
    let reply = server
        .get(
            Ana,
            &format!("/messages/{}", reply.body["id"].as_str().unwrap()),
        )
        .await;
    assert_eq!(reply.body["reply_to"]["content"], "");
    assert_eq!(reply.body["reply_to"]["is_deleted"], true);
    server
        .send(Ana, Method::PATCH, &path, json!({ "content": "again" }))
        .await
        .assert_refused(409, "message_deleted");
}

#[tokio::test]
async fn a_message_can_be_deleted_for_the_caller_only() {
    let (server, conversation, id) = one_message().await;
    let path = format!("/messages/{id}");
    answer(server.request(Zoe, Method::DELETE, &format!("{path}?for=me")))
        .await
        .assert_refused(404, "not_found");
    answer(server.request(Ben, Method::DELETE, &format!("{path}?for=nobody")))
        .await
        .assert_refused(422, "validation_failed");
    let hidden = answer(server.request(Ben, Method::DELETE, &format!("{path}?for=me"))).await;
    assert_eq!(hidden.status, 200, "{hidden:?}");
    let list = format!("/messages?conversation_id={conversation}&include_deleted=true");
    assert_eq!(server.get(Ben, &list).await.rows().len(), 0);
    assert_eq!(server.get(Ben, "/unread-count").await.body["total"], 0);
    let others = server.get(Ana, &list).await;
    assert_eq!(others.rows()[0]["content"], "one");
    assert_hidden_from_ben(&server, &conversation, &id).await;
}

#[tokio::test]
async fn cleared_messages_cannot_be_fetched_by_id() {
    let (server, conversation, id) = one_message().await;
    let clear = format!("/conversations/{conversation}");
    answer(server.request(Ben, Method::DELETE, &clear)).await;
    assert_hidden_from_ben(&server, &conversation, &id).await;
}

/// Checks that Ben cannot see the message, which he hid or cleared, and that Ana still can.
async fn assert_hidden_from_ben(server: &ChatServer, conversation: &str, id: &str) {
    let path = format!("/messages/{id}");
    for (method, path, body) in [
        (Method::GET, path.clone(), json!({})),
        (Method::GET, format!("{path}/history"), json!({})),
        (Method::GET, format!("{path}/reactions"), json!({})),
        (Method::PUT, format!("{path}/reactions/x"), json!({})),
        (Method::DELETE, format!("{path}/reactions/x"), json!({})),
        (Method::PUT, format!("{path}/pin"), json!({})),
    ] {
        server
            .send(Ben, method, &path, body)
            .await
            .assert_refused(404, "not_found");
    }
    let reply = json!({ "conversation_id": conversation, "content": "why", "reply_to_id": id });
    server
        .post(Ben, "/messages", reply)
        .await
        .assert_refused(422, "validation_failed");
    let later = server.say(Ana, conversation, "later").await;
    let read = json!({ "message_ids": [id] });
    let read = server.send(Ben, Method::PUT, "/messages", read).await;
    assert_eq!(
        (read.status.as_u16(), &read.body["updated"]),
        (200, &json!(0))
    );
    let read = json!({ "message_ids": [id, later["id"]] });
    let read = server.send(Ben, Method::PUT, "/messages", read).await;
    assert_eq!(read.body["updated"], 1, "{read:?}");
    let others = server.get(Ana, &path).await;
    assert_eq!(others.body["content"], "one");
}

#[tokio::test]
async fn the_reactions_per_user_and_message_are_limited() {
    let (server, _, id) = one_message().await;
    for n in 0..=20 {
        let path = format!("/messages/{id}/reactions/{n}");
        let reacted = server.send(Ben, Method::PUT, &path, json!({})).await;
        if n < 20 {
            assert_eq!(reacted.status, 200, "{reacted:?}");
        } else {
            reacted.assert_refused(422, "validation_failed");
        }
    }
    for (person, reaction) in [(Ben, "0"), (Ana, "20")] {
        let path = format!("/messages/{id}/reactions/{reaction}");
        let reacted = server.send(person, Method::PUT, &path, json!({})).await;
        assert_eq!(reacted.status, 200, "{reacted:?}");
    }
}

#[tokio::test]
async fn deleting_a_message_deletes_its_reactions() {
    let (server, _, id) = one_message().await;
    let path = format!("/messages/{id}");
    for (person, reaction) in [(Ana, ":one:"), (Ben, ":one:"), (Ben, ":two:")] {
        let react = format!("{path}/reactions/{reaction}");
        let list = server.send(person, Method::PUT, &react, json!({})).await;
        assert_eq!(list.status, 200, "{list:?}");
    }
    assert_eq!(
        server.get(Ben, &path).await.body["reactions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    answer(server.request(Ana, Method::DELETE, &path)).await;
    let tombstone = server.get(Ben, &path).await;
    assert_eq!(tombstone.body["reactions"], json!([]), "{tombstone:?}");
    let owner = server.database.connect().await;
    let left = "select from public.message_reactions";
    assert!(owner.query(left, &[]).await.unwrap().is_empty());
    server
        .send(Ben, Method::PUT, &format!("{path}/reactions/x"), json!({}))
        .await
        .assert_refused(409, "message_deleted");
}
