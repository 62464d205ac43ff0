//! Filters accept exactly the rows for which their SQL is true, and are refused with the protocol's
//! texts.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rapport::visibility::{
    Binding, ChannelId, Condition, Identity, Subscriber, SubscriptionRequest,
};
use serde_json::json;

use super::bench::{Bench, Seen, cases, claims, identity, rows, user};
use crate::support::eventually::eventually;

const TABLE: &str = "
create type mood as enum ('sad', 'ok', 'happy');
create domain positive as int check (value > 0);
create collation case_insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create table t (
  id int primary key, small smallint, big bigint, num numeric, flag boolean, who uuid, name text,
  code varchar(4), fixed char(4), folded text collate case_insensitive, m mood, d date, ts timestamp,
  tz timestamptz, p positive, real8 double precision, tags text[], doc jsonb, gap interval
);
grant select on t to authenticated;
grant select (id, name) on t to anon;
alter publication supabase_realtime add table t;
";

const OPERANDS: &[(&str, &[&str])] = &[
    (
        "id",
        &["1", "5", " 7", "x", "99999999999", "+3", "0x10", ""],
    ),
    ("small", &["0", "-1", "32768", "3"]),
    ("big", &["9007199254740993", "0", "-1"]),
    (
        "num",
        &["1.5", "1.50", "NaN", "-0.00", "1e1", "Infinity", "abc"],
    ),
    ("flag", &["true", "f", "yes", "maybe", "on"]),
    (
        "who",
        &[
            "00000000-0000-0000-0000-000000000001",
            "{00000000-0000-0000-0000-000000000002}",
            "1234",
            "00000000-0000-0000-0000-00000000000A",
        ],
    ),
    (
        "name",
        &[
            "Ann", "ann", "ANN%", "a_n", "", "é", "^a.*n$", "(", "a,b", "null",
        ],
    ),
    ("code", &["ab", "ab ", "abcdef"]),
    ("fixed", &["ab", "ab  ", "abcd"]),
    ("folded", &["ANN", "ann", "bob"]),
    ("m", &["ok", "angry", "happy"]),
    (
        "d",
        &[
            "2026-01-02",
            "Jan 2, 2026",
            "infinity",
            "0044-03-15 BC",
            "nonsense",
        ],
    ),
    (
        "ts",
        &["2026-01-02 03:04:05", "2026-01-02T03:04:05.5", "-infinity"],
    ),
    (
        "tz",
        &[
            "2026-01-02 03:04:05+00",
            "2026-01-02 05:04:05+02",
            "2026-01-02 03:04:05",
        ],
    ),
    ("p", &["5", "-5", "7"]),
    ("real8", &["0.1", "-0", "NaN", "1e400"]),
    ("tags", &["{a,b}", "{}", "a"]),
    ("doc", &["{\"a\": 1}", "{", "null"]),
    ("gap", &["1 day", "24:00:00"]),
];

const ROWS: &str = "
insert into t values
  (1, 0, 9007199254740993, 1.5, true, '00000000-0000-0000-0000-000000000001', 'Ann', 'ab', 'ab', 'Ann', 'ok',
   '2026-01-02', '2026-01-02 03:04:05', '2026-01-02 03:04:05+00', 5, 0.1, '{a,b}', '{\"a\": 1}', '1 day'),
  (2, -1, 0, 'NaN', false, '00000000-0000-0000-0000-000000000002', 'ann', 'abcd', 'abcd', 'ANN', 'sad',
   'infinity', '-infinity', 'infinity', 7, 'NaN', '{}', 'null', '24:00:00'),
  (3, 3, -1, 0.00, null, '00000000-0000-0000-0000-00000000000a', 'a,b', 'ab ', 'zz', 'bob', 'happy',
   '0044-03-15 BC', '2026-01-02 03:04:05.5', '0044-03-15 03:04:05+00 BC', 1, -0.0, null, '{\"a\": 1.0}', null),
  (5, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null),
  (7, 32767, 9223372036854775807, 'Infinity', true, null, '', '', '', 'é', 'ok', '10000-01-01',
   '2026-01-02 03:04:05.45', '2026-01-02 03:04:05.45+00', 9, 'Infinity', '{null}', '[]', '-1 day'),
  (8, 10, 10, -0.001, false, null, 'é', 'é', 'é', 'É', 'sad', '2025-12-31', '0044-01-01 BC', '-infinity', 2, 1e300, '{b}', '\"x\"', '1 mon'),
  (9, 16, 16, 10, true, null, 'null', 'n', 'n', 'n', 'ok', '2026-01-10', 'infinity', '2026-01-02 03:04:05.000001+00', 3, 10, '{a}', '{}', '0');
