//! Searching messages, conversations, and everything at once.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{self, Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer};

/// Returns the contents of the found messages, in order.
fn found(list: &Answer) -> Vec<&str> {
    assert_eq!(list.status, 200, "{list:?}");
    contents(list.rows())
}

fn contents(hits: &[Value]) -> Vec<&str> {
    hits.iter()
        .map(|hit| hit["message"]["content"].as_str().unwrap())
        .collect()
}

async fn search(server: &ChatServer, person: Person, parameters: &[(&str, &str)]) -> Answer {
    let mut path = "/search?type=messages".to_owned();
    for (name, value) in parameters {
        let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        path += &format!("&{name}={escaped}");
    }
    server.get(person, &path).await
}

async fn send(server: &ChatServer, person: Person, body: Value) -> Value {
    let sent = server.post(person, "/messages", body).await;
    assert_eq!(sent.status, 201, "{sent:?}");
    sent.body
}

#[tokio::test]
async fn a_hit_has_the_message_its_conversation_and_fragments() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let markup = server
        .say(Ana, &conversation, "🎉 <img onerror> at the Café")
        .await;
    server.say(Ben, &conversation, "明日の会議は東京です").await;
    let list = search(&server, Ben, &[("q", "img cafe")]).await;
    assert_eq!(found(&list), ["🎉 <img onerror> at the Café"]);
    let hit = &list.rows()[0];
    let path = format!("/messages/{}", markup["id"].as_str().unwrap());
    assert_eq!(hit["message"], server.get(Ben, &path).await.body);
    assert_eq!(hit["conversation"]["id"], json!(conversation));
    assert_eq!(
        hit["conversation"]["other_user"]["full_name"],
        "Ana Alvarez"
    );
    assert_eq!(
        hit["fragments"],
        json!([{ "field": "content", "text": "🎉 <img onerror> at the Café", "ranges": [[4, 7], [24, 28]] }])
    );
    assert!(hit["score"].as_f64().unwrap() > 0.0);
    server
        .say(Ana, &conversation, "🎉 Łódź, l\u{2019}œuvre!")
        .await;
    for (q, range) in [("lodz", [3, 7]), ("OEUVRE", [11, 16]), ("łód", [3, 6])] {
        let list = search(&server, Ben, &[("q", q)]).await;
        assert_eq!(found(&list), ["🎉 Łódź, l\u{2019}œuvre!"], "{q}");
        assert_eq!(
            list.rows()[0]["fragments"][0]["ranges"],
            json!([range]),
            "{q}"
        );
    }
    let list = search(&server, Ana, &[("q", "会議")]).await;
    assert_eq!(list.rows()[0]["fragments"][0]["ranges"], json!([[3, 5]]));
    for nothing in ["", " ", "!!!", "\"\"", "onerr img-x", "uncafe"] {
        assert_eq!(
            found(&search(&server, Ana, &[("q", nothing)]).await),
            [""; 0]
        );
    }
}

