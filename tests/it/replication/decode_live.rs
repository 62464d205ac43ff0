//! Decodes the output of a real PostgreSQL: actions, identities, TOAST, schema changes, settings.

use rapport::change::{ColumnValue, ReplicaIdentity, RowChange};
use rapport::observability::readiness::ReplicationState;
use rapport::replication::published_tables;

use super::streaming::{Signal, Streaming, publish_note};
use crate::support::config::replication;
use crate::support::database::{TestDatabase, connect};

#[tokio::test]
async fn every_action_and_every_replica_identity() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    sql.batch_execute(
        "create table by_key (id int primary key, title text);
         create table by_full (id int primary key, title text);
         create table by_index (id int primary key, code text not null, title text);
         create unique index by_index_code on by_index (code);
         create table by_nothing (id int primary key, title text);
         alter table by_full replica identity full;
         alter table by_index replica identity using index by_index_code;
         alter table by_nothing replica identity nothing;
         create publication supabase_realtime for all tables;",
    )
    .await
    .unwrap();
    let mut streaming = Streaming::start(database.url(), &replication()).await;

    let statements = [
        "insert into by_key values (1, 'a'), (2, null)",
        "update by_key set title = 'b' where id = 1",
        "update by_key set id = 3 where id = 1",
        "delete from by_key where id = 3",
        "insert into by_full values (1, 'ä')",
        "update by_full set title = '' where id = 1",
        "delete from by_full",
        "insert into by_index values (1, 'x', 'a')",
        "update by_index set title = 'b'",
        "update by_index set code = 'y'",
        "delete from by_index",
        "insert into by_nothing values (1, 'a')",
        "truncate by_key, by_full",
        "insert into by_key values (9, 'after')",
    ];
    for statement in statements {
        sql.batch_execute(statement).await.unwrap();
    }
    let expected = [
        "INSERT by_key new(id=1,title=a)",
        "INSERT by_key new(id=2,title=~)",
        "UPDATE by_key new(id=1,title=b)",
        "UPDATE by_key key(id=1,title=~) new(id=3,title=b)",
        "DELETE by_key key(id=3,title=~)",
        "INSERT by_full new(id=1,title=ä)",
        "UPDATE by_full old(id=1,title=ä) new(id=1,title=)",
        "DELETE by_full old(id=1,title=)",
        "INSERT by_index new(id=1,code=x,title=a)",
        "UPDATE by_index new(id=1,code=x,title=b)",
        "UPDATE by_index key(id=~,code=x,title=~) new(id=1,code=y,title=b)",
        "DELETE by_index key(id=~,code=y,title=~)",
        "INSERT by_nothing new(id=1,title=a)",
        "INSERT by_key new(id=9,title=after)",
    ];
    let seen = streaming.changes(expected.len()).await;
    let lines: Vec<String> = seen.iter().map(|change| change.line()).collect();
    assert_eq!(lines, expected);
    let identities = [(0, ReplicaIdentity::Default), (5, ReplicaIdentity::Full)];
    for (index, identity) in identities {
        assert_eq!(seen[index].event.relation.identity, identity);
    }
    assert_eq!(seen[8].event.relation.identity, ReplicaIdentity::Index);
    assert_eq!(seen[12].event.relation.identity, ReplicaIdentity::Nothing);
    assert!(seen[0].event.relation.columns[0].is_identity);
    assert_eq!(seen[0].event.relation.table.schema, "public");

    assert_eq!(streaming.metrics.truncated_tables.get(), 2);
    assert_eq!(streaming.metrics.changes.get(), expected.len() as u64);
    assert_eq!(streaming.metrics.transactions.get(), 13);
    assert!(streaming.metrics.bytes.get() > 0);
    assert_eq!(
        streaming.readiness.report().replication,
        ReplicationState::Streaming
    );
    let status = streaming.replication.status().borrow().clone();
    assert_eq!(
        status.last_commit.map(|(lsn, _)| lsn),
        seen.last().map(|change| change.commit_lsn)
    );

    let facts: Vec<_> = published_tables(&sql, "supabase_realtime")
        .await
        .unwrap()
        .into_iter()
        .map(|fact| (fact.table.name, fact.identity, fact.can_update))
        .collect();
    assert_eq!(
        facts,
        [
            ("by_full".to_owned(), ReplicaIdentity::Full, true),
            ("by_index".to_owned(), ReplicaIdentity::Index, true),
            ("by_key".to_owned(), ReplicaIdentity::Default, true),
            ("by_nothing".to_owned(), ReplicaIdentity::Nothing, false),
        ]
    );
    streaming.stop().await;
}

