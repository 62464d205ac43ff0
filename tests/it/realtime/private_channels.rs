//! Private channels: the policies of `realtime.messages` decide who may join.

use serde_json::{Value, json};

use super::{Server, config};
use crate::support::chaos::ChaosProxy;
use crate::support::database::TestDatabase;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};
use crate::support::token::{anon_key, mint, now_s, user_claims, user_token};

/// The table as the original has it, in one partition.
const MESSAGES: &str = r"
do $$
declare wanted text;
begin
  foreach wanted in array array['anon', 'authenticated'] loop
    begin
      execute format('create role %I nologin noinherit', wanted);
    exception when duplicate_object or unique_violation then null;
    end;
  end loop;
end
$$;
create schema realtime;
grant usage on schema realtime to anon, authenticated;
create function realtime.topic() returns text language sql stable as
  $$ select nullif(current_setting('realtime.topic', true), '') $$;
create table realtime.messages (
  topic text not null, extension text not null, payload jsonb, event text,
  private boolean default false, updated_at timestamp not null default now(),
  inserted_at timestamp not null default now(), id uuid not null default gen_random_uuid(),
  primary key (id, inserted_at)
);
alter table realtime.messages enable row level security;
grant select, insert on realtime.messages to anon, authenticated;
create policy own on realtime.messages for select to authenticated using (
  realtime.topic() = current_setting('request.jwt.claims')::json ->> 'sub'
  and topic = realtime.topic() and extension = 'broadcast'
);
create policy everybody on realtime.messages for select to authenticated using (
  realtime.topic() = 'lobby' and extension = 'presence'
);
create policy broken on realtime.messages for select to anon using (topic::int = 1);
";

fn private(presence: bool, token: Option<&str>) -> Value {
    let mut payload = json!({"config": {"private": true, "presence": {"enabled": presence}}});
    if let Some(token) = token {
        payload["access_token"] = token.into();
    }
    payload
}

#[tokio::test]
async fn policies_decide_who_joins_and_nothing_is_left_behind() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    admin.batch_execute(MESSAGES).await.unwrap();
    let server = Server::start_over(config(), database.url()).await;
    let ann = uuid::Uuid::new_v4();
    let (token, other) = (user_token(ann), user_token(uuid::Uuid::new_v4()));
    let nobody = mint(&json!({"role": "no_such_role", "exp": now_s() + 100}));
    let own = ann.to_string();
    // (topic, presence asked for, token, allowed)
    let cases = [
        (own.as_str(), false, Some(&token), true),
        (own.as_str(), false, Some(&other), false),
        ("lobby", true, Some(&other), true),
        ("lobby", false, Some(&other), false),
        ("elsewhere", true, Some(&token), false),
        // A policy that fails, and a role that does not exist.
        ("lobby", true, None, false),
        ("lobby", true, Some(&nobody), false),
        // And after those the connection is as good as before.
        (own.as_str(), false, Some(&token), true),
    ];
    for version in VERSIONS {
        for (topic, presence, token, is_allowed) in cases {
            let mut client = server.client(version).await;
            let full = format!("realtime:{topic}");
            let payload = private(presence, token.map(String::as_str));
            client.join("1", &full, payload).await;
            if is_allowed {
                client.expect_reply("1", "ok").await;
            } else {
                let response = client.expect_reply("1", "error").await;
                let reason = format!(
                    "Unauthorized: You do not have permissions to read from this Channel topic: {topic}"
                );
                assert_eq!(response, json!({ "reason": reason }));
            }
        }
    }
    let row = admin
        .query_one("select count(*) from realtime.messages", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn policies_see_the_extension_headers_of_the_handshake_and_no_key() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    admin.batch_execute(MESSAGES).await.unwrap();
    admin
        .batch_execute(
            "drop policy broken on realtime.messages;
             create policy by_header on realtime.messages for select to anon
               using (current_setting('request.headers') = '{\"x-floor\":\"2\"}');",
        )
        .await
        .unwrap();
    let server = Server::start_over(config(), database.url()).await;
    for (floor, status) in [("2", "ok"), ("3", "error")] {
        let url = format!("ws://{}/realtime/v1/websocket?vsn=2.0.0", server.address);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("x-api-key", anon_key().parse().unwrap());
        headers.insert("x-floor", floor.parse().unwrap());
        let mut client = PhoenixSocket::over(request, Version::Two).await;
        client
            .join("1", "realtime:house", private(false, None))
            .await;
        client.expect_reply("1", status).await;
    }
}

