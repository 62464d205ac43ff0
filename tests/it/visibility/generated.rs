//! Generated columns that the WAL does not contain are computed from the row image.

use std::sync::Arc;
use std::time::Duration;

use rapport::change::{ChangeTransaction, ColumnValue, OldRow, Relation, Row, RowChange};
use rapport::config::VisibilityConfig;
use rapport::visibility::{Payload, record};
use serde_json::{Value, json};

use super::bench::{Bench, identity, key_image, rows, strict, transaction, user};

/// Returns the receiving channels, `record` and `old_record` of each delivery, ordered by change
/// and channel.
async fn written(bench: &Bench, batch: &[Arc<ChangeTransaction>]) -> Vec<(Vec<u64>, Value, Value)> {
    let mut resolved = bench.visibility.resolve(batch).await;
    resolved
        .deliveries
        .sort_by_key(|it| (it.transaction, it.recipients[0].channel));
    let deliveries = resolved.deliveries.iter().map(|delivery| {
        let change = &resolved.batch[delivery.transaction].changes[delivery.change].row;
        let Payload::Row(columns, detail) = &delivery.payload else {
            panic!("expected a row, not {:?}", delivery.payload);
        };
        let (mut new, mut old) = (Vec::new(), Vec::new());
        record::write_record(&mut new, change, columns, *detail);
        record::write_old_record(&mut old, change, columns, *detail);
        let channels = delivery.recipients.iter().map(|it| it.channel.0).collect();
        let json = |text: &[u8]| serde_json::from_slice(text).unwrap();
        (channels, json(&new), json(&old))
    });
    deliveries.collect()
}

async fn inserted(bench: &Bench, relation: &Arc<Relation>) -> Vec<(Vec<u64>, Value, Value)> {
    let images = bench.images(relation, "true").await;
    let changes = images.into_iter().map(|new| RowChange::Insert { new });
    let batch: Vec<_> = changes.map(|row| transaction(relation, row)).collect();
    written(bench, &batch).await
}

fn texts(values: &[Option<&str>]) -> Row {
    let value = |text: &Option<&str>| match text {
        Some(text) => ColumnValue::Text((*text).to_owned().into()),
        None => ColumnValue::Null,
    };
    Row(values.iter().map(value).collect())
}

