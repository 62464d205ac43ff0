//! The smaller lists (members, files, contacts), and delivery positions.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{self, Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer};
use crate::support::eventually::eventually;

fn column<'a>(list: &'a Answer, name: &str) -> Vec<&'a str> {
    assert_eq!(list.status, 200, "{list:?}");
    list.rows()
        .iter()
        .map(|row| row[name].as_str().unwrap())
        .collect()
}

/// Returns all rows of a list, fetched two at a time.
async fn pages(server: &ChatServer, person: Person, path: &str, name: &str) -> Vec<String> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut rows = Vec::new();
    let mut cursor = String::new();
    for _ in 0..20 {
        let page = server
            .get(person, &format!("{path}{joint}limit=2{cursor}"))
            .await;
        rows.extend(column(&page, name).into_iter().map(str::to_owned));
        let Some(next) = page.header("x-next-cursor") else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    rows
}

async fn status_of(server: &ChatServer, person: Person, message: &Value) -> String {
    let path = format!("/messages/{}", message["id"].as_str().unwrap());
    let message = server.get(person, &path).await;
    message.body["delivery_status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn members_are_listed_with_their_shared_read_positions() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "hi").await;
    let path = format!("/conversations/{conversation}/members");
    server
        .post(
            Ben,
            &format!("/conversations/{conversation}/read"),
            json!({}),
        )
        .await;
    let list = server.get(Ana, &path).await;
    assert_eq!(column(&list, "full_name"), ["Ana Alvarez", "Ben Brandt"]);
    assert_eq!(list.rows()[1]["last_read_message_id"], message["id"]);
    assert_eq!(list.rows()[1]["last_delivered_message_id"], message["id"]);
    let first = server.get(Ana, &format!("{path}?limit=1")).await;
    let cursor = first.header("x-next-cursor").unwrap();
    let second = server.get(Ana, &format!("{path}?cursor={cursor}")).await;
    assert_eq!(column(&second, "full_name"), ["Ben Brandt"]);
    assert_eq!(second.header("x-next-cursor"), None);

    let private = json!({ "share_read_receipts": false, "share_presence": false });
    server
        .send(Ana, Method::PATCH, "/preferences", private)
        .await;
    let list = server.get(Ana, &path).await;
    assert_eq!(list.rows()[1]["last_read_message_id"], Value::Null);
    let seen = server.get(Ben, &path).await;
    assert_eq!(
        (&seen.rows()[0]["status"], &seen.rows()[0]["last_seen"]),
        (&json!("offline"), &Value::Null)
    );
    for person in [Zoe, Ada, Sue] {
        server
            .get(person, &path)
            .await
            .assert_refused(404, "not_found");
    }
    server
        .get(Ana, &format!("{path}?cursor=x"))
        .await
        .assert_refused(400, "malformed_request");
    server
        .get(Ana, "/conversations/x/members")
        .await
        .assert_refused(404, "not_found");
    // A block does not remove anyone from a conversation.
    server
        .post(Ben, "/blocks", json!({ "user_id": Ana.id() }))
        .await;
    assert_eq!(server.get(Ana, &path).await.rows().len(), 2);
    server.end_memberships(Ben).await;
    server
        .get(Ben, &path)
        .await
        .assert_refused(404, "not_found");
    let list = server.get(Ana, &path).await;
    assert_eq!(column(&list, "full_name"), ["Ana Alvarez"]);
}

#[tokio::test]
async fn visible_files_are_listed_newest_first() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let mut sent = Vec::new();
    for (name, kind) in [
        ("1", "image"),
        ("2", "file"),
        ("-", "text"),
        ("3", "image"),
        ("4", "image"),
    ] {
        let body =
            json!({ "conversation_id": conversation, "content": name, "message_type": kind });
        let message = server.post(Ana, "/messages", body).await;
        assert_eq!(message.status, 201, "{message:?}");
        sent.push(message.body);
    }
    let path = format!("/conversations/{conversation}/media");
    let images = format!("{path}?type=image");
    assert_eq!(
        pages(&server, Ben, &path, "content").await,
        ["4", "3", "2", "1"]
    );
    assert_eq!(
        pages(&server, Ben, &images, "content").await,
        ["4", "3", "1"]
    );
    assert_eq!(
        column(
            &server.get(Ben, &format!("{path}?type=file")).await,
            "content"
        ),
        ["2"]
    );
    server
        .get(Ben, &format!("{path}?type=video"))
        .await
        .assert_refused(422, "validation_failed");
    server
        .get(Ben, &format!("{path}?cursor=x"))
        .await
        .assert_refused(400, "malformed_request");
    for person in [Zoe, Ada, Sue] {
        server
            .get(person, &path)
            .await
            .assert_refused(404, "not_found");
    }
    let address = |message: &Value| format!("/messages/{}", message["id"].as_str().unwrap());
    answer(server.request(Ana, Method::DELETE, &address(&sent[4]))).await;
    let hide = format!("{}?for=me", address(&sent[3]));
    answer(server.request(Ben, Method::DELETE, &hide)).await;
    assert_eq!(column(&server.get(Ben, &path).await, "content"), ["2", "1"]);
    assert_eq!(
        column(&server.get(Ana, &path).await, "content"),
        ["3", "2", "1"]
    );
    server
        .post(Ben, "/blocks", json!({ "user_id": Ana.id() }))
        .await;
    assert_eq!(server.get(Ana, &path).await.rows().len(), 3);
    answer(server.request(
        Ben,
        Method::DELETE,
        &format!("/conversations/{conversation}"),
    ))
    .await;
    assert_eq!(server.get(Ben, &path).await.body, json!([]));
    server.end_memberships(Ben).await;
    server
        .get(Ben, &path)
        .await
        .assert_refused(404, "not_found");
}