";

fn condition() -> impl Strategy<Value = String> {
    let comparison = (0..OPERANDS.len()).prop_flat_map(|column| {
        let (name, operands) = OPERANDS[column];
        let operator = prop::sample::select(vec![
            "eq",
            "eq",
            "neq",
            "lt",
            "lte",
            "gt",
            "gte",
            "isdistinct",
            "like",
            "ilike",
            "match",
            "imatch",
        ]);
        let single = (operator, prop::sample::select(operands)).prop_map(|(operator, operand)| {
            format!(
                "{operator}.\"{}\"",
                operand.replace('\\', "\\\\").replace('"', "\\\"")
            )
        });
        let list =
            prop::collection::vec(prop::sample::select(operands), 0..4).prop_map(|operands| {
                let quoted: Vec<_> = operands
                    .iter()
                    .map(|operand| match *operand {
                        "null" => "null".to_owned(),
                        plain if plain.chars().all(char::is_alphanumeric) && !plain.is_empty() => {
                            plain.to_owned()
                        }
                        other => {
                            format!("\"{}\"", other.replace('\\', "\\\\").replace('"', "\\\""))
                        }
                    })
                    .collect();
                format!("in.({})", quoted.join(","))
            });
        let is = prop::sample::select(vec![
            "is.null",
            "is.true",
            "is.false",
            "is.unknown",
            "is.maybe",
        ]);
        (
            Just(name),
            any::<bool>(),
            prop_oneof![5 => single, 2 => list, 1 => is.prop_map(str::to_owned)],
        )
    });
    comparison.prop_map(|(column, is_negated, test)| {
        format!("{column}={}{test}", if is_negated { "not." } else { "" })
    })
}

/// Returns the condition as SQL, as the protocol defines it.
fn sql(condition: &Condition, type_of: &str) -> String {
    let column = format!("t.\"{}\"", condition.column);
    let literal = format!("'{}'", condition.value.replace('\'', "''"));
    let operand = format!("{literal}::text::{type_of}");
    let not = if condition.negated { "not " } else { "" };
    match condition.operator.as_str() {
        "eq" => format!("{not}({column} = {operand})"),
        "neq" => format!("{not}({column} <> {operand})"),
        "lt" => format!("{not}({column} < {operand})"),
        "lte" => format!("{not}({column} <= {operand})"),
        "gt" => format!("{not}({column} > {operand})"),
        "gte" => format!("{not}({column} >= {operand})"),
        "in" => format!("{not}({column} = any({literal}::text::{type_of}[]))"),
        "like" => format!("{not}({column} like {literal})"),
        "ilike" => format!("{not}({column} ilike {literal})"),
        "match" => format!("{not}({column} ~ {literal})"),
        "imatch" => format!("{not}({column} ~* {literal})"),
        "is" => format!("{column} is {not}{}", condition.value),
        "isdistinct" => format!("{column} is {not}distinct from {operand}"),
        other => panic!("{other} has no SQL"),
    }
}

