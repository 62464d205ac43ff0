//! Writes with an `Idempotency-Key`.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::chat_server::Person::{self, Ana, Ben, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer};
use crate::support::eventually::eventually;

/// Sends a write by Ana with this key.
async fn keyed(server: &ChatServer, key: &str, method: Method, path: &str, body: Value) -> Answer {
    keyed_by(server, Ana, key, method, path, body).await
}

async fn keyed_by(
    server: &ChatServer,
    person: Person,
    key: &str,
    method: Method,
    path: &str,
    body: Value,
) -> Answer {
    let request = server
        .request(person, method, path)
        .header("idempotency-key", key)
        .json(&body);
    answer(request).await
}

fn is_replay(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

/// Sends a message from Ana with this key.
async fn say(server: &ChatServer, key: &str, conversation: &str, content: &str) -> Answer {
    let body = json!({ "conversation_id": conversation, "content": content });
    keyed(server, key, Method::POST, "/messages", body).await
}

async fn history(server: &ChatServer, conversation: &str) -> Vec<Value> {
    let path = format!("/messages?conversation_id={conversation}&include_deleted=true");
    server.get(Ana, &path).await.rows().to_vec()
}

async fn count_keys(server: &ChatServer) -> i64 {
    let database = server.database.connect().await;
    let count = "select count(*) from chat.idempotency_keys";
    database.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn every_write_is_executed_once_per_key() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let hers = server.say(Ana, &conversation, "hers").await;
    let his = server.say(Ben, &conversation, "his").await;
    let doomed = server.say(Ana, &conversation, "doomed").await;
    let id = |message: &Value| message["id"].as_str().unwrap().to_owned();
    let (hers, his, doomed) = (id(&hers), id(&his), id(&doomed));
    let ben = Ben.id();
    let ada = Person::Ada.id();
    // Method, path, body and status. The order ensures that each write finds the rows that it
    // needs.
    let writes = [
        (
            "POST",
            "/conversations".to_owned(),
            json!({ "other_user_id": ada }),
            201,
        ),
        (
            "PATCH",
            format!("/conversations/{conversation}"),
            json!({ "is_pinned": true }),
            200,
        ),
        (
            "PUT",
            format!("/conversations/{conversation}"),
            json!({ "is_muted": true }),
            200,
        ),
        (
            "POST",
            format!("/conversations/{conversation}/unread"),
            json!({}),
            200,
        ),
        (
            "POST",
            format!("/conversations/{conversation}/read"),
            json!({}),
            200,
        ),
        (
            "POST",
            format!("/conversations/{conversation}/typing"),
            json!({}),
            204,
        ),
        (
            "POST",
            "/messages".to_owned(),
            json!({ "conversation_id": conversation, "content": "x" }),
            201,
        ),
        (
            "POST",
            "/messages".to_owned(),
            json!({ "other_user_id": ben, "content": "y" }),
            201,
        ),
        (
            "PATCH",
            "/messages".to_owned(),
            json!({ "message_ids": [his] }),
            200,
        ),
        (
            "PUT",
            "/messages".to_owned(),
            json!({ "message_ids": [] }),
            200,
        ),
        (
            "POST",
            "/messages/read".to_owned(),
            json!({ "conversation_id": conversation }),
            200,
        ),
        (
            "POST",
            "/messages/mark-read".to_owned(),
            json!({ "conversation_id": conversation }),
            200,
        ),
        (
            "PATCH",
            format!("/messages/{hers}"),
            json!({ "content": "edited" }),
            200,
        ),
        (
            "PUT",
            format!("/messages/{hers}"),
            json!({ "content": "edited again" }),
            200,
        ),
        (
            "POST",
            format!("/messages/{his}/report"),
            json!({ "reason": "spam" }),
            201,
        ),
        ("PUT", format!("/messages/{hers}/pin"), json!({}), 204),
        ("DELETE", format!("/messages/{hers}/pin"), json!({}), 204),
        (
            "POST",
            format!("/messages/{his}/reactions"),
            json!({ "reaction": "🎉", "toggle": true }),
            200,
        ),
        (
            "PUT",
            format!("/messages/{his}/reactions/x"),
            json!({}),
            200,
        ),
        (
            "DELETE",
            format!("/messages/{his}/reactions/x"),
            json!({}),
            200,
        ),
        ("DELETE", format!("/messages/{his}?for=me"), json!({}), 200),
        ("DELETE", format!("/messages/{doomed}"), json!({}), 200),
        (
            "POST",
            "/presence".to_owned(),
            json!({ "status": "away" }),
            200,
        ),
        (
            "PUT",
            "/presence".to_owned(),
            json!({ "status": "online" }),
            200,
        ),
        ("DELETE", "/presence".to_owned(), json!({}), 204),
        (
            "POST",
            "/presence/typing".to_owned(),
            json!({ "typing_to": ben }),
            204,
        ),
        (
            "PUT",
            "/presence/typing".to_owned(),
            json!({ "conversation_id": conversation }),
            204,
        ),
        (
            "PUT",
            "/preferences".to_owned(),
            json!({ "digest_hour": 7 }),
            200,
        ),
        (
            "PATCH",
            "/preferences".to_owned(),
            json!({ "digest_hour": 8 }),
            200,
        ),
        ("POST", "/blocks".to_owned(), json!({ "user_id": ben }), 201),
        ("DELETE", format!("/blocks/{ben}"), json!({}), 200),
        (
            "DELETE",
            format!("/conversations/{conversation}"),
            json!({}),
            200,
        ),
    ];
    for (number, (method, path, body, status)) in writes.into_iter().enumerate() {
        let key = format!("key {number}");
        let send = async |body: &Value| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            keyed(&server, &key, method, &path, body.clone()).await
        };
        let first = send(&body).await;
        assert_eq!(first.status.as_u16(), status, "{method} {path} {first:?}");
        assert!(!is_replay(&first), "{method} {path}");
        let again = send(&body).await;
        assert_eq!(again.status.as_u16(), status, "{method} {path} {again:?}");
        assert!(is_replay(&again), "{method} {path}");
        assert_eq!(again.body, first.body, "{method} {path}");
        assert_eq!(
            again.header("etag"),
            first.header("etag"),
            "{method} {path}"
        );
        assert_eq!(
            again.header("content-type"),
            first.header("content-type"),
            "{method} {path}"
        );
        let mut other = body.clone();
        other["note"] = "another body".into();
        send(&other)
            .await
            .assert_refused(422, "idempotency_key_reused");
        assert_eq!(
            count_keys(&server).await,
            i64::try_from(number).unwrap() + 1
        );
    }
}