#[tokio::test]
async fn contacts_are_conversation_partners_and_then_the_team() {
    let server = ChatServer::start().await;
    let names = async |person| pages(&server, person, "/contacts", "full_name").await;
    assert_eq!(names(Ana).await, ["Ada Adler", "Ben Brandt"]);
    assert_eq!(names(Zoe).await, [""; 0]);
    let with_ben = server.open(Ana, Ben).await;
    server.say(Ana, &with_ben, "hi").await;
    let from_sue = server.open(Sue, Ana).await;
    assert_eq!(names(Ana).await, ["Ben Brandt", "Ada Adler", "Sue Summers"]);
    server.say(Sue, &from_sue, "hello").await;
    assert_eq!(names(Ana).await, ["Sue Summers", "Ben Brandt", "Ada Adler"]);
    let list = server.get(Ana, "/contacts").await;
    let fields = |row: usize, name: &str| list.rows()[row][name].clone();
    assert_eq!(fields(0, "conversation_id"), json!(from_sue));
    assert_eq!(fields(1, "conversation_id"), json!(with_ben));
    assert_eq!(fields(2, "conversation_id"), Value::Null);
    assert_eq!(fields(0, "team_id"), Value::Null);
    assert_eq!(
        (fields(1, "status"), fields(1, "role")),
        (json!("offline"), json!("user"))
    );

    // The search covers the team. Users with whom the caller has a conversation come first.
    assert_eq!(
        server.get(Ana, "/search?q=su&teamId=x").await.body,
        json!([])
    );
    let found = server.get(Ana, "/search?q=example.com").await;
    assert_eq!(column(&found, "full_name"), ["Ben Brandt", "Ada Adler"]);

    let private = json!({ "share_presence": false });
    server
        .send(Ben, Method::PATCH, "/preferences", private)
        .await;
    server
        .post(Ben, "/presence", json!({ "status": "online" }))
        .await;
    server
        .post(Ada, "/presence", json!({ "status": "away" }))
        .await;
    let list = server.get(Ana, "/contacts").await;
    assert_eq!(column(&list, "status"), ["offline", "offline", "away"]);
    assert_eq!(list.rows()[1]["last_seen"], Value::Null);
    server
        .post(Ben, "/blocks", json!({ "user_id": Ana.id() }))
        .await;
    assert_eq!(names(Ana).await, ["Sue Summers", "Ada Adler"]);
    assert_eq!(names(Ben).await, ["Ada Adler"]);
    server.end_memberships(Sue).await;
    assert_eq!(names(Ana).await, ["Ada Adler"]);
    server
        .get(Ana, "/contacts?cursor=x")
        .await
        .assert_refused(400, "malformed_request");
}

