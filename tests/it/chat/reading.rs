//! Marking messages as read, and unread counts.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::chat_server::Person::{Ada, Ana, Ben, Zoe};
use crate::support::chat_server::{ChatServer, fields};

async fn unread(server: &ChatServer) -> Value {
    server.get(Ben, "/unread-count").await.body
}

#[tokio::test]
async fn a_conversation_can_be_read_up_to_a_message_and_completely() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let first = server.say(Ana, &conversation, "1").await;
    server.say(Ana, &conversation, "2").await;
    let last = server.say(Ana, &conversation, "3").await;
    assert_eq!(
        unread(&server).await,
        json!({ "total": 3, "conversations": 1, "mentions": 0, "by_conversation": { conversation.as_str(): 3 } })
    );

    let path = format!("/conversations/{conversation}/read");
    let part = server
        .post(Ben, &path, json!({ "messageId": first["id"] }))
        .await;
    assert_eq!(part.status, 200, "{part:?}");
    assert_eq!(
        fields(&part.body),
        [
            "last_read_at",
            "last_read_message_id",
            "success",
            "unread_count",
            "updated"
        ]
    );
    assert_eq!(
        (
            &part.body["success"],
            &part.body["updated"],
            &part.body["unread_count"]
        ),
        (&json!(true), &json!(1), &json!(2))
    );
    assert_eq!(part.body["last_read_message_id"], first["id"]);
    assert!(
        part.body["last_read_at"]
            .as_str()
            .unwrap()
            .ends_with("+00:00")
    );

    // An empty body marks everything as read.
    let all = crate::support::chat_server::answer(server.request(Ben, Method::POST, &path)).await;
    assert_eq!(
        (&all.body["updated"], &all.body["unread_count"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(all.body["last_read_message_id"], last["id"]);
    let late = server
        .post(Ben, &path, json!({ "message_id": first["id"] }))
        .await;
    assert_eq!(
        (&late.body["updated"], &late.body["last_read_message_id"]),
        (&json!(0), &last["id"]),
        "never back"
    );
    assert_eq!(unread(&server).await["total"], 0);
    let row = server
        .get(Ben, &format!("/conversations/{conversation}"))
        .await
        .body;
    assert_eq!(
        (&row["unread_count"], &row["last_read_message_id"]),
        (&json!(0), &last["id"])
    );
    let row = server
        .get(Ana, &format!("/conversations/{conversation}"))
        .await
        .body;
    assert_eq!(row["peer_last_read_message_id"], last["id"]);
}

#[tokio::test]
async fn messages_are_read_by_id_on_every_synonymous_route() {
    let server = ChatServer::start().await;
    let with_ana = server.open(Ben, Ana).await;
    let with_ada = server.open(Ben, Ada).await;
    for (method, path) in [
        (Method::PATCH, "/messages"),
        (Method::PUT, "/messages"),
        (Method::POST, "/messages/read"),
        (Method::POST, "/messages/mark-read"),
    ] {
        let one = server.say(Ana, &with_ana, "1").await;
        let two = server.say(Ana, &with_ana, "2").await;
        let three = server.say(Ada, &with_ada, "3").await;
        let ids = json!([two["id"], three["id"], one["id"], Uuid::new_v4()]);
        let read = server
            .send(
                Ben,
                method.clone(),
                path,
                json!({ "message_ids": ids, "user_id": Ben.id() }),
            )
            .await;
        assert_eq!(read.status, 200, "{path} {read:?}");
        assert_eq!(
            (
                &read.body["success"],
                &read.body["updated"],
                &read.body["unread_count"]
            ),
            (&json!(true), &json!(3), &json!(0)),
            "{path}"
        );

        server.say(Ana, &with_ana, "4").await;
        let read = server
            .send(Ben, method, path, json!({ "conversationId": with_ana }))
            .await;
        assert_eq!(
            (read.status.as_u16(), &read.body["updated"]),
            (200, &json!(1)),
            "{path}"
        );
    }
    let none = server
        .send(
            Ben,
            Method::PATCH,
            "/messages",
            json!({ "message_ids": [] }),
        )
        .await;
    assert_eq!(
        (none.status.as_u16(), &none.body["updated"]),
        (200, &json!(0))
    );
}

#[tokio::test]
async fn simultaneous_reads_never_move_the_position_back() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let mut messages = Vec::new();
    for n in 0..40 {
        messages.push(server.say(Ana, &conversation, &n.to_string()).await);
    }
    // If the position moved back, a trigger would raise an error, which the response would contain.
    let database = server.database.connect().await;
    for table in ["user_conversation_members", "conversation_receipts"] {
        let watch = format!(
            "create function public.watch_{table}() returns trigger language plpgsql as \
                 $$ begin raise exception 'back from % to %', old.last_read_seq, new.last_read_seq; end $$; \
             create trigger zz_watch after update on public.{table} \
                 for each row when (new.last_read_seq < old.last_read_seq) execute function public.watch_{table}()"
        );
        database.batch_execute(&watch).await.unwrap();
    }
    let path = format!("/conversations/{conversation}/read");
    // 7 and 40 are coprime, so every message is marked, and near and far messages alternate.
    let readings = (0..40).map(|n| (n * 7 + 3) % 40).map(async |asked: usize| {
        let up_to = json!({ "message_id": messages[asked]["id"] });
        (asked, server.post(Ben, &path, up_to).await)
    });
    for (asked, read) in join_all(readings).await {
        assert_eq!(read.status, 200, "{asked}: {read:?}");
        let reached = messages
            .iter()
            .position(|message| message["id"] == read.body["last_read_message_id"]);
        assert!(reached >= Some(asked), "{asked}: {read:?}");
    }
    let newest = &messages[39]["id"];
    let path = format!("/conversations/{conversation}");
    let row = server.get(Ben, &path).await.body;
    assert_eq!(
        (&row["last_read_message_id"], &row["unread_count"]),
        (newest, &json!(0))
    );
    let row = server.get(Ana, &path).await.body;
    assert_eq!(&row["peer_last_read_message_id"], newest);
}

#[tokio::test]
async fn refusals() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "1").await;
    let path = format!("/conversations/{conversation}/read");
    server
        .post(Zoe, &path, json!({}))
        .await
        .assert_refused(404, "not_found");
    server
        .post(Ben, "/conversations/x/read", json!({}))
        .await
        .assert_refused(404, "not_found");
    server
        .post(Ben, &path, json!({ "message_id": "x" }))
        .await
        .assert_refused(422, "validation_failed");
    server
        .post(Ben, &path, json!({ "message_id": Uuid::new_v4() }))
        .await
        .assert_refused(404, "not_found");
    server
        .post(Ben, &path, json!({ "user_id": Ana.id() }))
        .await
        .assert_refused(403, "identity_mismatch");
    let mark = async |person, body| server.send(person, Method::PATCH, "/messages", body).await;
    mark(Ben, json!({}))
        .await
        .assert_refused(422, "validation_failed");
    mark(Ben, json!({ "message_ids": ["x"] }))
        .await
        .assert_refused(422, "validation_failed");
    mark(
        Ben,
        json!({ "message_ids": [message["id"]], "userId": Ana.id() }),
    )
    .await
    .assert_refused(403, "identity_mismatch");
    mark(Zoe, json!({ "conversation_id": conversation }))
        .await
        .assert_refused(404, "not_found");
    let many: Vec<Uuid> = (0..1001).map(|_| Uuid::new_v4()).collect();
    mark(Ben, json!({ "message_ids": many }))
        .await
        .assert_refused(422, "validation_failed");

    let foreign = mark(Zoe, json!({ "message_ids": [message["id"]] })).await;
    assert_eq!(
        (foreign.status.as_u16(), &foreign.body["updated"]),
        (200, &json!(0)),
        "invisible messages are ignored"
    );
    assert_eq!(unread(&server).await["total"], 1);
}