#[test]
fn filters_equal_their_sql() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(async {
        let bench = Bench::new(TABLE).await;
        bench.run(ROWS).await;
        bench
    });
    let types: std::collections::HashMap<String, String> = runtime.block_on(async {
        let rows = bench
            .admin
            .query(
                "select attname::text, format_type(atttypid, -1) from pg_attribute where attrelid = 't'::regclass and attnum > 0",
                &[],
            )
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    });
    let accepted = std::cell::Cell::new(0);
    let refused = std::cell::Cell::new(0);
    let users = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(cases(400));
    let result = runner.run(&prop::collection::vec(condition(), 1..3), |conditions| {
        let filter = conditions.join(",");
        runtime.block_on(async {
            let parsed = Condition::parse_all(&filter).unwrap();
            let all: Vec<_> = parsed
                .iter()
                .map(|one| format!("({})", sql(one, &types[&one.column])))
                .collect();
            // Each condition first runs alone, because in a conjunction a false condition could
            // hide the error of another one.
            let mut expected = Ok(Vec::new());
            for condition in all.iter().chain([&all.join(" and ")]) {
                if expected.is_ok() {
                    let query = format!("select id from t where {condition}");
                    expected = bench.admin.query(&query, &[]).await;
                }
            }
            let params = json!({"schema": "public", "table": "t", "filter": filter});
            // Each filter belongs to another user, because the time of one user is limited.
            users.set(users.get() + 1);
            let someone = identity("authenticated", users.get());
            let subscribed = bench.subscribe(1, &someone, params).await;
            match (expected, subscribed) {
                (Ok(rows), Ok(())) => {
                    accepted.set(accepted.get() + 1);
                    let mut expected: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
                    expected.sort_unstable();
                    let relation = bench.relation("t").await;
                    let images = bench.images(&relation, "true").await;
                    let ids = [1, 2, 3, 5, 7, 8, 9];
                    let seen = bench
                        .seen(
                            &relation,
                            images
                                .into_iter()
                                .map(|new| rapport::change::RowChange::Insert { new })
                                .collect(),
                        )
                        .await;
                    let own: Vec<i32> = ids
                        .into_iter()
                        .zip(&seen)
                        .filter(|(_, seen)| !seen.rows.is_empty())
                        .map(|(id, _)| id)
                        .collect();
                    prop_assert!(
                        seen.iter().all(|seen| seen.unanswered.is_empty()),
                        "{filter}: {seen:?}"
                    );
                    prop_assert_eq!(own, expected, "{}", filter);
                }
                (Err(_), Err(_)) => refused.set(refused.get() + 1),
                // For some operators, the protocol requires a text-compatible or boolean column,
                // even if SQL accepts other types.
                (Ok(_), Err(error)) => {
                    let text = error.client_text();
                    prop_assert!(
                        text.contains("requires a text-compatible")
                            || text.contains("requires a boolean"),
                        "{filter}: {text}"
                    );
                }
                (Err(error), Ok(())) => prop_assert!(false, "{filter} was accepted: {error}"),
            }
            Ok(())
        })
    });
    result.unwrap();
    assert!(
        accepted.get() > 50 && refused.get() > 50,
        "{accepted:?} {refused:?}"
    );
}

