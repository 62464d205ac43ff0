//! Tests of the row changes that clients receive for tables of every shape, including tables that
//! change while clients are subscribed.

use serde_json::{Value, json};

use super::postgres_changes::{Stack, subscribe, with_bindings};
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::service_role_key;

const TOPIC: &str = "realtime:shapes";

/// Returns table, type, `record` and `old_record` of the next change.
async fn next(client: &mut PhoenixSocket) -> (String, String, Value, Value) {
    let mut data = client.expect(TOPIC, "postgres_changes").await.payload["data"].take();
    assert_eq!(data["errors"], Value::Null, "{data}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&data["table"]),
        text(&data["type"]),
        data["record"].take(),
        data["old_record"].take(),
    )
}

/// Runs statements and compares all resulting changes.
async fn run_and_receive(
    stack: &Stack,
    client: &mut PhoenixSocket,
    sql: &str,
    expected: &[(&str, &str, Value, Value)],
) {
    stack.run(sql).await;
    // These changes mark the end.
    stack
        .run("insert into fence default values; delete from fence")
        .await;
    for (table, kind, record, old_record) in expected {
        let heard = next(client).await;
        let wanted = ((*table).to_owned(), (*kind).to_owned());
        assert_eq!((heard.0, heard.1), wanted, "{sql}");
        assert_eq!((&heard.2, &heard.3), (record, old_record), "{sql}");
    }
    for kind in ["INSERT", "DELETE"] {
        let heard = next(client).await;
        assert_eq!((&*heard.0, &*heard.1), ("fence", kind), "{sql}: {heard:?}");
    }
}

/// Starts a server with a client that is subscribed to the whole schema without naming a table.
async fn start(sql: &str) -> (Stack, PhoenixSocket) {
    let stack = Stack::start(&format!(
        "create table fence (id int generated always as identity primary key);
         grant select on fence to anon;
         alter publication supabase_realtime add table fence;
         {sql}"
    ))
    .await;
    let mut client = stack.server.client(Version::Two).await;
    let everything = json!([{"event": "*", "schema": "public"}]);
    subscribe(&mut client, "1", TOPIC, with_bindings(&everything)).await;
    (stack, client)
}

#[tokio::test]
async fn old_records_contain_what_the_replica_identity_keeps() {
    let (stack, mut client) = start(
        "create table d (id int primary key, a text);
         create table two (a int, b int, c int, primary key (b, a));
         create table f (id int primary key, a text);
         alter table f replica identity full;
         create table i (id int primary key, a text not null unique, b int);
         alter table i replica identity using index i_a_key;
         create table n (id int primary key, a text);
         alter table n replica identity nothing;
         grant select on d, two, f, i, n to anon;
         alter publication supabase_realtime add table d, two, f, i, n;",
    )
    .await;
    let null = Value::Null;
    run_and_receive(
        &stack,
        &mut client,
        "insert into d values (1, 'a'); update d set a = 'b'; update d set id = 2; delete from d",
        &[
            ("d", "INSERT", json!({"id": 1, "a": "a"}), null.clone()),
            ("d", "UPDATE", json!({"id": 1, "a": "b"}), json!({"id": 1})),
            ("d", "UPDATE", json!({"id": 2, "a": "b"}), json!({"id": 1})),
            ("d", "DELETE", null.clone(), json!({"id": 2})),
        ],
    )
    .await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into two values (1, 2, 3); update two set c = 4; update two set a = 5",
        &[
            (
                "two",
                "INSERT",
                json!({"a": 1, "b": 2, "c": 3}),
                null.clone(),
            ),
            (
                "two",
                "UPDATE",
                json!({"a": 1, "b": 2, "c": 4}),
                json!({"a": 1, "b": 2}),
            ),
            (
                "two",
                "UPDATE",
                json!({"a": 5, "b": 2, "c": 4}),
                json!({"a": 1, "b": 2}),
            ),
        ],
    )
    .await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into f values (1, 'a'); update f set a = null; delete from f",
        &[
            ("f", "INSERT", json!({"id": 1, "a": "a"}), null.clone()),
            (
                "f",
                "UPDATE",
                json!({"id": 1, "a": null}),
                json!({"id": 1, "a": "a"}),
            ),
            ("f", "DELETE", null.clone(), json!({"id": 1, "a": null})),
        ],
    )
    .await;
    // The identity does not contain the primary key, so an update may have changed the key.
    run_and_receive(
        &stack,
        &mut client,
        "insert into i values (1, 'a', 1); update i set b = 2; update i set id = 2; update i set a = 'b';
         delete from i",
        &[
            (
                "i",
                "INSERT",
                json!({"id": 1, "a": "a", "b": 1}),
                null.clone(),
            ),
            (
                "i",
                "UPDATE",
                json!({"id": 1, "a": "a", "b": 2}),
                json!({"a": "a"}),
            ),
            (
                "i",
                "UPDATE",
                json!({"id": 2, "a": "a", "b": 2}),
                json!({"a": "a"}),
            ),
            (
                "i",
                "UPDATE",
                json!({"id": 2, "a": "b", "b": 2}),
                json!({"a": "a"}),
            ),
            ("i", "DELETE", null.clone(), json!({"a": "b"})),
        ],
    )
    .await;
    // PostgreSQL refuses to update or delete a row that has no identity.
    for sql in ["update n set a = 'b'", "delete from n"] {
        let refused = stack.refused(sql).await;
        assert!(
            refused.contains("does not have a replica identity"),
            "{refused}"
        );
    }
    run_and_receive(
        &stack,
        &mut client,
        "insert into n values (1, 'a'); truncate n",
        &[("n", "INSERT", json!({"id": 1, "a": "a"}), null)],
    )
    .await;
}

