//! Synchronisation through `/sync`.

mod mirror;
mod random;
mod waiting;

use reqwest::Method;
use serde_json::{Value, json};

use self::mirror::{Mirror, assert_like_fresh};
use crate::support::chat_server::Person::{Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{ChatServer, answer};

#[tokio::test]
async fn one_chain_after_a_long_absence_equals_a_fresh_load() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let mut sent = vec![server.say(Ana, &conversation, "before").await];
    let mut away = Mirror::load(&server, Ben, 100).await;
    let change = async |person, method: Method, path: String, body: Value| {
        let answer = server.send(person, method, &path, body).await;
        assert!(answer.status.is_success(), "{path} {answer:?}");
    };
    for number in 0..300 {
        let last = sent.last().unwrap()["id"].clone();
        let body = json!({ "conversation_id": conversation, "content": format!("{number}"), "reply_to_id": last });
        let message = server.post(Ana, "/messages", body).await;
        assert_eq!(message.status, 201);
        sent.push(message.body);
    }
    for (number, message) in sent.iter().enumerate() {
        let path = format!("/messages/{}", message["id"].as_str().unwrap());
        match number % 6 {
            0 => change(Ana, Method::PATCH, path, json!({ "content": "other" })).await,
            1 => change(Ana, Method::DELETE, path, json!({})).await,
            2 => {
                let reacted = json!({ "reaction": "👍" });
                change(Ana, Method::POST, format!("{path}/reactions"), reacted).await;
            }
            3 => change(Ben, Method::DELETE, format!("{path}?for=me"), json!({})).await,
            4 => change(Ana, Method::PUT, format!("{path}/pin"), json!({})).await,
            _ => {}
        }
    }
    server.say(Ada, &server.open(Ada, Ben).await, "hello").await;
    change(
        Ana,
        Method::POST,
        format!("/conversations/{conversation}/read"),
        json!({}),
    )
    .await;

    let pages = away.sync(&server, 50).await;
    assert_eq!(pages, 6, "251 visible messages, and one from Ada");
    assert_like_fresh(&server, &away, "after a long absence").await;
}

#[tokio::test]
async fn without_changes_the_page_is_empty_and_the_cursor_new() {
    let server = ChatServer::start().await;
    server.say(Ana, &server.open(Ana, Ben).await, "1").await;
    let first = server.get(Ben, "/sync").await;
    let names: Vec<_> = first.body.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "conversations",
            "cursor",
            "has_more",
            "messages",
            "receipts",
            "removed_conversation_ids",
            "removed_message_ids"
        ]
    );
    assert_eq!(first.body["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(first.body["messages"], json!([]));
    let cursor = first.body["cursor"].as_str().unwrap();
    let second = server.get(Ben, &format!("/sync?since={cursor}")).await;
    for list in names
        .iter()
        .filter(|name| !["cursor", "has_more"].contains(&name.as_str()))
    {
        assert_eq!(second.body[list.as_str()], json!([]), "{list}");
    }
    assert_eq!(second.body["has_more"], false);
}

#[tokio::test]
async fn pages_respect_the_limit_and_are_complete() {
    let server = ChatServer::start().await;
    let with_ben = server.open(Ana, Ben).await;
    let with_ada = server.open(Ana, Ada).await;
    let with_sue = server.open(Sue, Ana).await;
    let mut paged = Mirror::load(&server, Ana, 2).await;
    for conversation in [&with_ben, &with_ada, &with_sue] {
        for number in 0..4 {
            server.say(Ana, conversation, &number.to_string()).await;
        }
    }
    let first = paged.page(&server, 2).await;
    assert_eq!(first["conversations"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&first["messages"], &first["has_more"]),
        (&json!([]), &json!(true))
    );
    // A change made after the first page is included in the next chain at the latest.
    let late = server.say(Ben, &with_ben, "late").await;
    let mut pages = vec![paged.page(&server, 2).await];
    while pages.last().unwrap()["has_more"] == true {
        pages.push(paged.page(&server, 2).await);
    }
    assert!(
        pages
            .iter()
            .all(|page| page["messages"].as_array().unwrap().len() <= 2)
    );
    assert_eq!(
        pages.len(),
        6,
        "12 messages; the page of the last conversation holds the first two"
    );
    let next = paged.page(&server, 200).await;
    assert_eq!(next["messages"][0]["id"], late["id"]);
    assert_like_fresh(&server, &paged, "page by page").await;

    let clamped = server.get(Ana, "/sync?limit=0").await;
    assert_eq!(clamped.body["conversations"].as_array().unwrap().len(), 1);
    server
        .get(Ana, "/sync?limit=x")
        .await
        .assert_refused(422, "validation_failed");
}

#[tokio::test]
async fn invalid_and_expired_cursors_are_refused() {
    let server = ChatServer::start().await;
    for cursor in ["", "x", "!!", "WzEseyJkYXRhYmFzZSI6IngifV0"] {
        server
            .get(Ana, &format!("/sync?since={cursor}x"))
            .await
            .assert_refused(400, "malformed_request");
    }
    let cursor = server.get(Ana, "/sync").await.body["cursor"].clone();
    let path = format!("/sync?since={}", cursor.as_str().unwrap());
    let other = ChatServer::start().await;
    other
        .get(Ana, &path)
        .await
        .assert_refused(410, "resync_required");
    let owner = server.database.connect().await;
    // With a horizon of zero seconds, the cursor is too old.
    let horizon = async |seconds: &str| {
        let set = "update chat.config set value = $1::text::jsonb where key = 'sync_horizon_s'";
        assert_eq!(owner.execute(set, &[&seconds]).await.unwrap(), 1);
    };
    horizon("0").await;
    server
        .get(Ana, &path)
        .await
        .assert_refused(410, "resync_required");
    horizon("60").await;
    assert_eq!(server.get(Ana, &path).await.status, 200);
    // An operator can force clients to resynchronise, for example after rows were restored.
    owner
        .execute(
            "update chat.config set value = '\"other\"' where key = 'sync_epoch'",
            &[],
        )
        .await
        .unwrap();
    server
        .get(Ana, &path)
        .await
        .assert_refused(410, "resync_required");
}

#[tokio::test]
async fn a_cursor_with_future_transactions_is_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let server = ChatServer::start().await;
    let cursor = server.get(Ana, "/sync").await.body["cursor"].clone();
    let json = URL_SAFE_NO_PAD.decode(cursor.as_str().unwrap()).unwrap();
    let mut json: Value = serde_json::from_slice(&json).unwrap();
    json[1]["since"] = json!("1000000000:1000000000:");
    let ahead = URL_SAFE_NO_PAD.encode(json.to_string());
    // Clients have such a cursor after a restore to an earlier point in time that did not change
    // the identity of the database.
    server
        .get(Ana, &format!("/sync?since={ahead}"))
        .await
        .assert_refused(410, "resync_required");
}