#[tokio::test]
async fn operators_work_in_q_and_as_parameters() {
    let server = ChatServer::start().await;
    let with_ben = server.open(Ana, Ben).await;
    let with_ada = server.open(Ana, Ada).await;
    let first = server.say(Ana, &with_ben, "plan one").await;
    server
        .say(Ben, &with_ben, "plan two https://example.com")
        .await;
    let third = server.say(Ada, &with_ada, "a new plan").await;
    let file = json!({ "conversation_id": with_ben, "content": "chart", "message_type": "file", "file_name": "plan_2026.pdf" });
    send(&server, Ana, file).await;
    let at = |message: &Value| message["created_at"].as_str().unwrap().to_owned();
    let id = Ada.id().to_string();
    let reaction = format!("/messages/{}/reactions", third["id"].as_str().unwrap());
    server
        .post(Ana, &reaction, json!({ "reaction": "👍" }))
        .await;

    let one = "plan one";
    let two = "plan two https://example.com";
    let three = "a new plan";
    let (third_at, first_at) = (at(&third), at(&first));
    let after = format!("plan after:{third_at}");
    let before = format!("plan before:{first_at}");
    let between = format!("after:{first_at} before:{third_at}");
    let in_id = format!("plan in:{with_ada}");
    let not_in = format!("in:{}", uuid::Uuid::new_v4());
    let from_id = format!("from:{id}");
    let cases: &[(&str, &[&str])] = &[
        ("from:me plan -chart", &[one]),
        ("from:me -chart", &[one]),
        ("plan from:ben", &[two]),
        ("plan from:\"Ben Brandt\"", &[two]),
        ("from:ben@example.com", &[two]),
        (&from_id, &[three]),
        ("plan from:zoe", &[]),
        ("plan from:nobody", &[]),
        ("from:% plan", &[]),
        (&in_id, &[three]),
        ("in:ada", &[three]),
        (&not_in, &[]),
        ("from:ben has:link", &[two]),
        ("has:link", &[two]),
        ("has:reaction", &[three]),
        ("has:image", &[]),
        ("is:unread", &[three, two]),
        ("\"new plan\"", &[three]),
        ("\"plan new\"", &[]),
        ("plan -new -chart", &[two, one]),
        ("plan -\"plan one\" -new -chart", &[two]),
        (&after, &[three]),
        (&before, &[]),
        (&between, &[two, one]),
        ("after:2000-01-01 before:2000-01-02", &[]),
    ];
    for (q, expected) in cases {
        let list = search(&server, Ana, &[("q", q)]).await;
        let mut found = found(&list);
        found.retain(|content| *content != "chart");
        assert_eq!(found, *expected, "{q}");
    }
    let list = search(&server, Ana, &[("q", "2026 has:file")]).await;
    assert_eq!(found(&list), ["chart"]);
    let fragment = &list.rows()[0]["fragments"][0];
    assert_eq!(fragment["field"], "file_name");
    assert_eq!(fragment["ranges"], json!([[5, 9]]));
    for (parameters, expected) in [
        (&[("q", "plan"), ("from", "ben")][..], &[two][..]),
        (&[("from", "me"), ("has", "link")], &[]),
        (&[("has", "link"), ("in", "ben")], &[two]),
        (&[("is", "unread"), ("in", with_ada.as_str())], &[three]),
        (
            &[("q", "plan -chart"), ("after", third_at.as_str())],
            &[three],
        ),
    ] {
        let list = search(&server, Ana, parameters).await;
        assert_eq!(found(&list), expected, "{parameters:?}");
    }
    for bad in [
        ("q", "before:tomorrow"),
        ("q", "has:star"),
        ("q", "is:starred"),
        ("q", "-from:me"),
        ("q", "-plan"),
        ("after", "soon"),
        ("has", "x"),
        ("sort", "size"),
        ("order", "up"),
        ("limit", "x"),
        ("q", "a\0"),
    ] {
        search(&server, Ana, &[bad])
            .await
            .assert_refused(422, "validation_failed");
    }
    search(&server, Ana, &[("q", "x"), ("cursor", "x")])
        .await
        .assert_refused(400, "malformed_request");
    server
        .get(Ana, "/search?type=everything")
        .await
        .assert_refused(422, "validation_failed");
}

#[tokio::test]
async fn pages_continue_in_every_order() {
    let server = ChatServer::start().await;
    let with_ben = server.open(Ana, Ben).await;
    let with_ada = server.open(Ana, Ada).await;
    let mut sent = Vec::new();
    for n in 0..7 {
        let conversation = if n % 2 == 0 { &with_ben } else { &with_ada };
        let text = format!("{} {n}", "word ".repeat(n % 3 + 1));
        sent.push(server.say(Ana, conversation, text.trim()).await);
    }
    for (sort, order) in [
        ("date", "desc"),
        ("date", "asc"),
        ("relevance", "desc"),
        ("relevance", "asc"),
    ] {
        let ordered = [("q", "word"), ("sort", sort), ("order", order)];
        let whole = search(&server, Ana, &ordered).await;
        assert_eq!(whole.rows().len(), 7);
        if sort == "date" {
            let mut expected: Vec<_> = sent
                .iter()
                .map(|sent| sent["content"].as_str().unwrap())
                .collect();
            if order == "desc" {
                expected.reverse();
            }
            assert_eq!(found(&whole), expected);
        } else {
            let scores: Vec<_> = whole
                .rows()
                .iter()
                .map(|hit| hit["score"].as_f64().unwrap())
                .collect();
            let is_ordered = if order == "desc" {
                scores.is_sorted_by(|a, b| a >= b)
            } else {
                scores.is_sorted()
            };
            assert!(is_ordered && scores[0] != scores[6], "{scores:?}");
        }
        let mut pages = Vec::new();
        let mut cursor = None;
        for _ in 0..4 {
            let mut parameters = [("limit", "2"), ("format", "page")].to_vec();
            parameters.extend(ordered);
            parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = search(&server, Ana, &parameters).await;
            assert_eq!(page.body["has_more"], json!(pages.len() < 6));
            pages.extend(
                contents(page.body["data"].as_array().unwrap())
                    .iter()
                    .map(|text| (*text).to_owned()),
            );
            assert_eq!(
                page.header("x-next-cursor"),
                page.body["next_cursor"].as_str()
            );
            cursor = page.body["next_cursor"].as_str().map(str::to_owned);
            // New messages do not appear on later pages.
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, found(&whole), "{sort} {order}");
    }
}

