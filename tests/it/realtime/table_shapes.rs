//! What a client hears of tables of every shape, and of tables that change while it listens.

use serde_json::{Value, json};

use super::postgres_changes::{Stack, asking, subscribe};
use crate::support::socket::{PhoenixSocket, Version};

const TOPIC: &str = "realtime:shapes";

/// Table, type, `record` and `old_record` of the next change.
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

/// Runs statements and compares what comes of them, all of it.
async fn hear(
    stack: &Stack,
    client: &mut PhoenixSocket,
    sql: &str,
    expected: &[(&str, &str, Value, Value)],
) {
    stack.run(sql).await;
    // Ends what came of the statements.
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

/// Subscribed to everything of the schema, without naming a table.
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
    subscribe(&mut client, "1", TOPIC, asking(&everything)).await;
    (stack, client)
}

#[tokio::test]
async fn old_records_hold_what_the_replica_identity_keeps() {
    let (stack, mut client) = start(
        "create table d (id int primary key, a text);
         create table f (id int primary key, a text);
         alter table f replica identity full;
         create table i (id int primary key, a text not null unique, b int);
         alter table i replica identity using index i_a_key;
         create table n (id int primary key, a text);
         alter table n replica identity nothing;
         grant select on d, f, i, n to anon;
         alter publication supabase_realtime add table d, f, i, n;",
    )
    .await;
    let null = Value::Null;
    hear(
        &stack,
        &mut client,
        "insert into d values (1, 'a'); update d set a = 'b'; update d set id = 2; delete from d",
        &[
            ("d", "INSERT", json!({"id": 1, "a": "a"}), null.clone()),
            ("d", "UPDATE", json!({"id": 1, "a": "b"}), json!({})),
            ("d", "UPDATE", json!({"id": 2, "a": "b"}), json!({"id": 1})),
            ("d", "DELETE", null.clone(), json!({"id": 2})),
        ],
    )
    .await;
    hear(
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
    hear(
        &stack,
        &mut client,
        "insert into i values (1, 'a', 1); update i set a = 'b'; delete from i",
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
                json!({"id": 1, "a": "b", "b": 1}),
                json!({"a": "a"}),
            ),
            ("i", "DELETE", null.clone(), json!({"a": "b"})),
        ],
    )
    .await;
    // PostgreSQL refuses to update or delete what it could not name.
    hear(
        &stack,
        &mut client,
        "insert into n values (1, 'a'); truncate n",
        &[("n", "INSERT", json!({"id": 1, "a": "a"}), null)],
    )
    .await;
}

#[tokio::test]
async fn a_large_value_that_did_not_change_is_absent_or_taken_from_the_old_row() {
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
    hear(
        &stack,
        &mut client,
        "insert into d values (1, 1, repeat('x', 5000)); update d set n = 2",
        &[
            ("d", "INSERT", row(1), Value::Null),
            ("d", "UPDATE", json!({"id": 1, "n": 2}), json!({})),
        ],
    )
    .await;
    hear(
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
async fn a_publication_says_which_columns_and_rows_there_are_and_what_a_partition_is_called() {
    let (stack, mut client) = start(
        "create table listed (id int primary key, secret text, shown text);
         create table picked (id int primary key, room int not null);
         alter table picked replica identity full;
         create table parts (id int, part int, a text, primary key (id, part)) partition by list (part);
         create table parts_1 partition of parts for values in (1);
         create table made (gone int, id int primary key, a int, double int generated always as (a * 2) stored);
         alter table made drop column gone;
         grant select on listed, picked, parts, parts_1, made to anon;
         alter publication supabase_realtime add table listed (id, shown), picked where (room = 1), parts, made;",
    )
    .await;
    let null = Value::Null;
    hear(
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
                json!({}),
            ),
        ],
    )
    .await;
    // A row that comes into the publication or leaves it is told as PostgreSQL tells it.
    hear(
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
    hear(
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
    hear(
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
    stack.run("insert into made values (1, 2)").await;
    let data = client.expect(TOPIC, "postgres_changes").await.payload["data"].take();
    assert_eq!(data["record"], json!({"id": 1, "a": 2}));
    assert_eq!(
        data["columns"],
        json!([{"name": "id", "type": "int4"}, {"name": "a", "type": "int4"}])
    );
}

#[tokio::test]
async fn a_binding_means_the_table_that_has_the_name_now() {
    let (stack, mut client) = start(
        "create table t (id int primary key, a text);
         grant select on t to anon;
         alter publication supabase_realtime add table t;",
    )
    .await;
    let named = json!([{"event": "*", "schema": "public", "table": "t"}]);
    let mut watcher = stack.server.client(Version::Two).await;
    subscribe(&mut watcher, "1", TOPIC, asking(&named)).await;
    let row = |id: i32| json!({"id": id, "a": "x"});
    let insert = |table: &'static str, record: Value| (table, "INSERT", record, Value::Null);

    hear(
        &stack,
        &mut client,
        "insert into t values (1, 'x')",
        &[insert("t", row(1))],
    )
    .await;
    assert_eq!(next(&mut watcher).await.2, row(1));

    // Columns are called what they are called when the row is written.
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
        hear(&stack, &mut client, sql, &[insert("t", expected.clone())]).await;
        assert_eq!(next(&mut watcher).await.2, expected);
    }

    // Under another name it is another table, and one that takes the name is meant.
    hear(
        &stack,
        &mut client,
        "alter table t rename to u; insert into u values (5, 'x')",
        &[insert("u", row(5))],
    )
    .await;
    hear(
        &stack,
        &mut client,
        "create table t (id int primary key, a text); grant select on t to anon;
         alter publication supabase_realtime add table t; insert into t values (6, 'x')",
        &[insert("t", row(6))],
    )
    .await;
    assert_eq!(next(&mut watcher).await.2, row(6));
    hear(
        &stack,
        &mut client,
        "drop table t; create table t (a text, id int primary key); grant select on t to anon;
         alter publication supabase_realtime add table t; insert into t values ('x', 7)",
        &[insert("t", row(7))],
    )
    .await;
    assert_eq!(next(&mut watcher).await.2, row(7));
}