#[tokio::test]
async fn a_replay_returns_the_current_resource() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let sent = say(&server, "send", &conversation, "secret").await;
    let path = format!("/messages/{}", sent.body["id"].as_str().unwrap());

    let edit = json!({ "content": "better" });
    let edited = keyed(&server, "edit", Method::PATCH, &path, edit.clone()).await;
    assert_eq!(edited.status, 200);
    let again = say(&server, "send", &conversation, "secret").await;
    assert_eq!((again.status.as_u16(), is_replay(&again)), (201, true));
    assert_eq!(again.body["content"], "better");
    // A later edit is kept.
    server
        .send(Ana, Method::PATCH, &path, json!({ "content": "best" }))
        .await;
    let again = keyed(&server, "edit", Method::PATCH, &path, edit.clone()).await;
    assert_eq!(again.body["content"], "best");
    let now = server.get(Ana, &path).await;
    assert_eq!(again.header("etag"), now.header("etag"));

    server.send(Ana, Method::DELETE, &path, json!({})).await;
    for again in [
        say(&server, "send", &conversation, "secret").await,
        keyed(&server, "edit", Method::PATCH, &path, edit).await,
    ] {
        assert!(again.status.is_success() && is_replay(&again), "{again:?}");
        assert_eq!(again.body["is_deleted"], true);
        for text in ["secret", "better", "best"] {
            assert!(!again.body.to_string().contains(text), "{again:?}");
        }
    }
    let database = server.database.connect().await;
    let kept = "select string_agg(concat_ws(' ', key, outcome), ',') from chat.idempotency_keys";
    let kept: String = database.query_one(kept, &[]).await.unwrap().get(0);
    assert!(
        !kept.contains("secret") && !kept.contains("better"),
        "{kept}"
    );

    // A repeated read mark does not undo later changes.
    let read = format!("/conversations/{conversation}/read");
    let first = keyed_by(&server, Ben, "read", Method::POST, &read, json!({})).await;
    server.say(Ana, &conversation, "news").await;
    let again = keyed_by(&server, Ben, "read", Method::POST, &read, json!({})).await;
    assert!(is_replay(&again));
    assert_eq!(again.body["updated"], first.body["updated"]);
    assert_eq!(again.body["last_read_at"], first.body["last_read_at"]);
    assert_eq!(again.body["unread_count"], 1);
    assert_eq!(server.get(Ben, "/unread-count").await.body["total"], 1);

    // A repeated toggle does not undo the first one.
    let reactions = format!(
        "/messages/{}/reactions",
        history(&server, &conversation).await[1]["id"]
            .as_str()
            .unwrap()
    );
    let toggle = json!({ "reaction": "👍", "toggle": true });
    for _ in 0..2 {
        let list = keyed(&server, "toggle", Method::POST, &reactions, toggle.clone()).await;
        assert_eq!(list.body[0]["count"], 1);
    }
}