#[tokio::test]
async fn an_unchanged_toasted_value_is_marked() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    sql.batch_execute(
        "create table note (id int primary key, body text, title text);
         create table full_note (id int primary key, body text, title text);
         alter table note alter body set storage external;
         alter table full_note alter body set storage external;
         alter table full_note replica identity full;
         create publication supabase_realtime for table note, full_note;",
    )
    .await
    .unwrap();
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    sql.batch_execute(
        "insert into note values (1, repeat('x', 20000), 'a');
         update note set title = 'b';
         insert into full_note values (1, repeat('y', 20000), 'a');
         update full_note set title = 'b';",
    )
    .await
    .unwrap();
    let seen = streaming.changes(4).await;
    assert_eq!(seen[1].line(), "UPDATE note new(id=1,body=…,title=b)");
    // With a full identity, the old row image contains the value.
    let body = "y".repeat(20_000);
    assert_eq!(
        seen[3].line(),
        format!("UPDATE full_note old(id=1,body={body},title=a) new(id=1,body=…,title=b)")
    );
    let RowChange::Update { new, .. } = &seen[1].event.row else {
        panic!("an update");
    };
    assert_eq!(new.0[1], ColumnValue::Unchanged);
    streaming.stop().await;
}

#[tokio::test]
async fn the_schema_changes_while_streaming() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    let statements = [
        "insert into note values (1, 'a')",
        "alter table note add column pinned boolean not null default false",
        "insert into note values (2, 'b', true)",
        "alter table note drop column title",
        "insert into note values (3, true)",
        "alter table note rename column pinned to is_pinned",
        "insert into note values (4, false)",
        "create table late (id int primary key)",
        "insert into late values (1)",
        "alter publication supabase_realtime add table late",
        "insert into late values (2)",
        "alter publication supabase_realtime drop table note",
        "insert into note values (5, false)",
        "alter table late rename to later",
        "begin; alter table later add column word text; insert into later values (3, 'x');
         alter table later drop column word; insert into later values (4); commit",
    ];
    for statement in statements {
        sql.batch_execute(statement).await.unwrap();
    }
    assert_eq!(
        streaming.lines(7).await,
        [
            "INSERT note new(id=1,title=a)",
            "INSERT note new(id=2,title=b,pinned=t)",
            "INSERT note new(id=3,pinned=t)",
            "INSERT note new(id=4,is_pinned=f)",
            "INSERT late new(id=2)",
            "INSERT later new(id=3,word=x)",
            "INSERT later new(id=4)",
        ]
    );
    streaming.stop().await;
}

#[tokio::test]
async fn values_do_not_depend_on_settings_of_the_database() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    sql.batch_execute(&format!(
        "create table value (
             id int primary key, day date, moment timestamptz, span interval, raw bytea,
             number float8, relation regclass);
         create publication supabase_realtime for table value;
         alter database {name} set datestyle = 'SQL, DMY';
         alter database {name} set timezone = 'Asia/Kathmandu';
         alter database {name} set intervalstyle = 'iso_8601';
         alter database {name} set bytea_output = 'escape';
         alter database {name} set extra_float_digits = -10;
         alter database {name} set search_path = 'public';",
        name = database.name()
    ))
    .await
    .unwrap();
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    // The settings of the writer have no effect. A new connection shows that they have changed.
    let other = connect(database.url()).await;
    let row = other
        .query_one(
            "select to_char(timestamptz '2024-02-03 00:00Z', 'OF'), current_setting('datestyle')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "+05:45");
    assert_eq!(row.get::<_, &str>(1), "SQL, DMY");
    other
        .batch_execute(
            "insert into value values (1, date '2024-02-03', timestamptz '2024-02-03 04:05:06.789Z',
                 interval '1 year 2 days 03:04:05', '\\x00ff'::bytea, 0.1::float8 + 0.2::float8, 'value')",
        )
        .await
        .unwrap();
    assert_eq!(
        streaming.lines(1).await,
        [
            "INSERT value new(id=1,day=2024-02-03,moment=2024-02-03 04:05:06.789+00,\
          span=1 year 2 days 03:04:05,raw=\\x00ff,number=0.30000000000000004,relation=public.value)"
        ]
    );
    streaming.stop().await;
}

#[tokio::test]
async fn a_missing_publication_is_created_and_its_tables_come_later() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    sql.batch_execute("create table note (id bigint primary key, title text)")
        .await
        .unwrap();
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    sql.batch_execute(
        "alter publication supabase_realtime add table note; insert into note values (1, 'x')",
    )
    .await
    .unwrap();
    let seen = streaming.changes(1).await;
    assert_eq!(seen[0].line(), "INSERT note new(id=1,title=x)");
    let listener = streaming.stop().await;
    assert_eq!(listener.signals, [Signal::Live]);
}