#[tokio::test]
async fn without_a_primary_key_only_deletions_are_delivered() {
    let (stack, mut client) = start(
        "create table d (a int, b int);
         create table f (a int, b int);
         alter table f replica identity full;
         create table i (a int not null unique, b int);
         alter table i replica identity using index i_a_key;
         grant select on d, f, i to anon;
         alter publication supabase_realtime add table d, f, i;",
    )
    .await;
    let refusal = json!(["Error 400: Bad Request, no primary key"]);
    for (table, old) in [("f", json!({"a": 1, "b": 2})), ("i", json!({"a": 1}))] {
        stack
            .run(&format!(
                "insert into {table} values (1, 1); update {table} set b = 2; delete from {table}"
            ))
            .await;
        for kind in ["INSERT", "UPDATE"] {
            let data = client.expect(TOPIC, "postgres_changes").await.payload["data"].take();
            assert_eq!((&data["type"], &data["errors"]), (&json!(kind), &refusal));
        }
        let told = next(&mut client).await;
        assert_eq!((&*told.0, &*told.1, told.3), (table, "DELETE", old));
    }
    let refused = stack.refused("delete from d").await;
    assert!(
        refused.contains("does not have a replica identity"),
        "{refused}"
    );
}

/// Returns statements that create a table under row-level security. Its replica identity is an
/// index that does not contain the primary key.
fn indexed(name: &str) -> String {
    format!(
        "create table {name} (id int primary key, a int not null, b int not null, c int, unique (a, b));
         alter table {name} replica identity using index {name}_a_b_key;
         alter table {name} enable row level security;
         grant select on {name} to anon, service_role;
         alter publication supabase_realtime add table {name};"
    )
}