#[tokio::test]
async fn simultaneous_requests_with_one_key_have_one_effect() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let answers = join_all((0..50).map(|_| say(&server, "k", &conversation, "once"))).await;
    let mut ids = BTreeSet::new();
    let (mut first, mut replayed) = (0, 0);
    for sent in &answers {
        match sent.status {
            StatusCode::CREATED => {
                ids.insert(sent.body["id"].as_str().unwrap());
                *(if is_replay(sent) {
                    &mut replayed
                } else {
                    &mut first
                }) += 1;
            }
            _ => {
                sent.assert_refused(409, "idempotency_in_flight");
                assert_eq!(sent.header("retry-after"), Some("1"));
                assert_eq!(sent.body["retry_after"], 1);
            }
        }
    }
    assert_eq!((first, ids.len()), (1, 1), "{replayed} replayed");
    assert_eq!(history(&server, &conversation).await.len(), 1);
    assert_eq!(server.get(Ben, "/unread-count").await.body["total"], 1);
}

/// Locks the conversation, so that sends in it wait. Returns the connection that holds the lock.
async fn hold(server: &ChatServer, conversation: &str) -> tokio_postgres::Client {
    let holder = server.database.connect().await;
    holder.batch_execute("begin").await.unwrap();
    let lock = "select from public.user_conversations where id = $1::text::uuid for update";
    holder.execute(lock, &[&conversation]).await.unwrap();
    holder
}

/// Waits until a server process of PostgreSQL waits for the lock. Returns its process id.
async fn waiting_backend(server: &ChatServer) -> i32 {
    let database = server.database.connect().await;
    eventually("a statement waits for the conversation", async || {
        let waiting = "select pid from pg_stat_activity \
            where application_name = 'rapport' and wait_event_type = 'Lock' and datname = current_database()";
        let row = database.query_opt(waiting, &[]).await.unwrap();
        row.map(|row| row.get(0))
    })
    .await
}

#[tokio::test]
async fn a_key_is_in_flight_until_its_transaction_ends_in_any_way() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let holder = hold(&server, &conversation).await;
    let (first, ()) = tokio::join!(say(&server, "k", &conversation, "once"), async {
        let pid = waiting_backend(&server).await;
        // A request with a different body gets the same response while the first is undecided.
        for content in ["once", "twice"] {
            say(&server, "k", &conversation, content)
                .await
                .assert_refused(409, "idempotency_in_flight");
        }
        // The connection of the first request breaks between the claim and the commit.
        let kill = "select pg_terminate_backend($1)";
        server
            .database
            .connect()
            .await
            .execute(kill, &[&pid])
            .await
            .unwrap();
    });
    first.assert_refused(503, "database_unavailable");
    holder.batch_execute("rollback").await.unwrap();
    assert_eq!(count_keys(&server).await, 0);
    let again = say(&server, "k", &conversation, "once").await;
    assert_eq!((again.status.as_u16(), is_replay(&again)), (201, false));
    assert_eq!(history(&server, &conversation).await.len(), 1);
}

#[tokio::test]
async fn an_abandoned_request_still_stores_its_key() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let holder = hold(&server, &conversation).await;
    tokio::select! {
        sent = say(&server, "k", &conversation, "once") => panic!("{sent:?}"),
        _ = waiting_backend(&server) => {}
    }
    holder.batch_execute("rollback").await.unwrap();
    // The database has received all statements, so it executes them to the end.
    let again = eventually("the end of the first request", async || {
        let again = say(&server, "k", &conversation, "once").await;
        (again.status != 409).then_some(again)
    })
    .await;
    assert_eq!((again.status.as_u16(), is_replay(&again)), (201, true));
    assert_eq!(history(&server, &conversation).await.len(), 1);
}