#[tokio::test]
async fn fetched_and_reported_messages_are_delivered() {
    let server = ChatServer::start().await;
    server.start_background_tasks();
    let conversation = server.open(Ana, Ben).await;
    let first = server.say(Ana, &conversation, "1").await;
    let second = server.say(Ana, &conversation, "2").await;
    let path = format!("/conversations/{conversation}/delivered");
    assert_eq!(status_of(&server, Ana, &second).await, "sent");
    let up_to = json!({ "message_id": first["id"], "user_id": Ben.id() });
    let marked = server.post(Ben, &path, up_to.clone()).await;
    assert_eq!((marked.status.as_u16(), &marked.body), (204, &Value::Null));
    assert_eq!(status_of(&server, Ana, &first).await, "delivered");
    assert_eq!(status_of(&server, Ana, &second).await, "sent");
    server.post(Ben, &path, json!({})).await;
    assert_eq!(status_of(&server, Ana, &second).await, "delivered");
    server.post(Ben, &path, up_to).await;
    assert_eq!(
        status_of(&server, Ana, &second).await,
        "delivered",
        "never back"
    );
    for (person, body, status, code) in [
        (Zoe, json!({}), 404, "not_found"),
        (Sue, json!({ "message_id": first["id"] }), 404, "not_found"),
        (Ben, json!({ "message_id": Ben.id() }), 404, "not_found"),
        (
            Ben,
            json!({ "user_id": Ana.id() }),
            403,
            "identity_mismatch",
        ),
    ] {
        server
            .post(person, &path, body)
            .await
            .assert_refused(status, code);
    }

    // Fetching messages marks them as delivered, but only for the caller, and not the caller's own
    // messages.
    let third = server.say(Ana, &conversation, "3").await;
    let history = format!("/messages?conversation_id={conversation}");
    server.get(Ana, &history).await;
    server
        .get(Zoe, &history)
        .await
        .assert_refused(404, "not_found");
    assert_eq!(status_of(&server, Ana, &third).await, "sent");
    server.get(Ben, &history).await;
    eventually("the fetched message is delivered", async || {
        (status_of(&server, Ana, &third).await == "delivered").then_some(())
    })
    .await;

    // `/sync` marks messages as delivered as well.
    let start = server.get(Ben, "/sync").await;
    let cursor = start.body["cursor"].as_str().unwrap();
    let caught = server.say(Ana, &conversation, "caught").await;
    assert_eq!(status_of(&server, Ana, &caught).await, "sent");
    let page = server.get(Ben, &format!("/sync?since={cursor}")).await;
    eventually("the synced message is delivered", async || {
        (status_of(&server, Ana, &caught).await == "delivered").then_some(())
    })
    .await;
    // The new delivery position is reported only to the other members.
    let cursor = page.body["cursor"].as_str().unwrap();
    let again = server.get(Ben, &format!("/sync?since={cursor}")).await;
    assert_eq!(again.body["conversations"], json!([]), "{again:?}");
    let database = server.database.connect().await;
    let own = "select last_delivered_seq from public.conversation_receipts where user_id = $1";
    let own: i64 = database.query_one(own, &[&Ana.id()]).await.unwrap().get(0);
    assert_eq!(own, 0);

    // A user who does not share receipts shows none and sees none.
    let private = json!({ "share_read_receipts": false });
    server
        .send(Ben, Method::PATCH, "/preferences", private)
        .await;
    let fourth = server.say(Ana, &conversation, "4").await;
    server.get(Ben, &history).await;
    server.post(Ben, &path, json!({})).await;
    assert_eq!(status_of(&server, Ana, &fourth).await, "sent");
    let private = json!({ "share_read_receipts": false });
    server
        .send(Ana, Method::PATCH, "/preferences", private)
        .await;
    assert_eq!(status_of(&server, Ana, &third).await, "sent");
}

