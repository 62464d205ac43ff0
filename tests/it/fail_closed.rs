//! If any step between the pool and a caller's statement fails, nothing is read or written under a
//! wrong identity, and the next request succeeds.
//!
//! The login is a superuser, so a statement that ran as the login could do anything.

use std::time::Duration;

use futures_util::future::join_all;
use rapport::auth::Claims;
use rapport::db::{Db, DbError, Query};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::chaos::{ChaosProxy, Direction};
use crate::support::chat_server::Person::{Ana, Ben};
use crate::support::chat_server::{Answer, ChatServer, answer};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;

/// Starts the server behind a proxy, with a single connection. Each request therefore finds the
/// connection in the state that the previous request left.
async fn behind_proxy(settings: &[(&str, &str)]) -> (ChatServer, ChaosProxy) {
    let database = TestDatabase::new().await;
    let (proxy, url) = ChaosProxy::before(database.url()).await;
    let mut all = vec![("RAPPORT_DATABASE_REQUEST_POOL_SIZE", "1")];
    all.extend(settings);
    let server = ChatServer::start_on(database, &url, &all).await;
    (server, proxy)
}

fn claims(role: &str, subject: Uuid) -> Claims {
    Claims {
        json: json!({ "sub": subject, "role": role }).to_string().into(),
        role: role.to_owned(),
        subject: Some(subject.to_string()),
        expires_at: i64::MAX,
        signer: None,
    }
}

