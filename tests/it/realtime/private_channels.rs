//! Tests of private channels, where the policies of `realtime.messages` decide which clients may
//! join.

use rapport::observability::metrics::{PermissionLabels, PermissionWay};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{Server, config};
use crate::support::chaos::ChaosProxy;
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};
use crate::support::supabase::{ROLES, create_roles};
use crate::support::token::{anon_key, mint, now_s, service_role_key, user_claims, user_token};

/// The table as Supabase Realtime creates it, with one partition.
const MESSAGES: &str = r"
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

/// Creates the table, and the roles of its policies.
pub(super) async fn create_messages(admin: &Client) {
    create_roles(admin, ROLES).await;
    admin.batch_execute(MESSAGES).await.unwrap();
}

/// Creates the same table without a partition.
pub(super) async fn create_partitioned_messages(admin: &Client) {
    create_roles(admin, ROLES).await;
    let partitioned = MESSAGES.replace(
        "primary key (id, inserted_at)\n);",
        "primary key (id, inserted_at)\n) partition by range (inserted_at);",
    );
    admin.batch_execute(&partitioned).await.unwrap();
}

const CANNOT_READ: &str = "You do not have permissions to read from this Channel topic: ";
const CANNOT_WRITE: &str = "You do not have permissions to write to this Channel topic: ";
const UNREACHABLE: &str =
    "UnableToConnectToProject: Realtime was unable to connect to the project database";

/// Starts a server on a database that has [`MESSAGES`] and additional policies.
async fn with_policies(policies: &str) -> (TestDatabase, Client, Server) {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    create_messages(&admin).await;
    admin.batch_execute(policies).await.unwrap();
    let server = Server::start_over(config(), database.url()).await;
    (database, admin, server)
}

fn private(presence: bool, token: Option<&str>) -> Value {
    let mut payload = json!({"config": {"private": true, "presence": {"enabled": presence}}});
    if let Some(token) = token {
        payload["access_token"] = token.into();
    }
    payload
}

