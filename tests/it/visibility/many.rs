//! Many identities that share one call get the same results as each identity alone.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use rapport::change::RowChange;
use rapport::config::VisibilityConfig;

use super::bench::{Bench, Seen, identity, rows, strict, user};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;

/// Enough users to require calls over several connections.
const PEOPLE: std::ops::Range<u32> = 10..70;

async fn watched(config: VisibilityConfig, sql: &str) -> Bench {
    let sql = format!(
        "create table notes (id int primary key, owner uuid, body text);
         alter table notes enable row level security;
         grant select on notes to authenticated;
         alter publication supabase_realtime add table notes;
         {sql}"
    );
    let bench = Bench::with(config, &sql).await;
    watch(&bench, "notes").await;
    bench
}

async fn watch(bench: &Bench, table: &str) {
    for n in PEOPLE {
        bench.watch(n, &identity("authenticated", n), table).await;
    }
}

/// Inserts a row of `owner` and returns its recipients.
async fn insert(bench: &Bench, id: u32, owner: u32) -> Seen {
    let sql = format!("insert into notes values ({id}, '{}', 'b')", user(owner));
    bench
        .insert("notes", &sql, &format!("id = {id}"))
        .await
        .remove(0)
}

/// Returns the number of functions in the whole database that check many identities in one call.
async fn loops(bench: &Bench) -> i64 {
    let sql = "select count(*) from pg_proc where proname like 'rapport_ask_%'";
    bench.admin.query_one(sql, &[]).await.unwrap().get(0)
}

fn channels(but: &[u32]) -> Vec<u32> {
    PEOPLE.filter(|n| !but.contains(n)).collect()
}

#[tokio::test]
async fn each_identity_has_its_own_claims() {
    let bench = watched(
        strict(),
        "create policy own on notes for select to authenticated using (owner = (select auth.uid()));",
    )
    .await;
    for (id, owner) in (1..).zip([10, 33, 69, 5]) {
        let expected: &[u32] = if owner < 10 { &[] } else { &[owner] };
        assert_eq!(insert(&bench, id, owner).await, rows(expected));
    }
    assert!(loops(&bench).await > 0);
}

#[tokio::test]
async fn an_error_affects_only_its_own_identity() {
    let bench = watched(
        strict(),
        &format!(
            "create function private.check_in(who uuid) returns boolean language plpgsql as $$
             begin
               case who
                 when '{}' then raise sqlstate 'RP001' using message = 'as the call itself does';
                 when '{}' then raise exception 'no';
                 when '{}' then insert into public.notes values (0);
                 else return true;
               end case;
             end $$;
             create policy checked on notes for select to authenticated using (private.check_in(auth.uid()));",
            user(12),
            user(34),
            user(56)
        ),
    )
    .await;
    let seen = insert(&bench, 1, 1).await;
    assert_eq!(seen.rows, channels(&[12, 34, 56]).into_iter().collect());
    let codes: Vec<_> = seen
        .unanswered
        .iter()
        .map(|(n, text)| (*n, text.split(['(', ')']).nth(1).unwrap_or_default()))
        .collect();
    assert_eq!(codes, [(12, "RP001"), (34, "P0001"), (56, "25006")]);
    assert!(loops(&bench).await > 0);
}

#[tokio::test]
async fn a_policy_that_never_ends_affects_only_its_identity() {
    let config = VisibilityConfig {
        statement_timeout: Duration::from_millis(500),
        ..strict()
    };
    let bench = watched(
        config,
        &format!(
            "create policy slow on notes for select to authenticated using (
               case when auth.uid() = '{}' then pg_sleep(60) is not null else true end);",
            user(40)
        ),
    )
    .await;
    let seen = insert(&bench, 1, 1).await;
    assert_eq!(seen.rows, channels(&[40]).into_iter().collect());
    assert!(seen.unanswered[&40].contains("57014"));
}

