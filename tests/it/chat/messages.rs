//! Sending messages, and the history of a conversation.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::chat_server::Person::{Ana, Ben, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer, fields};

fn contents(rows: &[Value]) -> Vec<&str> {
    rows.iter()
        .map(|row| row["content"].as_str().unwrap())
        .collect()
}

fn seqs(rows: &[Value]) -> Vec<i64> {
    rows.iter()
        .map(|row| row["seq"].as_i64().unwrap())
        .collect()
}

/// Opens a conversation of Ana and Ben with the messages `1`, `2`, … `count` from Ana.
async fn with_history(count: usize) -> (ChatServer, String, Vec<Value>) {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let mut sent = Vec::new();
    for n in 1..=count {
        sent.push(server.say(Ana, &conversation, &n.to_string()).await);
    }
    (server, conversation, sent)
}

#[tokio::test]
async fn a_message_has_every_field() {
    let (server, conversation, _) = with_history(0).await;
    let sent = server
        .post(
            Ana,
            "/messages",
            json!({
                "conversationId": conversation, "content": "  Hello <b>Ben</b> \u{1f44b}\n", "clientMessageId": "c-1",
                "metadata": { "thread": 1 }, "mentions": [Ben.id()], "messageType": "text", "unknown": [],
            }),
        )
        .await;
    assert_eq!(sent.status, 201, "{sent:?}");
    let row = &sent.body;
    let fields: BTreeSet<&str> = fields(row).into_iter().collect();
    let expected: BTreeSet<&str> = [
        "id",
        "conversation_id",
        "sender_id",
        "content",
        "message_type",
        "file_url",
        "file_name",
        "file_size",
        "file_type",
        "created_at",
        "updated_at",
        "is_edited",
        "edited_at",
        "is_deleted",
        "deleted_at",
        "read_by",
        "metadata",
        "client_message_id",
        "seq",
        "rev",
        "reply_to_id",
        "reply_to",
        "mentions",
        "sender",
        "reactions",
        "is_pinned",
        "attachments",
        "delivery_status",
    ]
    .into();
    assert_eq!(fields, expected);
    let exact = json!({
        "conversation_id": conversation, "sender_id": Ana.id(), "content": "Hello <b>Ben</b> \u{1f44b}",
        "message_type": "text", "file_url": null, "file_name": null, "file_size": null, "file_type": null,
        "is_edited": false, "edited_at": null, "is_deleted": false, "deleted_at": null, "read_by": [],
        "metadata": { "thread": 1 }, "client_message_id": "c-1", "seq": 1, "rev": 1, "reply_to_id": null,
        "reply_to": null, "mentions": [Ben.id()], "reactions": [], "is_pinned": false, "attachments": [], "delivery_status": "sent",
    });
    for (name, value) in exact.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
    assert_eq!(row["sender"]["full_name"], "Ana Alvarez");
    assert!(row["created_at"].as_str().unwrap().ends_with("+00:00"));

    let reply = server
        .post(
            Ben,
            "/messages",
            json!({ "conversation_id": conversation, "content": "Hi", "reply_to_id": row["id"] }),
        )
        .await;
    assert_eq!(reply.body["reply_to"]["id"], row["id"]);
    assert_eq!(reply.body["seq"], 2);
}

#[tokio::test]
async fn sending_to_a_person_opens_the_conversation() {
    let server = ChatServer::start().await;
    for body in [
        json!({ "other_user_id": Ben.id(), "content": "1" }),
        json!({ "recipientId": Ben.id(), "content": "2", "sender_id": Ana.id() }),
    ] {
        let sent = server.post(Ana, "/messages", body).await;
        assert_eq!(sent.status, 201, "{sent:?}");
    }
    let list = server.get(Ben, "/conversations").await;
    assert_eq!(list.rows().len(), 1);
    assert_eq!(list.rows()[0]["unread_count"], 2);
    server
        .post(
            Zoe,
            "/messages",
            json!({ "other_user_id": Ana.id(), "content": "x" }),
        )
        .await
        .assert_refused(403, "not_allowed_recipient");
    assert_eq!(
        server.get(Zoe, "/conversations").await.rows().len(),
        0,
        "the refused request created no conversation"
    );
    // The conversation and the message are created in one transaction.
    server
        .post(
            Ana,
            "/messages",
            json!({ "other_user_id": crate::support::chat_server::Person::Ada.id(), "content": " " }),
        )
        .await
        .assert_refused(422, "message_empty");
    assert_eq!(server.get(Ana, "/conversations").await.rows().len(), 1);
}

