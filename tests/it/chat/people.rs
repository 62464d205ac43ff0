//! The caller's own profile (`/me`), blocking users, and preferences.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ada, Ana, Ben, Sue, Zoe};
use crate::support::chat_server::{Answer, ChatServer, answer, names_field};

#[tokio::test]
async fn me_returns_the_caller_as_the_application_knows_them() {
    let server = ChatServer::start().await;
    let ada = server.get(Ada, "/me").await;
    let expected = json!({
        "id": Ada.id(), "full_name": "Ada Adler", "email": "ada@example.com", "avatar_url": null,
        "role": "admin",
        "teams": [{ "id": "00000000-0000-4000-8000-00000000007a", "name": "Support" }],
        "can_write": true,
    });
    assert_eq!((ada.status.as_u16(), &ada.body), (200, &expected));
    let suspend = "update public.users set status = 'suspended' where email = 'ada@example.com'";
    let owner = server.database.connect().await;
    owner.batch_execute(suspend).await.unwrap();
    assert_eq!(server.get(Ada, "/me").await.body["can_write"], false);
    answer(server.anonymous(Method::GET, "/me"))
        .await
        .assert_refused(401, "unauthorized");
}

async fn unblock(server: &ChatServer) -> Answer {
    let path = format!("/blocks/{}", Ben.id());
    answer(server.request(Ana, Method::DELETE, &path)).await
}

#[tokio::test]
async fn a_block_applies_in_both_directions_and_is_not_disclosed() {
    let server = ChatServer::start().await;
    let conversation = server.open(Ana, Ben).await;
    server.say(Ben, &conversation, "1").await;
    let names = [("user_id", 201), ("otherUserId", 200)];
    for (name, status) in names {
        let blocked = server
            .post(Ana, "/blocks", json!({ (name): Ben.id() }))
            .await;
        assert_eq!(blocked.status, status, "{blocked:?}");
        assert_eq!(blocked.body["user_id"], json!(Ben.id()));
        assert_eq!(blocked.body["user"]["full_name"], "Ben Brandt");
    }
    let list = server.get(Ana, "/blocks").await;
    assert_eq!(list.rows().len(), 1);
    assert_eq!(list.rows()[0]["user_id"], json!(Ben.id()));
    assert_eq!(server.get(Ben, "/blocks").await.body, json!([]));

    let mut refusals = Vec::new();
    for person in [Ana, Ben] {
        let text = json!({ "conversation_id": conversation, "content": "2" });
        let refused = server.post(person, "/messages", text).await;
        refused.assert_refused(403, "not_allowed_recipient");
        refusals.push(refused.body["message"].clone());
        let row = server
            .get(person, &format!("/conversations/{conversation}"))
            .await;
        assert_eq!(row.body["can_send"], false);
    }
    // The text is the same as for a user of another team.
    let stranger = json!({ "other_user_id": Ben.id(), "content": "2" });
    refusals.push(server.post(Zoe, "/messages", stranger).await.body["message"].clone());
    assert!(
        refusals.iter().all(|text| *text == refusals[0]),
        "{refusals:?}"
    );

    for _ in 0..2 {
        assert_eq!(unblock(&server).await.status, 200);
    }
    server.say(Ben, &conversation, "2").await;
}

#[tokio::test]
async fn only_visible_people_can_be_blocked() {
    let server = ChatServer::start().await;
    let nobody = "00000000-0000-4000-8000-0000000000ff";
    // An unreachable user looks like a user who does not exist.
    for (other, status, code) in [
        (json!(Zoe.id()), 404, "not_found"),
        (json!(nobody), 404, "not_found"),
        (json!(Ana.id()), 422, "validation_failed"),
        (json!("x"), 422, "validation_failed"),
        (Value::Null, 422, "validation_failed"),
    ] {
        server
            .post(Ana, "/blocks", json!({ "user_id": other }))
            .await
            .assert_refused(status, code);
    }
    // Every user can block a user who can write to everyone.
    let blocked = server
        .post(Ana, "/blocks", json!({ "user_id": Sue.id() }))
        .await;
    assert_eq!(blocked.status, 201, "{blocked:?}");
    server
        .post(
            Sue,
            "/messages",
            json!({ "other_user_id": Ana.id(), "content": "x" }),
        )
        .await
        .assert_refused(403, "not_allowed_recipient");
}

#[tokio::test]
async fn preferences_have_defaults_and_can_be_set_one_by_one() {
    let server = ChatServer::start().await;
    let defaults = server.get(Ana, "/preferences").await;
    assert_eq!(defaults.status, 200, "{defaults:?}");
    for (name, value) in [
        ("user_id", json!(Ana.id())),
        ("email_mode", json!("offline")),
        ("share_typing", json!(true)),
        ("dnd_until", Value::Null),
        ("timezone", json!("UTC")),
    ] {
        assert_eq!(defaults.body[name], value, "{name}");
    }
    let wanted = json!({
        "shareReadReceipts": false, "quiet_start": "22:00", "quietEnd": "07:30:00", "timezone": "Europe/Berlin",
        "dnd_until": "2999-01-31T12:00:00Z", "unknown": [1], "updated_at": "1999-01-01",
    });
    let set = server.send(Ana, Method::PUT, "/preferences", wanted).await;
    assert_eq!(set.status, 200, "{set:?}");
    for (name, value) in [
        ("share_read_receipts", json!(false)),
        ("share_typing", json!(true)),
        ("quiet_start", json!("22:00:00")),
        ("quiet_end", json!("07:30:00")),
        ("timezone", json!("Europe/Berlin")),
        ("dnd_until", json!("2999-01-31T12:00:00+00:00")),
    ] {
        assert_eq!(set.body[name], value, "{name}");
    }
    assert!(set.body["updated_at"].as_str().unwrap() > "2000");
    let cleared = json!({ "dnd_until": null, "user_id": Ana.id() });
    let cleared = server
        .send(Ana, Method::PATCH, "/preferences", cleared)
        .await;
    assert_eq!(cleared.body["dnd_until"], Value::Null);
    assert_eq!(cleared.body, server.get(Ana, "/preferences").await.body);
    let others = server.get(Ben, "/preferences").await;
    assert_eq!(others.body["share_read_receipts"], true);
}

#[tokio::test]
async fn invalid_preferences_are_refused() {
    let server = ChatServer::start().await;
    for wrong in [
        json!({ "email_mode": "always" }),
        json!({ "emailMode": 1 }),
        json!({ "email_mode": null }),
        json!({ "digest_hour": 24 }),
        json!({ "digest_hour": null }),
        json!({ "timezone": 1 }),
        json!({ "quiet_end": 7 }),
        json!({ "email_delay_seconds": 1 }),
        json!({ "share_typing": "perhaps" }),
        json!({ "share_typing": null }),
        json!({ "digest_hour": 1e99 }),
        json!({ "timezone": "Mars" }),
        json!({ "timezone": "a\0b" }),
        json!({ "quiet_start": "25:00" }),
        json!({ "dnd_until": [1] }),
    ] {
        let refused = server
            .send(Ana, Method::PUT, "/preferences", wrong.clone())
            .await;
        refused.assert_refused(422, "validation_failed");
        names_field(&refused, &wrong);
    }
    let other = json!({ "user_id": Ben.id(), "share_typing": false });
    server
        .send(Ana, Method::PUT, "/preferences", other)
        .await
        .assert_refused(403, "identity_mismatch");
}