#[tokio::test]
async fn records_have_generated_columns_as_the_table_has_them() {
    let bench = Bench::new(
        "create type mood as enum ('sad', 'happy');
         create type pair as (a int, b text);
         create domain few as numeric(6,1);
         create function joined(a text, b text) returns text language sql immutable as $$ select a || ' ' || b $$;
         create table t (
           twice bigint generated always as (n * 2) stored,
           id int primary key, n int, gone int, first text, at timestamptz, span interval, raw text, mood mood,
           \"Full \"\"Name\" varchar(20) generated always as (joined(first, 'x')) stored,
           same_time timestamptz generated always as (at) stored,
           local_time timestamp generated always as (at at time zone 'Asia/Tokyo') stored,
           spans interval[] generated always as (array[span, span * 2]) stored,
           bytes bytea generated always as (decode(raw, 'hex')) stored,
           is_big boolean generated always as (n > 1) stored,
           rounded numeric(6,1) generated always as (n * 1.26) stored,
           domained few generated always as (n * 1.26) stored,
           moods mood[] generated always as (array[mood, 'sad'::mood]) stored,
           pair pair generated always as (row(n, first)::pair) stored,
           words tsvector generated always as (to_tsvector('english', first)) stored,
           float real generated always as (n::real / 3) stored,
           fixed int generated always as (7) stored,
           nothing int generated always as (nullif(n, n)) stored);
         alter table t drop gone;
         insert into t (id, n, first, at, span, raw, mood) values
           (1, 1, 'a \"b\"', '2026-07-02 03:04:05.678+02', '1 year 2 days 03:04', '00ff', 'happy'),
           (2, null, null, null, null, null, null), (3, -5, '', 'infinity', '0', '', 'sad');
         grant select on t to authenticated;
         alter publication supabase_realtime add table t;
         do $$ begin
           execute format('alter database %I set datestyle = ''SQL, DMY''', current_database());
           execute format('alter database %I set timezone = ''America/New_York''', current_database());
           execute format('alter database %I set intervalstyle = ''iso_8601''', current_database());
           execute format('alter database %I set bytea_output = ''escape''', current_database());
           execute format('alter database %I set extra_float_digits = 0', current_database());
         end $$",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    let relation = bench.relation("t").await;
    assert!(relation.columns.iter().all(|column| column.name != "twice"));
    let found = inserted(&bench, &relation).await;
    assert_eq!(found.len(), 3);
    for (_, written, _) in found {
        let expected: String = bench
            .admin
            .query_one(
                "select to_jsonb(t)::text from t where id = $1",
                &[&i32::try_from(written["id"].as_i64().unwrap()).unwrap()],
            )
            .await
            .unwrap()
            .get(0);
        let mut expected: Value = serde_json::from_str(&expected).unwrap();
        if let Some(bytes) = expected["bytes"].as_str() {
            expected["bytes"] = json!(bytes.trim_start_matches("\\x"));
        }
        assert_eq!(written, expected);
    }
    let image = bench.images(&relation, "id = 1").await.remove(0);
    let batch = [transaction(&relation, RowChange::Insert { new: image })];
    let resolved = bench.visibility.resolve(&batch).await;
    let Payload::Row(columns, _) = &resolved.deliveries[0].payload else {
        panic!("expected a row");
    };
    let header: Value = serde_json::from_slice(&columns.header).unwrap();
    assert_eq!(header[0], json!({"name": "twice", "type": "int8"}));
    assert_eq!(header[1], json!({"name": "id", "type": "int4"}));
}

#[tokio::test]
async fn filters_select_and_policies_see_generated_columns() {
    let bench = Bench::new(&format!(
        "create table t (id int primary key, n int, owner uuid,
           twice int generated always as (n * 2) stored,
           label text generated always as ('n' || n) stored,
           who uuid generated always as (owner) stored);
         alter table t enable row level security;
         create policy own on t for select to authenticated using (who = auth.uid());
         grant select on t to authenticated, service_role;
         grant select (id, n) on t to anon;
         create policy every on t for select to anon using (true);
         alter publication supabase_realtime add table t;
         insert into t values (1, 1, '{}'), (2, 2, '{}')",
        user(1),
        user(2),
    ))
    .await;
    let someone = identity("authenticated", 1);
    let service = identity("service_role", 1);
    let filtered = |filter: &str| json!({"schema": "public", "table": "t", "filter": filter});
    bench.watch(1, &someone, "t").await;
    for (channel, filter) in [
        (2, "twice=eq.4"),
        (3, "label=like.%1"),
        (4, "twice=in.(2,4),label=neq.n2"),
    ] {
        bench
            .subscribe(channel, &service, filtered(filter))
            .await
            .unwrap();
    }
    let select = json!({"schema": "public", "table": "t", "select": ["twice"]});
    bench.subscribe(5, &service, select).await.unwrap();
    bench.watch(6, &identity("anon", 1), "t").await;
    for params in [
        filtered("twice=eq.2"),
        json!({"schema": "public", "table": "t", "select": ["label"]}),
    ] {
        let refused = bench.subscribe(7, &identity("anon", 1), params).await;
        assert!(refused.is_err(), "column privileges apply");
    }

    let relation = bench.relation("t").await;
    let images = bench.images(&relation, "true").await;
    // The row image decides, not the current row.
    bench.run("update t set owner = null").await;
    let changes = images
        .iter()
        .map(|new| RowChange::Insert { new: new.clone() });
    let seen = bench.seen(&relation, changes.collect()).await;
    assert_eq!(seen, [rows(&[1, 3, 4, 5, 6]), rows(&[2, 5, 6])]);
    let batch = [transaction(
        &relation,
        RowChange::Insert {
            new: images[1].clone(),
        },
    )];
    let found = written(&bench, &batch).await;
    let records: Vec<_> = found.into_iter().map(|(_, record, _)| record).collect();
    assert_eq!(
        records,
        [
            json!({"id": 2, "n": 2, "owner": user(2), "twice": 4, "label": "n2", "who": user(2)}),
            json!({"id": 2, "twice": 4}),
            json!({"id": 2, "n": 2}),
        ]
    );
    // With the full old row, generated columns also decide who receives a deletion.
    bench.run("alter table t replica identity full").await;
    let relation = bench.relation("t").await;
    let deleted = RowChange::Delete {
        old: OldRow::Full(images[0].clone()),
    };
    assert_eq!(
        bench.seen(&relation, vec![deleted]).await,
        [rows(&[1, 3, 4, 5, 6])]
    );
}