#[tokio::test]
async fn policies_decide_joins_and_no_rows_are_left() {
    let (_database, admin, server) = with_policies("").await;
    let ann = uuid::Uuid::new_v4();
    let (token, other) = (user_token(ann), user_token(uuid::Uuid::new_v4()));
    let nobody = mint(&json!({"role": "no_such_role", "exp": now_s() + 100}));
    let own = ann.to_string();
    // Topic, whether presence is requested, token, and whether the join is allowed.
    let cases = [
        (own.as_str(), false, Some(&token), true),
        (own.as_str(), false, Some(&other), false),
        ("lobby", true, Some(&other), true),
        ("lobby", false, Some(&other), false),
        ("elsewhere", true, Some(&token), false),
        // In the first of these two cases, a policy fails. In the second, the role does not exist.
        ("lobby", true, None, false),
        ("lobby", true, Some(&nobody), false),
        // After these failures, the connection is still usable.
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
                let reason = format!("Unauthorized: {CANNOT_READ}{topic}");
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
async fn policies_see_the_x_headers_of_the_handshake_without_the_key() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let (_database, _, server) = with_policies(
        "drop policy broken on realtime.messages;
         create policy by_header on realtime.messages for select to anon
           using (current_setting('request.headers') = '{\"x-floor\":\"2\"}');",
    )
    .await;
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

/// Policies that grant permissions by the letters in the topic's name. They apply to
/// `authenticated`.
const BY_TOPIC: &str = r"
create policy read_broadcasts on realtime.messages for select to authenticated
  using (realtime.topic() ~ '^rights:[^:]*b' and extension = 'broadcast');
create policy read_presence on realtime.messages for select to authenticated
  using (realtime.topic() ~ '^rights:[^:]*p' and extension = 'presence');
create policy write_broadcasts on realtime.messages for insert to authenticated
  with check (topic ~ '^rights:[^:]*B' and extension = 'broadcast');
create policy write_presence on realtime.messages for insert to authenticated
  with check (topic ~ '^rights:[^:]*P' and extension = 'presence');
";

#[tokio::test]
async fn permissions_are_independent() {
    let (_database, _, server) = with_policies(BY_TOPIC).await;
    let token = user_token(uuid::Uuid::new_v4());
    // Topic, and whether the user may join, send and track presence.
    let cases = [
        ("rights:b", true, false, false),
        ("rights:p", true, false, false),
        ("rights:B", false, false, false),
        ("rights:bB", true, true, false),
        ("rights:pP", true, false, true),
        ("rights:bpBP", true, true, true),
    ];
    for (topic, may_join, may_send, may_track) in cases {
        let mut client = server.client(Version::Two).await;
        let full = format!("realtime:{topic}");
        let mut payload = private(true, Some(&token));
        payload["config"]["broadcast"] = json!({"ack": true});
        client.join("1", &full, payload).await;
        if !may_join {
            client.expect_reply("1", "error").await;
            continue;
        }
        client.expect_reply("1", "ok").await;
        if topic.contains('p') {
            client.expect(&full, "presence_state").await;
        }
        let broadcast = json!({"type": "broadcast", "event": "e", "payload": {}});
        client
            .push(json!("1"), "2", &full, "broadcast", broadcast)
            .await;
        let track = json!({"type": "presence", "event": "track", "payload": {}});
        client.push(json!("1"), "3", &full, "presence", track).await;
        for (reference, is_allowed) in [("2", may_send), ("3", may_track)] {
            let reply = client.expect(&full, "phx_reply").await;
            assert_eq!(reply.reference, reference);
            let reason = format!("{CANNOT_WRITE}{topic}");
            assert_eq!(
                reply.payload["response"]["reason"] != reason,
                is_allowed,
                "{topic}: {reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn broadcasts_reach_members_that_may_read_them() {
    let (_database, _, server) = with_policies(
        "create policy by_claim on realtime.messages for select to authenticated using (
           current_setting('request.jwt.claims')::json ->> 'reads' like '%' || extension || '%');
         create policy sends on realtime.messages for insert to authenticated with check (true);",
    )
    .await;
    let token = |reads: &str| {
        let mut claims = user_claims(uuid::Uuid::new_v4());
        claims["reads"] = reads.into();
        mint(&claims)
    };
    let topic = "realtime:a";
    let join = async |payload: Value| {
        let mut client = server.client(Version::Two).await;
        client.join("1", topic, payload).await;
        client.expect_reply("1", "ok").await;
        client
    };
    let mut reader = join(private(true, Some(&token("broadcast")))).await;
    let mut onlooker = join(private(true, Some(&token("presence")))).await;
    onlooker.expect(topic, "presence_state").await;
    let mut public = join(super::plain_join()).await;
    let mut sender = join(private(false, Some(&token("broadcast")))).await;
    for round in 0..2 {
        let payload = json!({"type": "broadcast", "event": "e", "payload": {"round": round}});
        sender
            .push(json!("1"), "2", topic, "broadcast", payload.clone())
            .await;
        assert_eq!(reader.expect(topic, "broadcast").await.payload, payload);
        public.expect_quiet().await;
        if round == 0 {
            onlooker.expect_quiet().await;
            // A new token also permits reading broadcasts.
            let payload = json!({ "access_token": token("broadcast,presence") });
            onlooker
                .push(json!("1"), "2", topic, "access_token", payload)
                .await;
            // A message that follows the token is processed only after the token has been checked.
            let payload = json!({"type": "broadcast", "event": "mine", "payload": {}});
            onlooker
                .push(json!("1"), "3", topic, "broadcast", payload.clone())
                .await;
            for client in [&mut reader, &mut sender] {
                assert_eq!(client.expect(topic, "broadcast").await.payload, payload);
            }
        } else {
            assert_eq!(onlooker.expect(topic, "broadcast").await.payload, payload);
        }
    }
}

#[tokio::test]
async fn presence_reaches_members_that_may_read_it() {
    let (_database, _, server) = with_policies(
        "create policy by_claim on realtime.messages for select to authenticated using (
           current_setting('request.jwt.claims')::json ->> 'reads' like '%' || extension || '%');
         create policy shows on realtime.messages for insert to authenticated
           with check (extension = 'presence');",
    )
    .await;
    let token = |reads: &str| {
        let mut claims = user_claims(uuid::Uuid::new_v4());
        claims["reads"] = reads.into();
        mint(&claims)
    };
    let topic = "realtime:a";
    let join = async |mut payload: Value, key: &str| {
        let mut client = server.client(Version::Two).await;
        payload["config"]["presence"]["key"] = key.into();
        client.join("1", topic, payload).await;
        client.expect_reply("1", "ok").await;
        client
    };
    let track = async |client: &mut PhoenixSocket, number: u32| {
        let push = json!({"event": "track", "payload": {"n": number}});
        client.push(json!("1"), "2", topic, "presence", push).await;
    };
    let joined = |diff: &Value, key: &str| diff["joins"][key]["metas"][0]["n"].clone();
    let both = token("broadcast,presence");

    let mut ann = join(private(true, Some(&both)), "ann").await;
    let state = ann.expect(topic, "presence_state").await;
    assert_eq!(state.payload, json!({}));
    let mut blind = join(private(true, Some(&token("broadcast"))), "blind").await;
    let mut late = join(private(false, Some(&both)), "late").await;
    let mut public = join(super::plain_join(), "public").await;

    track(&mut ann, 1).await;
    ann.expect_reply("2", "ok").await;
    let diff = ann.expect(topic, "presence_diff").await.payload;
    assert_eq!(joined(&diff, "ann"), 1);
    // A client that joined without presence receives diffs once it has tracked, but no state.
    late.expect_quiet().await;
    track(&mut late, 2).await;
    late.expect_reply("2", "ok").await;
    for client in [&mut ann, &mut late] {
        let diff = client.expect(topic, "presence_diff").await.payload;
        assert_eq!(joined(&diff, "late"), 2);
    }
    // Neither a public topic with the same name nor a user without permission receives presence.
    public.expect_quiet().await;
    track(&mut blind, 3).await;
    blind.expect_reply("2", "ok").await;
    for client in [&mut ann, &mut late] {
        let diff = client.expect(topic, "presence_diff").await.payload;
        assert_eq!(joined(&diff, "blind"), 3);
    }
    blind.expect_quiet().await;
    // A new token permits reading presence.
    let payload = json!({ "access_token": both });
    blind
        .push(json!("1"), "4", topic, "access_token", payload)
        .await;
    let state = blind.expect(topic, "presence_state").await.payload;
    for (key, number) in [("ann", 1), ("late", 2), ("blind", 3)] {
        assert_eq!(state[key]["metas"][0]["n"], number);
    }
    drop(ann);
    for client in [&mut blind, &mut late] {
        let diff = client.expect(topic, "presence_diff").await.payload;
        assert_eq!(diff["leaves"]["ann"]["metas"][0]["n"], 1);
    }
}

#[tokio::test]
async fn failed_checks_have_reasons_and_delay_no_other_topics() {
    let (_database, admin, server) = with_policies(
        "create policy slow on realtime.messages for select to authenticated
           using (realtime.topic() = 'slow' and pg_sleep(60)::text = 'x');
         create policy raises on realtime.messages for insert to authenticated
           with check (topic::int = 1);",
    )
    .await;
    let ann = uuid::Uuid::new_v4();
    let token = user_token(ann);
    let own = format!("realtime:{ann}");
    let mut client = server.client(Version::Two).await;
    client
        .join("1", "realtime:slow", private(false, Some(&token)))
        .await;
    client
        .join("2", "realtime:elsewhere", private(false, Some(&token)))
        .await;
    client.join("3", &own, private(false, Some(&token))).await;
    client.join("4", "realtime:open", super::plain_join()).await;
    // The server replies to later messages before it replies to the slow join.
    let mut answered = std::collections::HashMap::new();
    for _ in 0..3 {
        let reply = client.receive().await;
        answered.insert(reply.topic, reply.payload["status"].clone());
    }
    assert_eq!(
        answered,
        [
            ("realtime:elsewhere".to_owned(), json!("error")),
            (own.clone(), json!("ok")),
            ("realtime:open".to_owned(), json!("ok")),
        ]
        .into()
    );
    // If a policy fails, the push is refused. Clients that requested no reply are notified as well.
    let broadcast = json!({"type": "broadcast", "event": "e", "payload": {}});
    for reference in ["5", "6"] {
        client
            .push(json!("3"), reference, &own, "broadcast", broadcast.clone())
            .await;
    }
    for _ in 0..2 {
        let (status, text) = client.expect_system(&own).await;
        assert_eq!((&*status, text), ("error", format!("{CANNOT_WRITE}{ann}")));
    }
    let response = client.expect_reply("1", "error").await;
    assert_eq!(
        response["reason"],
        "QueryCanceled: canceling statement due to statement timeout"
    );

    admin
        .batch_execute(
            "drop table realtime.messages;
             create table realtime.messages (
               topic text not null, extension text not null, payload jsonb, event text,
               private boolean default false, updated_at timestamp not null default now(),
               inserted_at timestamp not null default now(), id uuid not null default gen_random_uuid(),
               primary key (id, inserted_at)
             ) partition by range (inserted_at);
             grant select, insert on realtime.messages to authenticated;
             -- with a trigger, only an insert can evaluate the policies
             create function keep() returns trigger language plpgsql as 'begin return new; end';
             create trigger keep before insert on realtime.messages for each row execute function keep();",
        )
        .await
        .unwrap();
    client
        .join("7", "realtime:a", private(false, Some(&token)))
        .await;
    let response = client.expect_reply("7", "error").await;
    assert_eq!(
        response["reason"],
        "MissingPartition: Realtime was unable to find the expected messages partition"
    );
}

/// The server that creates partitions may never have run. Policies can still be evaluated, because
/// that stores nothing.
#[tokio::test]
async fn policies_decide_without_a_partition() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    create_partitioned_messages(&admin).await;
    let server = Server::start_over(config(), database.url()).await;
    let ann = uuid::Uuid::new_v4();
    let token = user_token(ann);
    let mut client = server.client(Version::Two).await;
    let own = format!("realtime:{ann}");
    client.join("1", &own, private(false, Some(&token))).await;
    client.expect_reply("1", "ok").await;
    let other = format!("realtime:{}", uuid::Uuid::new_v4());
    client.join("2", &other, private(false, Some(&token))).await;
    client.expect_reply("2", "error").await;
}

#[tokio::test]
async fn a_new_token_can_gain_and_lose_permissions() {
    let (_database, _, server) = with_policies(
        "create policy by_claim on realtime.messages for select to authenticated using (
           current_setting('request.jwt.claims')::json ->> 'reads' like '%' || extension || '%');
         create policy by_claim_too on realtime.messages for insert to authenticated with check (
           current_setting('request.jwt.claims')::json ->> 'writes' like '%' || extension || '%');",
    )
    .await;
    let ann = uuid::Uuid::new_v4();
    let token = |reads: &str, writes: &str| {
        let mut claims = user_claims(ann);
        claims["reads"] = reads.into();
        claims["writes"] = writes.into();
        mint(&claims)
    };
    let topic = "realtime:a";
    let mut client = server.client(Version::Two).await;
    let mut payload = private(true, Some(&token("broadcast", "")));
    payload["config"]["broadcast"] = json!({"ack": true});
    client.join("1", topic, payload).await;
    client.expect_reply("1", "ok").await;
    let broadcast = json!({"type": "broadcast", "event": "e", "payload": {}});
    // The new token, whether presence may be read afterwards, and whether the message that follows
    // may be sent.
    let cases = [
        (token("broadcast", "presence"), false, false),
        (token("broadcast", "broadcast"), false, true),
        (token("broadcast,presence", "presence"), true, false),
    ];
    for (token, is_shown, may_send) in cases {
        let payload = json!({ "access_token": token });
        client
            .push(json!("1"), "2", topic, "access_token", payload)
            .await;
        client
            .push(json!("1"), "3", topic, "broadcast", broadcast.clone())
            .await;
        if is_shown {
            client.expect(topic, "presence_state").await;
        }
        let reply = client.expect(topic, "phx_reply").await;
        let reason = &reply.payload["response"]["reason"];
        assert_eq!(*reason != format!("{CANNOT_WRITE}a"), may_send, "{reply:?}");
    }
    let payload = json!({ "access_token": token("broadcast", "") });
    client
        .push(json!("1"), "4", topic, "access_token", payload)
        .await;
    let (_, text) = client.expect_system(topic).await;
    assert_eq!(
        text,
        "You no longer have permission to read from this Channel topic: a"
    );
    client.expect(topic, "phx_close").await;
}

#[tokio::test]
async fn roles_that_bypass_row_security_may_do_everything() {
    let server_database = TestDatabase::new().await;
    let server = Server::start_over(config(), server_database.url()).await;
    let mut client = server.client(Version::Two).await;
    let mut payload = private(true, Some(&service_role_key()));
    payload["config"]["broadcast"] = json!({"ack": true});
    client.join("1", "realtime:anything", payload).await;
    client.expect_reply("1", "ok").await;
    client.expect("realtime:anything", "presence_state").await;
    let broadcast = json!({"type": "broadcast", "event": "e", "payload": {}});
    client
        .push(json!("1"), "2", "realtime:anything", "broadcast", broadcast)
        .await;
    let reply = client.expect("realtime:anything", "phx_reply").await;
    assert_ne!(
        reply.payload["response"]["reason"],
        format!("{CANNOT_WRITE}anything")
    );
}

#[tokio::test]
async fn a_new_token_without_permission_ends_the_channel() {
    let (_database, _, server) = with_policies("").await;
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
    assert_eq!(text, format!("{CANNOT_READ}{ann}"));
    client.expect(&topic, "phx_close").await;
}

#[tokio::test]
async fn without_a_database_private_joins_fail_and_public_channels_work() {
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
    assert_eq!(refused.unwrap()["response"]["reason"], UNREACHABLE);
}

#[tokio::test]
async fn a_new_token_during_an_outage_is_checked_after_it() {
    let database = TestDatabase::bare().await;
    create_messages(&database.connect().await).await;
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
    // The channel still exists and keeps its permissions.
    client.expect_quiet().await;
    refresh(&mut client, user_token(uuid::Uuid::new_v4())).await;
    let (_, text) = client.expect_system(&topic).await;
    assert!(text.contains("trying again"), "{text}");
    proxy.refuse(false);
    let (_, text) = client.expect_system(&topic).await;
    assert_eq!(text, format!("{CANNOT_READ}{ann}"));
    client.expect(&topic, "phx_close").await;
}

#[tokio::test]
async fn during_an_outage_private_joins_are_refused_immediately() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    create_messages(&admin).await;
    let (proxy, url) = ChaosProxy::before(database.url()).await;
    let server = Server::start_over(config(), &url).await;
    let ann = uuid::Uuid::new_v4();
    let token = user_token(ann);
    let mut client = server.client(Version::Two).await;
    let own = format!("realtime:{ann}");
    client.join("1", &own, private(false, Some(&token))).await;
    client.expect_reply("1", "ok").await;
    for is_silent in [false, true] {
        // First the server refuses connections, then the network is dead.
        if is_silent {
            proxy.pause();
        } else {
            proxy.refuse(true);
            proxy.cut();
        }
        client
            .join("2", "realtime:a", private(false, Some(&token)))
            .await;
        client.join("3", "realtime:open", super::plain_join()).await;
        // Joins of public channels do not wait.
        let mut refused = None;
        loop {
            let reply = client.receive().await;
            match &*reply.topic {
                "realtime:open" => {
                    assert_eq!(reply.payload["status"], "ok");
                    if !is_silent {
                        break;
                    }
                    assert!(refused.is_none(), "the public channel waited");
                }
                _ => refused = Some(reply.payload["response"]["reason"].clone()),
            }
            if is_silent && refused.is_some() {
                break;
            }
        }
        if refused.is_none() {
            let response = client.expect_reply("2", "error").await;
            refused = Some(response["reason"].clone());
        }
        assert_eq!(refused.unwrap(), UNREACHABLE);
        // Further joins do not each detect the outage again.
        let known = std::time::Instant::now();
        for number in 0..40 {
            let topic = format!("realtime:b{number}");
            client.join("4", &topic, private(false, Some(&token))).await;
        }
        for _ in 0..40 {
            let response = client.expect_reply("4", "error").await;
            assert_eq!(response["reason"], UNREACHABLE);
        }
        // This limit is far below forty times the connect timeout.
        assert!(known.elapsed() < std::time::Duration::from_secs(15));
        if is_silent {
            proxy.resume();
        } else {
            proxy.refuse(false);
        }
        eventually("private channels are joined again", async || {
            let mut client = server.client(Version::Two).await;
            client.join("1", &own, private(false, Some(&token))).await;
            let reply = client.receive().await;
            (reply.payload["status"] == "ok").then_some(())
        })
        .await;
        // Leaves the topic, so that the next round can join it again.
        client
            .push(json!("3"), "5", "realtime:open", "phx_leave", json!({}))
            .await;
        client.expect_reply("5", "ok").await;
        client.expect("realtime:open", "phx_close").await;
    }
}