#[tokio::test]
async fn invisible_and_deleted_messages_are_not_found() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let secret = server.say(Ana, &conversation, "secret one").await;
    let hidden = server.say(Ana, &conversation, "secret two").await;
    let kept = "secret three";
    server.say(Ana, &conversation, kept).await;
    let path = |message: &Value| format!("/messages/{}", message["id"].as_str().unwrap());
    let by_id = format!("secret in:{conversation}");
    for person in [Zoe, Ada, Sue] {
        for q in ["secret", &by_id, "from:ana", "in:ana", "in:ben secret"] {
            let list = search(&server, person, &[("q", q)]).await;
            assert_eq!(found(&list), [""; 0], "{person:?} {q}");
        }
    }
    answer(server.request(Ana, Method::DELETE, &path(&secret))).await;
    let for_me = format!("{}?for=me", path(&hidden));
    answer(server.request(Ben, Method::DELETE, &for_me)).await;
    assert_eq!(
        found(&search(&server, Ben, &[("q", "secret")]).await),
        [kept]
    );
    assert_eq!(
        found(&search(&server, Ana, &[("q", "secret")]).await),
        [kept, "secret two"]
    );
    let edit = json!({ "content": "open two" });
    server.send(Ana, Method::PATCH, &path(&hidden), edit).await;
    assert_eq!(
        found(&search(&server, Ana, &[("q", "secret")]).await),
        [kept]
    );
    assert_eq!(
        found(&search(&server, Ana, &[("q", "open")]).await),
        ["open two"]
    );

    // After a block, both users can no longer write, but keep their history.
    server
        .post(Ben, "/blocks", json!({ "user_id": Ana.id() }))
        .await;
    for person in [Ana, Ben] {
        assert_eq!(
            found(&search(&server, person, &[("q", "secret")]).await),
            [kept]
        );
    }
    let clear = format!("/conversations/{conversation}");
    answer(server.request(Ben, Method::DELETE, &clear)).await;
    assert_eq!(
        found(&search(&server, Ben, &[("q", "secret")]).await),
        [""; 0]
    );
    server.end_memberships(Ana).await;
    assert_eq!(
        found(&search(&server, Ana, &[("q", "secret")]).await),
        [""; 0]
    );
    let without_token =
        answer(server.anonymous(Method::GET, "/search?type=messages&q=secret")).await;
    without_token.assert_refused(401, "unauthorized");
}

#[tokio::test]
async fn conversations_are_found_by_their_members() {
    let server = ChatServer::start().await;
    let with_ben = server.open(Ana, Ben).await;
    let with_ada = server.open(Ana, Ada).await;
    send(
        &server,
        Ana,
        json!({ "conversation_id": with_ben, "content": "ben was here" }),
    )
    .await;
    let settings = json!({ "is_archived": true });
    let path = format!("/conversations/{with_ada}");
    server.send(Ana, Method::PATCH, &path, settings).await;
    for (q, expected) in [
        ("bran", &[with_ben.as_str()][..]),
        ("ADA@", &[with_ada.as_str()]),
        ("ana", &[]),
        ("zoe", &[]),
        ("%", &[]),
        ("", &[]),
    ] {
        let list = server
            .get(
                Ana,
                &format!("/search?type=conversations&q={}", q.replace('%', "%25")),
            )
            .await;
        let ids: Vec<_> = list
            .rows()
            .iter()
            .map(|row| row["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{q}");
    }
    let listed = server.get(Ana, "/conversations?search=bran").await;
    assert_eq!(listed.rows()[0]["id"], json!(with_ben));
    let others = server.get(Zoe, "/search?type=conversations&q=ben").await;
    assert_eq!(others.body, json!([]));

    let all = server.get(Ana, "/search?type=all&q=ben").await;
    assert_eq!(all.body["users"][0]["id"], json!(Ben.id()));
    assert_eq!(all.body["conversations"][0]["id"], json!(with_ben));
    assert_eq!(
        contents(all.body["messages"].as_array().unwrap()),
        ["ben was here"]
    );
    let filtered = server.get(Ana, "/search?type=all&q=from:me").await;
    assert_eq!(
        (&filtered.body["users"], &filtered.body["conversations"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(filtered.body["messages"].as_array().unwrap().len(), 1);
}