#[tokio::test]
async fn other_users_conversations_are_not_returned() {
    let server = ChatServer::start().await;
    let (mut stranger, mut member) = (
        Mirror::load(&server, Zoe, 9).await,
        Mirror::load(&server, Ben, 9).await,
    );
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "secret").await;
    let path = format!("/messages/{}", message["id"].as_str().unwrap());
    server
        .send(Ana, Method::PUT, &format!("{path}/pin"), json!({}))
        .await;
    server
        .send(
            Ana,
            Method::PATCH,
            &format!("/conversations/{conversation}"),
            json!({ "draft": "mine" }),
        )
        .await;
    let page = stranger.page(&server, 9).await;
    for (name, list) in page.as_object().unwrap() {
        assert!(
            ["cursor", "has_more"].contains(&name.as_str()) || *list == json!([]),
            "{name}"
        );
    }
    let page = member.page(&server, 9).await;
    assert_eq!(page["messages"][0]["content"], "secret");
    assert_eq!(page["conversations"][0]["draft"], Value::Null);
    // Another user's cursor returns only what the caller may see, and nothing that belongs to the
    // cursor's owner.
    let borrowed = format!("/sync?since={}", member.cursor);
    server.say(Ana, &conversation, "again").await;
    let page = server.get(Zoe, &borrowed).await;
    assert_eq!(
        (&page.body["messages"], &page.body["conversations"]),
        (&json!([]), &json!([]))
    );
}

#[tokio::test]
async fn deleted_content_is_absent() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let mut mirror = Mirror::load(&server, Ben, 9).await;
    let held = server.say(Ana, &conversation, "secret").await;
    let reply =
        json!({ "conversation_id": conversation, "content": "re", "reply_to_id": held["id"] });
    server.post(Ben, "/messages", reply).await;
    mirror.sync(&server, 9).await;
    let path = format!("/messages/{}", held["id"].as_str().unwrap());
    server
        .send(
            Ana,
            Method::PATCH,
            &path,
            json!({ "content": "another secret" }),
        )
        .await;
    let before = mirror.cursor.clone();
    let deleted = answer(server.request(Ana, Method::DELETE, &path)).await;
    assert_eq!(deleted.status, 200);
    let page = mirror.page(&server, 9).await;
    assert_eq!(
        page["messages"].as_array().unwrap().len(),
        2,
        "the tombstone and its reply"
    );
    assert!(
        !mirror.state().to_string().contains("secret"),
        "{}",
        mirror.state()
    );
    assert_eq!(
        mirror.state()[&conversation]["messages"][1]["reply_to"]["is_deleted"],
        true
    );
    let page = server.get(Ben, &format!("/sync?since={before}")).await;
    assert!(!page.body.to_string().contains("secret"));
}

#[tokio::test]
async fn left_and_removed_conversations_are_reported() {
    let server = ChatServer::start().await;
    let with_ana = server.open(Ana, Ben).await;
    let with_ada = server.open(Ada, Ben).await;
    let message = server.say(Ana, &with_ana, "1").await;
    let mut mirror = Mirror::load(&server, Ben, 9).await;
    let owner = server.database.connect().await;
    owner
        .batch_execute(&format!(
            "update user_conversation_members set left_at = now() where conversation_id = '{with_ada}' and user_id = '{}'; \
             delete from user_messages where id = '{}'",
            Ben.id(),
            message["id"].as_str().unwrap(),
        ))
        .await
        .unwrap();
    let page = mirror.page(&server, 9).await;
    assert_eq!(page["removed_conversation_ids"], json!([with_ada]));
    assert_eq!(page["removed_message_ids"], json!([message["id"]]));
    assert_like_fresh(&server, &mirror, "left").await;

    owner
        .batch_execute(&format!(
            "delete from user_conversations where id = '{with_ana}'"
        ))
        .await
        .unwrap();
    let page = mirror.page(&server, 9).await;
    assert_eq!(page["removed_conversation_ids"], json!([with_ana]));
    assert_like_fresh(&server, &mirror, "removed").await;
}