#[tokio::test]
async fn changes_in_the_database_apply_to_the_next_check() {
    let (_database, admin, server) = with_policies("").await;
    let token = user_token(uuid::Uuid::new_v4());
    // The change, and whether the topic can be joined afterwards.
    let changes = [
        ("select 1", false),
        (
            "create policy p on realtime.messages for select to authenticated using (topic = 'a')",
            true,
        ),
        (
            "alter policy p on realtime.messages using (topic = 'b')",
            false,
        ),
        (
            "alter policy p on realtime.messages using (topic = 'a')",
            true,
        ),
        ("alter policy p on realtime.messages to anon", false),
        ("alter table realtime.messages disable row level security", true),
        (
            "alter table realtime.messages enable row level security; drop policy p on realtime.messages;
             create function public.may(topic text) returns boolean language sql stable as $$ select true $$;
             create policy p on realtime.messages for select to authenticated using (public.may(topic))",
            true,
        ),
        (
            "create or replace function public.may(topic text) returns boolean language sql stable as $$ select false $$",
            false,
        ),
        (
            "create or replace function public.may(topic text) returns boolean language sql stable as $$ select true $$;
             revoke execute on function public.may from public",
            false,
        ),
        ("grant execute on function public.may to authenticated", true),
        ("revoke select on realtime.messages from authenticated", false),
        ("grant select (id) on realtime.messages to authenticated", true),
        (
            "create policy no on realtime.messages as restrictive for select using (current_user <> 'authenticated')",
            false,
        ),
        ("drop policy no on realtime.messages", true),
        ("revoke usage on schema realtime from authenticated", false),
        ("grant usage on schema realtime to authenticated", true),
        // Afterwards, the name of the function refers to a different function.
        (
            "alter function public.may rename to might;
             create function public.may(topic text) returns boolean language sql stable as $$ select false $$;
             alter policy p on realtime.messages using (public.may(topic))",
            false,
        ),
        ("alter policy p on realtime.messages using (public.might(topic))", true),
    ];
    let mut client = server.client(Version::Two).await;
    for (number, (change, can_join)) in changes.into_iter().enumerate() {
        admin.batch_execute(change).await.unwrap();
        let reference = number.to_string();
        client
            .join(&reference, "realtime:a", private(false, Some(&token)))
            .await;
        // A rejoin closes the previous channel after the reply.
        let reply = loop {
            let message = client.receive().await;
            if message.event == "phx_reply" {
                break message;
            }
        };
        let status = if can_join { "ok" } else { "error" };
        assert_eq!(reply.payload["status"], status, "after {change}");
    }
}

