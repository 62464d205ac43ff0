//! Events on the chat's private topics: the action of one user, as another user's device receives
//! it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::chat_server::Person::{Ada, Ana, Ben};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::socket::PhoenixSocket;
use crate::support::whole_server::{WholeServer, next_event};

#[tokio::test]
async fn reading_on_one_device_lowers_the_badge_on_another() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let mut device = server.listen(Ben, &format!("user:{}", Ben.id())).await;
    let conversation = server.open(Ana, Ben).await;
    let opened = next_event(&mut device, "conversation.updated").await;
    assert_eq!(opened["unread_count"], 0, "{opened}");
    let unread = next_event(&mut device, "unread.updated").await;
    assert_eq!(unread["total"], 0);

    let message = server.say(Ana, &conversation, "hello").await;
    let updated = next_event(&mut device, "conversation.updated").await;
    assert_eq!(
        (&updated["conversation_id"], &updated["unread_count"]),
        (&json!(conversation), &json!(1)),
        "{updated}"
    );
    let unread = next_event(&mut device, "unread.updated").await;
    assert_eq!(
        unread,
        json!({ "total": 1, "conversations": 1, "mentions": 0 })
    );

    let path = format!("/conversations/{conversation}/read");
    server
        .post(Ben, &path, json!({ "message_id": message["id"] }))
        .await;
    let updated = next_event(&mut device, "conversation.updated").await;
    assert_eq!(updated["unread_count"], 0);
    assert_eq!(updated["last_read_message_id"], message["id"]);
    let unread = next_event(&mut device, "unread.updated").await;
    assert_eq!(unread["total"], 0);

    // A draft is stored separately, but a new draft updates the membership.
    let draft = json!({ "draft": "begun" });
    server
        .send(
            Ben,
            Method::PATCH,
            &format!("/conversations/{conversation}"),
            draft,
        )
        .await;
    let touched = next_event(&mut device, "conversation.updated").await;
    assert_eq!(touched, updated);
    assert_eq!(next_composing(&mut device).await["draft"], "begun");

    // A muted conversation causes events but does not count as unread. This also holds if a role
    // other than the user's mutes it, as the owner of the database does here.
    let owner = database.connect().await;
    owner
        .batch_execute(&format!(
            "update public.user_conversation_members set is_muted = true, muted_until = '2100-01-01' \
             where user_id = '{}'",
            Ben.id()
        ))
        .await
        .unwrap();
    let updated = next_event(&mut device, "conversation.updated").await;
    assert_eq!(
        (&updated["is_muted"], &updated["muted_until"]),
        (&json!(true), &json!("2100-01-01T00:00:00+00:00"))
    );
    server.say(Ana, &conversation, "unheard").await;
    let updated = next_event(&mut device, "conversation.updated").await;
    assert_eq!(updated["unread_count"], 1);
    let unread = next_event(&mut device, "unread.updated").await;
    assert_eq!(unread["total"], 0);
}

/// Returns the next event with `draft` and `can_send`, which are not columns of the membership.
async fn next_composing(device: &mut PhoenixSocket) -> Value {
    loop {
        let updated = next_event(device, "conversation.updated").await;
        if updated.get("can_send").is_some() {
            return updated;
        }
    }
}

#[tokio::test]
async fn drafts_and_the_right_to_send_reach_the_devices_of_their_owner() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = server.open(Ana, Ben).await;
    let mut ana = server.listen(Ana, &format!("user:{}", Ana.id())).await;
    let mut ben = server.listen(Ben, &format!("user:{}", Ben.id())).await;
    let expected = |draft: Option<&str>, can_send: bool| json!({ "conversation_id": conversation, "draft": draft, "can_send": can_send });

    let path = format!("/conversations/{conversation}");
    let settings = json!({ "draft": "begun", "is_pinned": true });
    server.send(Ana, Method::PATCH, &path, settings).await;
    // The event about opening the conversation may arrive after the join.
    while !next_event(&mut ana, "conversation.updated").await["pinned_at"].is_string() {}
    assert_eq!(
        next_composing(&mut ana).await,
        expected(Some("begun"), true)
    );
    server.say(Ana, &conversation, "sent").await;
    assert_eq!(next_composing(&mut ana).await, expected(None, true));

    // Ben's first event is about the block. Events about Ana's drafts do not reach him, because
    // drafts are private.
    let block = json!({ "user_id": Ana.id() });
    server.post(Ben, "/blocks", block).await;
    assert_eq!(next_composing(&mut ben).await, expected(None, false));
    assert_eq!(next_composing(&mut ana).await, expected(None, false));
    let unblock = format!("/blocks/{}", Ana.id());
    server
        .send(Ben, Method::DELETE, &unblock, Value::Null)
        .await;
    assert_eq!(next_composing(&mut ben).await, expected(None, true));
    assert_eq!(next_composing(&mut ana).await, expected(None, true));

    // The second of the next two comparisons began after the sockets had joined, so it contains
    // both users.
    let compared = || server.metric("rapport_chat_standings_compared_total");
    let before = compared().await;
    eventually(
        "a comparison that began after the sockets joined",
        async || (compared().await >= before + 2.0).then_some(()),
    )
    .await;
    let owner = database.connect().await;
    for (status, can_send) in [("suspended", false), ("active", true)] {
        let update = "update public.users set status = $1 where id = $2";
        owner.execute(update, &[&status, &Ben.id()]).await.unwrap();
        assert_eq!(next_composing(&mut ana).await, expected(None, can_send));
        assert_eq!(next_composing(&mut ben).await, expected(None, can_send));
    }
}