#[tokio::test]
async fn deletions_under_row_security_are_delivered_for_any_identity() {
    let (stack, mut client) = start(&format!(
        "{}{} create policy own on seen for select to anon using (c = 1);
         create table bare (a int);
         alter table bare replica identity full;
         alter table bare enable row level security;
         create policy every on bare for select to anon using (true);
         grant select on bare to anon;
         alter publication supabase_realtime add table bare;",
        indexed("seen"),
        indexed("unseen")
    ))
    .await;
    let mut service = stack.server.client(Version::Two).await;
    let everything = json!([{"event": "*", "schema": "public"}]);
    let mut as_service = with_bindings(&everything);
    as_service["access_token"] = json!(service_role_key());
    subscribe(&mut service, "1", TOPIC, as_service).await;

    stack
        .run(
            "insert into seen values (1, 1, 1, 1); insert into unseen values (1, 1, 1, 1);
             update seen set c = 1; delete from unseen; delete from seen",
        )
        .await;
    let row = json!({"id": 1, "a": 1, "b": 1, "c": 1});
    let null = Value::Null;
    let change = |table: &str, kind: &str, record: &Value, old: Value| {
        (table.to_owned(), kind.to_owned(), record.clone(), old)
    };
    let update = change("seen", "UPDATE", &row, json!({"a": 1, "b": 1}));
    let deletion = change("seen", "DELETE", &null, json!({}));
    let of_everything = [
        change("seen", "INSERT", &row, null.clone()),
        change("unseen", "INSERT", &row, null.clone()),
        update.clone(),
        change("unseen", "DELETE", &null, json!({})),
        deletion.clone(),
    ];
    for expected in &of_everything {
        assert_eq!(next(&mut service).await, *expected);
    }
    // Without any policy, nothing is delivered, not even the fact that a row was deleted.
    for expected in [&of_everything[0], &update, &deletion] {
        assert_eq!(next(&mut client).await, *expected);
    }
    stack
        .run("insert into bare values (1); delete from bare")
        .await;
    let refused = client.expect(TOPIC, "postgres_changes").await.payload["data"].take();
    assert_eq!(refused["type"], "INSERT");
    assert_eq!(
        next(&mut client).await,
        change("bare", "DELETE", &null, json!({}))
    );
}

#[tokio::test]
async fn identity_columns_that_the_role_may_not_select_are_omitted() {
    let (stack, mut client) = start(
        "create table i (id int primary key, secret text not null unique, a int);
         alter table i replica identity using index i_secret_key;
         create table f (id int primary key, secret text);
         alter table f replica identity full;
         create table keyless (id int primary key, a int);
         create table hidden (id int primary key);
         grant select (id, a) on i to anon;
         grant select (id) on f to anon;
         grant select (a) on keyless to anon;
         alter publication supabase_realtime add table i, f, keyless, hidden;",
    )
    .await;
    let null = Value::Null;
    run_and_receive(
        &stack,
        &mut client,
        "insert into i values (1, 's', 1); update i set a = 2; update i set secret = 't'; delete from i",
        &[
            ("i", "INSERT", json!({"id": 1, "a": 1}), null.clone()),
            ("i", "UPDATE", json!({"id": 1, "a": 2}), json!({})),
            ("i", "UPDATE", json!({"id": 1, "a": 2}), json!({})),
            ("i", "DELETE", null.clone(), json!({})),
        ],
    )
    .await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into f values (1, 's'); update f set secret = 't'; delete from f",
        &[
            ("f", "INSERT", json!({"id": 1}), null.clone()),
            ("f", "UPDATE", json!({"id": 1}), json!({"id": 1})),
            ("f", "DELETE", null.clone(), json!({"id": 1})),
        ],
    )
    .await;
    // A role that may select some columns receives the deletion. A role without rights does not.
    stack
        .run(
            "insert into keyless values (1, 1); insert into hidden values (1);
             delete from hidden; delete from keyless",
        )
        .await;
    for table in ["keyless", "hidden"] {
        let data = client.expect(TOPIC, "postgres_changes").await.payload["data"].take();
        assert_eq!(
            (&data["table"], &data["errors"]),
            (&json!(table), &json!(["Error 401: Unauthorized"]))
        );
    }
    let told = next(&mut client).await;
    assert_eq!((&*told.0, told.3), ("keyless", json!({})));
}