#[tokio::test]
async fn a_new_token_without_permission_ends_the_channel() {
    let database = TestDatabase::bare().await;
    database
        .connect()
        .await
        .batch_execute(MESSAGES)
        .await
        .unwrap();
    let server = Server::start_over(config(), database.url()).await;
    let ann = uuid::Uuid::new_v4();
    let topic = format!("realtime:{ann}");
    let mut client = server.client(Version::Two).await;
    client
        .join("1", &topic, private(false, Some(&user_token(ann))))
        .await;
    client.expect_reply("1", "ok").await;
    let other = user_token(uuid::Uuid::new_v4());
    client
        .push(
            json!("1"),
            "2",
            &topic,
            "access_token",
            json!({"access_token": other}),
        )
        .await;
    let (status, text) = client.expect_system(&topic).await;
    assert_eq!(status, "error");
    assert_eq!(
        text,
        format!("You do not have permissions to read from this Channel topic: {ann}")
    );
    client.expect(&topic, "phx_close").await;
}

#[tokio::test]
async fn without_a_database_nobody_is_let_in_and_public_channels_work() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    client
        .join("1", "realtime:secret", private(false, None))
        .await;
    client.join("2", "realtime:open", super::plain_join()).await;
    let (mut refused, mut joined) = (None, None);
    for _ in 0..2 {
        let message = client.receive().await;
        match &*message.topic {
            "realtime:secret" => refused = Some(message.payload),
            _ => joined = Some(message.payload),
        }
    }
    assert_eq!(joined.unwrap()["status"], "ok");
    assert_eq!(
        refused.unwrap()["response"]["reason"],
        "UnableToConnectToProject: Realtime was unable to connect to the project database"
    );
}

#[tokio::test]
async fn a_new_token_during_an_outage_is_judged_when_the_database_is_back() {
    let database = TestDatabase::bare().await;
    database
        .connect()
        .await
        .batch_execute(MESSAGES)
        .await
        .unwrap();
    let (proxy, url) = ChaosProxy::before(database.url()).await;
    let server = Server::start_over(config(), &url).await;
    let ann = uuid::Uuid::new_v4();
    let topic = format!("realtime:{ann}");
    let mut client = server.client(Version::Two).await;
    client
        .join("1", &topic, private(false, Some(&user_token(ann))))
        .await;
    client.expect_reply("1", "ok").await;
    proxy.refuse(true);
    proxy.cut();
    let refresh = async |client: &mut PhoenixSocket, token: String| {
        let payload = json!({"access_token": token});
        client
            .push(json!("1"), "2", &topic, "access_token", payload)
            .await;
    };
    let mut claims = user_claims(ann);
    claims["fresh"] = true.into();
    refresh(&mut client, mint(&claims)).await;
    let (status, text) = client.expect_system(&topic).await;
    assert_eq!(status, "error");
    assert!(text.contains("trying again"), "{text}");
    // The channel is still there, and so is what decides about it.
    client.expect_quiet().await;
    refresh(&mut client, user_token(uuid::Uuid::new_v4())).await;
    let (_, text) = client.expect_system(&topic).await;
    assert!(text.contains("trying again"), "{text}");
    proxy.refuse(false);
    let (_, text) = client.expect_system(&topic).await;
    assert_eq!(
        text,
        format!("You do not have permissions to read from this Channel topic: {ann}")
    );
    client.expect(&topic, "phx_close").await;
}