#[tokio::test]
async fn every_list_can_be_wrapped_in_an_object() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "one").await;
    let message = format!("/messages/{}", message["id"].as_str().unwrap());
    let edited = json!({ "content": "two" });
    server.send(Ana, Method::PATCH, &message, edited).await;
    let reaction = format!("{message}/reactions/x");
    server.send(Ana, Method::PUT, &reaction, json!({})).await;
    server
        .post(Ana, "/blocks", json!({ "user_id": Ada.id() }))
        .await;
    server
        .post(Ben, "/presence", json!({ "status": "online" }))
        .await;
    for path in [
        "/blocks?format=page".to_owned(),
        "/presence?team=true&format=page".to_owned(),
        "/search?q=be&format=page".to_owned(),
        "/search?type=conversations&q=be&format=page".to_owned(),
        "/contacts?format=page".to_owned(),
        format!("/conversations/{conversation}/members?format=page"),
        format!("{message}/history?format=page"),
        format!("{message}/reactions?format=page"),
    ] {
        let page = server.get(Ana, &path).await;
        let bare = server.get(Ana, &path.replace("format=page", "")).await;
        assert!(!bare.rows().is_empty(), "{path}: {bare:?}");
        assert_eq!(page.body["data"], bare.body, "{path}");
        for (name, value) in [
            ("next_cursor", Value::Null),
            ("prev_cursor", Value::Null),
            ("has_more", json!(false)),
        ] {
            assert_eq!(page.body[name], value, "{path}: {name}");
        }
        assert!(page.body["server_time"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn a_cursor_is_valid_for_one_list_of_one_conversation() {
    let server = ChatServer::start().await;
    let [with_ben, with_ada] = [server.open(Ana, Ben).await, server.open(Ana, Ada).await];
    let storage =
        "update chat.config set value = '\"https://files.example\"' where key = 'storage_url'";
    let database = server.database.connect().await;
    database.execute(storage, &[]).await.unwrap();
    for conversation in [&with_ben, &with_ada] {
        for name in ["1", "2"] {
            let body = json!({
                "conversation_id": conversation, "message_type": "file", "file_url": format!("https://files.example/{name}"),
            });
            let sent = server.post(Ana, "/messages", body).await;
            assert_eq!(sent.status, 201, "{sent:?}");
            let pin = format!("/messages/{}/pin", sent.body["id"].as_str().unwrap());
            server.send(Ana, Method::PUT, &pin, json!({})).await;
        }
    }
    let lists = |conversation: &str| {
        [
            format!("/messages?conversation_id={conversation}"),
            format!("/messages?conversation_id={conversation}&since_rev=0"),
            format!("/conversations/{conversation}/members?"),
            format!("/conversations/{conversation}/media?"),
            format!("/conversations/{conversation}/pins?"),
        ]
    };
    let mut cursors = Vec::new();
    for list in lists(&with_ben) {
        let first = server.get(Ana, &format!("{list}&limit=1")).await;
        let cursor = first.header("x-next-cursor").unwrap().to_owned();
        let second = server.get(Ana, &format!("{list}&cursor={cursor}")).await;
        assert_eq!((second.status.as_u16(), second.rows().len()), (200, 1));
        cursors.push(cursor);
    }
    for (list, own) in lists(&with_ada).iter().zip(0..) {
        for (cursor, number) in cursors.iter().zip(0..) {
            let asked = server.get(Ana, &format!("{list}&cursor={cursor}")).await;
            asked.assert_refused(400, "malformed_request");
            // The first two lists are the two directions of one history. Their cursors are
            // interchangeable, because each contains its own position.
            if number != own && (own > 1 || number > 1) {
                let list = &lists(&with_ben)[own];
                let asked = server.get(Ana, &format!("{list}&cursor={cursor}")).await;
                asked.assert_refused(400, "malformed_request");
            }
        }
    }
}