#[tokio::test]
async fn keys_are_per_request_and_user() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let sent = say(&server, "k", &conversation, "hers").await;
    assert_eq!(sent.status, 201);
    let body = json!({ "conversation_id": conversation, "content": "hers" });
    let bens = keyed_by(&server, Ben, "k", Method::POST, "/messages", body.clone()).await;
    assert_eq!((bens.status.as_u16(), is_replay(&bens)), (201, false));
    assert_ne!(bens.body["id"], sent.body["id"]);

    let path = format!("/messages/{}", sent.body["id"].as_str().unwrap());
    for (method, path) in [
        (Method::POST, "/messages?format=page"),
        (Method::PUT, "/messages"),
        (Method::PATCH, path.as_str()),
    ] {
        keyed(&server, "k", method, path, body.clone())
            .await
            .assert_refused(422, "idempotency_key_reused");
    }
    for key in [
        String::new(),
        "k".repeat(256),
        "a\tb".to_owned(),
        "é".to_owned(),
    ] {
        let refused = keyed(&server, &key, Method::POST, "/messages", body.clone()).await;
        refused.assert_refused(422, "validation_failed");
        assert!(
            refused.body["hint"]
                .as_str()
                .unwrap()
                .contains("Idempotency-Key")
        );
    }
    // Reads ignore keys.
    let request = server
        .request(Ana, Method::GET, "/conversations")
        .header("idempotency-key", "");
    assert_eq!(answer(request).await.status, 200);
    // An unauthenticated request is refused, whatever the key.
    let request = server
        .anonymous(Method::POST, "/messages")
        .header("idempotency-key", "");
    answer(request).await.assert_refused(401, "unauthorized");
    assert_eq!(history(&server, &conversation).await.len(), 2);
}

#[tokio::test]
async fn failed_writes_store_no_key() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    say(&server, "k", &conversation, " ")
        .await
        .assert_refused(422, "message_empty");
    let body = json!({ "conversation_id": conversation, "content": "x" });
    keyed_by(&server, Zoe, "k", Method::POST, "/messages", body)
        .await
        .assert_refused(404, "not_found");
    let nobody = json!({ "typing_to": Uuid::new_v4() });
    keyed(&server, "k", Method::POST, "/presence/typing", nobody)
        .await
        .assert_refused(404, "not_found");
    assert_eq!(count_keys(&server).await, 0);
    let sent = say(&server, "k", &conversation, "x").await;
    assert_eq!((sent.status.as_u16(), is_replay(&sent)), (201, false));
}

#[tokio::test]
async fn a_key_expires() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    say(&server, "k", &conversation, "1").await;
    let database = server.database.connect().await;
    let age = "update chat.idempotency_keys set kept_at = kept_at - interval '1 day'";
    database.execute(age, &[]).await.unwrap();
    let sent = say(&server, "k", &conversation, "2").await;
    assert_eq!((sent.status.as_u16(), is_replay(&sent)), (201, false));
    let again = say(&server, "k", &conversation, "2").await;
    assert_eq!(again.body["id"], sent.body["id"]);
    assert_eq!(count_keys(&server).await, 1);
}

#[tokio::test]
async fn a_key_can_be_combined_with_a_client_message_id() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let body = |content: &str| json!({ "conversation_id": conversation, "content": content, "client_message_id": "c" });
    let send = async |key: &str, content: &str| {
        keyed(&server, key, Method::POST, "/messages", body(content)).await
    };
    let first = send("k1", "once").await;
    for (key, status, replayed) in [("k1", 201, true), ("k2", 200, false), ("k2", 200, true)] {
        let again = send(key, "once").await;
        assert_eq!(
            (again.status.as_u16(), is_replay(&again)),
            (status, replayed)
        );
        assert_eq!(again.body["id"], first.body["id"]);
    }
    send("k3", "other")
        .await
        .assert_refused(409, "client_message_id_conflict");
    assert_eq!(history(&server, &conversation).await.len(), 1);
}

#[tokio::test]
async fn beacons_can_have_keys() {
    let server = ChatServer::start().await;
    for is_second in [false, true] {
        let request = server
            .request(Ana, Method::POST, "/presence")
            .header("idempotency-key", "k")
            .header("content-type", "text/plain")
            .body(r#"{"status":"away"}"#);
        let set = answer(request).await;
        assert_eq!(set.status, 200, "{set:?}");
        assert_eq!(set.body["status"], "away");
        assert_eq!(is_replay(&set), is_second);
        // A replay does not renew presence.
        server
            .post(Ana, "/presence", json!({ "status": "away" }))
            .await;
    }
}
