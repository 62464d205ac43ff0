//! Connections break and servers restart, but every row still arrives once and in commit order.

use std::time::{Duration, Instant};

use rapport::config::ReplicationConfig;

use super::streaming::{
    Received, Seen, Signal, Streaming, assert_each_once, flatten, publish_note,
};
use crate::support::chaos::ChaosProxy;
use crate::support::config::replication;
use crate::support::database::{TestDatabase, connect, own_cluster};
use crate::support::eventually::eventually;
use crate::support::slot::{kill_walsender, slot};

/// Writes 1 to `count` in transactions of one to seven rows.
async fn write_rows(url: String, count: i64) {
    let sql = connect(&url).await;
    let mut next = 1;
    while next <= count {
        let last = (next + next % 7).min(count);
        sql.execute(
            "insert into note select id, 'row ' || id from generate_series($1::bigint, $2::bigint) as id",
            &[&next, &last],
        )
        .await
        .unwrap();
        next = last + 1;
    }
}

fn commits_in_order(seen: &[Seen]) -> bool {
    seen.is_sorted_by_key(|change| (change.commit_lsn, change.ordinal))
}

#[tokio::test]
async fn walsenders_are_killed_while_rows_are_written() {
    const ROWS: i64 = 3_000;
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    let writing = write_rows(database.url().to_owned(), ROWS);
    let killing = async {
        for _ in 0..8 {
            kill_walsender(&sql).await;
        }
    };
    let (seen, (), ()) = tokio::join!(streaming.listener.changes(ROWS as usize), writing, killing);
    assert_each_once(&seen, ROWS);
    assert!(commits_in_order(&seen));
    // The last kills may happen after the last row, so one more row is written.
    sql.batch_execute("insert into note values (0, 'end')")
        .await
        .unwrap();
    assert_eq!(streaming.changes(1).await[0].inserted_id(), 0);
    let listener = streaming.stop().await;
    assert!(listener.signals.contains(&Signal::Interrupted));
    assert!(!listener.signals.contains(&Signal::Gap));
}

#[tokio::test]
async fn after_a_kill_inside_a_transaction_the_stream_continues_where_it_stopped() {
    const ROWS: usize = 20_000;
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let small = ReplicationConfig {
        chunk_max_changes: 100,
        ..replication()
    };
    let mut streaming = Streaming::begin(database.url(), &small, 1);
    streaming.listener.until(Signal::Live).await;
    sql.batch_execute(
        "insert into note select id, repeat('x', 500) from generate_series(1, 20000) as id",
    )
    .await
    .unwrap();
    let mut seen = Vec::new();
    let mut kills = 0;
    while seen.len() < ROWS {
        if let Some(Received::Changes(chunk)) = streaming.listener.next().await {
            assert!(seen.len() + chunk.changes.len() == ROWS || !chunk.is_last);
            seen.extend(flatten(&chunk));
            if kills < 4 && seen.len() >= (kills + 1) * 3_000 {
                kills += 1;
                kill_walsender(&sql).await;
            }
        }
    }
    assert_eq!(kills, 4);
    assert_each_once(&seen, ROWS as i64);
    let commit = seen[0].commit_lsn;
    assert!(seen.iter().all(|change| change.commit_lsn == commit));
    let interruptions = streaming
        .listener
        .signals
        .iter()
        .filter(|signal| **signal == Signal::Interrupted)
        .count();
    assert!(interruptions >= 1, "{:?}", streaming.listener.signals);
    streaming.stop().await;
}

#[tokio::test]
async fn postgres_stops_fast_while_streaming_and_nothing_is_lost_over_the_restart() {
    let cluster = std::sync::Arc::new(own_cluster().await);
    let url = cluster.url_for("postgres");
    let sql = connect(&url).await;
    publish_note(&sql).await;
    let mut streaming = Streaming::start(&url, &replication()).await;
    write_rows(url.clone(), 100).await;
    // The queue has room for all rows, so the stream hands them over although the test does not
    // read them here. Changes that are not published must also be acknowledged.
    sql.batch_execute("create table other (t text); insert into other values ('x')")
        .await
        .unwrap();
    drop(sql);

    let stopping = std::sync::Arc::clone(&cluster);
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || stopping.stop())
        .await
        .unwrap()
        .unwrap();
    let took = begun.elapsed();
    // PostgreSQL waits until the walsender's client has confirmed everything.
    assert!(
        took < Duration::from_secs(5),
        "the fast shutdown took {took:?}"
    );

    let resuming = std::sync::Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || resuming.resume())
        .await
        .unwrap()
        .unwrap();
    let seen = streaming.changes(100).await;
    assert_each_once(&seen, 100);
    streaming.listener.until(Signal::Live).await;
    let sql = connect(&url).await;
    sql.batch_execute("insert into note values (101, 'after')")
        .await
        .unwrap();
    assert_eq!(streaming.changes(1).await[0].inserted_id(), 101);
    assert!(streaming.metrics.reconnects.get() >= 1);
    let listener = streaming.stop().await;
    assert!(listener.signals.contains(&Signal::Interrupted));
    assert!(
        !listener.signals.contains(&Signal::Gap),
        "{:?}",
        listener.signals
    );
}

