//! Changes in the catalogue take effect within its time limit, and immediately if the stream shows
//! them.

use std::sync::Arc;
use std::time::Duration;

use rapport::change::{Column, Relation, RowChange};
use rapport::config::VisibilityConfig;
use rapport::visibility::SubscribeError;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::bench::{Bench, Seen, identity, rows, strict, transaction, user};
use crate::support::database::connect;
use crate::support::eventually::eventually;

const T: &str = "
create table t (id int primary key, owner uuid, body text);
alter table t enable row level security;
create policy own on t for select to authenticated using (owner = auth.uid());
grant select on t to authenticated;
alter publication supabase_realtime add table t;
";

#[tokio::test]
async fn a_changed_policy_is_honoured_within_the_time_limit_under_load() {
    let ttl = Duration::from_millis(300);
    let bench = Bench::with(
        VisibilityConfig {
            catalog_ttl: ttl,
            ..strict()
        },
        T,
    )
    .await;
    bench
        .run(&format!("insert into t values (1, '{}')", user(1)))
        .await;
    for n in 1..=20 {
        bench.watch(n, &identity("authenticated", n), "t").await;
    }
    let relation = bench.relation("t").await;
    let new = bench.images(&relation, "true").await.remove(0);
    for statement in [
        "alter policy own on t using (false)",
        "alter policy own on t using (owner = auth.uid())",
        "drop policy own on t",
        "create policy own on t for select to authenticated using (owner = auth.uid())",
        "revoke select on t from authenticated",
        "grant select on t to authenticated",
        "alter role vis_altered bypassrls",
    ] {
        let before = bench
            .seen(&relation, vec![RowChange::Insert { new: new.clone() }])
            .await;
        bench.run(statement).await;
        let changed_at = Instant::now();
        let mut last = before.clone();
        while changed_at.elapsed() < ttl + Duration::from_millis(50) {
            last = bench
                .seen(&relation, vec![RowChange::Insert { new: new.clone() }])
                .await;
        }
        // This check begins after the time limit has passed.
        let after = bench
            .seen(&relation, vec![RowChange::Insert { new: new.clone() }])
            .await;
        let is_allowed = matches!(statement.split(' ').next(), Some("create" | "grant"))
            || statement.contains("auth.uid()");
        if statement.contains("vis_altered") {
            assert_eq!(after, before);
        } else {
            assert_eq!(
                after[0].rows,
                if is_allowed { [1].into() } else { [].into() },
                "{statement}: {last:?}"
            );
        }
    }
    bench.run("alter role vis_altered nobypassrls").await;
}

#[tokio::test]
async fn a_changed_table_definition_causes_a_reading_of_the_catalogue() {
    let config = VisibilityConfig {
        catalog_ttl: Duration::from_secs(3600),
        ..strict()
    };
    let bench = Bench::with(config, T).await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    assert_eq!(
        bench
            .insert(
                "t",
                &format!("insert into t values (1, '{}')", user(1)),
                "id = 1"
            )
            .await,
        [rows(&[1])]
    );
    bench
        .run(
            "alter table t add column team text;
              alter policy own on t using (team = auth.jwt() ->> 'team');",
        )
        .await;
    let insert = "insert into t values (2, null, 'b', 'team1')";
    assert_eq!(bench.insert("t", insert, "id = 2").await, [rows(&[1])]);
    // The catalogue no longer contains this definition, so the rights on its column are unknown.
    let relation = bench.relation("t").await;
    let mut older: Relation = (*relation).clone();
    older.columns.push(Column {
        name: "gone".to_owned(),
        type_oid: 25,
        type_modifier: -1,
        is_identity: false,
    });
    let older = Arc::new(older);
    let mut new = bench.images(&relation, "id = 2").await.remove(0);
    new.0.push(rapport::change::ColumnValue::Null);
    // Other tests create roles in the same cluster at the same time. Each new role requires one
    // reading, so only a reading in every round would be a fault.
    eventually("an unknown definition causes no reading", async || {
        let loads = bench.metrics.catalog_loads.get();
        for _ in 0..3 {
            let changes = vec![RowChange::Insert { new: new.clone() }];
            assert_eq!(bench.seen(&older, changes).await, [rows(&[1])]);
        }
        (bench.metrics.catalog_loads.get() == loads).then_some(())
    })
    .await;
}