async fn texts(server: &ChatServer) -> Vec<String> {
    let client = server.database.connect().await;
    let rows = client
        .query("select content from public.user_messages order by seq", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Checks that the response contains nothing from the database: neither a row nor an error text
/// from PostgreSQL.
fn assert_tells_nothing(refused: &Answer) {
    assert!(
        refused.status.is_server_error() || refused.status == 403,
        "{refused:?}"
    );
    let text = refused.body.to_string();
    for word in [
        "secret",
        "permission denied",
        "syntax",
        "BEGIX",
        "schema chat",
    ] {
        assert!(!text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_transaction_that_does_not_begin_reads_and_writes_nothing() {
    let (server, proxy) = behind_proxy(&[]).await;
    let conversation = server.open(Ana, Ben).await;
    server.say(Ana, &conversation, "a secret").await;
    let history = format!("/messages?conversation_id={conversation}");
    assert_eq!(server.get(Ana, &history).await.rows().len(), 1);
    let send = || {
        server.post(
            Ana,
            "/messages",
            json!({ "conversation_id": conversation, "content": "not to be stored" }),
        )
    };

    // A command that PostgreSQL does not know, and an empty command, which is not even an error.
    for broken in [&b"BEGIX"[..], b"     "] {
        proxy.rewrite(Direction::ToServer, b"BEGIN", broken);
        let before = proxy.rewritten();
        for _ in 0..2 {
            let (read, written) = (server.get(Ana, &history).await, send().await);
            assert_tells_nothing(&read);
            assert_tells_nothing(&written);
            if broken == b"BEGIX" {
                assert_eq!((read.status.as_u16(), written.status.as_u16()), (500, 500));
            }
        }
        assert!(
            proxy.rewritten() >= before + 4,
            "the proxy did not rewrite the transactions"
        );
        assert_eq!(texts(&server).await, ["a secret"]);

        proxy.clear_rewrites();
        assert_eq!(
            server.get(Ana, &history).await.rows().len(),
            1,
            "the next request succeeds"
        );
    }
    server.say(Ana, &conversation, "stored").await;
    assert_eq!(texts(&server).await, ["a secret", "stored"]);
}

#[tokio::test]
async fn unprepared_statements_fail_closed_too() {
    let (server, proxy) = behind_proxy(&[]).await;
    proxy.rewrite(Direction::ToServer, b"BEGIN", b"BEGIX");
    let refused = server
        .post(Ana, "/conversations", json!({ "other_user_id": Ben.id() }))
        .await;
    assert_tells_nothing(&refused);
    proxy.clear_rewrites();
    let count: i64 = {
        let client = server.database.connect().await;
        client
            .query_one("select count(*) from public.user_conversations", &[])
            .await
            .unwrap()
            .get(0)
    };
    assert_eq!(count, 0);
    server.open(Ana, Ben).await;
}

#[tokio::test]
async fn lost_settings_grant_no_rights() {
    let (server, proxy) = behind_proxy(&[]).await;
    let conversation = server.open(Ana, Ben).await;
    server.say(Ana, &conversation, "a secret").await;
    let history = format!("/messages?conversation_id={conversation}");
    server.get(Ana, &history).await;
    // Replaces the role's name in the bound parameters with a role of the same length that does not
    // exist.
    proxy.rewrite(
        Direction::ToServer,
        b"\x0dauthenticated",
        b"\x0dauthenticateX",
    );
    assert_tells_nothing(&server.get(Ana, &history).await);
    proxy.clear_rewrites();
    assert_eq!(server.get(Ana, &history).await.rows().len(), 1);
}

#[tokio::test]
async fn a_connection_that_is_no_longer_parked_grants_no_rights() {
    let (server, _proxy) = behind_proxy(&[]).await;
    let conversation = server.open(Ana, Ben).await;
    server.say(Ana, &conversation, "a secret").await;
    let ana = claims("authenticated", Ana.id());
    server
        .db
        .query_as(&ana, "select set_config('role', 'none', false)", &[])
        .await
        .unwrap();

    let count = "select count(*) from public.user_messages";
    let refused = server.db.query_as(&ana, count, &[]).await;
    assert!(
        matches!(refused, Err(DbError::Unexpected(_))),
        "{refused:?}"
    );
    let counted: i64 = server.db.query_as(&ana, count, &[]).await.unwrap()[0].get(0);
    assert_eq!(counted, 1, "a new connection has replaced it");
}

#[tokio::test]
async fn roles_that_a_login_does_not_have_are_refused() {
    let (server, _proxy) = behind_proxy(&[]).await;
    let refused = server
        .db
        .query_as(&claims("nobody_has_this", Ana.id()), "select 1", &[])
        .await;
    assert!(
        matches!(refused, Err(DbError::Unexpected(_))),
        "{refused:?}"
    );
    assert!(
        server
            .db
            .query_as(&claims("authenticated", Ana.id()), "select 1", &[])
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_error_leaves_a_clean_connection_and_no_half_transaction() {
    let (server, _proxy) = behind_proxy(&[]).await;
    let database = server.database.connect().await;
    database
        .batch_execute("create table public.notes (n int primary key); grant all on public.notes to authenticated")
        .await
        .unwrap();
    let ana = claims("authenticated", Ana.id());
    let insert = "insert into public.notes values ($1)";
    let queries = [
        Query {
            sql: insert,
            parameters: &[&1_i32],
        },
        Query {
            sql: insert,
            parameters: &[&1_i32],
        },
    ];
    let refused = server.db.run_as(&ana, &queries).await;
    assert_eq!(
        refused
            .unwrap_err()
            .refusal()
            .unwrap()
            .constraint
            .as_deref(),
        Some("notes_pkey")
    );
    let rows = server
        .db
        .query_as(&ana, "select n from public.notes", &[])
        .await
        .unwrap();
    assert!(rows.is_empty());
    assert_eq!(server.db.status().size, 1, "the connection was kept");
}

#[tokio::test]
async fn a_cancelled_request_leaves_a_usable_connection() {
    let (server, _proxy) = behind_proxy(&[]).await;
    let ana = claims("authenticated", Ana.id());
    let lock = server.database.connect().await;
    lock.batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let waiting = server
        .db
        .query_as(&ana, "select pg_advisory_xact_lock(7)", &[]);
    let blocked = async {
        eventually("the request waits in the database", async || {
            let waiting = lock
                .query(
                    "select 1 from pg_locks where locktype = 'advisory' and not granted",
                    &[],
                )
                .await
                .unwrap();
            (!waiting.is_empty()).then_some(())
        })
        .await;
    };
    tokio::select! {
        _ = waiting => panic!("the lock was not held"),
        () = blocked => {}
    }
    lock.batch_execute("select pg_advisory_unlock(7)")
        .await
        .unwrap();
    let role: String = server
        .db
        .query_as(&ana, "select current_user::text", &[])
        .await
        .unwrap()[0]
        .get(0);
    assert_eq!(role, "authenticated");
}

#[tokio::test]
async fn the_loser_of_a_deadlock_is_retried() {
    let database = TestDatabase::new().await;
    let url = database.url().to_owned();
    let server = ChatServer::start_on(database, &url, &[]).await;
    let client = server.database.connect().await;
    // The sequence `attempts` also counts attempts that are rolled back. The first two attempts
    // wait until each of them holds a row. A retry begins only after the winner has committed,
    // however long that takes.
    client
        .batch_execute(
            "create table public.pair (id int primary key, n int not null default 0);
             insert into public.pair values (1), (2);
             create sequence public.attempts;
             create function public.begin_attempt() returns void language plpgsql as $$
             begin
               if nextval('public.attempts') > 2 then
                 while (select sum(p.n) from public.pair p) < 2 loop perform pg_sleep(0.01); end loop;
               end if;
             end $$;
             create sequence public.holders;
             create function public.meet() returns void language plpgsql as $$
             begin
               perform nextval('public.holders');
               while (select h.last_value from public.holders h) < 2 loop perform pg_sleep(0.01); end loop;
             end $$;
             grant all on public.pair, public.attempts, public.holders to authenticated",
        )
        .await
        .unwrap();
    let add = "update public.pair set n = n + 1 where id = $1";
    let both = |db: Db, first: i32, second: i32| async move {
        let queries = [
            Query {
                sql: "select public.begin_attempt()",
                parameters: &[],
            },
            Query {
                sql: add,
                parameters: &[&first],
            },
            Query {
                sql: "select public.meet()",
                parameters: &[],
            },
            Query {
                sql: add,
                parameters: &[&second],
            },
        ];
        db.run_as(&claims("authenticated", Ana.id()), &queries)
            .await
            .map(drop)
    };
    let results = join_all([both(server.db.clone(), 1, 2), both(server.db.clone(), 2, 1)]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let row = client
        .query_one(
            "select (select sum(n) from public.pair), (select last_value from public.attempts)",
            &[],
        )
        .await
        .unwrap();
    let (sum, attempts): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(
        (sum, attempts),
        (4, 3),
        "both callers added to both rows, one of them in its retry"
    );
    let deadlocks = eventually("the statistics show the deadlock", async || {
        let row = client
            .query_one(
                "select deadlocks from pg_stat_database where datname = current_database()",
                &[],
            )
            .await
            .unwrap();
        Some(row.get::<_, i64>(0)).filter(|deadlocks| *deadlocks > 0)
    })
    .await;
    assert_eq!(deadlocks, 1);
}

#[tokio::test]
async fn a_full_pool_is_reported_and_recovers() {
    let (server, _proxy) = behind_proxy(&[("RAPPORT_DATABASE_POOL_WAIT_MS", "50")]).await;
    server.open(Ana, Ben).await;
    let lock = server.database.connect().await;
    lock.batch_execute("select pg_advisory_lock(7)")
        .await
        .unwrap();
    let ana = claims("authenticated", Ana.id());
    // This transaction waits for the lock longer than requests do.
    let queries = [
        "select set_config('lock_timeout', '0', true)",
        "select pg_advisory_xact_lock(7)",
    ]
    .map(|sql| Query {
        sql,
        parameters: &[],
    });
    let busy = server.db.run_as(&ana, &queries);
    let refused = async {
        eventually("the only connection is busy", async || {
            (server.db.status().available == 0).then_some(())
        })
        .await;
        // One connection is also all that one user may occupy. The other user waits for the pool.
        let limited = server.get(Ana, "/conversations").await;
        limited.assert_refused(429, "rate_limited");
        assert_eq!(limited.header("retry-after"), Some("1"));
        let refused = server.get(Ben, "/conversations").await;
        lock.batch_execute("select pg_advisory_unlock(7)")
            .await
            .unwrap();
        refused
    };
    let (busy, refused) = tokio::join!(busy, refused);
    busy.unwrap();
    refused.assert_refused(503, "pool_exhausted");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.body["retry_after"], 1);
    assert_eq!(server.get(Ana, "/conversations").await.status, 200);
}

#[tokio::test]
async fn an_unreachable_database_is_reported_until_it_returns() {
    let (server, proxy) = behind_proxy(&[]).await;
    let conversation = server.open(Ana, Ben).await;
    let reported = async |expected| {
        eventually("a ping shows the outage or its end", async || {
            let answered = server.db.ping().await.is_ok();
            assert_eq!(server.readiness.report().database_reachable, answered);
            (answered == expected).then_some(())
        })
        .await;
    };
    reported(true).await;
    proxy.refuse(true);
    proxy.cut();
    reported(false).await;
    let history = format!("/messages?conversation_id={conversation}");
    for _ in 0..2 {
        let refused = server.get(Ana, &history).await;
        refused.assert_refused(503, "database_unavailable");
        assert_eq!(refused.header("retry-after"), Some("5"));
        assert_eq!(refused.body["details"], Value::Null);
    }
    let ready =
        answer(reqwest::Client::new().request(Method::GET, format!("{}/ready", server.origin)))
            .await;
    assert_eq!(
        (ready.status.as_u16(), &ready.body["database_reachable"]),
        (503, &json!(false))
    );
    let health = answer(reqwest::Client::new().get(format!("{}/health", server.origin))).await;
    assert_eq!(
        (health.status.as_u16(), &health.body["status"]),
        (200, &json!("ok"))
    );

    proxy.refuse(false);
    reported(true).await;
    assert_eq!(server.get(Ana, &history).await.status, 200);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cancelled() {
    let (server, _proxy) = behind_proxy(&[("RAPPORT_DATABASE_STATEMENT_TIMEOUT_MS", "100")]).await;
    let ana = claims("authenticated", Ana.id());
    let late = tokio::time::timeout(
        Duration::from_secs(10),
        server.db.query_as(&ana, "select pg_sleep(60)", &[]),
    )
    .await;
    assert!(matches!(late, Ok(Err(DbError::Unavailable(_)))), "{late:?}");
    assert!(server.db.query_as(&ana, "select 1", &[]).await.is_ok());
}

#[tokio::test]
async fn a_login_needs_no_rights_of_its_own() {
    let database = TestDatabase::new().await;
    let client = database.connect().await;
    let login = format!("login_{}", Uuid::new_v4().simple());
    client
        .batch_execute(&format!(
            "create role {login} login noinherit password 'a password' in role rapport_request, authenticated"
        ))
        .await
        .unwrap();
    let config: tokio_postgres::Config = database.url().parse().unwrap();
    let url = format!(
        "postgres://{login}:a%20password@127.0.0.1:{}/{}",
        config.get_ports()[0],
        database.name()
    );
    let server = ChatServer::start_on(database, &url, &[]).await;
    let conversation = server.open(Ana, Ben).await;
    server.say(Ana, &conversation, "1").await;
    let list = server.get(Ben, "/conversations").await;
    assert_eq!(list.rows()[0]["unread_count"], 1, "{list:?}");
    // The role owns nothing, so it can be dropped while its connections are still open.
    client
        .batch_execute(&format!("drop role {login}"))
        .await
        .unwrap();
}