#[tokio::test]
async fn old_values_of_generated_columns_are_sent_if_their_inputs_are_known() {
    let bench = Bench::new(
        "create table t (id int primary key, a text, b text,
           both_of text generated always as (a || b) stored,
           shout text generated always as (a || '!') stored);
         grant select on t to anon;
         alter publication supabase_realtime add table t;",
    )
    .await;
    bench.watch(1, &identity("anon", 1), "t").await;
    let update = |relation, old, new| [transaction(relation, RowChange::Update { old, new })];
    let told = async |batch: [Arc<ChangeTransaction>; 1]| {
        let (_, record, old_record) = written(&bench, &batch).await.remove(0);
        (record, old_record)
    };
    let by_key = bench.relation("t").await;
    let row = texts(&[Some("1"), Some("a"), Some("b")]);
    // If the WAL omits a value, only the columns that depend on that value are unknown.
    let mut partial = row.clone();
    partial.0[2] = ColumnValue::Unchanged;
    assert_eq!(
        told(update(&by_key, None, partial.clone())).await,
        (json!({"id": 1, "a": "a", "shout": "a!"}), json!({"id": 1}))
    );
    bench.run("alter table t replica identity full").await;
    let whole = bench.relation("t").await;
    let before = texts(&[Some("1"), Some("x"), Some("b")]);
    assert_eq!(
        told(update(&whole, Some(OldRow::Full(before)), partial)).await,
        (
            json!({"id": 1, "a": "a", "b": "b", "both_of": "ab", "shout": "a!"}),
            json!({"id": 1, "a": "x", "b": "b", "both_of": "xb", "shout": "x!"})
        )
    );
    let without = texts(&[Some("1"), Some("x"), None]);
    assert_eq!(
        told(update(&whole, Some(OldRow::Full(without)), row))
            .await
            .1,
        json!({"id": 1, "a": "x", "b": null, "both_of": null, "shout": "x!"})
    );
    bench
        .run(
            "alter table t alter a set not null; create unique index by_a on t (a);
             alter table t replica identity using index by_a",
        )
        .await;
    let by_index = bench.relation("t").await;
    let old = key_image(&by_index, &texts(&[Some("1"), Some("x"), Some("b")]));
    let (_, _, old_record) = written(&bench, &[transaction(&by_index, RowChange::Delete { old })])
        .await
        .remove(0);
    assert_eq!(old_record, json!({"a": "x", "shout": "x!"}));
}

