//! Presence, typing and searching users.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{ChatServer, answer};
use crate::support::database::TestDatabase;
use crate::support::whole_server::WholeServer;

#[tokio::test]
async fn presence_can_be_set_read_and_ended() {
    let server = ChatServer::start().await;
    let set = server
        .post(
            Ana,
            "/presence",
            json!({ "status": "away", "currentPage": "/x" }),
        )
        .await;
    assert_eq!(
        (set.status.as_u16(), &set.body["status"]),
        (200, &json!("away")),
        "{set:?}"
    );
    for field in [
        "user_id",
        "status",
        "last_seen",
        "status_text",
        "status_emoji",
        "is_typing_to",
    ] {
        assert!(set.body.get(field).is_some(), "{field}");
    }
    let put = server
        .send(
            Ana,
            Method::PUT,
            "/presence",
            json!({ "status": "online", "status_text": "at work" }),
        )
        .await;
    assert_eq!(
        (&put.body["status"], &put.body["status_text"]),
        (&json!("online"), &json!("at work"))
    );

    // A page sends this beacon when it is closed.
    let beacon = server
        .request(Ana, Method::POST, "/presence")
        .header("content-type", "text/plain;charset=UTF-8");
    let beacon = answer(beacon.body(r#"{"status":"away","status_text":""}"#)).await;
    assert_eq!(
        (beacon.status.as_u16(), &beacon.body["status"]),
        (200, &json!("away"))
    );
    assert_eq!(beacon.body["status_text"], Value::Null);

    let busy = server
        .post(
            Ana,
            "/presence",
            json!({ "status": "dnd", "manual_until": "2100-01-01T00:00:00Z" }),
        )
        .await;
    assert_eq!(
        (&busy.body["status"], &busy.body["manual_status"]),
        (&json!("busy"), &json!("busy"))
    );
    assert_eq!(busy.body["manual_until"], "2100-01-01T00:00:00+00:00");

    let ids = format!("/presence?user_ids={},{}", Ana.id(), Zoe.id());
    server
        .post(Zoe, "/presence", json!({ "status": "online" }))
        .await;
    let seen = server.get(Ben, &ids).await;
    assert_eq!(
        seen.rows().len(),
        1,
        "users of other teams are omitted: {seen:?}"
    );
    assert_eq!(seen.rows()[0]["user_id"], json!(Ana.id()));
    assert_eq!(seen.rows()[0]["current_page"], Value::Null);
    assert_eq!(server.get(Ben, "/presence?team=true").await.rows().len(), 1);
    assert_eq!(
        server.get(Ana, "/presence").await.rows()[0]["user_id"],
        json!(Ana.id())
    );

    let ended = answer(server.request(Ana, Method::DELETE, "/presence")).await;
    assert_eq!((ended.status.as_u16(), &ended.body), (204, &Value::Null));
    assert_eq!(server.get(Ben, &ids).await.rows()[0]["status"], "offline");
}

#[tokio::test]
async fn the_current_page_is_visible_to_its_owner_and_to_admins() {
    let server = ChatServer::start().await;
    let report = json!({ "status": "online", "current_page": "/payroll" });
    let page = async |person| {
        let path = format!("/presence?user_ids={}", Ana.id());
        server.get(person, &path).await.rows()[0]["current_page"].clone()
    };
    server.post(Ana, "/presence", report.clone()).await;
    assert_eq!(page(Ana).await, Value::Null);
    assert_eq!(page(Ada).await, Value::Null);

    let client = server.database.connect().await;
    client
        .batch_execute("update chat.config set value = 'true' where key = 'share_current_page'")
        .await
        .unwrap();
    server.post(Ana, "/presence", report).await;
    assert_eq!(page(Ana).await, "/payroll");
    assert_eq!(page(Ada).await, "/payroll");
    assert_eq!(page(Ben).await, Value::Null);
}

#[tokio::test]
async fn the_current_page_reaches_no_socket() {
    let database = TestDatabase::new().await;
    let owner = database.connect().await;
    owner
        .batch_execute("update chat.config set value = 'true' where key = 'share_current_page'")
        .await
        .unwrap();
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let payload = json!({ "config": { "postgres_changes": [
        { "event": "*", "schema": "public", "table": "user_presence", "filter": format!("user_id=eq.{}", Ana.id()) }
    ] } });
    let mut watchers = Vec::new();
    for person in [Ana, Ben, Ada] {
        let mut watcher = server.join(person, "presence", payload.clone()).await;
        while watcher.receive().await.event != "system" {}
        watchers.push(watcher);
    }

    let report = json!({ "status": "away", "current_page": "/payroll" });
    let shown = server.post(Ana, "/presence", report).await.body;
    assert_eq!(shown["current_page"], "/payroll");
    let by_hand = format!(
        "update public.user_presence set current_page = '/salaries', status_text = 'last' where user_id = '{}'",
        Ana.id()
    );
    owner.batch_execute(&by_hand).await.unwrap();
    for watcher in &mut watchers {
        loop {
            let text = watcher.receive().await.payload.to_string();
            assert!(
                !text.contains("/payroll") && !text.contains("/salaries"),
                "{text}"
            );
            if text.contains("last") {
                break;
            }
        }
    }
    let path = format!("/presence?user_ids={}", Ana.id());
    let seen = server.send(Ada, Method::GET, &path, json!({})).await;
    assert_eq!(seen.rows()[0]["current_page"], "/salaries");
}

#[tokio::test]
async fn a_chosen_status_without_an_end_holds_until_it_is_cleared() {
    let server = ChatServer::start().await;
    let far = "2100-01-01T00:00:00+00:00";
    for (body, status, until) in [
        (
            json!({ "status": "busy", "manual_until": far }),
            "busy",
            Some(far),
        ),
        (json!({ "status": "online" }), "busy", Some(far)),
        (
            json!({ "status": "busy", "manual_until": null }),
            "busy",
            None,
        ),
        (
            json!({ "status": "online", "manual_until": null }),
            "online",
            None,
        ),
        (
            json!({ "status": "away", "manualUntil": null }),
            "away",
            None,
        ),
        (json!({ "status": "online" }), "away", None),
        (json!({ "status_text": "in a meeting" }), "away", None),
        (json!({ "manual_until": null }), "online", None),
        (json!({ "status": "away", "is_manual": true }), "away", None),
        // A report from a device whose client always sends every field.
        (
            json!({ "status": "online", "is_manual": false, "manual_until": null }),
            "away",
            None,
        ),
        (
            json!({ "status": "online", "is_manual": true }),
            "online",
            None,
        ),
        (
            json!({ "status": "offline", "manual_until": null }),
            "offline",
            None,
        ),
        (json!({ "manual_until": null }), "online", None),
    ] {
        let set = server.post(Ana, "/presence", body.clone()).await;
        let chosen = (status != "online").then_some(status);
        assert_eq!(
            (
                &set.body["status"],
                set.body["manual_status"].as_str(),
                set.body["manual_until"].as_str()
            ),
            (&json!(status), chosen, until),
            "{body}"
        );
    }
}

#[tokio::test]
async fn devices_with_session_ids_report_independently() {
    let server = ChatServer::start().await;
    let shown = async || {
        let row = &server
            .get(Ben, &format!("/presence?user_ids={}", Ana.id()))
            .await
            .rows()[0]
            .clone();
        (row["status"].clone(), row["device_count"].clone())
    };
    for (session, status) in [("a", "online"), ("b", "away")] {
        let body = json!({ "status": status, "sessionId": session });
        let set = server.post(Ana, "/presence", body).await;
        assert_eq!(set.status, 200, "{set:?}");
    }
    assert_eq!(shown().await, (json!("online"), json!(2)));

    let end = async |body: Value| {
        let ended = server.send(Ana, Method::DELETE, "/presence", body).await;
        assert_eq!(ended.status, 204, "{ended:?}");
    };
    end(json!({ "session_id": "a" })).await;
    assert_eq!(shown().await, (json!("away"), json!(1)));
    let put = json!({ "status": "offline", "session_id": "b" });
    server.send(Ana, Method::PUT, "/presence", put).await;
    assert_eq!(shown().await, (json!("offline"), json!(0)));

    for session in ["a", "b"] {
        let body = json!({ "session_id": session });
        server.post(Ana, "/presence", body).await;
    }
    assert_eq!(shown().await, (json!("online"), json!(2)));
    end(json!({})).await;
    assert_eq!(shown().await, (json!("offline"), json!(0)));
}

#[tokio::test]
async fn refusals() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    for (body, status, code) in [
        (json!({ "status": "asleep" }), 422, "validation_failed"),
        (json!({ "status": 1 }), 422, "validation_failed"),
        (json!({ "manual_until": "later" }), 422, "validation_failed"),
        // PostgreSQL accepts these values as timestamps, but prints two of them in a format that
        // JavaScript cannot read.
        (
            json!({ "manual_until": "tomorrow" }),
            422,
            "validation_failed",
        ),
        (
            json!({ "manual_until": "infinity" }),
            422,
            "validation_failed",
        ),
        (
            json!({ "manual_until": "0044-03-15 BC" }),
            422,
            "validation_failed",
        ),
        (json!({ "status_text": "a\0" }), 422, "validation_failed"),
        (json!({ "user_id": Ben.id() }), 403, "identity_mismatch"),
        (json!({ "session_id": "" }), 422, "validation_failed"),
        (json!({ "session_id": 1 }), 422, "validation_failed"),
        (
            json!({ "session_id": "x".repeat(65) }),
            422,
            "validation_failed",
        ),
    ] {
        server
            .post(Ana, "/presence", body)
            .await
            .assert_refused(status, code);
    }
    let end = json!({ "session_id": "x".repeat(65) });
    server
        .send(Ana, Method::DELETE, "/presence", end)
        .await
        .assert_refused(422, "validation_failed");
    server
        .get(Ana, "/presence?user_ids=x")
        .await
        .assert_refused(422, "validation_failed");
    let many = vec![Ana.id().to_string(); 201].join(",");
    server
        .get(Ana, &format!("/presence?user_ids={many}"))
        .await
        .assert_refused(422, "validation_failed");
    let path = format!("/conversations/{conversation}/typing");
    server
        .post(Zoe, &path, json!({ "is_typing": true }))
        .await
        .assert_refused(404, "not_found");
    server
        .post(Ana, &path, json!({ "is_typing": "yes" }))
        .await
        .assert_refused(422, "validation_failed");
    server
        .post(Ana, "/presence/typing", json!({ "is_typing": true }))
        .await
        .assert_refused(422, "validation_failed");
    server
        .post(Ana, "/presence/typing", json!({ "typing_to": Ada.id() }))
        .await
        .assert_refused(404, "not_found");
    server
        .post(
            Ana,
            "/presence/typing",
            json!({ "typing_to": null, "user_id": Ben.id() }),
        )
        .await
        .assert_refused(403, "identity_mismatch");
}

#[tokio::test]
async fn typing_is_accepted_in_every_form_and_stored_only_if_configured() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    let typing_to = async || -> Option<uuid::Uuid> {
        let client = server.database.connect().await;
        let sql = "select is_typing_to from public.user_presence where user_id = $1";
        let row = client.query_opt(sql, &[&Ana.id()]).await.unwrap();
        row.and_then(|row| row.get(0))
    };
    let path = format!("/conversations/{conversation}/typing");
    for (method, path, body) in [
        (Method::POST, path.as_str(), json!({ "is_typing": true })),
        (Method::POST, path.as_str(), json!({ "isTyping": false })),
        (
            Method::POST,
            "/presence/typing",
            json!({ "conversation_id": conversation, "is_typing": true }),
        ),
        (
            Method::PUT,
            "/presence/typing",
            json!({ "typingTo": Ben.id(), "is_typing": true }),
        ),
        (
            Method::PUT,
            "/presence/typing",
            json!({ "typing_to_user_id": null }),
        ),
        (
            Method::POST,
            "/presence/typing",
            json!({ "is_typing": false }),
        ),
    ] {
        let accepted = server.send(Ana, method, path, body.clone()).await;
        assert_eq!(
            (accepted.status.as_u16(), &accepted.body),
            (204, &Value::Null),
            "{body} {accepted:?}"
        );
    }
    assert_eq!(typing_to().await, None);

    let client = server.database.connect().await;
    client
        .batch_execute("update chat.config set value = 'true' where key = 'typing_in_table'")
        .await
        .unwrap();
    server
        .post(
            Ana,
            "/presence/typing",
            json!({ "typing_to": Ben.id(), "is_typing": true }),
        )
        .await;
    assert_eq!(typing_to().await, Some(Ben.id()));
    server
        .post(Ana, "/presence/typing", json!({ "typing_to": null }))
        .await;
    assert_eq!(typing_to().await, None);
}