#[tokio::test]
async fn a_large_identity_value_is_taken_from_the_old_image() {
    let (stack, mut client) = start(
        "create table t (id int primary key, code text not null unique, n int);
         alter table t alter code set storage external;
         alter table t replica identity using index t_code_key;
         grant select on t to anon;
         alter publication supabase_realtime add table t;",
    )
    .await;
    // The value is long enough to be stored out of line, and short enough for an index.
    let code = "x".repeat(2_400);
    let row = |n: i32| json!({"id": 1, "code": code, "n": n});
    run_and_receive(
        &stack,
        &mut client,
        "insert into t values (1, repeat('x', 2400), 1); update t set n = 2; delete from t",
        &[
            ("t", "INSERT", row(1), Value::Null),
            ("t", "UPDATE", row(2), json!({"code": code})),
            ("t", "DELETE", Value::Null, json!({"code": code})),
        ],
    )
    .await;
}

/// A change of a partition is delivered under the name of its root. It contains what the
/// partition's own identity keeps.
#[tokio::test]
async fn a_partition_published_as_its_root_keeps_its_own_identity() {
    let (stack, mut client) = start(
        "alter publication supabase_realtime set (publish_via_partition_root);
         create table plain (id int, part int, a text, primary key (id, part)) partition by list (part);
         create table plain_1 partition of plain for values in (1);
         create table half (id int, part int, a text, primary key (id, part)) partition by list (part);
         create table half_1 (a text, part int not null, gone int, id int not null);
         alter table half_1 drop gone;
         alter table half attach partition half_1 for values in (1);
         alter table half replica identity full;
         create table whole (id int, part int, a text, primary key (id, part)) partition by list (part);
         create table whole_1 partition of whole for values in (1) partition by list (id);
         create table whole_1_1 partition of whole_1 for values in (1, 2);
         alter table whole replica identity full;
         alter table whole_1_1 replica identity full;
         create table odd (id int, part int, a text not null, primary key (id, part), unique (a, part))
           partition by list (part);
         create table odd_1 partition of odd for values in (1);
         alter table odd_1 replica identity using index odd_1_a_part_key;
         grant select on plain, half, whole, odd to anon;
         alter publication supabase_realtime add table plain, half, whole, odd;",
    )
    .await;
    let null = Value::Null;
    let row = |id: i32, a: &str| json!({"id": id, "part": 1, "a": a});
    let key = |id: i32| json!({"id": id, "part": 1});
    for (table, olds) in [
        ("plain", [key(1), key(1), key(2)]),
        ("half", [key(1), key(1), key(2)]),
        ("whole", [row(1, "a"), row(1, "b"), row(2, "b")]),
        (
            "odd",
            [
                json!({"part": 1, "a": "a"}),
                json!({"part": 1, "a": "b"}),
                json!({"part": 1, "a": "b"}),
            ],
        ),
    ] {
        let [changed, moved, deleted] = olds;
        run_and_receive(
            &stack,
            &mut client,
            &format!(
                "insert into {table} (id, part, a) values (1, 1, 'a'); update {table} set a = 'b';
                 update {table} set id = 2; delete from {table}"
            ),
            &[
                (table, "INSERT", row(1, "a"), null.clone()),
                (table, "UPDATE", row(1, "b"), changed),
                (table, "UPDATE", row(2, "b"), moved),
                (table, "DELETE", null.clone(), deleted),
            ],
        )
        .await;
    }
    // With a different identity of the partition, the WAL contains different values.
    stack.run("alter table half_1 replica identity full").await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into half values (1, 1, null); update half set a = 'b'",
        &[
            (
                "half",
                "INSERT",
                json!({"id": 1, "part": 1, "a": null}),
                null.clone(),
            ),
            (
                "half",
                "UPDATE",
                row(1, "b"),
                json!({"id": 1, "part": 1, "a": null}),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_unchanged_large_value_is_absent_or_taken_from_the_old_row() {
    let (stack, mut client) = start(
        "create table d (id int primary key, n int, long text);
         create table f (id int primary key, n int, long text);
         alter table d alter long set storage external;
         alter table f alter long set storage external;
         alter table f replica identity full;
         grant select on d, f to anon;
         alter publication supabase_realtime add table d, f;",
    )
    .await;
    let long = "x".repeat(5_000);
    let row = |n: i32| json!({"id": 1, "n": n, "long": long});
    run_and_receive(
        &stack,
        &mut client,
        "insert into d values (1, 1, repeat('x', 5000)); update d set n = 2",
        &[
            ("d", "INSERT", row(1), Value::Null),
            ("d", "UPDATE", json!({"id": 1, "n": 2}), json!({"id": 1})),
        ],
    )
    .await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into f values (1, 1, repeat('x', 5000)); update f set n = 2",
        &[
            ("f", "INSERT", row(1), Value::Null),
            ("f", "UPDATE", row(2), row(1)),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_publication_selects_columns_and_rows_and_names_partitions() {
    let (stack, mut client) = start(
        "create table listed (id int primary key, secret text, shown text);
         create table picked (id int primary key, room int not null);
         alter table picked replica identity full;
         create table parts (id int, part int, a text, primary key (id, part)) partition by list (part);
         create table parts_1 partition of parts for values in (1);
         grant select on listed, picked, parts, parts_1 to anon;
         alter publication supabase_realtime add table listed (id, shown), picked where (room = 1), parts;",
    )
    .await;
    let null = Value::Null;
    run_and_receive(
        &stack,
        &mut client,
        "insert into listed values (1, 'secret', 'shown'); update listed set shown = 'more'",
        &[
            (
                "listed",
                "INSERT",
                json!({"id": 1, "shown": "shown"}),
                null.clone(),
            ),
            (
                "listed",
                "UPDATE",
                json!({"id": 1, "shown": "more"}),
                json!({"id": 1}),
            ),
        ],
    )
    .await;
    // A row that enters or leaves the publication is delivered as an insert or a deletion, as
    // PostgreSQL reports it.
    run_and_receive(
        &stack,
        &mut client,
        "insert into picked values (1, 1), (2, 2); update picked set room = 3 - room; delete from picked",
        &[
            ("picked", "INSERT", json!({"id": 1, "room": 1}), null.clone()),
            ("picked", "DELETE", null.clone(), json!({"id": 1, "room": 1})),
            ("picked", "INSERT", json!({"id": 2, "room": 1}), null.clone()),
            ("picked", "DELETE", null.clone(), json!({"id": 2, "room": 1})),
        ],
    )
    .await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into parts values (1, 1, 'a')",
        &[(
            "parts_1",
            "INSERT",
            json!({"id": 1, "part": 1, "a": "a"}),
            null.clone(),
        )],
    )
    .await;
    stack
        .run("alter publication supabase_realtime set (publish_via_partition_root)")
        .await;
    run_and_receive(
        &stack,
        &mut client,
        "insert into parts values (2, 1, 'b')",
        &[(
            "parts",
            "INSERT",
            json!({"id": 2, "part": 1, "a": "b"}),
            null.clone(),
        )],
    )
    .await;
}

#[tokio::test]
async fn a_binding_refers_to_the_table_that_currently_has_the_name() {
    let (stack, mut client) = start(
        "create table t (id int primary key, a text);
         grant select on t to anon;
         alter publication supabase_realtime add table t;",
    )
    .await;
    let named = json!([{"event": "*", "schema": "public", "table": "t"}]);
    let mut watcher = stack.server.client(Version::Two).await;
    subscribe(&mut watcher, "1", TOPIC, with_bindings(&named)).await;
    let row = |id: i32| json!({"id": id, "a": "x"});
    let insert = |table: &'static str, record: Value| (table, "INSERT", record, Value::Null);

    run_and_receive(
        &stack,
        &mut client,
        "insert into t values (1, 'x')",
        &[insert("t", row(1))],
    )
    .await;
    assert_eq!(next(&mut watcher).await.2, row(1));

    // A record uses the column names from the time when the row was written.
    for (sql, expected) in [
        (
            "alter table t rename a to b; insert into t values (2, 'x')",
            json!({"id": 2, "b": "x"}),
        ),
        (
            "alter table t add c int default 7; insert into t values (3, 'x')",
            json!({"id": 3, "b": "x", "c": 7}),
        ),
        (
            "alter table t drop c; alter table t rename b to a; insert into t values (4, 'x')",
            row(4),
        ),
    ] {
        run_and_receive(&stack, &mut client, sql, &[insert("t", expected.clone())]).await;
        assert_eq!(next(&mut watcher).await.2, expected);
    }

    // Under a different name, it is a different table. Subscribers of the old name are notified
    // that the table is gone.
    run_and_receive(
        &stack,
        &mut client,
        "alter table t rename to u; insert into u values (5, 'x')",
        &[insert("u", row(5))],
    )
    .await;
    assert_eq!(watcher.expect_system(TOPIC).await.0, "error");
    // From now on, a new table with the name is used.
    stack
        .run(
            "create table t (id int primary key, a text); grant select on t to anon;
             alter publication supabase_realtime add table t",
        )
        .await;
    assert_eq!(watcher.expect_system(TOPIC).await.0, "ok");
    run_and_receive(
        &stack,
        &mut client,
        "insert into t values (6, 'x')",
        &[insert("t", row(6))],
    )
    .await;
    assert_eq!(next(&mut watcher).await.2, row(6));
    run_and_receive(
        &stack,
        &mut client,
        "drop table t; create table t (a text, id int primary key); grant select on t to anon;
         alter publication supabase_realtime add table t; insert into t values ('x', 7)",
        &[insert("t", row(7))],
    )
    .await;
    assert_eq!(next(&mut watcher).await.2, row(7));
}

#[tokio::test]
async fn generated_columns_have_the_values_of_the_written_row() {
    let (stack, mut client) = start(
        "create table made (gone int, double int generated always as (a * 2) stored, id int primary key, a int);
         alter table made drop column gone;
         alter table made replica identity full;
         grant select on made to anon;
         alter publication supabase_realtime add table made;",
    )
    .await;
    if stack.version().await >= 18 {
        // PostgreSQL 18 refuses an identity that is not published. With published columns, the WAL
        // contains their values, and nothing else differs.
        stack
            .run("alter publication supabase_realtime set (publish_generated_columns = stored)")
            .await;
    }
    let filtered =
        json!([{"event": "*", "schema": "public", "table": "made", "filter": "double=gt.4"}]);
    let mut watcher = stack.server.client(Version::Two).await;
    subscribe(&mut watcher, "1", TOPIC, with_bindings(&filtered)).await;
    let row = |a: i32| json!({"id": 1, "a": a, "double": a * 2});
    let null = Value::Null;
    let changes = [
        ("made", "INSERT", row(2), null.clone()),
        ("made", "UPDATE", row(3), row(2)),
        ("made", "DELETE", null, row(3)),
    ];
    // All statements are in one transaction, so the row no longer exists when its changes are
    // processed.
    let sql = "begin; insert into made values (default, 1, 2); update made set a = 3; delete from made; commit";
    run_and_receive(&stack, &mut client, sql, &changes).await;
    for (_, kind, record, old_record) in &changes[1..] {
        let (_, heard_kind, heard_record, heard_old) = next(&mut watcher).await;
        assert_eq!(heard_kind, *kind);
        assert_eq!((&heard_record, &heard_old), (record, old_record));
    }
}

#[tokio::test]
async fn a_generated_primary_key_is_in_the_record() {
    let (stack, mut client) = start(
        "create table keyed (n int, a text, key text generated always as ('k' || n) stored primary key);
         create table parts (id int, a text, b text generated always as (a || '!') stored) partition by list (id);
         alter table parts add primary key (id);
         create table parts_1 partition of parts for values in (1);
         grant select on keyed, parts to anon;
         alter publication supabase_realtime set (publish_via_partition_root);
         alter publication supabase_realtime add table keyed, parts;",
    )
    .await;
    let null = Value::Null;
    let row = |n: i32, a: &str| json!({"n": n, "a": a, "key": format!("k{n}")});
    run_and_receive(
        &stack,
        &mut client,
        "insert into keyed values (1, 'a')",
        &[("keyed", "INSERT", row(1, "a"), null.clone())],
    )
    .await;
    let part = |a: &str| json!({"id": 1, "a": a, "b": format!("{a}!")});
    run_and_receive(
        &stack,
        &mut client,
        "insert into parts values (1, 'a'); update parts set a = 'b'",
        &[
            ("parts", "INSERT", part("a"), null.clone()),
            ("parts", "UPDATE", part("b"), json!({"id": 1})),
        ],
    )
    .await;
    let is_logged = stack.version().await >= 18;
    if is_logged {
        // PostgreSQL 18 refuses to update or delete rows while a column of the identity is not
        // published.
        let refused = stack.refused("update keyed set a = 'b'").await;
        assert!(refused.contains("cannot update table"), "{refused}");
        stack
            .run("alter publication supabase_realtime set (publish_generated_columns = stored)")
            .await;
    }
    let told = |key: Value| if is_logged { key } else { json!({}) };
    run_and_receive(
        &stack,
        &mut client,
        "update keyed set a = 'b'; update keyed set n = 2; delete from keyed",
        &[
            ("keyed", "UPDATE", row(1, "b"), json!({"key": "k1"})),
            ("keyed", "UPDATE", row(2, "b"), told(json!({"key": "k1"}))),
            ("keyed", "DELETE", null, told(json!({"key": "k2"}))),
        ],
    )
    .await;
}

/// Requires PostgreSQL 18, which has virtual columns and can publish stored ones.
#[tokio::test]
async fn generated_columns_are_in_the_record_if_the_wal_has_them_or_they_can_be_computed() {
    let (stack, mut client) = start("").await;
    if stack.version().await < 18 {
        return;
    }
    stack
        .run(
            "create table made (id int primary key, a int, twice int generated always as (a * 2) virtual,
               thrice int generated always as (a * 3) stored);
             create table parts (id int primary key, a text, b text generated always as (a || '!') stored,
               c text generated always as (a || '.') stored) partition by list (id);
             create table parts_1 (id int not null, a text, b text generated always as (a || '?') stored,
               c text generated always as (a || '.') stored);
             alter table parts attach partition parts_1 for values in (1);
             grant select on made, parts to anon;
             alter publication supabase_realtime set (publish_via_partition_root);
             alter publication supabase_realtime add table made, parts;",
        )
        .await;
    let filtered =
        json!([{"event": "*", "schema": "public", "table": "made", "filter": "twice=eq.4"}]);
    let mut watcher = stack.server.client(Version::Two).await;
    subscribe(&mut watcher, "1", TOPIC, with_bindings(&filtered)).await;
    let row = json!({"id": 1, "a": 2, "twice": 4, "thrice": 6});
    for published in ["none", "stored"] {
        stack
            .run(&format!(
                "alter publication supabase_realtime set (publish_generated_columns = {published})"
            ))
            .await;
        run_and_receive(
            &stack,
            &mut client,
            "insert into made values (1, 2); delete from made",
            &[
                ("made", "INSERT", row.clone(), Value::Null),
                ("made", "DELETE", Value::Null, json!({"id": 1})),
            ],
        )
        .await;
        assert_eq!(next(&mut watcher).await.2, row);
        // If the WAL does not contain the value, it cannot be computed, because the partition of
        // the row is unknown.
        let told = match published {
            "none" => json!({"id": 1, "a": "a", "c": "a."}),
            _ => json!({"id": 1, "a": "a", "b": "a?", "c": "a."}),
        };
        run_and_receive(
            &stack,
            &mut client,
            "insert into parts values (1, 'a'); delete from parts",
            &[
                ("parts", "INSERT", told, Value::Null),
                ("parts", "DELETE", Value::Null, json!({"id": 1})),
            ],
        )
        .await;
    }
}
