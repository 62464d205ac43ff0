//! Tests that a change of the rules applies to every later row, whether the change grants or
//! revokes rights, and however long the catalogue is cached.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rapport::config::VisibilityConfig;
use rapport::shutdown::Tasks;
use serde_json::{Value, json};
use uuid::Uuid;

use super::postgres_changes::{Stack, subscribe, with_bindings};
use crate::support::database::connect;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::{anon_key, service_role_key, user_claims, user_token};
use crate::visibility::bench::{cases, strict};

const TOPIC: &str = "realtime:rights";

/// A plain table, a table published in place of its partitions, and a fence table. A row of the
/// fence table shows that everything before it has arrived.
const TABLES: &str = "
set synchronous_commit = on;
create schema app;
grant usage on schema app to anon, authenticated, service_role;
create table app.docs (id int8 primary key, owner uuid, text text);
create table app.parts (id int8 primary key, owner uuid, text text) partition by range (id);
create table app.parts_all partition of app.parts default;
create table app.fence (id int8 primary key);
grant select on app.docs, app.parts, app.fence to anon, authenticated, service_role;
alter publication supabase_realtime set (publish_via_partition_root = true);
alter publication supabase_realtime add table app.docs, app.parts, app.fence;
";

fn ana() -> Uuid {
    Uuid::from_u128(1)
}

fn ben() -> Uuid {
    Uuid::from_u128(2)
}

/// Returns settings under which a reading of the catalogue never expires during a test.
fn cached_forever() -> VisibilityConfig {
    VisibilityConfig {
        catalog_ttl: Duration::from_secs(3_600),
        ..strict()
    }
}

struct Person {
    name: &'static str,
    role: &'static str,
    claims: Value,
    client: PhoenixSocket,
}

/// Users who subscribe to everything, with the number of rows written so far.
struct Audience {
    stack: Stack,
    people: Vec<Person>,
    rows: i64,
}

/// Whether a row and a change of the rules are committed separately or in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commits {
    Apart,
    Together,
}

impl Audience {
    async fn start(sql: &str) -> Self {
        let stack =
            Stack::start_with_visibility(&cached_forever(), &format!("{TABLES}{sql}")).await;
        let token = |user| (user_token(user), user_claims(user));
        let mut people = Vec::new();
        for (name, role, (token, claims)) in [
            ("anon", "anon", (anon_key(), json!({"role": "anon"}))),
            ("Ana", "authenticated", token(ana())),
            ("Ben", "authenticated", token(ben())),
            (
                "service",
                "service_role",
                (service_role_key(), json!({"role": "service_role"})),
            ),
        ] {
            let mut client =
                PhoenixSocket::connect(stack.server.address, &anon_key(), Version::Two).await;
            let mut join = with_bindings(&json!([{"event": "*", "schema": "app"}]));
            join["access_token"] = json!(token);
            subscribe(&mut client, "1", TOPIC, join).await;
            people.push(Person {
                name,
                role,
                claims,
                client,
            });
        }
        Self {
            stack,
            people,
            rows: 0,
        }
    }

    /// Returns the users who received the row inserted after a change of the rules. Checks that
    /// they are exactly the users who can select the row.
    async fn receivers(
        &mut self,
        table: &str,
        change: &str,
        commits: Commits,
    ) -> Vec<&'static str> {
        self.rows += 1;
        let id = self.rows;
        let insert = format!("insert into {table} values ({id}, '{}', 'text')", ben());
        match commits {
            Commits::Apart => {
                self.stack.run(change).await;
                self.stack.run(&insert).await;
            }
            Commits::Together => {
                self.stack
                    .run(&format!("begin; {change}; {insert}; commit"))
                    .await;
            }
        }
        let mut expected = Vec::new();
        for person in &self.people {
            if self.can_select(table, id, person).await {
                expected.push(person.name);
            }
        }
        self.stack
            .run(&format!("insert into app.fence values ({id})"))
            .await;
        let mut heard = Vec::new();
        for person in &mut self.people {
            loop {
                let data = person
                    .client
                    .expect(TOPIC, "postgres_changes")
                    .await
                    .payload["data"]
                    .take();
                if data["table"] == "fence" {
                    assert_eq!(data["record"]["id"], id);
                    break;
                }
                if data["errors"].is_null() {
                    assert_eq!(data["record"]["id"], id, "{data}");
                    heard.push(person.name);
                }
            }
        }
        assert_eq!(heard, expected, "{change} ({commits:?}), then {insert}");
        heard
    }

    async fn can_select(&self, table: &str, id: i64, person: &Person) -> bool {
        let admin = &self.stack.admin;
        admin.batch_execute("begin").await.unwrap();
        admin
            .query(
                "select set_config('request.jwt.claims', $1, true), set_config('role', $2, true)",
                &[&person.claims.to_string(), &person.role],
            )
            .await
            .unwrap();
        let found = admin
            .query(&format!("select from {table} where id = {id}"), &[])
            .await;
        admin.batch_execute("rollback").await.unwrap();
        // Without rights, the query fails and returns nothing.
        found.is_ok_and(|rows| !rows.is_empty())
    }
}