#[tokio::test]
async fn chat_topics_are_for_members_and_only_the_server_sends() {
    use crate::support::chat_server::Person::{Ada, Ana, Ben, Zoe};
    let database = TestDatabase::new().await;
    let admin = database.connect().await;
    let row = admin
        .query_one(
            "with caller as materialized (
               select set_config('request.jwt.claim.sub', $1, false))
             select (chat.open_conversation($2)).conversation_id::text from caller",
            &[&Ana.id().to_string(), &Ben.id()],
        )
        .await
        .unwrap();
    let conversation = format!("conversation:{}", row.get::<_, String>(0));
    let user = format!("user:{}", Ana.id());
    // Permissive policies of the application do not affect the topics of the chat.
    admin
        .batch_execute(
            "create policy everything on realtime.messages for all to anon, authenticated
               using (true) with check (true)",
        )
        .await
        .unwrap();
    let server = Server::start_over(config(), database.url()).await;
    let by = |person: crate::support::chat_server::Person| user_token(person.id());
    // Topic, token, and whether its user may join, send and track presence.
    let cases = [
        (&conversation, by(Ana), true, false, true),
        (&conversation, by(Ben), true, false, true),
        (&conversation, by(Zoe), false, false, false),
        (&conversation, by(Ada), false, false, false),
        (&conversation, anon_key(), false, false, false),
        (&conversation, service_role_key(), true, true, true),
        // The chat lets Ana track presence on her own topic, because no other user can join it.
        (&user, by(Ana), true, false, true),
        (&user, by(Ben), false, false, false),
        (&user, anon_key(), false, false, false),
        (&user, service_role_key(), true, true, true),
        // The application's own policies apply to its own topics.
        (&"elsewhere".to_owned(), by(Zoe), true, true, true),
    ];
    for (topic, token, may_join, may_send, may_track) in &cases {
        let full = format!("realtime:{topic}");
        let mut client = server.client(Version::Two).await;
        let mut payload = private(true, Some(token));
        payload["config"]["broadcast"] = json!({"ack": true});
        client.join("1", &full, payload).await;
        if !may_join {
            let response = client.expect_reply("1", "error").await;
            let reason = format!("Unauthorized: {CANNOT_READ}{topic}");
            assert_eq!(response, json!({ "reason": reason }));
            continue;
        }
        client.expect_reply("1", "ok").await;
        client.expect(&full, "presence_state").await;
        let broadcast = json!({"type": "broadcast", "event": "e", "payload": {}});
        let track = json!({"type": "presence", "event": "track", "payload": {}});
        for (event, payload, is_allowed) in [
            ("broadcast", broadcast, may_send),
            ("presence", track, may_track),
        ] {
            client.push(json!("1"), "2", &full, event, payload).await;
            let reply = loop {
                let message = client.receive().await;
                if message.event == "phx_reply" {
                    break message;
                }
            };
            let expected = if *is_allowed {
                json!({"status": "ok", "response": {}})
            } else {
                let reason = format!("{CANNOT_WRITE}{topic}");
                json!({"status": "error", "response": {"reason": reason}})
            };
            assert_eq!(reply.payload, expected, "{event} to {topic}");
        }
    }
    // With the table of the schema, checks do not insert rows.
    let way = PermissionWay::Inserted;
    let inserted = server
        .metrics
        .permissions_asked
        .get_or_create(&PermissionLabels { way });
    assert_eq!(inserted.get(), 0);
}
