//! Opening conversations, and listing them.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{ChatServer, answer, fields};

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_opened_conversation_is_found_again_and_has_every_field() {
    let server = ChatServer::start().await;
    let first = server
        .post(Ana, "/conversations", json!({ "other_user_id": Ben.id() }))
        .await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.body["created"], true);
    assert_eq!(first.body["conversation_id"], first.body["id"]);
    for body in [
        json!({ "otherUserId": Ben.id() }),
        json!({ "participant_id": Ben.id() }),
        json!({ "participantId": Ben.id() }),
        json!({ "recipient_id": Ben.id() }),
        json!({ "recipientId": Ben.id() }),
        json!({ "user_id": Ben.id() }),
        json!({ "userId": Ben.id() }),
        json!({ "user1_id": Ana.id(), "user2_id": Ben.id() }),
        json!({ "user1Id": Ben.id(), "user2Id": Ana.id() }),
    ] {
        let again = server.post(Ana, "/conversations", body.clone()).await;
        assert_eq!(again.status, 200, "{body} {again:?}");
        assert_eq!(
            (&again.body["id"], &again.body["created"]),
            (&first.body["id"], &json!(false)),
            "{body}"
        );
    }

    let expected: BTreeSet<&str> = [
        "id",
        "kind",
        "participant_1_id",
        "participant_2_id",
        "title",
        "team_id",
        "created_at",
        "updated_at",
        "last_message_at",
        "last_message_id",
        "is_archived",
        "participant_1",
        "participant_2",
        "other_user",
        "last_message",
        "unread_count",
        "mention_count",
        "marked_unread",
        "last_read_message_id",
        "last_read_at",
        "is_pinned",
        "is_muted",
        "muted_until",
        "notification_level",
        "draft",
        "peer_last_read_message_id",
        "peer_last_delivered_message_id",
        "can_send",
        "last_seq",
        "rev",
    ]
    .into();
    let row = server
        .get(
            Ana,
            &format!("/conversations/{}", first.body["id"].as_str().unwrap()),
        )
        .await;
    assert_eq!(row.status, 200);
    let has: BTreeSet<&str> = fields(&row.body).into_iter().collect();
    assert_eq!(
        expected.difference(&has).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
    assert_eq!(row.body["kind"], "direct");
    assert_eq!(row.body["other_user"]["id"], json!(Ben.id()));
    assert_eq!(row.body["other_user"]["full_name"], "Ben Brandt");
    assert_eq!(row.body["participant_1"]["status"], "offline");
    assert_eq!(
        (
            &row.body["is_archived"],
            &row.body["can_send"],
            &row.body["rev"]
        ),
        (&json!(false), &json!(true), &json!(0))
    );
    let created_at = row.body["created_at"].as_str().unwrap();
    assert!(
        created_at.ends_with("+00:00") && created_at.contains('T'),
        "{created_at}"
    );
}

#[tokio::test]
async fn refusals() {
    let server = ChatServer::start().await;
    let shared = server.open(Ana, Ben).await;
    let open = |person, body| {
        let server = &server;
        async move { server.post(person, "/conversations", body).await }
    };
    open(Zoe, json!({ "other_user_id": Ana.id() }))
        .await
        .assert_refused(403, "not_allowed_recipient");
    open(Ana, json!({ "other_user_id": Sue.id() }))
        .await
        .assert_refused(403, "not_allowed_recipient");
    open(Ada, json!({ "other_user_id": Zoe.id() }))
        .await
        .assert_refused(403, "not_allowed_recipient");
    open(Ana, json!({ "other_user_id": Ana.id() }))
        .await
        .assert_refused(422, "validation_failed");
    open(Ana, json!({ "other_user_id": "ben" }))
        .await
        .assert_refused(422, "validation_failed");
    open(Ana, json!({}))
        .await
        .assert_refused(422, "validation_failed");
    // An unreachable user looks like a user who does not exist.
    let [mut stranger, mut nobody] = [
        open(Ana, json!({ "other_user_id": Zoe.id() })).await,
        open(Ana, json!({ "other_user_id": uuid::Uuid::new_v4() })).await,
    ];
    for refusal in [&mut stranger, &mut nobody] {
        refusal.assert_refused(403, "not_allowed_recipient");
        refusal.body["request_id"].take();
    }
    assert_eq!(stranger.body, nobody.body);
    open(Zoe, json!({ "user1_id": Ana.id(), "user2_id": Ben.id() }))
        .await
        .assert_refused(403, "identity_mismatch");
    open(
        Zoe,
        json!({ "other_user_id": Sue.id(), "current_user_id": Ana.id() }),
    )
    .await
    .assert_refused(403, "identity_mismatch");
    let opened = open(Sue, json!({ "other_user_id": Zoe.id() })).await;
    assert_eq!(
        opened.status, 201,
        "a super admin may message everyone: {opened:?}"
    );

    for path in [
        format!("/conversations/{shared}"),
        format!("/conversations/{}", uuid::Uuid::new_v4()),
        "/conversations/x".into(),
        "/conversations/%ff".into(),
    ] {
        server
            .get(Zoe, &path)
            .await
            .assert_refused(404, "not_found");
    }
    let refused = open(Zoe, json!({ "other_user_id": Ana.id() })).await;
    assert_eq!(refused.body["error"], "You cannot message this person");
    assert_eq!(refused.body["details"], json!({ "sqlstate": "PT403" }));
}