#[tokio::test]
async fn people_are_found_in_the_callers_team() {
    let server = ChatServer::start().await;
    let find = async |person, query: &str| {
        let found = server.get(person, &format!("/search?{query}")).await;
        assert_eq!(found.status, 200, "{query} {found:?}");
        found
            .rows()
            .iter()
            .map(|row| row["full_name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("q=be&type=users", vec!["Ben Brandt"]),
        ("query=BRANDT", vec!["Ben Brandt"]),
        ("search=ada%40", vec!["Ada Adler"]),
        ("q=zo&teamId=00000000-0000-4000-8000-00000000007b", vec![]),
        ("q=b", vec![]),
        ("", vec![]),
        ("q=alvarez", vec![]),
        ("q=example.com&limit=1", vec!["Ada Adler"]),
        ("q=%25%25", vec![]),
    ] {
        assert_eq!(find(Ana, query).await, expected, "{query}");
    }
    assert_eq!(
        find(Sue, "q=zo").await,
        ["Zoe Zhang"],
        "a super admin finds everyone"
    );

    let found = server.get(Ana, "/search?q=be").await;
    for field in [
        "id",
        "full_name",
        "email",
        "avatar_url",
        "status",
        "team_id",
        "role",
    ] {
        assert!(found.rows()[0].get(field).is_some(), "{field}");
    }
    let other = format!("/search?q=be&currentUserId={}", Ben.id());
    server
        .get(Ana, &other)
        .await
        .assert_refused(403, "identity_mismatch");
}

#[tokio::test]
async fn limits_are_public() {
    let server = ChatServer::start().await;
    let config = answer(server.anonymous(Method::GET, "/config")).await;
    assert_eq!(config.status, 200, "{config:?}");
    assert_eq!(config.body["max_message_length"], 4000);
    assert_eq!(config.body["edit_window_s"], 0);
    assert_eq!(
        config.body["message_types"],
        json!(["text", "image", "file"])
    );
}