#[tokio::test]
async fn names_and_texts_in_a_policy_keep_their_meaning() {
    let bench = Bench::new(
        "create table odd (id int primary key, \"rapport ordinals\" text, \"rapport position\" int, found boolean, sqlstate text);
         alter table odd enable row level security;
         grant select on odd to authenticated;
         alter publication supabase_realtime add table odd;
         create policy odd on odd for select to authenticated using (
           \"rapport ordinals\" = '$rapport$; ''$1' and \"rapport position\" = 7 and found and sqlstate = '00000');",
    )
    .await;
    watch(&bench, "odd").await;
    let seen = bench
        .insert(
            "odd",
            "insert into odd values (1, '$rapport$; ''$1', 7, true, '00000'), (2, '', 1, false, 'RP001')",
            "true",
        )
        .await;
    assert_eq!(seen, [rows(&channels(&[])), rows(&[])]);
    assert!(loops(&bench).await > 0);
}

#[tokio::test]
async fn without_the_right_to_create_functions_identities_are_checked_one_by_one() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    let name: String = admin
        .query_one("select current_database()::text", &[])
        .await
        .unwrap()
        .get(0);
    let login = format!("vis_login_{}", uuid::Uuid::new_v4().simple());
    let sql = format!(
        "create role {login} login noinherit password 'secret';
         grant authenticated, rapport_request to {login};
         revoke temporary on database \"{name}\" from public;
         create table notes (id int primary key, owner uuid, body text);
         alter table notes enable row level security;
         grant select on notes to authenticated;
         alter publication supabase_realtime add table notes;
         create policy own on notes for select to authenticated using (owner = auth.uid());"
    );
    let (scheme, rest) = database.url().split_once("://").unwrap();
    let (_, address) = rest.split_once('@').unwrap();
    let login_url = format!("{scheme}://{login}:secret@{address}");
    let bench = Bench::logged_in(database.url(), &login_url, strict(), &sql).await;
    watch(&bench, "notes").await;
    assert_eq!(insert(&bench, 1, 33).await, rows(&[33]));
    assert_eq!(loops(&bench).await, 0);
    drop(bench);
    admin
        .batch_execute(&format!("drop owned by {login} cascade; drop role {login}"))
        .await
        .unwrap();
}

/// After a schema is created, PostgreSQL replans every statement under the role that happens to
/// execute it. That role cannot resolve names in a schema on which it has no rights.
#[tokio::test]
async fn a_new_schema_does_not_break_plans() {
    let bench = watched(
        strict(),
        "create function private.me() returns uuid language plpgsql stable as $$ begin return auth.uid(); end $$;
         create policy own on notes for select to authenticated using (owner = (select private.me()));",
    )
    .await;
    for id in 1..6 {
        bench.run(&format!("create schema s{id}")).await;
        assert_eq!(insert(&bench, id, 20 + id).await, rows(&[20 + id]));
    }
    assert!(loops(&bench).await > 0);
}

#[tokio::test]
async fn objects_that_a_policy_uses_can_be_recreated() {
    let bench = watched(
        strict(),
        "create table members (who uuid);
         grant select on members to authenticated;
         create policy members on notes for select to authenticated
           using (exists (select from members m where m.who = auth.uid()));",
    )
    .await;
    let member = |n: u32| format!("insert into members values ('{}');", user(n));
    bench.run(&member(20)).await;
    assert_eq!(insert(&bench, 1, 1).await, rows(&[20]));
    bench
        .run(&format!(
            "drop table members cascade; create table members (note text, who uuid);
             grant select on members to authenticated;
             insert into members (who) values ('{}');
             create policy members on notes for select to authenticated
               using (exists (select from members m where m.who = auth.uid()));",
            user(30)
        ))
        .await;
    assert_eq!(insert(&bench, 2, 1).await, rows(&[30]));
    assert!(loops(&bench).await > 0);
}

/// Inserts two rows per user in one batch: one that belongs to the user, and one of an unknown
/// owner. Each user must receive only their own row.
async fn a_row_for_each(bench: &Bench) {
    let sql = "insert into notes
        select 2 * n, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'b'
          from generate_series(10, 69) n
        union all
        select 2 * n + 1, gen_random_uuid(), 'b' from generate_series(10, 69) n";
    let seen = bench.insert("notes", sql, "true").await;
    let expected: Vec<Seen> = (20..140)
        .map(|id| {
            if id % 2 == 0 {
                rows(&[id / 2])
            } else {
                rows(&[])
            }
        })
        .collect();
    assert_eq!(seen, expected);
}

const OWN: &str =
    "create policy own on notes for select to authenticated using (owner = (select auth.uid()));";

#[tokio::test]
async fn a_batch_larger_than_one_statement_is_split_and_merged() {
    let config = VisibilityConfig {
        batch_max_rows: 7,
        ..strict()
    };
    let bench = watched(config, OWN).await;
    a_row_for_each(&bench).await;
    assert!(loops(&bench).await > 0);
}