#[tokio::test]
async fn a_connection_may_be_cut_anywhere_in_a_message() {
    const ROWS: i64 = 2_000;
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let (proxy, through) = ChaosProxy::before(database.url()).await;
    let mut streaming = Streaming::start(&through, &replication()).await;
    let writing = write_rows(database.url().to_owned(), ROWS);
    let cutting = async {
        for bytes in [0, 1, 7, 333, 1_001, 4_097, 9_999] {
            proxy.cut_after(bytes);
            eventually("the cut", async || (!proxy.will_cut()).then_some(())).await;
        }
        proxy.refuse(true);
        proxy.cut();
        proxy.refuse(false);
    };
    let (seen, (), ()) = tokio::join!(streaming.listener.changes(ROWS as usize), writing, cutting);
    assert_each_once(&seen, ROWS);
    assert!(commits_in_order(&seen));
    let listener = streaming.stop().await;
    assert!(listener.signals.contains(&Signal::Interrupted));
    assert!(!listener.signals.contains(&Signal::Gap));
}

#[tokio::test]
async fn a_dead_network_is_noticed() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let (proxy, through) = ChaosProxy::before(database.url()).await;
    let mut streaming = Streaming::start(&through, &replication()).await;
    // Packets are dropped silently. The stream notices because its check of the slot gets no
    // response.
    proxy.pause();
    sql.batch_execute("insert into note values (1, 'x')")
        .await
        .unwrap();
    streaming.listener.until(Signal::Interrupted).await;
    proxy.resume();
    let seen = streaming.changes(1).await;
    assert_each_once(&seen, 1);
    streaming.stop().await;
}

#[tokio::test]
async fn a_full_sink_stops_the_reading_but_not_the_keepalives() {
    const ROWS: i64 = 30_000;
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    // PostgreSQL disconnects a client that is silent for this long. The value is a sixtieth of the
    // default.
    sql.batch_execute(&format!(
        "alter database {} set wal_sender_timeout = '1s'",
        database.name()
    ))
    .await
    .unwrap();
    let small = ReplicationConfig {
        chunk_max_changes: 10,
        ..replication()
    };
    let mut streaming = Streaming::begin(database.url(), &small, 1);
    streaming.listener.until(Signal::Live).await;
    sql.batch_execute(
        "insert into note select id, repeat('x', 500) from generate_series(1, 30000) as id",
    )
    .await
    .unwrap();
    // For three timeouts, measured by the server's clock, the test reads nothing.
    let blocked_since: f64 = sql
        .query_one("select extract(epoch from clock_timestamp())::float8", &[])
        .await
        .unwrap()
        .get(0);
    eventually("three timeouts have passed", async || {
        let now: f64 = sql
            .query_one("select extract(epoch from clock_timestamp())::float8", &[])
            .await
            .unwrap()
            .get(0);
        (now - blocked_since > 3.0).then_some(())
    })
    .await;
    assert!(slot(&sql).await.unwrap().1.is_some(), "still connected");
    let confirmed: u64 = sql
        .query_one(
            "select confirmed_flush_lsn from pg_replication_slots
             where database = current_database()",
            &[],
        )
        .await
        .unwrap()
        .get::<_, tokio_postgres::types::PgLsn>(0)
        .into();
    let seen = streaming.changes(ROWS as usize).await;
    assert_each_once(&seen, ROWS);
    assert!(
        confirmed <= seen[0].commit_lsn.0,
        "acknowledged before handover"
    );
    let listener = streaming.stop().await;
    assert_eq!(listener.signals, [Signal::Live]);
}

#[tokio::test]
async fn the_database_may_start_later() {
    let cluster = std::sync::Arc::new(own_cluster().await);
    let url = cluster.url_for("postgres");
    publish_note(&connect(&url).await).await;
    let stopping = std::sync::Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || stopping.stop())
        .await
        .unwrap()
        .unwrap();
    let mut streaming = Streaming::begin(&url, &replication(), 8);
    eventually("a first attempt has failed", async || {
        (streaming.metrics.reconnects.get() > 0).then_some(())
    })
    .await;
    let resuming = std::sync::Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || resuming.resume())
        .await
        .unwrap()
        .unwrap();
    streaming.ready().await;
    let sql = connect(&url).await;
    sql.batch_execute("insert into note values (1, 'x')")
        .await
        .unwrap();
    assert_each_once(&streaming.changes(1).await, 1);
    let listener = streaming.stop().await;
    assert_eq!(listener.signals, [Signal::Live]);
    assert_eq!(slot(&sql).await, None);
}
