//! Tokens with a role that no token may have, and tokens that are not valid yet.

use reqwest::Client;
use serde_json::{Value, json};

use super::{database, join};
use crate::support::chat_server::Person::Ana;
use crate::support::database::connect;
use crate::support::socket::refused_handshake;
use crate::support::token::{mint, now_s, user_claims, user_token};
use crate::support::whole_server::WholeServer;

fn claims_with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = user_claims(Ana.id());
    claims[name] = value.into();
    claims
}

fn private() -> Value {
    json!({ "private": true, "presence": { "enabled": false } })
}

/// The outcomes for a role, one for each place where a token's role reaches the database.
#[derive(Debug, PartialEq)]
struct Fate {
    join: Option<String>,
    replay: Option<String>,
    changes: (String, String),
    refresh: String,
    broadcast: (u16, String),
}

async fn fate(server: &WholeServer, role: &str) -> Fate {
    let address = server.address();
    let token = mint(&claims_with("role", role));
    let own = format!("user:{}", Ana.id());

    let (_, joined) = join(address, &token, &own, private()).await;
    let mut config = private();
    config["broadcast"] = json!({ "replay": { "since": 0 } });
    let (_, replayed) = join(address, &token, &own, config).await;

    let binding = json!({ "event": "*", "schema": "public", "table": "user_messages" });
    let config = json!({ "postgres_changes": [binding], "presence": { "enabled": false } });
    let (mut socket, reason) = join(address, &token, "changes", config).await;
    assert_eq!(reason, None, "bindings are checked after the join");
    let changes = socket.expect_system("realtime:changes").await;

    let (mut socket, reason) = join(address, &user_token(Ana.id()), &own, private()).await;
    assert_eq!(reason, None);
    let topic = format!("realtime:{own}");
    let payload = json!({ "access_token": token });
    socket
        .push(json!("1"), "2", &topic, "access_token", payload)
        .await;
    socket
        .push(json!("1"), "3", &topic, "phx_leave", json!({}))
        .await;
    let next = socket.receive().await;
    let refresh = match &*next.event {
        "system" => next.payload["message"].as_str().unwrap().to_owned(),
        event => event.to_owned(),
    };

    let url = format!("http://{address}/realtime/v1/api/broadcast/news/events/x?private=true");
    let sending = Client::new().post(url).bearer_auth(&token).body("{}");
    let sent = sending
        .header("content-type", "application/json")
        .send()
        .await
        .unwrap();
    Fate {
        join: joined,
        replay: replayed,
        changes: (changes.0, changes.1.replace(role, "<role>")),
        refresh,
        broadcast: (sent.status().as_u16(), sent.text().await.unwrap()),
    }
}

#[tokio::test]
async fn a_token_cannot_use_a_role_that_bypasses_row_level_security() {
    let database = database().await;
    let owner = database.connect().await;
    let login: String = connect(database.url())
        .await
        .query_one("select session_user::text", &[])
        .await
        .unwrap()
        .get(0);
    // Roles belong to the cluster, which other tests also use.
    let name = |kind: &str| format!("{kind}_{}", database.name());
    let (above, bypassing) = (name("above"), name("bypassing"));
    let (member, plain) = (name("member"), name("plain"));
    owner
        .batch_execute(&format!(
            r#"create role "{above}" superuser; create role "{bypassing}" bypassrls;
            create role "{member}" noinherit in role "{bypassing}", authenticated;
            create role "{plain}" in role authenticated;
            grant "{above}", "{bypassing}", "{member}", "{plain}" to "{login}";
            create policy "all may send news" on realtime.messages for insert
              to authenticated, "{above}", "{bypassing}", "{member}"
              with check (realtime.topic() = 'news');"#
        ))
        .await
        .unwrap();
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    // Without the trigger, Rapport evaluates the expressions of the policies. With it, Rapport
    // inserts rows.
    for trigger in ["", BEFORE_INSERT] {
        owner.batch_execute(trigger).await.unwrap();
        let nobody = fate(&server, "no_such_role").await;
        let cannot = format!(
            "Unauthorized: You do not have permissions to read from this Channel topic: user:{}",
            Ana.id()
        );
        assert_eq!(nobody.join.as_ref(), Some(&cannot));
        assert_eq!(nobody.replay.as_ref(), Some(&cannot));
        assert_eq!(nobody.changes.0, "error", "{nobody:?}");
        assert_eq!(
            Some(nobody.refresh.as_str()),
            cannot.strip_prefix("Unauthorized: ")
        );
        assert_ne!(nobody.broadcast.0, 202);
        for role in [&above, &bypassing, &member, &login, "none"] {
            assert_eq!(fate(&server, role).await, nobody, "{role}");
        }
        for role in [&plain, "authenticated", "service_role"] {
            let fate = fate(&server, role).await;
            assert_eq!((fate.join, fate.replay), (None, None), "{role}");
            assert_eq!(fate.changes.0, "ok", "{role}");
            assert_eq!(fate.refresh, "phx_reply", "{role}");
            assert_eq!(fate.broadcast.0, 202, "{role}");
        }
    }
    drop(server);
    owner
        .batch_execute(&format!(
            r#"drop policy "all may send news" on realtime.messages;
            drop role "{above}", "{member}", "{bypassing}", "{plain}""#
        ))
        .await
        .unwrap();
}

/// A trigger with which only an insert shows what the policies decide about a row.
const BEFORE_INSERT: &str = "
create function public.unchanged() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger unchanged before insert on realtime.messages
  for each row execute function public.unchanged();";

#[tokio::test]
async fn a_token_is_refused_before_it_becomes_valid() {
    let database = database().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let address = server.address();
    let early = mint(&claims_with("nbf", now_s() + 3_000));
    // Clocks may differ by a few seconds.
    let good = mint(&claims_with("nbf", now_s() + 10));

    let url =
        |token: &str| format!("ws://{address}/realtime/v1/websocket?apikey={token}&vsn=2.0.0");
    let (status, _, body) = refused_handshake(&url(&early)).await;
    assert_eq!(
        (status, &*body),
        (401, r#"{"error":"Token is not valid yet"}"#)
    );

    let (mut socket, reason) = join(address, &good, "room", json!({})).await;
    assert_eq!(reason, None);
    let payload = json!({ "access_token": early, "config": { "presence": { "enabled": false } } });
    socket.join("5", "realtime:other", payload).await;
    loop {
        let message = socket.receive().await;
        if message.reference == json!("5") {
            let reason = &message.payload["response"]["reason"];
            assert_eq!(reason, "InvalidJWTToken: Token is not valid yet");
            break;
        }
    }
    let payload = json!({ "access_token": early });
    socket
        .push(json!("1"), "6", "realtime:room", "access_token", payload)
        .await;
    let notice = socket.expect_system("realtime:room").await;
    assert_eq!(
        notice,
        ("error".to_owned(), "Token is not valid yet".to_owned())
    );
    socket.expect("realtime:room", "phx_close").await;

    for (token, status) in [(&early, 401), (&good, 200)] {
        let url = format!("http://{address}/api/supabase/user-chat/conversations");
        let answer = Client::new()
            .get(url)
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let url = format!("http://{address}/realtime/v1/api/broadcast");
        let body = json!({ "messages": [{ "topic": "a", "event": "b", "payload": {} }] });
        let sending = Client::new().post(url).bearer_auth(token).json(&body);
        let sent = sending.send().await.unwrap().status().as_u16();
        assert_eq!(sent, if status == 200 { 202 } else { 401 });
    }
}
