//! Records equal `to_jsonb` of the stored values, and contain only what may be sent.

use std::sync::Arc;

use rapport::change::{ChangeTransaction, ColumnValue, OldRow, ReplicaIdentity, RowChange};
use rapport::visibility::{
    Binding, ChannelId, Payload, RecordDetail, SubscribeOptions, Subscriber, SubscriptionRequest,
    record,
};
use serde_json::{Value, json};

use super::bench::{Bench, MAX_RECORD_BYTES, identity, transaction};

/// Types, with values whose texts are difficult to encode.
const VALUES: &[(&str, &[&str])] = &[
    ("smallint", &["-32768", "7"]),
    ("integer", &["0", "-5"]),
    ("bigint", &["9223372036854775807"]),
    ("real", &["1.5", "-0.1", "'NaN'", "'-Infinity'", "1e-20"]),
    ("double precision", &["1e300", "0.1", "'Infinity'", "1e20"]),
    (
        "numeric",
        &[
            "1.50",
            "'NaN'",
            "'-Infinity'",
            "-0.0001",
            "123456789012345678901234567890.5",
        ],
    ),
    ("numeric(6,2)", &["1", "-3.14"]),
    ("boolean", &["true", "false"]),
    (
        "text",
        &[
            "''",
            "'a \"b\" \\ c'",
            "E'line\\nfeed\\ttab\\r\\b\\f\\x01\\x1f'",
            "'ümläut 😀'",
        ],
    ),
    ("varchar(5)", &["'ab'"]),
    ("char(5)", &["'ab'"]),
    ("\"char\"", &["'x'"]),
    ("name", &["'a_name'"]),
    ("uuid", &["'0190A1B2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'"]),
    ("date", &["'2026-01-02'", "'infinity'", "'0044-03-15 BC'"]),
    ("time", &["'03:04:05.678'"]),
    ("timetz", &["'03:04:05+02'"]),
    (
        "timestamp",
        &[
            "'2026-01-02 03:04:05.678'",
            "'-infinity'",
            "'0044-03-15 01:02:03 BC'",
            "'12345-01-01'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'2026-01-02 03:04:05.678+02'",
            "'infinity'",
            "'0044-03-15 01:02:03+00 BC'",
        ],
    ),
    ("interval", &["'1 year 2 days 03:04:05'"]),
    (
        "json",
        &["'{\"a\" : [1, 2.50, null]}'", "'\"x\"'", "'  3 '"],
    ),
    ("jsonb", &["'{\"b\": {\"c\": \"\\u00e9\"}}'", "'null'"]),
    ("inet", &["'10.0.0.1/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("point", &["'(1,2)'"]),
    ("box", &["'((1,2),(3,4))'"]),
    ("money", &["'12.34'"]),
    ("oid", &["42"]),
    ("regclass", &["'pg_class'"]),
    ("bit(3)", &["B'101'"]),
    ("xml", &["'<a b=\"c\">&amp;</a>'"]),
    ("tsvector", &["'fat & cat'::text::tsvector"]),
    ("int4range", &["'[1,5)'", "'empty'"]),
    ("tstzrange", &["'[2026-01-01,2026-02-01)'"]),
    ("int2vector", &["'1 2 3'"]),
    ("mood", &["'very \"happy\"'"]),
    ("positive", &["5"]),
    ("positive[]", &["'{1,2}'"]),
    (
        "pair",
        &[
            "row(1, 'a \"b\" , ( \\ ''')::pair",
            "row(null, '')::pair",
            "row(null, null)::pair",
        ],
    ),
    (
        "pair[]",
        &["array[row(1, 'x,y')::pair, row(2, null)::pair, null]"],
    ),
    (
        "nested",
        &[
            "row(row(1, 'in \"quotes\"')::pair, array['a','b c'], '2026-01-02 03:04:05+00', '{\"k\": [1]}')::nested",
        ],
    ),
    (
        "int[]",
        &["'{}'", "'{1,NULL,-3}'", "'{{1,2},{3,4}}'", "'[0:1]={5,6}'"],
    ),
    (
        "text[]",
        &["array['a', 'b,c', '', 'NULL', null, '{\"}', ' sp ', E'\\n', 'q\"q', 'b\\b']"],
    ),
    ("boolean[]", &["'{t,f,NULL}'"]),
    ("numeric[]", &["'{1.5,NaN}'"]),
    (
        "timestamptz[]",
        &["array['2026-01-02 03:04:05+00'::timestamptz]"],
    ),
    ("date[]", &["'{2026-01-02}'"]),
    (
        "jsonb[]",
        &["array['{\"a\": [1, \"x\"]}'::jsonb, 'null'::jsonb]"],
    ),
    (
        "box[]",
        &["array['((1,2),(3,4))'::box, '((0,0),(1,1))'::box]"],
    ),
    (
        "uuid[]",
        &["array['0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'::uuid]"],
    ),
    ("mood[]", &["array['sad', 'very \"happy\"']::mood[]"]),
    ("bytea[]", &["array['\\x00ff'::bytea]"]),
    ("int4range[]", &["array['[1,5)'::int4range]"]),
    // Numbers at the limits of their types, as floating-point types print them.
    (
        "double precision[]",
        &["array['-0', 'NaN', '-Infinity', 1e15, 1e16, 5e-324, null]::float8[]"],
    ),
    ("real[]", &["array[16777216, 3.4028235e38, 1e-45]::real[]"]),
    ("bigint[]", &["'{-9223372036854775808,9007199254740993}'"]),
    ("numeric(20,0)", &["'12345678901234567890'"]),
    ("numeric(3,-2)", &["12345"]),
    ("money[]", &["array['-12.34'::money, null]"]),
    // Texts of fixed and limited length, including trailing spaces.
    ("char(3)[]", &["array['a', 'abc', null]::char(3)[]"]),
    ("\"char\"[]", &["array['a'::\"char\"]"]),
    ("bpchar", &["'no length  '"]),
    ("varchar[]", &["array['', 'a b', 'null', 'NULL', 'é,{}']"]),
    ("name[]", &["array['x'::name]"]),
    ("short", &["'ab'"]),
    // Dates, times and intervals.
    (
        "timestamp(0)",
        &[
            "'2026-01-02 03:04:05.678'",
            "'294276-12-31 23:59:59'",
            "'4713-01-01 BC'",
        ],
    ),
    (
        "timestamptz(3)",
        &["'1883-11-18 12:03:57.5 America/New_York'"],
    ),
    (
        "timestamp[]",
        &["array['infinity', '2026-01-02 03:04:05.6', null]::timestamp[]"],
    ),
    ("time[]", &["'{24:00:00,00:00:00.000001}'"]),
    ("timetz[]", &["'{03:04:05-07:30}'"]),
    (
        "interval[]",
        &["array['-1 year -2 mons +3 days -04:05:06.789', '0', '1000000 hours']::interval[]"],
    ),
    // Ranges and types that contain them.
    ("numrange", &["'(,1.5]'", "'(,)'"]),
    (
        "daterange[]",
        &["array['[2026-01-01,infinity)'::daterange, 'empty']"],
    ),
    ("int4multirange", &["'{}'", "'{[1,3),[5,9)}'"]),
    (
        "tstzmultirange[]",
        &["array['{[2026-01-01,2026-02-01),[2026-03-01,)}'::tstzmultirange]"],
    ),
    ("word_range", &["'[\"a b\",\"c,d\"]'"]),
    // Structured texts, such as JSON, XML and text search types.
    (
        "json[]",
        &[r#"array['{"a": "x\\y \"q\" \u0041"}', '[1, 2]', 'null', '""', '1e300']::json[]"#],
    ),
    (
        "jsonb",
        &[
            "'123456789012345678901234567890.123'",
            r#"'[[], {}, "\n"]'"#,
        ],
    ),
    ("json", &["E'{\\n \"k\" :\\t1 }'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    ("xml[]", &["array['<a>1</a>'::xml, 'text']"]),
    ("tsquery", &["'fat & (rat | cat:*)'"]),
    ("tsvector[]", &["array['''it''''s'':1A fat:2,4'::tsvector]"]),
    ("varbit[]", &["array[B'', B'10101']"]),
    // Addresses, shapes and identifiers.
    ("cidr[]", &["array['10.0.0.0/8', '::1/128']::cidr[]"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("line", &["'{1,-2,3.5}'"]),
    ("lseg", &["'[(0,0),(1,1)]'"]),
    ("path[]", &["array['((0,0),(1,2))'::path, '[(0,0),(1,2)]']"]),
    ("polygon", &["'((0,0),(1,1),(1,0))'"]),
    ("circle", &["'<(1,2),3>'"]),
    ("pg_lsn", &["'16/B374D848'"]),
    ("xid", &["'42'"]),
    ("pg_snapshot", &["'10:20:10,14'"]),
    (
        "regtype[]",
        &["array['integer'::regtype, 'text[]'::regtype]"],
    ),
    ("oidvector", &["'1 2'", "''"]),
    // Arrays with several dimensions and with explicit bounds.
    (
        "int[][]",
        &[
            "'{{{1,2},{3,NULL}},{{5,6},{7,8}}}'",
            "'[-1:0][2:3]={{1,2},{3,4}}'",
        ],
    ),
    ("text[]", &["array[array['a,b', '{}'], array['\"', null]]"]),
    // Domains over arrays and rows, rows inside rows, and rows inside arrays inside rows.
    ("few", &["'{1,2}'"]),
    ("few[]", &["array['{1}'::few, '{}'::few]"]),
    ("checked_pair", &["row(1, 'x')::pair"]),
    (
        "tree",
        &[
            r#"row('root', array[row(1, 'in "quotes", (1)')::pair, null], '\x00ff', 'very "happy"', '{[1,2)}')::tree"#,
            "row(null, '{}', null, null, null)::tree",
        ],
    ),
    (
        "tree[]",
        &[r"array[row('a\b', array[row(null, null)::pair], null, 'sad', null)::tree]"],
    ),
];

#[tokio::test]
async fn every_type_is_written_as_by_to_jsonb() {
    let mut columns = String::new();
    let mut values = vec![String::new(); 5];
    for (at, (name, samples)) in VALUES.iter().enumerate() {
        columns.push_str(&format!(", c{at} {name}"));
        for (row, values) in values.iter_mut().enumerate() {
            values.push_str(", ");
            values.push_str(samples.get(row).copied().unwrap_or("null"));
        }
    }
    let values: Vec<_> = (0..)
        .zip(values)
        .map(|(id, row)| format!("({id}{row})"))
        .collect();
    let bench = Bench::new(&format!(
        "create type mood as enum ('sad', 'very \"happy\"');
         create domain positive as int check (value > 0);
         create type pair as (a int, \"b c\" text);
         create domain short as char(4);
         create domain few as int[] check (cardinality(value) < 3);
         create domain checked_pair as pair check ((value).a > 0);
         create type word_range as range (subtype = text);
         create type tree as (name text, parts pair[], raw bytea, mood mood, spans int4multirange);
         create type nested as (p pair, list text[], at timestamptz, doc jsonb);
         create table everything (id int primary key{columns});
         insert into everything values {};
         grant select on everything to authenticated;
         alter publication supabase_realtime add table everything;",
        values.join(", ")
    ))
    .await;
    bench
        .watch(1, &identity("authenticated", 1), "everything")
        .await;
    let relation = bench.relation("everything").await;
    let images = bench.images(&relation, "true").await;
    assert_eq!(images.len(), 5);
    let batch: Vec<_> = images
        .into_iter()
        .map(|new| transaction(&relation, RowChange::Insert { new }))
        .collect();
    let deliveries = bench.resolve(&batch).await;
    assert_eq!(deliveries.len(), 5);
    for delivery in deliveries {
        let written: Value = serde_json::from_slice(&written(&batch, &delivery).0).unwrap();
        let expected: String = bench
            .admin
            .query_one(
                "select to_jsonb(e)::text from everything e where id = $1",
                &[&i32::try_from(delivery.transaction).unwrap()],
            )
            .await
            .unwrap()
            .get(0);
        let expected: Value = serde_json::from_str(&expected).unwrap();
        for (name, expected) in expected.as_object().unwrap() {
            let own = &written[name];
            let is_equal = is_same(own, expected);
            let at: Option<usize> = name.strip_prefix('c').and_then(|at| at.parse().ok());
            let type_name = at.map_or("id", |at| VALUES[at].0);
            assert!(is_equal, "{type_name}: {own} is not {expected}");
        }
    }
}

/// Compares JSON values. Numbers are compared by value, because one may be written with an
/// exponent.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, one)| other.get(key).is_some_and(|other| is_same(one, other)))
        }
        _ => one == other,
    }
}

/// Returns `record` and `old_record` of a delivery with a row.
fn written(
    batch: &[Arc<ChangeTransaction>],
    delivery: &rapport::visibility::Delivery,
) -> (Vec<u8>, Vec<u8>) {
    let change = &batch[delivery.transaction].changes[delivery.change].row;
    let Payload::Row(columns, detail) = &delivery.payload else {
        panic!("expected a row, not {:?}", delivery.payload);
    };
    let (mut new, mut old) = (Vec::new(), Vec::new());
    record::write_record(&mut new, change, columns, *detail);
    record::write_old_record(&mut old, change, columns, *detail);
    (new, old)
}

#[tokio::test]
async fn columns_follow_grants_select_and_options() {
    let bench = Bench::new(
        "create table \"Mixed Case\" (dropped int, id bigint primary key, \"Quoted \"\"Name\"\"\" text, secret text, amount numeric, raw bytea);
         alter table \"Mixed Case\" drop column dropped;
         grant select (id, \"Quoted \"\"Name\"\"\", amount, raw) on \"Mixed Case\" to authenticated;
         grant select on \"Mixed Case\" to anon;
         alter publication supabase_realtime add table \"Mixed Case\";
         insert into \"Mixed Case\" values (9007199254740993, 'v', 's', 1.10, '\\x00ff');",
    )
    .await;
    let everything = json!({"schema": "public", "table": "Mixed Case"});
    let some = json!({"schema": "public", "table": "Mixed Case", "select": ["amount"]});
    bench
        .subscribe(1, &identity("authenticated", 1), everything.clone())
        .await
        .unwrap();
    bench
        .subscribe(2, &identity("authenticated", 1), some)
        .await
        .unwrap();
    bench
        .subscribe(3, &identity("anon", 1), everything.clone())
        .await
        .unwrap();
    bench
        .visibility
        .subscribe(
            ChannelId(4),
            Subscriber {
                options: SubscribeOptions {
                    bigint_as_string: true,
                },
                ..Subscriber::new(identity("authenticated", 1))
            },
            vec![Binding {
                id: 4,
                request: SubscriptionRequest::parse(&everything).unwrap(),
            }],
        )
        .await
        .unwrap();
    let relation = bench.relation("Mixed Case").await;
    let new = bench.images(&relation, "true").await.remove(0);
    let batch = [transaction(&relation, RowChange::Insert { new })];
    let mut deliveries = bench.resolve(&batch).await;
    deliveries.sort_by_key(|delivery| delivery.recipients[0].channel);
    let expected = [
        r#"{"id":9007199254740993,"Quoted \"Name\"":"v","amount":1.10,"raw":"00ff"}"#,
        r#"{"id":9007199254740993,"amount":1.10}"#,
        r#"{"id":9007199254740993,"Quoted \"Name\"":"v","secret":"s","amount":1.10,"raw":"00ff"}"#,
        r#"{"id":"9007199254740993","Quoted \"Name\"":"v","amount":"1.10","raw":"00ff"}"#,
    ];
    assert_eq!(deliveries.len(), expected.len());
    for (delivery, expected) in deliveries.iter().zip(expected) {
        assert_eq!(
            String::from_utf8(written(&batch, delivery).0).unwrap(),
            expected
        );
    }
    let Payload::Row(columns, _) = &deliveries[1].payload else {
        panic!("expected a row");
    };
    assert_eq!(
        columns.header,
        br#"[{"name":"id","type":"int8"},{"name":"amount","type":"numeric"}]"#.as_slice()
    );
}

#[tokio::test]
async fn large_rows_are_reduced_and_unknown_values_omitted() {
    let bench = Bench::new(
        "create table t (id int primary key, short text, long text); grant select on t to anon;
         alter table t replica identity full;
         alter publication supabase_realtime add table t;",
    )
    .await;
    bench
        .run(&format!(
            "insert into t values (1, 'a', repeat('x', {MAX_RECORD_BYTES})), (2, 'b', 'y')"
        ))
        .await;
    bench.watch(1, &identity("anon", 1), "t").await;
    let relation = bench.relation("t").await;
    let images = bench.images(&relation, "true").await;
    let mut partial = images[1].clone();
    partial.0[2] = ColumnValue::Unchanged;
    // The definition of the table before its identity became the whole row.
    let mut by_key = (*relation).clone();
    by_key.identity = ReplicaIdentity::Default;
    for column in &mut by_key.columns {
        column.is_identity = column.name == "id";
    }
    let by_key = Arc::new(by_key);
    let batch = [
        transaction(
            &relation,
            RowChange::Insert {
                new: images[0].clone(),
            },
        ),
        transaction(
            &relation,
            RowChange::Update {
                old: Some(OldRow::Full(images[1].clone())),
                new: partial.clone(),
            },
        ),
        transaction(
            &by_key,
            RowChange::Update {
                old: None,
                new: partial,
            },
        ),
    ];
    let deliveries = bench.resolve(&batch).await;
    let texts: Vec<_> = deliveries
        .iter()
        .map(|delivery| {
            let (new, old) = written(&batch, delivery);
            (
                String::from_utf8(new).unwrap(),
                String::from_utf8(old).unwrap(),
            )
        })
        .collect();
    let text = str::to_owned;
    assert_eq!(
        texts,
        [
            (text(r#"{"id":1,"short":"a"}"#), text("{}")),
            (
                text(r#"{"id":2,"short":"b","long":"y"}"#),
                text(r#"{"id":2,"short":"b","long":"y"}"#)
            ),
            (text(r#"{"id":2,"short":"b"}"#), text(r#"{"id":2}"#)),
        ]
    );
    let details: Vec<_> = deliveries
        .iter()
        .map(|delivery| match &delivery.payload {
            Payload::Row(_, detail) => *detail,
            other => panic!("expected a row, not {other:?}"),
        })
        .collect();
    assert_eq!(
        details,
        [
            RecordDetail::ShortValues,
            RecordDetail::Whole,
            RecordDetail::Whole
        ]
    );
}

#[tokio::test]
async fn a_table_without_primary_key_is_refused_whatever_the_filter() {
    let bench = Bench::new(
        "create table t (a int); grant select on t to anon; alter publication supabase_realtime add table t;",
    )
    .await;
    bench
        .subscribe(
            1,
            &identity("anon", 1),
            json!({"schema": "public", "table": "t", "filter": "a=eq.5"}),
        )
        .await
        .unwrap();
    bench
        .subscribe(2, &identity("anon", 1), json!({"schema": "public"}))
        .await
        .unwrap();
    let seen = bench.insert("t", "insert into t values (1)", "true").await;
    let refused = "Error 400: Bad Request, no primary key";
    assert_eq!(seen[0].refused, [(1, refused), (2, refused)].into());
    // A subscriber whose filter would accept the row does not receive it either.
    bench.visibility.unsubscribe(ChannelId(2));
    let seen = bench.insert("t", "insert into t values (2)", "a = 2").await;
    assert_eq!(seen[0].refused, [(1, refused)].into());
}