#[tokio::test]
async fn refusals_have_the_texts_of_the_protocol() {
    let bench = Bench::new(TABLE).await;
    let many = (0..101)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let many_filter = format!("id=in.({many})");
    let cases = [
        (
            "notacolumn=eq.x",
            r#"[{"notacolumn", "eq", "x", false}]"#,
            "ERROR P0001 (raise_exception) invalid column for filter notacolumn",
        ),
        (
            "big=eq.1",
            r#"[{"big", "eq", "1", false}]"#,
            "ERROR P0001 (raise_exception) invalid column for filter big",
        ),
        (
            "id=eq.x",
            r#"[{"id", "eq", "x", false}]"#,
            r#"ERROR 22P02 (invalid_text_representation) invalid input syntax for type integer: "x""#,
        ),
        (
            "id=eq.99999999999",
            r#"[{"id", "eq", "99999999999", false}]"#,
            r#"ERROR 22003 (numeric_value_out_of_range) value "99999999999" is out of range for type integer"#,
        ),
        (
            "id=is.true",
            r#"[{"id", "is", "true", false}]"#,
            "ERROR P0001 (raise_exception) is true filter requires a boolean column, got integer",
        ),
        (
            "id=is.maybe",
            r#"[{"id", "is", "maybe", false}]"#,
            "ERROR P0001 (raise_exception) invalid value for is filter: must be null, true, false, or unknown",
        ),
        (
            "id=like.1",
            r#"[{"id", "like", "1", false}]"#,
            "ERROR P0001 (raise_exception) operator like requires a text-compatible column type, got integer",
        ),
        (
            "name=not.match.(",
            r#"[{"name", "match", "(", true}]"#,
            "ERROR P0001 (raise_exception) invalid regular expression for match filter: invalid regular expression: parentheses () not balanced",
        ),
        (
            many_filter.as_str(),
            "",
            "ERROR P0001 (raise_exception) too many values for `in` filter. Maximum 100",
        ),
    ];
    for (filter, printed, exception) in cases {
        let params = json!({"event": "INSERT", "schema": "public", "table": "t", "filter": filter});
        let text = bench
            .subscribe(1, &identity("anon", 1), params)
            .await
            .unwrap_err()
            .client_text();
        let expected = format!(
            "Unable to subscribe to changes with given parameters. An exception happened so please check your \
             connect parameters: [event: INSERT, schema: public, table: t, filters: {printed}, select: nil]. Exception: {exception}"
        );
        if printed.is_empty() {
            assert!(text.ends_with(exception), "{text}");
        } else {
            assert_eq!(text, expected);
        }
    }
    let params = json!({"schema": "public", "table": "t", "select": ["id", "big"]});
    let text = bench
        .subscribe(1, &identity("anon", 1), params)
        .await
        .unwrap_err()
        .client_text();
    assert!(text.ends_with("select: [\"id\", \"big\"]]. Exception: ERROR P0001 (raise_exception) invalid column for select big"), "{text}");
}

#[tokio::test]
async fn a_filter_reveals_nothing_after_the_right_to_select_its_column_is_revoked() {
    let bench = Bench::new(TABLE).await;
    for (n, filter) in [(1, "name=eq.Ann"), (2, "name=like.A%"), (3, "id=gt.0")] {
        let params = json!({"schema": "public", "table": "t", "filter": filter});
        bench
            .subscribe(n, &identity("anon", n), params)
            .await
            .unwrap();
    }
    let insert = |id: u32| {
        format!(
            "insert into t (id, who, name) values ({id}, '{}', 'Ann')",
            user(1)
        )
    };
    let seen = bench.insert("t", &insert(1), "id = 1").await;
    assert_eq!(seen[0].rows, [1, 2, 3].into());
    bench
        .run("revoke select on t from anon; grant select (id) on t to anon")
        .await;
    let seen = bench.insert("t", &insert(2), "id = 2").await;
    assert_eq!(seen[0].rows, [3].into());
}

#[tokio::test]
async fn a_filter_that_never_ends_affects_only_its_identity() {
    let bench = Bench::new(TABLE).await;
    let someone = identity("authenticated", 1);
    // A match requires an even number of x, and 999 is odd. The regular expression engine tries all
    // divisions into four groups before it fails.
    let params = json!({"schema": "public", "table": "t", "filter": r"name=match.^(x+)(x+)(x+)(x+)\1\2\3\4y$"});
    bench.subscribe(1, &someone, params).await.unwrap();
    bench.watch(2, &someone, "t").await;
    let before = std::time::Instant::now();
    let seen = bench
        .insert(
            "t",
            "insert into t (id, name) select n, repeat('x', 999) || 'y' from generate_series(1, 16) n",
            "true",
        )
        .await;
    assert!(before.elapsed() < std::time::Duration::from_secs(4));
    for seen in seen {
        assert_eq!(seen.rows, [2].into());
        assert!(seen.unanswered[&1].contains("57014"));
    }
}

