//! The replication slot is kept, dropped, taken by another process, invalidated, or created before
//! its publication, or it retains too much WAL.

use rapport::config::ReplicationConfig;
use tokio_postgres::Client;

use super::streaming::{Signal, Streaming, assert_each_once, publish_note};
use crate::support::config::replication;
use crate::support::database::{TestDatabase, connect, own_cluster};
use crate::support::eventually::eventually;
use crate::support::slot::{slot, steal_slot};

async fn insert(sql: &Client, id: i64) {
    sql.execute("insert into note values ($1, 'x')", &[&id])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_clean_stop_drops_the_slot() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let streaming = Streaming::start(database.url(), &replication()).await;
    let (name, pid) = slot(&sql).await.unwrap();
    assert_eq!(name, format!("rapport_{}", database.name()));
    assert!(pid.is_some());
    streaming.stop().await;
    assert_eq!(slot(&sql).await, None);
}

#[tokio::test]
async fn a_kept_slot_continues_where_the_last_run_ended() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let keeping = ReplicationConfig {
        keep_slot: true,
        ..replication()
    };
    let mut next = 1;
    for _ in 0..3 {
        let mut streaming = Streaming::start(database.url(), &keeping).await;
        insert(&sql, next).await;
        insert(&sql, next + 1).await;
        // From the second run on, the row written between the runs comes first.
        let expected: Vec<i64> = if next == 1 {
            vec![1, 2]
        } else {
            vec![next - 1, next, next + 1]
        };
        let seen = streaming.changes(expected.len()).await;
        let ids: Vec<i64> = seen.iter().map(|change| change.inserted_id()).collect();
        assert_eq!(ids, expected);
        let listener = streaming.stop().await;
        assert_eq!(listener.signals, [Signal::Live]);
        assert!(slot(&sql).await.is_some());
        insert(&sql, next + 2).await;
        next += 3;
    }
}

#[tokio::test]
async fn a_dropped_slot_is_recreated_and_the_gap_is_announced() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    insert(&sql, 1).await;
    assert_each_once(&streaming.changes(1).await, 1);
    steal_slot(&sql).await;
    // `steal_slot` may take several attempts, each of which interrupts the stream.
    streaming.listener.until(Signal::Gap).await;
    streaming.listener.until(Signal::Live).await;
    insert(&sql, 2).await;
    assert_eq!(streaming.changes(1).await[0].inserted_id(), 2);
    assert_eq!(streaming.metrics.slot_recreated.get(), 1);
    let listener = streaming.stop().await;
    let last = listener.signals.len() - 3;
    assert_eq!(
        listener.signals[last..],
        [Signal::Interrupted, Signal::Gap, Signal::Live]
    );
}

#[tokio::test]
async fn a_slot_that_holds_too_much_wal_is_recreated() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let limited = ReplicationConfig {
        max_wal_held_bytes: 4 << 20,
        chunk_max_changes: 10,
        ..replication()
    };
    let mut streaming = Streaming::begin(database.url(), &limited, 1);
    streaming.listener.until(Signal::Live).await;
    // The listener reads nothing during this insert, so no position is acknowledged.
    sql.batch_execute(
        "insert into note select id, repeat('x', 1000) from generate_series(1, 10000) as id",
    )
    .await
    .unwrap();
    eventually("the slot is dropped", async || {
        (streaming.metrics.slot_recreated.get() > 0).then_some(())
    })
    .await;
    let before = streaming.listener.until(Signal::Gap).await;
    assert!(before.len() < 10_000, "{}", before.len());
    streaming.listener.until(Signal::Live).await;
    insert(&sql, 20_000).await;
    assert_eq!(streaming.changes(1).await[0].inserted_id(), 20_000);
    streaming.stop().await;
    assert_eq!(slot(&sql).await, None);
}