#[tokio::test]
async fn a_generated_primary_key_identifies_its_row() {
    let bench = Bench::new(
        "create table t (tenant int, number int, note text,
           key text generated always as (tenant || '-' || number) stored primary key);
         alter table t enable row level security;
         create policy first on t for select to authenticated using (tenant = 1);
         grant select on t to authenticated, service_role;
         alter publication supabase_realtime add table t;
         insert into t values (1, 2, 'a'), (2, 2, 'b')",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    bench.watch(2, &identity("service_role", 1), "t").await;
    let relation = bench.relation("t").await;
    let found = inserted(&bench, &relation).await;
    let row = |tenant: i32, note: &str| json!({"tenant": tenant, "number": 2, "note": note, "key": format!("{tenant}-2")});
    let channels: Vec<_> = found
        .iter()
        .map(|(channels, ..)| channels.clone())
        .collect();
    assert_eq!(channels, [vec![1], vec![2], vec![2]]);
    let records: Vec<_> = found.into_iter().map(|(_, record, _)| record).collect();
    assert_eq!(records, [row(1, "a"), row(1, "a"), row(2, "b")]);

    let image = bench.images(&relation, "tenant = 1").await.remove(0);
    let update = |old| RowChange::Update {
        old,
        new: image.clone(),
    };
    for (change, old_record) in [
        // The key has not changed.
        (update(None), json!({"key": "1-2"})),
        // The key has changed, and the WAL does not contain the old key.
        (
            update(Some(OldRow::Key(texts(&[None, None, None])))),
            json!({}),
        ),
        (
            RowChange::Delete {
                old: OldRow::Key(texts(&[None, None, None])),
            },
            json!({}),
        ),
    ] {
        let found = written(&bench, &[transaction(&relation, change)]).await;
        assert_eq!(found.iter().map(|it| it.0.len()).sum::<usize>(), 2);
        for (_, _, old) in found {
            assert_eq!(old, old_record);
        }
    }
}

/// Returns the refusal of a filter or `select` on this column.
fn invalid(what: &str, column: &str, table: &str) -> String {
    let (filters, select) = match what {
        "filter" => (
            format!("[{{\"{column}\", \"eq\", \"1\", false}}]"),
            "nil".to_owned(),
        ),
        _ => ("[]".to_owned(), format!("[\"{column}\"]")),
    };
    format!(
        "Unable to subscribe to changes with given parameters. An exception happened so please check your \
         connect parameters: [event: *, schema: public, table: {table}, filters: {filters}, select: {select}]. \
         Exception: ERROR P0001 (raise_exception) invalid column for {what} {column}"
    )
}

#[tokio::test]
async fn columns_with_unknown_values_are_refused_and_left_out() {
    let bench = Bench::new(
        "create function private.hidden(n int) returns int language plpgsql immutable as 'begin return n; end';
         revoke execute on function private.hidden from public;
         grant usage on schema private to authenticated;
         grant execute on function private.hidden to authenticated;
         create table t (id int primary key, n int,
           hidden int generated always as (private.hidden(n)) stored,
           stored_in oid generated always as (tableoid) stored,
           twice int generated always as (n * 2) stored);
         create table listed (id int primary key, n int, m int,
           twice int generated always as (n * 2) stored);
         grant select on t, listed to authenticated;
         alter publication supabase_realtime add table t, listed (id, n);
         insert into t values (1, 2); insert into listed values (1, 2, 3)",
    )
    .await;
    let someone = identity("authenticated", 1);
    bench.watch(1, &someone, "t").await;
    bench.watch(2, &someone, "listed").await;
    for (table, column) in [
        ("t", "hidden"),
        ("t", "stored_in"),
        ("listed", "m"),
        ("listed", "twice"),
    ] {
        let filter =
            json!({"schema": "public", "table": table, "filter": format!("{column}=eq.1")});
        let select = json!({"schema": "public", "table": table, "select": [column]});
        for (what, params) in [("filter", filter), ("select", select)] {
            let refused = bench.subscribe(3, &someone, params).await.unwrap_err();
            assert_eq!(refused.client_text(), invalid(what, column, table));
        }
    }
    for (table, record) in [
        ("t", json!({"id": 1, "n": 2, "twice": 4})),
        ("listed", json!({"id": 1, "n": 2})),
    ] {
        let mut relation = (*bench.relation(table).await).clone();
        relation
            .columns
            .retain(|column| table == "t" || column.name != "m");
        let found = inserted(&bench, &Arc::new(relation)).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, record);
    }
    // A column that becomes readable is included.
    bench
        .run("grant execute on function private.hidden to public")
        .await;
    let filter = json!({"schema": "public", "table": "t", "filter": "hidden=eq.2"});
    bench.subscribe(3, &someone, filter).await.unwrap();
    let relation = bench.relation("t").await;
    let found = inserted(&bench, &relation).await;
    assert_eq!(found[0].0, [1, 3]);
    assert_eq!(
        found[0].1,
        json!({"id": 1, "n": 2, "hidden": 2, "twice": 4})
    );
}