#[tokio::test]
async fn enabling_row_security_applies_to_the_next_row() {
    let mut audience = Audience::start("").await;
    let everybody = ["anon", "Ana", "Ben", "service"];
    let own = "alter table app.docs enable row level security;
               create policy own on app.docs for select to authenticated using (owner = auth.uid())";
    let insert = audience
        .receivers("app.docs", "select", Commits::Apart)
        .await;
    assert_eq!(insert, everybody);
    let closed = audience.receivers("app.docs", own, Commits::Apart).await;
    assert_eq!(closed, ["Ben", "service"]);
    for (change, expected) in [
        (
            "alter policy own on app.docs using (true)",
            &["Ana", "Ben", "service"][..],
        ),
        (
            "alter policy own on app.docs using (owner = auth.uid())",
            &["Ben", "service"],
        ),
        (
            "alter policy own on app.docs to anon using (true)",
            &["anon", "service"],
        ),
        (
            "alter table app.docs disable row level security",
            &everybody,
        ),
        (
            "revoke select on app.docs from authenticated",
            &["anon", "service"],
        ),
        ("grant select on app.docs to authenticated", &everybody),
    ] {
        for commits in [Commits::Apart, Commits::Together] {
            let heard = audience.receivers("app.docs", change, commits).await;
            assert_eq!(heard, expected, "{change}");
        }
    }
}

#[tokio::test]
async fn changes_of_key_and_name_apply_to_the_next_row() {
    let mut audience = Audience::start("").await;
    let everybody = ["anon", "Ana", "Ben", "service"];
    // No user receives rows of a table without a primary key. Selecting rows does not require one.
    audience
        .stack
        .run("alter table app.docs drop constraint docs_pkey")
        .await;
    audience
        .stack
        .run("insert into app.docs values (-1, null, 'no key'); insert into app.fence values (-1)")
        .await;
    for person in &mut audience.people {
        let data = person
            .client
            .expect(TOPIC, "postgres_changes")
            .await
            .payload["data"]
            .take();
        assert_eq!(
            data["errors"],
            json!(["Error 400: Bad Request, no primary key"])
        );
        person.client.expect(TOPIC, "postgres_changes").await;
    }
    for change in [
        "alter table app.docs add primary key (id)",
        "alter table app.docs rename column text to content",
        "alter table app.docs rename to papers; alter table app.papers rename to docs",
        "alter table app.docs replica identity full",
        "alter schema app rename to other; alter schema other rename to app",
    ] {
        assert_eq!(
            audience.receivers("app.docs", change, Commits::Apart).await,
            everybody
        );
    }
}