#[tokio::test]
async fn a_removed_reaction_is_reported_with_its_message_and_user() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = server.open(Ana, Ben).await;
    let message = server.say(Ana, &conversation, "hello").await;
    let topic = format!("conversation:{conversation}");
    let mut ana = server.listen(Ana, &topic).await;
    let path = format!(
        "/messages/{}/reactions/%F0%9F%91%8D",
        message["id"].as_str().unwrap()
    );
    server.send(Ben, Method::PUT, &path, json!({})).await;
    let owner = database.connect().await;
    let select = "select id::text from public.message_reactions";
    let row = owner.query_one(select, &[]).await.unwrap();
    let id: String = row.get(0);
    server.send(Ben, Method::DELETE, &path, Value::Null).await;
    let removed = next_event(&mut ana, "reaction.removed").await;
    let expected = json!({
        "id": id, "conversation_id": conversation, "message_id": message["id"],
        "user_id": Ben.id(), "reaction": "👍",
    });
    assert_eq!(removed, expected);
}

#[tokio::test]
async fn receipts_report_delivery_and_reading_to_the_sender() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = server.open(Ana, Ben).await;
    let topic = format!("conversation:{conversation}");
    let mut ana = server.listen(Ana, &topic).await;
    let binding = json!({"event": "INSERT", "schema": "public", "table": "user_messages"});
    let payload = json!({"config": {"postgres_changes": [binding]}});
    let mut ben = server.join(Ben, "messages", payload).await;
    ben.expect_system("realtime:messages").await;

    server.say(Ana, &conversation, "hello").await;
    let receipt = next_event(&mut ana, "receipt").await;
    let expected = json!({
        "conversation_id": conversation, "user_id": Ben.id(), "last_delivered_seq": 1,
    });
    assert_eq!(receipt, expected, "the receipt needs no request from Ben");

    server
        .post(
            Ben,
            &format!("/conversations/{conversation}/read"),
            json!({}),
        )
        .await;
    let receipt = next_event(&mut ana, "receipt").await;
    let expected =
        json!({ "conversation_id": conversation, "user_id": Ben.id(), "last_read_seq": 1 });
    assert_eq!(receipt, expected);

    // A user who does not share receipts shows none and receives none. The next receipt is for a
    // message that Ben reads after he shares receipts again.
    let share = json!({ "share_read_receipts": false });
    server.send(Ben, Method::PUT, "/preferences", share).await;
    server.say(Ana, &conversation, "again").await;
    for content in ["hello", "again"] {
        let change = loop {
            let message = ben.receive().await;
            if message.event == "postgres_changes" {
                break message.payload;
            }
        };
        assert_eq!(change["data"]["record"]["content"], content);
    }
    let read = format!("/conversations/{conversation}/read");
    server.say(Ben, &conversation, "yes").await;
    server.post(Ana, &read, json!({})).await;
    let share = json!({ "share_read_receipts": true });
    server.send(Ben, Method::PUT, "/preferences", share).await;
    server.say(Ben, &conversation, "now").await;
    server.post(Ana, &read, json!({})).await;
    // Earlier deliveries to Ben may be reported as soon as he shares receipts.
    let receipt = loop {
        let receipt = next_event(&mut ana, "receipt").await;
        if receipt["user_id"] == json!(Ana.id()) {
            break receipt;
        }
    };
    let expected = json!({ "conversation_id": conversation, "user_id": Ana.id(), "last_read_seq": 4, "last_delivered_seq": 4 });
    assert_eq!(receipt, expected);
}