#[tokio::test]
async fn prevent_creation_opens_no_conversation() {
    let server = ChatServer::start().await;
    let look = || {
        server.post(
            Ana,
            "/conversations?prevent_creation=true",
            json!({ "other_user_id": Ben.id() }),
        )
    };
    look().await.assert_refused(404, "not_found");
    let id = server.open(Ana, Ben).await;
    let found = look().await;
    assert_eq!(
        (
            found.status.as_u16(),
            &found.body["id"],
            &found.body["created"]
        ),
        (200, &json!(id), &json!(false))
    );
}

#[tokio::test]
async fn simultaneous_requests_open_one_conversation() {
    let server = ChatServer::start_with(&[("RAPPORT_DATABASE_REQUEST_POOL_SIZE", "16")]).await;
    let opens = (0..16).map(|n| {
        let (from, to) = if n % 2 == 0 { (Ana, Ben) } else { (Ben, Ana) };
        server.post(from, "/conversations", json!({ "other_user_id": to.id() }))
    });
    let answers = join_all(opens).await;
    let ids: BTreeSet<&str> = answers
        .iter()
        .map(|answer| answer.body["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 201).count(),
        1
    );
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        15
    );
}

#[tokio::test]
async fn the_list_is_sorted_filtered_and_paged() {
    let server = ChatServer::start().await;
    let with_ben = server.open(Ana, Ben).await;
    let with_ada = server.open(Ana, Ada).await;
    let with_sue = server.open(Sue, Ana).await;
    server.say(Ben, &with_ben, "first").await;
    server.say(Ada, &with_ada, "second").await;

    let list = server.get(Ana, "/conversations").await;
    assert_eq!(list.status, 200, "{list:?}");
    assert_eq!(list.header("x-total-unread"), Some("2"));
    assert_eq!(list.header("link"), None);
    assert_eq!(
        ids(list.rows()),
        [&with_ada, &with_ben, &with_sue],
        "latest first"
    );
    assert_eq!(list.rows()[0]["last_message"]["content"], "second");
    assert_eq!(server.get(Ben, "/conversations").await.rows().len(), 1);
    assert_eq!(server.get(Zoe, "/conversations").await.rows().len(), 0);

    let database = server.database.connect().await;
    database
        .execute(
            "update public.user_conversation_members set is_pinned = (conversation_id = $1::text::uuid),
                is_archived = (conversation_id = $2::text::uuid) where user_id = $3",
            &[&with_sue, &with_ada, &Ana.id()],
        )
        .await
        .unwrap();
    let cases = [
        ("", vec![&with_sue, &with_ben]),
        ("?archived=true", vec![&with_ada]),
        ("?archived=all", vec![&with_sue, &with_ada, &with_ben]),
        ("?pinned=true", vec![&with_sue]),
        ("?unread=true", vec![&with_ben]),
        ("?unread=false", vec![&with_sue]),
        ("?search=bran", vec![&with_ben]),
        ("?search=%25", vec![]),
        ("?offset=1", vec![&with_ben]),
        ("?limit=0", vec![&with_sue]),
        ("?limit=100000&unknown=x", vec![&with_sue, &with_ben]),
        ("?updated_since=2100-01-01T00:00:00Z", vec![]),
        (
            "?updatedSince=2000-01-01T00:00:00%2B00:00",
            vec![&with_sue, &with_ben],
        ),
    ];
    for (query, expected) in cases {
        let list = server.get(Ana, &format!("/conversations{query}")).await;
        assert_eq!(ids(list.rows()), expected, "{query} {list:?}");
    }
    for query in [
        "?archived=x",
        "?limit=x",
        "?offset=-1",
        "?updated_since=yesterdayish",
    ] {
        server
            .get(Ana, &format!("/conversations{query}"))
            .await
            .assert_refused(422, "validation_failed");
    }
    server
        .get(Ana, "/conversations?cursor=x")
        .await
        .assert_refused(400, "malformed_request");
}