/// Rows are written continuously, so that a change of rights and a row may be committed at the same
/// time.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_row_after_a_change_is_checked_by_earlier_rules() {
    const ROUNDS: usize = 16;
    const ROWS: u64 = 25;
    let stack = Stack::start_with_visibility(&cached_forever(), TABLES).await;
    let mut client = stack.server.client(Version::Two).await;
    let docs = json!([{"event": "*", "schema": "app", "table": "docs"},
                      {"event": "*", "schema": "app", "table": "fence"}]);
    subscribe(&mut client, "1", TOPIC, with_bindings(&docs)).await;

    let begun = Arc::new(AtomicU64::new(0));
    let tasks = Tasks::new();
    let writing = {
        let (begun, token) = (Arc::clone(&begun), tasks.token().clone());
        let writer = connect(&stack.url).await;
        tasks.spawn("writer", async move {
            let fast = "set synchronous_commit = on";
            writer.batch_execute(fast).await.unwrap();
            while !token.is_cancelled() {
                let id = begun.fetch_add(1, Ordering::SeqCst) + 1;
                let insert = format!("insert into app.docs values ({id})");
                writer.batch_execute(&insert).await.unwrap();
            }
        })
    };
    for round in 0..ROUNDS {
        let (change, may_see) = [
            ("revoke select on app.docs from anon", false),
            ("grant select on app.docs to anon", true),
            ("alter table app.docs enable row level security", false),
            ("alter table app.docs disable row level security", true),
        ][round % 4];
        stack.run(change).await;
        let from = begun.load(Ordering::SeqCst) + 1;
        let to = eventually("rows are written", async || {
            let to = begun.load(Ordering::SeqCst);
            (to >= from + ROWS).then_some(to)
        })
        .await;
        // Rows may be checked under newer rules, so the next change must wait until the rows before
        // `to` have been checked. Row `to` may not be committed yet.
        stack
            .run(&format!("insert into app.fence values ({round})"))
            .await;
        let mut seen = BTreeSet::new();
        loop {
            let message = client.expect(TOPIC, "postgres_changes").await;
            let data = &message.payload["data"];
            if data["table"] == "fence" {
                break;
            }
            if data["errors"].is_null() {
                seen.insert(data["record"]["id"].as_u64().unwrap());
            }
        }
        let found = seen.range(from..to).count() as u64;
        let expected = if may_see { to - from } else { 0 };
        assert_eq!(found, expected, "{change}: {from} to {to}, {seen:?}");
    }
    tasks.stop();
    writing.await.unwrap();
}

/// Changes of the rules. None of them removes an object that another one needs.
const CHANGES: &[&str] = &[
    "alter table {t} enable row level security",
    "alter table {t} disable row level security",
    "alter table {t} force row level security",
    "alter table {t} no force row level security",
    "alter policy own on {t} using (true)",
    "alter policy own on {t} using (false)",
    "alter policy own on {t} using (owner = auth.uid())",
    "alter policy own on {t} using (auth.uid() is not null)",
    "alter policy own on {t} to public",
    "alter policy own on {t} to anon",
    "alter policy own on {t} to authenticated",
    "drop policy own on {t}; create policy own on {t} as restrictive using (owner is not null)",
    "drop policy own on {t}; create policy own on {t} for update using (true)",
    "drop policy own on {t}; create policy own on {t} using (owner = auth.uid())",
    "alter policy other on {t} using (true)",
    "alter policy other on {t} using (false)",
    "revoke select on {t} from anon",
    "grant select on {t} to anon",
    "revoke select on {t} from authenticated",
    "revoke select on {t} from authenticated; grant select (id, owner) on {t} to authenticated",
    "grant select on {t} to authenticated",
    "revoke select on {t} from service_role",
    "grant select on {t} to service_role",
    "alter table {t} owner to authenticated",
    "alter table {t} owner to current_user",
    "alter table {t} replica identity full",
    "alter table {t} replica identity default",
    "analyze {t}",
];

/// Statements that restore the initial state.
const BASE: &str = "
alter table {t} owner to current_user;
alter table {t} no force row level security;
alter table {t} enable row level security;
drop policy if exists own on {t};
drop policy if exists other on {t};
create policy own on {t} using (owner = auth.uid());
create policy other on {t} using (false);
grant select on {t} to anon, authenticated, service_role";

#[test]
fn after_any_change_users_receive_the_rows_that_they_can_select() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let audience = RefCell::new(runtime.block_on(Audience::start("")));
    let step = (
        prop::sample::select(vec!["app.docs", "app.parts"]),
        prop::sample::select(CHANGES),
        prop::sample::select(vec![Commits::Apart, Commits::Together]),
    );
    let steps = prop::collection::vec(step, 12);
    let (received, withheld) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(cases(8));
    runner
        .run(&steps, |steps| {
            let mut audience = audience.borrow_mut();
            for table in ["app.docs", "app.parts"] {
                runtime.block_on(audience.stack.run(&BASE.replace("{t}", table)));
            }
            for (table, change, commits) in steps {
                let change = change.replace("{t}", table);
                let heard = runtime.block_on(audience.receivers(table, &change, commits));
                received.set(received.get() + heard.len());
                withheld.set(withheld.get() + audience.people.len() - heard.len());
            }
            Ok(())
        })
        .unwrap();
    assert!(
        received.get() > 60 && withheld.get() > 60,
        "{received:?} {withheld:?}"
    );
}