/// Creates a table in which only the owner of a row can see it.
async fn private_rows() -> Bench {
    let bench = Bench::new(TABLE).await;
    bench
        .run(
            "alter table t enable row level security;
             create policy own on t for select to authenticated using (who = auth.uid());",
        )
        .await;
    bench
}

#[tokio::test]
async fn a_failing_filter_reveals_nothing_about_hidden_rows() {
    let bench = private_rows().await;
    // PostgreSQL fails at the end of this pattern. It reaches the end only for names with this
    // prefix.
    let params = json!({"schema": "public", "table": "t", "filter": r"name=like.secret\"});
    for n in [1, 2] {
        let someone = identity("authenticated", n);
        bench.subscribe(n, &someone, params.clone()).await.unwrap();
    }
    let sql = format!(
        "insert into t (id, who, name) values (1, '{0}', 'secret plan'), (2, '{0}', 'no plan')",
        user(1)
    );
    let seen = bench.insert("t", &sql, "true").await;
    // Both rows are checked together, so both count as failed for their owner.
    for seen in seen {
        assert_eq!(seen.unanswered.keys().collect::<Vec<_>>(), [&1]);
        assert!(seen.unanswered[&1].contains("22025"));
        assert_eq!(seen.rows, [].into());
    }
}

#[tokio::test]
async fn a_filter_is_not_evaluated_on_hidden_rows() {
    let bench = private_rows().await;
    // For the first row, the evaluation would never end. One check contains both rows.
    let params = json!({"schema": "public", "table": "t", "filter": r"name=match.^(x+)(x+)(x+)(x+)\1\2\3\4y$|^z"});
    bench
        .subscribe(2, &identity("authenticated", 2), params)
        .await
        .unwrap();
    let sql = format!(
        "insert into t (id, who, name) values (1, '{}', repeat('x', 999) || 'y'), (2, '{}', 'z')",
        user(1),
        user(2)
    );
    let seen = bench.insert("t", &sql, "true").await;
    assert_eq!(seen, [Seen::default(), rows(&[2])]);
}

#[tokio::test]
async fn many_filters_that_never_end_are_suspended_together() {
    let bench = Bench::new(TABLE).await;
    let someone = identity("authenticated", 1);
    let bindings = (1..=100)
        .map(|id| {
            let filter = format!(r"name=match.^(x+)(x+)(x+)(x+)\1\2\3\4y$|^z{id}");
            let params = json!({"schema": "public", "table": "t", "filter": filter});
            let request = SubscriptionRequest::parse(&params).unwrap();
            Binding { id, request }
        })
        .collect();
    bench
        .visibility
        .subscribe(ChannelId(1), Subscriber::new(someone), bindings)
        .await
        .unwrap();
    bench.watch(2, &identity("authenticated", 2), "t").await;
    // The filters are suspended after the first row. They are not evaluated for the second one.
    for (id, limit) in [(1, 3_000), (2, 200)] {
        let sql = format!("insert into t (id, name) values ({id}, repeat('x', 999) || 'y')");
        let before = std::time::Instant::now();
        let seen = bench.insert("t", &sql, &format!("id = {id}")).await;
        let elapsed = before.elapsed().as_millis();
        assert!(elapsed < limit, "{elapsed} ms");
        assert_eq!(seen[0].rows, [2].into());
        assert!(seen[0].unanswered[&1].contains("57014"));
    }
}

/// Creates a table with columns whose comparisons take time. A comparison with `slow` takes 50 ms
/// per value. A comparison of `wait` with the value `wait` lasts until an advisory lock is free.
async fn slow_values() -> Bench {
    Bench::new(
        "create domain slow as text check (pg_sleep(0.05) is not null);
         create domain waiting as text check (value <> 'wait' or pg_advisory_xact_lock(1) is not null);
         create table t (id int primary key, name text, slow slow, wait waiting);
         grant select on t to authenticated;
         alter publication supabase_realtime add table t;",
    )
    .await
}

/// Returns another token of user `n`.
fn refreshed(n: u32) -> Arc<Identity> {
    claims("authenticated", &json!({"sub": user(n), "iat": 2}))
}

#[tokio::test]
async fn the_filters_of_one_user_share_their_time() {
    let bench = slow_values().await;
    let bindings = (1..=40)
        .map(|id| {
            let filter = format!("slow=like.%{id}");
            let params = json!({"schema": "public", "table": "t", "filter": filter});
            let request = SubscriptionRequest::parse(&params).unwrap();
            Binding { id, request }
        })
        .collect();
    let someone = Subscriber::new(identity("authenticated", 1));
    bench
        .visibility
        .subscribe(ChannelId(1), someone, bindings)
        .await
        .unwrap();
    let slow = json!({"schema": "public", "table": "t", "filter": "slow=like.%0"});
    let fast = json!({"schema": "public", "table": "t", "filter": "name=like.a%"});
    let other = identity("authenticated", 2);
    bench.subscribe(2, &other, slow).await.unwrap();
    bench
        .subscribe(3, &refreshed(1), fast.clone())
        .await
        .unwrap();
    bench.subscribe(4, &other, fast.clone()).await.unwrap();
    // The filters of the first user need 2 s for one row. Each is within the limit.
    let insert = |id: u32| format!("insert into t values ({id}, 'ann', 'x{id}0')");
    let seen = bench.insert("t", &insert(1), "id = 1").await;
    assert!(seen[0].unanswered[&1].contains("57014"), "{seen:?}");
    assert!(seen[0].rows.is_superset(&[2, 4].into()), "{seen:?}");
    // Now all filters of the first user are suspended, including those with another token.
    let seen = bench.insert("t", &insert(2), "id = 2").await;
    assert_eq!(seen[0].rows, [2, 4].into());
    assert_eq!(
        seen[0].unanswered.keys().copied().collect::<Vec<_>>(),
        [1, 3]
    );
    let refused = bench.subscribe(5, &refreshed(1), fast.clone()).await;
    assert!(refused.unwrap_err().client_text().contains("57014"));
    bench.subscribe(5, &other, fast).await.unwrap();
}

#[tokio::test]
async fn row_changes_do_not_wait_for_the_checks_of_joins() {
    let bench = slow_values().await;
    bench
        .run(
            "alter table t enable row level security;
             create policy everyone on t for select to authenticated using (name is not null);
             select pg_advisory_lock(1)",
        )
        .await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    let params = json!({"schema": "public", "table": "t", "filter": "wait=eq.wait"});
    let joins = futures_util::future::join_all((2..12).map(|n| {
        let (params, bench) = (params.clone(), &bench);
        async move {
            bench
                .subscribe(n, &identity("authenticated", n), params)
                .await
        }
    }));
    let changes = async {
        eventually("joins are being checked", async || {
            let sql = "select from pg_locks where locktype = 'advisory' and not granted";
            let waiting = bench.admin.query(sql, &[]).await.unwrap();
            (!waiting.is_empty()).then_some(())
        })
        .await;
        let insert = bench.insert("t", "insert into t values (1, 'ann')", "true");
        tokio::time::timeout(Duration::from_secs(4), insert).await
    };
    let (joined, seen) = futures_util::future::join(joins, changes).await;
    assert_eq!(seen.unwrap(), [rows(&[1])]);
    for refused in joined {
        let text = refused.unwrap_err().client_text();
        assert!(text.contains("57014"), "{text}");
    }
    bench.run("select pg_advisory_unlock(1)").await;
    let other = identity("authenticated", 12);
    bench.subscribe(2, &other, params).await.unwrap();
}