#[tokio::test]
async fn pages_are_linked_by_cursor_and_link_header() {
    let server = ChatServer::start().await;
    for other in [Ben, Ada] {
        server.open(Ana, other).await;
    }
    server.open(Sue, Ana).await;
    let all = server.get(Ana, "/conversations").await;

    let mut seen = Vec::new();
    let mut path = "/conversations?limit=1&format=page".to_owned();
    loop {
        let page = server.get(Ana, &path).await;
        seen.extend(page.body["data"].as_array().unwrap().clone());
        assert_eq!(
            fields(&page.body),
            [
                "data",
                "has_more",
                "next_cursor",
                "prev_cursor",
                "rev",
                "server_time"
            ]
        );
        assert_eq!(
            page.body["has_more"],
            json!(!page.body["next_cursor"].is_null())
        );
        assert_eq!(
            page.header("x-next-cursor"),
            page.body["next_cursor"].as_str()
        );
        let link = page.header("link").unwrap();
        assert_eq!(
            link.contains("rel=\"prev\""),
            !page.body["prev_cursor"].is_null()
        );
        let Some((address, _)) = link.split_once(">; rel=\"next\"") else {
            break;
        };
        let address = address.strip_prefix('<').unwrap();
        path = address
            .strip_prefix(rapport::chat::BASE_PATH)
            .unwrap()
            .to_owned();
    }
    assert_eq!(ids(&seen), ids(all.rows()));

    // Pages back from the last page to the first.
    let mut page = server.get(Ana, &path).await;
    let mut seen_back = Vec::new();
    while let Some(back) = page.body["prev_cursor"].as_str() {
        let path = format!("/conversations?limit=1&format=page&cursor={back}");
        page = server.get(Ana, &path).await;
        seen_back.extend(page.body["data"].as_array().unwrap().clone());
        if page.body["has_more"] == json!(false) {
            break;
        }
        let onward = page.body["next_cursor"].clone();
        page.body["prev_cursor"] = onward;
    }
    seen_back.reverse();
    assert_eq!(ids(&seen_back), ids(&all.rows()[..all.rows().len() - 1]));
    // On a page reached through `prev_cursor`, the `prev_cursor` leads forward again.
    let forward = page.body["prev_cursor"].as_str().unwrap();
    let path = format!("/conversations?limit=1&cursor={forward}");
    let second = server.get(Ana, &path).await;
    assert_eq!(ids(second.rows()), ids(&all.rows()[1..2]));

    let forged = |position: Value| URL_SAFE_NO_PAD.encode(json!([1, position]).to_string());
    for position in [
        json!({ "is_backwards": false, "is_pinned": true, "last_activity_us": "soon", "id": Ana.id() }),
        json!({ "is_backwards": false, "is_pinned": true, "last_activity_us": i64::MAX, "id": Ana.id() }),
        json!({ "Before": 3 }),
    ] {
        let path = format!("/conversations?cursor={}", forged(position));
        server
            .get(Ana, &path)
            .await
            .assert_refused(400, "malformed_request");
    }
    for position in [json!({ "Before": "first_unread" }), json!({ "Newest": 3 })] {
        let conversation = seen[0]["id"].as_str().unwrap();
        let path = format!(
            "/messages?conversation_id={conversation}&cursor={}",
            forged(position)
        );
        server
            .get(Ana, &path)
            .await
            .assert_refused(400, "malformed_request");
    }
}

#[tokio::test]
async fn unknown_methods_and_paths_are_refused() {
    let server = ChatServer::start().await;
    let wrong = server
        .send(Ana, Method::PATCH, "/conversations", json!({}))
        .await;
    wrong.assert_refused(405, "method_not_allowed");
    let allow = wrong.header("allow").unwrap();
    assert!(
        ["GET", "HEAD", "POST"]
            .iter()
            .all(|verb| allow.contains(verb)),
        "{allow}"
    );
    server
        .get(Ana, "/nothing")
        .await
        .assert_refused(404, "not_found");
    answer(server.anonymous(Method::GET, "/nothing"))
        .await
        .assert_refused(404, "not_found");
    let options = answer(server.anonymous(Method::OPTIONS, "/conversations")).await;
    assert!(options.status.is_success());
    assert!(
        options.header("allow").unwrap().contains("POST"),
        "{options:?}"
    );
    let head = answer(server.request(Ana, Method::HEAD, "/conversations")).await;
    assert_eq!((head.status.as_u16(), &head.body), (200, &Value::Null));
    assert_eq!(
        head.header("etag"),
        server.get(Ana, "/conversations").await.header("etag")
    );
}