#[tokio::test]
async fn typing_reaches_the_other_user_and_expires() {
    let database = TestDatabase::new().await;
    let owner = database.connect().await;
    owner
        .batch_execute("update chat.config set value = '2500' where key = 'typing_ttl_ms'")
        .await
        .unwrap();
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = server.open(Ana, Ben).await;
    let mut ben = server
        .listen(Ben, &format!("conversation:{conversation}"))
        .await;
    let path = format!("/conversations/{conversation}/typing");
    server.post(Ana, &path, json!({ "is_typing": true })).await;
    let typing = next_event(&mut ben, "typing").await;
    let expected = json!({
        "conversation_id": conversation, "user_id": Ana.id(), "is_typing": true, "expires_in_ms": 2500,
    });
    assert_eq!(typing, expected);
    let typing = next_event(&mut ben, "typing").await;
    assert_eq!(typing["is_typing"], false, "Ana's typing has expired");

    server
        .post(Ana, "/presence/typing", json!({ "typing_to": Ben.id() }))
        .await;
    assert_eq!(next_event(&mut ben, "typing").await["is_typing"], true);
    server.say(Ana, &conversation, "typed").await;
    assert_eq!(
        next_event(&mut ben, "typing").await["is_typing"],
        false,
        "a message ends typing"
    );
    let rows = "select from public.user_presence where user_id = $1";
    let rows = owner.query(rows, &[&Ana.id()]).await.unwrap();
    assert!(rows.is_empty(), "nothing is stored");

    let share = json!({ "share_typing": false });
    server.send(Ana, Method::PUT, "/preferences", share).await;
    server.post(Ana, &path, json!({ "is_typing": true })).await;
    server.post(Ben, &path, json!({ "is_typing": true })).await;
    assert_eq!(
        next_event(&mut ben, "typing").await["user_id"],
        json!(Ben.id()),
        "typing that is not shared is not sent"
    );
}

#[tokio::test]
async fn typing_reaches_the_other_members_on_their_own_topics() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let conversation = server.open(Ana, Ben).await;
    let elsewhere = server.open(Ada, Ben).await;
    let mut ana = server.listen(Ana, &format!("user:{}", Ana.id())).await;
    let mut ben = server.listen(Ben, &format!("user:{}", Ben.id())).await;
    let mut ada = server.listen(Ada, &format!("user:{}", Ada.id())).await;
    let types = async |person, conversation: &str, is_typing| {
        let path = format!("/conversations/{conversation}/typing");
        let body = json!({ "is_typing": is_typing });
        server.post(person, &path, body).await;
    };
    let expected = json!({
        "conversation_id": conversation, "user_id": Ana.id(), "is_typing": true, "expires_in_ms": 6000,
    });
    types(Ana, &conversation, true).await;
    assert_eq!(next_event(&mut ben, "typing").await, expected);
    server.say(Ana, &conversation, "typed").await;
    assert_eq!(next_event(&mut ben, "typing").await["is_typing"], false);

    // The next event that Ada and Ana receive is about Ben, not about their own typing.
    types(Ben, &elsewhere, true).await;
    let typing = next_event(&mut ada, "typing").await;
    assert_eq!(
        (&typing["conversation_id"], &typing["user_id"]),
        (&json!(elsewhere), &json!(Ben.id()))
    );
    types(Ben, &conversation, true).await;
    assert_eq!(
        next_event(&mut ana, "typing").await["user_id"],
        json!(Ben.id())
    );

    // Typing of a user who is blocked, or who does not share it, is not sent. The next event is
    // therefore the end of typing.
    let unblock = format!("/blocks/{}", Ada.id());
    server
        .post(Ben, "/blocks", json!({ "user_id": Ada.id() }))
        .await;
    types(Ada, &elsewhere, true).await;
    server
        .send(Ben, Method::DELETE, &unblock, Value::Null)
        .await;
    let share = |share: bool| json!({ "share_typing": share });
    server
        .send(Ada, Method::PUT, "/preferences", share(false))
        .await;
    types(Ada, &elsewhere, true).await;
    server
        .send(Ada, Method::PUT, "/preferences", share(true))
        .await;
    types(Ada, &elsewhere, false).await;
    let typing = next_event(&mut ben, "typing").await;
    assert_eq!(
        (&typing["user_id"], &typing["is_typing"]),
        (&json!(Ada.id()), &json!(false))
    );
}

#[tokio::test]
async fn totals_are_sent_again_after_an_interruption() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let mut device = server.listen(Ben, &format!("user:{}", Ben.id())).await;
    let owner = database.connect().await;
    eventually("the walsender is gone", async || {
        let killed = owner
            .query_one(
                "select count(pg_terminate_backend(pid)) from pg_stat_replication r \
                 join pg_replication_slots s on s.active_pid = r.pid where s.database = current_database()",
                &[],
            )
            .await
            .unwrap();
        (killed.get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    let unread = next_event(&mut device, "unread.updated").await;
    assert_eq!(
        unread,
        json!({ "total": 0, "conversations": 0, "mentions": 0 })
    );
}