#[tokio::test]
async fn a_filter_on_a_dropped_column_is_refused() {
    for statement in [
        "alter table t drop column n",
        "alter table t rename column n to m",
        "alter publication supabase_realtime set table t (id)",
        "alter table t drop column twice",
        "revoke execute on function twice from public",
    ] {
        let bench = Bench::new(
            "create function twice(n int) returns int language plpgsql immutable as 'begin return n * 2; end';
             create table t (id int primary key, n int, k int, twice int generated always as (twice(k)) stored);
             grant select on t to authenticated;
             alter publication supabase_realtime add table t;",
        )
        .await;
        let someone = identity("authenticated", 1);
        let filter = json!({"schema": "public", "table": "t", "filter": "n=eq.1,twice=eq.2"});
        bench.subscribe(1, &someone, filter).await.unwrap();
        bench.watch(2, &someone, "t").await;
        let insert = "insert into t (id, k) values (1, 1)";
        bench.run(statement).await;
        bench.run(insert).await;
        let mut relation = (*bench.relation("t").await).clone();
        if statement.contains("publication") {
            relation.columns.retain(|column| column.name == "id");
        }
        let relation = Arc::new(relation);
        let images = bench.images(&relation, "true").await;
        let change = || RowChange::Insert {
            new: images[0].clone(),
        };
        // A function that may no longer be executed is detected only when it is called next.
        let mut told = std::collections::BTreeMap::new();
        for _ in 0..2 {
            let seen = bench.seen(&relation, vec![change()]).await.remove(0);
            assert_eq!(seen.rows, [2].into(), "{statement}");
            told.extend(seen.unanswered);
        }
        let text = told
            .remove(&1)
            .unwrap_or_else(|| panic!("{statement}: no error was delivered"));
        assert!(text.contains("invalid column for filter"), "{text}");
    }
}

#[tokio::test]
async fn a_column_with_a_new_expression_is_computed_again() {
    // With this setting, a reading of the catalogue is valid for an hour.
    let config = VisibilityConfig {
        catalog_ttl: Duration::from_secs(3600),
        ..strict()
    };
    let bench = Bench::with(
        config,
        "create table t (id int primary key, n int);
         grant select on t to authenticated;
         alter publication supabase_realtime add table t;
         insert into t values (1, 3)",
    )
    .await;
    let someone = identity("authenticated", 1);
    bench.watch(1, &someone, "t").await;
    let relation = bench.relation("t").await;
    assert_eq!(
        inserted(&bench, &relation).await[0].1,
        json!({"id": 1, "n": 3})
    );
    bench
        .run("alter table t add twice int generated always as (n * 2) stored")
        .await;
    // A join with an unknown column causes a reading of the catalogue.
    let filter = json!({"schema": "public", "table": "t", "filter": "twice=eq.6"});
    bench.subscribe(2, &someone, filter).await.unwrap();
    let found = inserted(&bench, &relation).await;
    assert_eq!(found[0].0, [1, 2]);
    assert_eq!(found[0].1, json!({"id": 1, "n": 3, "twice": 6}));
    // A new definition in the stream also causes a reading.
    bench
        .run(
            "alter table t drop twice; alter table t add m int default 5;
             alter table t add twice int generated always as (n * 20) stored",
        )
        .await;
    let relation = bench.relation("t").await;
    let found = inserted(&bench, &relation).await;
    assert_eq!(found[0].1, json!({"id": 1, "n": 3, "m": 5, "twice": 60}));
}