#[tokio::test]
async fn statements_survive_changes_of_their_objects() {
    let config = VisibilityConfig {
        catalog_ttl: Duration::from_secs(3600),
        ..strict()
    };
    let bench = Bench::with(
        config,
        &format!("{T} create table members (who uuid); grant select on members to authenticated;
          create policy members on t for select to authenticated using (auth.uid() in (select m.who from members m));"),
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    bench.watch(2, &identity("authenticated", 2), "t").await;
    bench
        .run(&format!("insert into members values ('{}')", user(2)))
        .await;
    let insert = |id: u32| format!("insert into t values ({id}, '{}')", user(1));
    assert_eq!(
        bench.insert("t", &insert(1), "id = 1").await,
        [rows(&[1, 2])]
    );
    // The column's type changes, so all statements are replanned.
    bench.run("alter table members add column note text; alter table members alter column note type int using null").await;
    assert_eq!(
        bench.insert("t", &insert(2), "id = 2").await,
        [rows(&[1, 2])]
    );
    // After the function is renamed, a statement that was prepared from the policy's earlier text
    // would fail. The policy itself then uses the new name.
    bench
        .run("create function private.yes() returns boolean language sql stable as 'select true';
              drop policy members on t;
              create policy members on t for select to authenticated using (auth.uid() in (select m.who from members m) and private.yes());
              alter table t add column bump int;")
        .await;
    assert_eq!(
        bench.insert("t", &insert(3), "id = 3").await,
        [rows(&[1, 2])]
    );
    bench
        .run("alter function private.yes() rename to certainly")
        .await;
    assert_eq!(
        bench.insert("t", &insert(4), "id = 4").await,
        [rows(&[1, 2])]
    );
}

#[tokio::test]
async fn tables_are_found_when_they_are_published() {
    let config = VisibilityConfig {
        catalog_ttl: Duration::from_secs(3600),
        ..strict()
    };
    let bench = Bench::with(config, T).await;
    let someone = identity("authenticated", 1);
    let late = json!({"schema": "public", "table": "late", "event": "INSERT"});
    let refused = bench
        .subscribe(1, &someone, late.clone())
        .await
        .unwrap_err();
    assert_eq!(
        refused.client_text(),
        "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the \
         given connect parameters: [event: INSERT, schema: public, table: late, filters: [], select: nil]"
    );
    bench.run("create table late (id int primary key); alter publication supabase_realtime add table late").await;
    bench.subscribe(1, &someone, late).await.unwrap();
    let nobody = identity("no such role", 1);
    let refused = bench
        .subscribe(2, &nobody, json!({"table": "t"}))
        .await
        .unwrap_err();
    assert!(matches!(&refused, SubscribeError::Invalid { sqlstate, .. } if sqlstate == "42704"));
    assert!(!refused.is_retryable());
}

#[tokio::test]
async fn bindings_are_registered_together_and_the_newest_registration_counts() {
    let bench = Bench::new(T).await;
    let someone = identity("authenticated", 1);
    bench.watch(1, &someone, "t").await;
    assert_eq!(bench.visibility.subscribed_channels(), 1);
    let refused = bench
        .subscribe(
            1,
            &someone,
            json!({"schema": "public", "table": "t", "filter": "nothing=eq.1"}),
        )
        .await;
    assert!(refused.is_err());
    let insert = |id: u32| format!("insert into t values ({id}, '{}')", user(1));
    assert_eq!(
        bench.visibility.subscribed_channels(),
        0,
        "the previous bindings may belong to another identity"
    );
    bench.watch(1, &someone, "t").await;
    assert_eq!(bench.insert("t", &insert(1), "id = 1").await, [rows(&[1])]);
    // The token was replaced by one of a different user.
    bench.watch(1, &identity("authenticated", 2), "t").await;
    assert_eq!(bench.insert("t", &insert(2), "id = 2").await, [rows(&[])]);
    bench
        .visibility
        .unsubscribe(rapport::visibility::ChannelId(1));
    assert_eq!(bench.visibility.subscribed_channels(), 0);
}

#[tokio::test]
async fn wildcards_include_present_and_future_tables() {
    let bench = Bench::new(
        "create table a (id int primary key); create table b (id int primary key, n int);
         grant select on a, b to anon; alter publication supabase_realtime add table a, b;",
    )
    .await;
    let someone = identity("anon", 1);
    bench
        .subscribe(1, &someone, json!({"schema": "public"}))
        .await
        .unwrap();
    bench
        .subscribe(
            2,
            &someone,
            json!({"schema": "*", "table": "*", "event": "INSERT"}),
        )
        .await
        .unwrap();
    bench
        .subscribe(
            3,
            &someone,
            json!({"schema": "*", "table": "b", "filter": "n=gt.5"}),
        )
        .await
        .unwrap();
    bench
        .subscribe(4, &someone, json!({"schema": "other"}))
        .await
        .unwrap_err();
    assert_eq!(
        bench.insert("a", "insert into a values (1)", "true").await,
        [rows(&[1, 2])]
    );
    assert_eq!(
        bench
            .insert("b", "insert into b values (1, 3), (2, 7)", "true")
            .await,
        [rows(&[1, 2]), rows(&[1, 2, 3])]
    );
    bench
        .run(
            "create table later (id int primary key); grant select on later to anon;
              alter publication supabase_realtime add table later",
        )
        .await;
    assert_eq!(
        bench
            .insert("later", "insert into later values (1)", "true")
            .await,
        [rows(&[1, 2])]
    );
}

/// PostgreSQL's own function that lists the published tables also locks them, so Rapport does not
/// use that function. For every form of publication, Rapport must find the same tables as the
/// function.
#[tokio::test]
async fn published_tables_agree_with_those_of_postgres() {
    let bench = Bench::new(
        "create schema archive;
         create table plain (id int primary key);
         create table archive.plain (id int primary key);
         create unlogged table fleeting (id int primary key);
         create view shown as select id from plain;
         create table parent (id int primary key);
         create table child () inherits (parent);
         create table parts (id int, part int, primary key (id, part)) partition by list (part);
         create table parts_1 partition of parts for values in (1);
         create table archive.parts_2 partition of parts for values in (2, 3) partition by list (part);
         create table archive.parts_2_2 partition of archive.parts_2 for values in (2);
         create table parts_2_3 partition of archive.parts_2 for values in (3);",
    )
    .await;
    let someone = identity("authenticated", 1);
    for contents in [
        "",
        "for all tables",
        "for table plain, parent",
        "for table only parent, archive.plain",
        "for table parts",
        "for table archive.parts_2, plain",
        "for table parts, parts_1, parts_2_3",
        "for tables in schema archive",
        "for tables in schema public",
        "for tables in schema archive, table parts",
        "for tables in schema archive, public",
    ] {
        for via_root in [false, true] {
            bench
                .run(&format!(
                    "drop publication supabase_realtime;
                     create publication supabase_realtime {contents}
                       with (publish_via_partition_root = {via_root})"
                ))
                .await;
            let tables = bench
                .admin
                .query(
                    "select n.nspname::text, c.relname::text, c.oid in
                       (select t.relid from pg_get_publication_tables('supabase_realtime') t)
                     from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where n.nspname in ('public', 'archive') and c.relkind in ('r', 'p', 'v')",
                    &[],
                )
                .await
                .unwrap();
            assert!(tables.len() > 10, "{}", tables.len());
            for table in tables {
                let (schema, name): (String, String) = (table.get(0), table.get(1));
                let params = json!({"schema": schema, "table": name});
                let subscribed = bench.subscribe(1, &someone, params).await;
                assert_eq!(
                    subscribed.is_ok(),
                    table.get::<_, bool>(2),
                    "{contents} (publish_via_partition_root = {via_root}): {schema}.{name}"
                );
            }
        }
    }
}

/// An uncommitted `ALTER TABLE` must affect only its own table.
#[tokio::test]
async fn a_locked_table_does_not_delay_others() {
    let bench = Bench::new(&format!(
        "{T} create table busy (id int primary key);
         alter publication supabase_realtime add table busy"
    ))
    .await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    let loads = bench.metrics.catalog_loads.get();
    let url = bench.database.as_ref().unwrap().url().to_owned();
    let other = connect(&url).await;
    other
        .batch_execute("begin; alter table busy add column text text")
        .await
        .unwrap();
    let insert = async |id: u32| {
        let sql = format!("insert into t values ({id}, '{}')", user(1));
        let condition = format!("id = {id}");
        let seen = bench.insert("t", &sql, &condition);
        // A statement that waited for the lock would never finish.
        timeout(Duration::from_secs(30), seen).await.unwrap()
    };
    assert_eq!(insert(1).await, [rows(&[1])]);
    // The same is true when another change causes a full reading of the catalogue.
    bench.run("create type pair as (a int, b int)").await;
    assert_eq!(insert(2).await, [rows(&[1])]);
    assert!(bench.metrics.catalog_loads.get() > loads);
    other.batch_execute("rollback").await.unwrap();
}

fn unauthorized(channel: u32) -> Seen {
    Seen {
        refused: [(channel, "Error 401: Unauthorized")].into(),
        ..Seen::default()
    }
}

/// Returns settings under which the catalogue does not expire during a test.
fn trusting() -> VisibilityConfig {
    VisibilityConfig {
        catalog_ttl: Duration::from_secs(3600),
        ..strict()
    }
}

/// After `VACUUM` or a reconnect, the stream describes tables again although nothing has changed.
#[tokio::test]
async fn definitions_of_one_batch_cost_one_comparison_and_known_ones_none() {
    let bench = Bench::with(
        trusting(),
        &format!("{T} create table u (id int primary key); grant select on u to authenticated; alter publication supabase_realtime add table u"),
    )
    .await;
    let someone = identity("authenticated", 1);
    bench.watch(1, &someone, "t").await;
    bench.watch(2, &someone, "u").await;
    bench
        .run(&format!(
            "insert into t values (1, '{}'); insert into u values (1)",
            user(1)
        ))
        .await;
    let mut batch = Vec::new();
    for table in ["t", "u"] {
        for _ in 0..2 {
            let relation = bench.description("public", table).await;
            let new = bench.images(&relation, "true").await.remove(0);
            batch.push(transaction(&relation, RowChange::Insert { new }));
        }
    }
    let relations: Vec<_> = batch
        .iter()
        .map(|transaction| &transaction.changes[0].relation)
        .collect();
    let checks = bench.metrics.catalog_checks.get();
    assert_eq!(bench.resolve(&batch).await.len(), 4);
    assert_eq!(bench.metrics.catalog_checks.get(), checks + 1);
    let latest = [relations[1], relations[3]];
    bench.settle(&latest).await;
    let checks = bench.metrics.catalog_checks.get();
    for _ in 0..10 {
        assert_eq!(bench.resolve(&batch[3..]).await.len(), 1);
    }
    assert_eq!(bench.metrics.catalog_checks.get(), checks);
}

/// The stream shows that a table has changed, but not how, so nothing cached about the table may be
/// used.
#[tokio::test]
async fn an_equal_definition_causes_a_reading_of_the_rules() {
    let bench = Bench::with(trusting(), T).await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    bench
        .run(&format!("insert into t values (1, '{}')", user(1)))
        .await;
    let before = bench.relation("t").await;
    bench.settle(&[&before]).await;
    let new = bench.images(&before, "true").await.remove(0);
    let insert = || vec![RowChange::Insert { new: new.clone() }];
    for (change, seen) in [
        ("alter policy own on t using (false)", rows(&[])),
        ("alter table t disable row level security", rows(&[1])),
        ("revoke select on t from authenticated", unauthorized(1)),
        ("grant select on t to authenticated", rows(&[1])),
    ] {
        bench.run(change).await;
        let after = bench.description("public", "t").await;
        assert_eq!(after, before);
        assert_eq!(bench.seen(&after, insert()).await, [seen], "{change}");
    }
}