#[tokio::test]
async fn users_with_filters_are_checked_for_their_own_rows() {
    let bench = Bench::new(&format!(
        "create table notes (id int primary key, owner uuid, body text);
         alter table notes enable row level security;
         grant select on notes to authenticated;
         alter publication supabase_realtime add table notes;
         {OWN}"
    ))
    .await;
    for n in PEOPLE {
        // Each user is checked for different rows: their own, and a few of other users.
        let filter = format!("id=gte.{}", 2 * n - 6);
        let params = serde_json::json!({"schema": "public", "table": "notes", "filter": filter});
        bench
            .subscribe(n, &identity("authenticated", n), params)
            .await
            .unwrap();
    }
    a_row_for_each(&bench).await;
}

/// Every connection has its own plan, which PostgreSQL may have to replace. A repeated execution
/// may use a different connection than the first one, for example a connection that a slow policy
/// has kept busy.
#[tokio::test]
async fn plans_of_all_connections_may_be_outdated() {
    const GATE: i64 = 1;
    let config = VisibilityConfig {
        pool_size: 2,
        catalog_ttl: Duration::from_secs(3_600),
        statement_timeout: Duration::from_secs(60),
        ..strict()
    };
    let bench = Bench::with(
        config,
        &format!(
            "create function private.me() returns uuid language plpgsql stable as $$ begin return auth.uid(); end $$;
             create table notes (id int primary key);
             alter table notes enable row level security;
             create policy named on notes for select to authenticated using (private.me() is not null);
             create table gated (id int primary key);
             alter table gated enable row level security;
             create policy gated on gated for select to authenticated
               using (pg_advisory_xact_lock_shared({GATE}) is not null);
             grant select on notes, gated to authenticated;
             alter publication supabase_realtime add table notes, gated;"
        ),
    )
    .await;
    for n in [10, 11] {
        bench.watch(n, &identity("authenticated", n), "notes").await;
    }
    bench
        .watch(12, &identity("authenticated", 12), "gated")
        .await;
    bench
        .run("insert into notes values (1), (2); insert into gated values (1)")
        .await;
    let insertion = async |table: &str, id: u32| {
        let relation = bench.relation(table).await;
        let mut images = bench.images(&relation, &format!("id = {id}")).await;
        (
            relation,
            vec![RowChange::Insert {
                new: images.remove(0),
            }],
        )
    };
    let (notes, first) = insertion("notes", 1).await;
    let (_, second) = insertion("notes", 2).await;
    let (gated, row) = insertion("gated", 1).await;
    // Two identities are checked at the same time, one on each connection.
    bench.settle(&[&notes, &gated]).await;
    assert_eq!(bench.seen(&notes, first).await, [rows(&[10, 11])]);
    bench
        .run("create schema passing; drop schema passing")
        .await;

    let database = bench.database.as_ref().unwrap();
    let [gate, catalog, watcher] = [
        database.connect().await,
        database.connect().await,
        database.connect().await,
    ];
    let waits_for = async |lock: &str| {
        let sql = format!(
            "select from pg_locks where not granted and {lock}
               and database = (select oid from pg_database where datname = current_database())"
        );
        eventually(lock, async || watcher.query_opt(&sql, &[]).await.unwrap()).await;
    };
    gate.batch_execute(&format!("select pg_advisory_lock({GATE})"))
        .await
        .unwrap();
    // This lock delays the next reading of the policies until the busy connection is free.
    catalog
        .batch_execute("begin; lock table pg_catalog.pg_policy in access exclusive mode")
        .await
        .unwrap();
    let keeps_busy = async {
        let seen = bench.seen(&gated, row).await;
        catalog.batch_execute("rollback").await.unwrap();
        seen
    };
    let meets_both = async {
        waits_for("locktype = 'advisory'").await;
        let reading = pin!(waits_for("relation = 'pg_catalog.pg_policy'::regclass"));
        let seen = pin!(bench.seen(&notes, second));
        let first = select(seen, reading).await;
        gate.batch_execute(&format!("select pg_advisory_unlock({GATE})"))
            .await
            .unwrap();
        match first {
            Either::Left((seen, _)) => seen,
            Either::Right(((), seen)) => seen.await,
        }
    };
    let (busy, met) = tokio::join!(keeps_busy, meets_both);
    assert_eq!(busy, [rows(&[12])]);
    assert_eq!(met, [rows(&[10, 11])]);
}