#[tokio::test]
async fn refusals() {
    let (server, conversation, _) = with_history(1).await;
    let send = |person, changes: Value| {
        let mut body = json!({ "conversation_id": conversation, "content": "x" });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        let server = &server;
        async move { server.post(person, "/messages", body).await }
    };
    let cases = [
        (Zoe, json!({}), 404, "not_found"),
        (
            Ana,
            json!({ "conversation_id": Uuid::new_v4() }),
            404,
            "not_found",
        ),
        (
            Ana,
            json!({ "conversation_id": "x" }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "conversation_id": null }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "sender_id": Ben.id() }),
            403,
            "identity_mismatch",
        ),
        (
            Ana,
            json!({ "senderId": Ben.id() }),
            403,
            "identity_mismatch",
        ),
        (
            Ana,
            json!({ "currentUserId": Ben.id() }),
            403,
            "identity_mismatch",
        ),
        (Ana, json!({ "content": "" }), 422, "message_empty"),
        (
            Ana,
            json!({ "content": "\u{a0}\u{200b}\u{3164}" }),
            422,
            "message_empty",
        ),
        (
            Ana,
            json!({ "content": "x".repeat(4001) }),
            422,
            "message_too_long",
        ),
        (Ana, json!({ "content": 5 }), 422, "validation_failed"),
        (
            Ana,
            json!({ "content": "a\u{0}b" }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "message_type": "system" }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "client_message_id": "x".repeat(65) }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "client_message_id": "" }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "reply_to_id": Uuid::new_v4() }),
            422,
            "validation_failed",
        ),
        (Ana, json!({ "metadata": [] }), 422, "validation_failed"),
        (
            Ana,
            json!({ "recipientId": Ben.id() }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "metadata": { "a": ["\0"] } }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "mentions": ["ben"] }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "attachment_ids": [Uuid::new_v4()] }),
            422,
            "validation_failed",
        ),
        (
            Ana,
            json!({ "file_url": "https://evil.test/x" }),
            422,
            "validation_failed",
        ),
    ];
    let mut wrong = Vec::new();
    for (person, changes, status, code) in cases {
        let refused = send(person, changes.clone()).await;
        if (refused.status.as_u16(), refused.body["code"].as_str()) != (status, Some(code)) {
            wrong.push(format!("{changes} -> {} {}", refused.status, refused.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        send(Ana, json!({ "content": "é".repeat(4000) }))
            .await
            .status,
        201,
        "the limit counts code points"
    );

    let history = format!("/messages?conversation_id={conversation}");
    server
        .get(Zoe, &history)
        .await
        .assert_refused(404, "not_found");
    server
        .get(Ana, "/messages")
        .await
        .assert_refused(422, "validation_failed");
    server
        .get(Ana, "/messages?conversation_id=x")
        .await
        .assert_refused(422, "validation_failed");
}

#[tokio::test]
async fn a_file_address_must_be_in_the_storage_as_browsers_resolve_it() {
    const STORAGE: &str = "https://app.example/storage/v1/object/public/chat";
    let (server, conversation, _) = with_history(0).await;
    let set = "update chat.config set value = to_jsonb($1::text) where key = 'storage_url'";
    let database = server.database.connect().await;
    database.execute(set, &[&STORAGE]).await.unwrap();
    let cases = [
        ("a.png", 201),
        ("Bericht%20M%C3%A4rz.pdf", 201),
        ("a..b/..c.png?token=x/../y#z", 201),
        ("a%2fb.png", 201),
        ("../../x", 422),
        ("%2e%2E/x", 422),
        (".\t./.\t./auth/v1/authorize?provider=x", 422),
        (".\n./.\n./x", 422),
        (".\r./x", 422),
        ("..\t/..\t/x", 422),
        ("%2\te./x", 422),
        ("..?x", 422),
        ("..#x", 422),
        (".. ", 422),
        ("..\\..\\x", 422),
        ("..%2f..%2Fx", 422),
        ("%2e%2e%5Cx", 422),
        ("./a.png", 422),
        ("ü.png", 422),
    ];
    let mut wrong = Vec::new();
    for (path, status) in cases {
        let body = json!({
            "conversation_id": conversation,
            "message_type": "image",
            "file_url": format!("{STORAGE}/{path}"),
        });
        let sent = server.post(Ana, "/messages", body).await;
        if sent.status.as_u16() != status {
            wrong.push(format!("{path:?} -> {} {}", sent.status, sent.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_retry_returns_the_first_message() {
    let (server, conversation, _) = with_history(0).await;
    let body =
        json!({ "conversation_id": conversation, "content": "once", "client_message_id": "c-1" });
    let first = server.post(Ana, "/messages", body.clone()).await;
    assert_eq!(first.status, 201);
    let again = server.post(Ana, "/messages", body.clone()).await;
    assert_eq!(
        (again.status.as_u16(), &again.body["id"]),
        (200, &first.body["id"])
    );
    let by_person =
        json!({ "other_user_id": Ben.id(), "content": "once", "client_message_id": "c-1" });
    let again = server.post(Ana, "/messages", by_person).await;
    assert_eq!(
        (again.status.as_u16(), &again.body["id"]),
        (200, &first.body["id"])
    );
    let other =
        json!({ "conversation_id": conversation, "content": "twice", "client_message_id": "c-1" });
    server
        .post(Ana, "/messages", other)
        .await
        .assert_refused(409, "client_message_id_conflict");
    let bens = server.post(Ben, "/messages", body).await;
    assert_eq!(bens.status, 201, "ids are per sender");
    let history = server
        .get(Ana, &format!("/messages?conversation_id={conversation}"))
        .await;
    assert_eq!(contents(history.rows()), ["once", "once"]);
}

#[tokio::test]
async fn simultaneous_requests_with_one_id_send_one_message() {
    let (server, conversation, _) = with_history(0).await;
    let body =
        json!({ "conversation_id": conversation, "content": "once", "client_message_id": "c-1" });
    let answers = join_all((0..50).map(|_| server.post(Ana, "/messages", body.clone()))).await;
    let ids: BTreeSet<&str> = answers
        .iter()
        .map(|sent| sent.body["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 1);
    let created = answers.iter().filter(|sent| sent.status == 201).count();
    let replayed = answers.iter().filter(|sent| sent.status == 200).count();
    assert_eq!((created, replayed), (1, 49));
    let history = server
        .get(Ben, &format!("/messages?conversation_id={conversation}"))
        .await;
    assert_eq!(history.rows().len(), 1);
    assert_eq!(
        server.get(Ben, "/unread-count").await.body["total"],
        1,
        "retries do not count"
    );
}

#[tokio::test]
async fn concurrent_writers_leave_no_gap_in_seq() {
    let (server, conversation, _) = with_history(0).await;
    let (server, conversation) = (&server, &conversation);
    let write = async |person| {
        // Each user has several requests in progress at once, as from several devices.
        let sent = (0..500).map(async |n| server.say(person, conversation, &n.to_string()).await);
        let sent: Vec<Value> = stream::iter(sent).buffer_unordered(8).collect().await;
        assert_eq!(sent.len(), 500);
    };
    tokio::join!(write(Ana), write(Ben));
    let mut rows = Vec::new();
    for after in (0..1000).step_by(200) {
        let path = format!("/messages?conversation_id={conversation}&limit=200&after={after}");
        rows.extend_from_slice(server.get(Ana, &path).await.rows());
    }
    assert_eq!(seqs(&rows), (1..=1000).collect::<Vec<_>>());
    let instants: Vec<jiff::Timestamp> = rows
        .iter()
        .map(|row| row["created_at"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(instants.is_sorted(), "{instants:?}");
}

#[tokio::test]
async fn history_by_every_position() {
    let (server, conversation, sent) = with_history(9).await;
    let id = |n: usize| sent[n - 1]["id"].as_str().unwrap().to_owned();
    let cases = [
        (String::new(), "1 2 3 4 5 6 7 8 9"),
        ("&limit=3".into(), "7 8 9"),
        ("&limit=3&offset=2".into(), "5 6 7"),
        ("&limit=0".into(), "9"),
        ("&limit=-99999999999999999999".into(), "9"),
        ("&limit=99999999999999999999".into(), "1 2 3 4 5 6 7 8 9"),
        (format!("&before={}&limit=3", id(5)), "2 3 4"),
        ("&before=5&limit=3".into(), "2 3 4"),
        ("&before=1".into(), ""),
        (format!("&after={}&limit=3", id(5)), "6 7 8"),
        ("&after=0&limit=2".into(), "1 2"),
        ("&after=9".into(), ""),
        (format!("&around={}&limit=4", id(5)), "3 4 5 6"),
        ("&around=5&limit=5".into(), "3 4 5 6 7"),
        ("&around=1&limit=4".into(), "1 2"),
        ("&around=first_unread&limit=4".into(), "7 8 9"),
        ("&since_rev=7".into(), "8 9"),
        ("&sinceRev=0&limit=2".into(), "1 2"),
    ];
    for (query, expected) in cases {
        let page = server
            .get(
                Ana,
                &format!("/messages?conversation_id={conversation}{query}"),
            )
            .await;
        assert_eq!(
            contents(page.rows()).join(" "),
            expected,
            "{query} {page:?}"
        );
    }
    let unread = server
        .get(
            Ben,
            &format!("/messages?conversation_id={conversation}&around=first_unread&limit=4"),
        )
        .await;
    assert_eq!(contents(unread.rows()), ["1", "2"]);

    for (query, status, code) in [
        ("&before=5&after=3", 422, "validation_failed"),
        ("&around=5&cursor=x", 400, "malformed_request"),
        ("&before=x", 422, "validation_failed"),
        ("&limit=x", 422, "validation_failed"),
        ("&since_rev=x", 422, "validation_failed"),
        ("&cursor=x", 400, "malformed_request"),
        (
            "&before=00000000-0000-4000-8000-0000000000ff",
            404,
            "not_found",
        ),
    ] {
        let page = server
            .get(
                Ana,
                &format!("/messages?conversation_id={conversation}{query}"),
            )
            .await;
        page.assert_refused(status, code);
    }
}

#[tokio::test]
async fn deleted_messages_are_omitted_by_default() {
    let (server, conversation, sent) = with_history(4).await;
    let client = server.database.connect().await;
    client
        .execute(
            "update public.user_messages set is_deleted = true where id = $1::text::uuid",
            &[&sent[2]["id"].as_str()],
        )
        .await
        .unwrap();
    let get = async |query: &str| {
        server
            .get(
                Ben,
                &format!("/messages?conversation_id={conversation}{query}"),
            )
            .await
    };
    assert_eq!(contents(get("").await.rows()), ["1", "2", "4"]);
    assert_eq!(
        contents(get("&limit=2").await.rows()),
        ["2", "4"],
        "the limit counts only returned messages"
    );
    let with = get("&include_deleted=true").await;
    assert_eq!(contents(with.rows()), ["1", "2", "", "4"]);
    assert_eq!(with.rows()[2]["is_deleted"], true);
    let changed = get("&since_rev=4").await;
    assert_eq!(changed.rows().len(), 1);
    assert_eq!(
        (&changed.rows()[0]["id"], &changed.rows()[0]["rev"]),
        (&sent[2]["id"], &json!(5))
    );
}

/// Follows `next_cursor` to the end and returns all pages.
async fn follow(server: &ChatServer, query: &str, between: impl AsyncFn()) -> Vec<Answer> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server
            .get(Ana, &format!("/messages?{query}&format=page{cursor}"))
            .await;
        assert_eq!(page.status, 200, "{page:?}");
        let next = page.body["next_cursor"].as_str().map(str::to_owned);
        pages.push(page);
        let Some(next) = next else { return pages };
        cursor = format!("&cursor={next}");
        between().await;
    }
}

#[tokio::test]
async fn cursors_neither_repeat_nor_skip_messages_during_writes() {
    let (server, conversation, _) = with_history(20).await;
    let arriving = async || {
        server.say(Ben, &conversation, "new").await;
    };
    let query = format!("conversation_id={conversation}&limit=6");
    let pages = follow(&server, &query, arriving).await;
    let sizes: Vec<usize> = pages
        .iter()
        .map(|page| page.body["data"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [6, 6, 6, 2]);
    let mut seen: Vec<i64> = pages
        .iter()
        .rev()
        .flat_map(|page| seqs(page.body["data"].as_array().unwrap()))
        .collect();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    assert_eq!(pages[0].body["prev_cursor"], Value::Null);

    let back = pages[1].body["prev_cursor"].as_str().unwrap();
    let newer = server
        .get(Ana, &format!("/messages?{query}&cursor={back}"))
        .await;
    assert_eq!(seqs(newer.rows()), [15, 16, 17, 18, 19, 20]);
    seen.clear();

    let forward = follow(
        &server,
        &format!("conversation_id={conversation}&after=0&limit=10"),
        arriving,
    )
    .await;
    let seen: Vec<i64> = forward
        .iter()
        .flat_map(|page| seqs(page.body["data"].as_array().unwrap()))
        .collect();
    assert_eq!(
        seen,
        (1..=i64::try_from(seen.len()).unwrap()).collect::<Vec<_>>()
    );
    assert!(
        seen.len() >= 23,
        "messages that arrived during paging are included: {seen:?}"
    );
}

#[tokio::test]
async fn changes_since_a_revision_are_complete() {
    let (server, conversation, _) = with_history(7).await;
    let query = format!("conversation_id={conversation}&since_rev=0&limit=3");
    let pages = follow(&server, &query, async || {}).await;
    let revs: Vec<&Value> = pages.iter().map(|page| &page.body["rev"]).collect();
    assert_eq!(
        revs,
        [3, 6, 7],
        "a page returns the revision that it reaches"
    );
    let newest = server
        .get(
            Ana,
            &format!("/messages?conversation_id={conversation}&limit=1&format=page"),
        )
        .await;
    assert_eq!(newest.body["rev"], 7);
    let server_time: jiff::Timestamp = newest.body["server_time"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (jiff::Timestamp::now() - server_time)
            .total(jiff::Unit::Second)
            .unwrap()
            < 60.0
    );
}

#[tokio::test]
async fn the_etag_of_a_message_is_its_revision() {
    let (server, _, sent) = with_history(1).await;
    let path = format!("/messages/{}", sent[0]["id"].as_str().unwrap());
    let message = server.get(Ben, &path).await;
    assert_eq!(
        (message.status.as_u16(), message.header("etag")),
        (200, Some("\"m1\""))
    );
    assert_eq!(message.body["content"], "1");
    let known = server
        .request(Ben, Method::GET, &path)
        .header("if-none-match", "W/\"m1\"");
    let known = answer(known).await;
    assert_eq!((known.status.as_u16(), &known.body), (304, &Value::Null));
    for path in [
        path.as_str(),
        "/messages/00000000-0000-4000-8000-0000000000ff",
        "/messages/x",
    ] {
        server.get(Zoe, path).await.assert_refused(404, "not_found");
    }
}

#[tokio::test]
async fn each_member_sees_their_own_delivery_status() {
    let (server, conversation, sent) = with_history(2).await;
    server
        .post(
            Ben,
            &format!("/conversations/{conversation}/read"),
            json!({ "message_id": sent[0]["id"] }),
        )
        .await;
    let statuses = async |person| -> BTreeMap<String, String> {
        let history = server
            .get(person, &format!("/messages?conversation_id={conversation}"))
            .await;
        let pair = |row: &Value| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (text("content"), text("delivery_status"))
        };
        history.rows().iter().map(pair).collect()
    };
    let anas = statuses(Ana).await;
    assert_eq!((anas["1"].as_str(), anas["2"].as_str()), ("read", "sent"));
    let history = server
        .get(Ana, &format!("/messages?conversation_id={conversation}"))
        .await;
    assert_eq!(history.rows()[0]["read_by"], json!([Ben.id()]));
    assert_eq!(history.rows()[1]["read_by"], json!([]));
}