#[tokio::test]
async fn an_invalidated_slot_is_recreated() {
    let cluster = own_cluster().await;
    let url = cluster.url_for("postgres");
    let sql = connect(&url).await;
    publish_note(&sql).await;
    let small = ReplicationConfig {
        chunk_max_changes: 10,
        ..replication()
    };
    let mut streaming = Streaming::begin(&url, &small, 1);
    streaming.listener.until(Signal::Live).await;
    sql.batch_execute("alter system set max_slot_wal_keep_size = '1MB'")
        .await
        .unwrap();
    sql.batch_execute("select pg_reload_conf()").await.unwrap();
    sql.batch_execute(
        "insert into note select id, repeat('x', 1000) from generate_series(1, 5000) as id",
    )
    .await
    .unwrap();
    eventually("the slot is replaced", async || {
        sql.batch_execute(
            "create table if not exists filler (t text); insert into filler values ('x')",
        )
        .await
        .unwrap();
        sql.batch_execute("select pg_switch_wal()").await.unwrap();
        sql.batch_execute("checkpoint").await.unwrap();
        (streaming.metrics.slot_recreated.get() > 0).then_some(())
    })
    .await;
    sql.batch_execute("alter system reset max_slot_wal_keep_size")
        .await
        .unwrap();
    sql.batch_execute("select pg_reload_conf()").await.unwrap();
    // The last checkpoint may also have invalidated the new slot.
    eventually("a usable slot is read", async || {
        sql.query_opt(
            "select 1 from pg_replication_slots where active and wal_status <> 'lost'",
            &[],
        )
        .await
        .unwrap()
        .map(|_| ())
    })
    .await;
    streaming.listener.until(Signal::Gap).await;
    streaming.listener.until(Signal::Live).await;
    insert(&sql, 20_000).await;
    assert_eq!(streaming.changes(1).await[0].inserted_id(), 20_000);
    streaming.stop().await;
}

#[tokio::test]
async fn a_slot_older_than_its_publication_is_recreated() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    sql.batch_execute("create table note (id bigint primary key, title text)")
        .await
        .unwrap();
    sql.execute(
        "select pg_create_logical_replication_slot($1, 'pgoutput')",
        &[&format!("rapport_{}", database.name())],
    )
    .await
    .unwrap();
    // PostgreSQL decodes a row with the catalogue as it was when the row was inserted. The
    // publication did not exist then.
    insert(&sql, 1).await;
    sql.batch_execute("create publication supabase_realtime for table note")
        .await
        .unwrap();
    let version: i32 = sql
        .query_one("select current_setting('server_version_num')::int", &[])
        .await
        .unwrap()
        .get(0);
    let mut streaming = Streaming::begin(database.url(), &replication(), 8);
    // Since version 18, PostgreSQL skips changes that precede the publication, so the slot works
    // like a new one.
    if version < 180_000 {
        streaming.listener.until(Signal::Gap).await;
    }
    streaming.listener.until(Signal::Live).await;
    insert(&sql, 2).await;
    assert_eq!(streaming.changes(1).await[0].inserted_id(), 2);
    streaming.stop().await;
}

#[tokio::test]
async fn an_idle_slot_does_not_hold_the_wal_of_other_databases() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let streaming = Streaming::start(database.url(), &replication()).await;
    // The table is not published, so the listener does not receive its rows.
    sql.batch_execute(
        "create table other (t text); insert into other select repeat('x', 1000) from generate_series(1, 3000)",
    )
    .await
    .unwrap();
    let written: tokio_postgres::types::PgLsn = sql
        .query_one("select pg_current_wal_insert_lsn()", &[])
        .await
        .unwrap()
        .get(0);
    eventually("the WAL of the other table is acknowledged", async || {
        let row = sql
            .query_one(
                "select confirmed_flush_lsn from pg_replication_slots where database = current_database()",
                &[],
            )
            .await
            .unwrap();
        (row.get::<_, tokio_postgres::types::PgLsn>(0) >= written).then_some(())
    })
    .await;
    streaming.stop().await;
}

#[tokio::test]
async fn a_stop_during_slot_creation_leaves_no_slot() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    // The creation of a slot waits for this transaction.
    let mut holder = database.connect().await;
    let open = holder.transaction().await.unwrap();
    open.execute("insert into note values (1, 'x')", &[])
        .await
        .unwrap();
    let streaming = Streaming::begin(database.url(), &replication(), 8);
    eventually("the slot is being created", async || {
        slot(&sql).await.map(|_| ())
    })
    .await;
    streaming.stop().await;
    open.commit().await.unwrap();
    eventually("no slot is left", async || {
        slot(&sql).await.is_none().then_some(())
    })
    .await;
}
