//! A transaction of any size arrives in bounded chunks.

use rapport::config::ReplicationConfig;

use super::streaming::{Received, Signal, Streaming, assert_each_once, flatten, publish_note};
use crate::support::config::replication;
use crate::support::database::TestDatabase;

#[tokio::test]
async fn fifty_thousand_rows_arrive_in_chunks_and_in_order() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    // The queue has room for one event, so the stream must wait for the listener and cannot buffer.
    let mut streaming = Streaming::begin(database.url(), &replication(), 1);
    streaming.listener.until(Signal::Live).await;
    sql.batch_execute(
        "insert into note select id, repeat('x', 100) from generate_series(1, 50000) as id",
    )
    .await
    .unwrap();
    sql.batch_execute("insert into note values (50001, 'next')")
        .await
        .unwrap();

    let mut seen = Vec::new();
    let mut last_flags = Vec::new();
    while seen.len() < 50_001 {
        if let Some(Received::Changes(chunk)) = streaming.listener.next().await {
            last_flags.push((chunk.commit_lsn, chunk.is_last));
            seen.extend(flatten(&chunk));
        }
    }
    assert_each_once(&seen, 50_001);
    assert!(seen.is_sorted_by_key(|change| change.inserted_id()));
    let first = last_flags[0].0;
    let of_first: Vec<bool> = last_flags
        .iter()
        .filter(|(lsn, _)| *lsn == first)
        .map(|(_, is_last)| *is_last)
        .collect();
    assert_eq!(of_first.len(), 50);
    assert_eq!(of_first.iter().filter(|is_last| **is_last).count(), 1);
    assert_eq!(of_first.last(), Some(&true));
    assert!(
        streaming
            .listener
            .chunk_sizes
            .iter()
            .all(|size| *size <= 1_000)
    );
    streaming.stop().await;
}

#[tokio::test]
async fn chunks_are_also_bounded_by_bytes() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let limits = ReplicationConfig {
        chunk_max_bytes: 100_000,
        ..replication()
    };
    let mut streaming = Streaming::start(database.url(), &limits).await;
    sql.batch_execute(
        "insert into note
         select id, repeat('x', case when id = 3 then 300000 else 30000 end)
         from generate_series(1, 7) as id",
    )
    .await
    .unwrap();
    let seen = streaming.changes(7).await;
    assert_each_once(&seen, 7);
    // Three rows of 30 kB are within the limit, and a fourth would exceed it. The large row is a
    // separate chunk.
    assert_eq!(streaming.listener.chunk_sizes, [2, 1, 3, 1]);
    streaming.stop().await;
}
