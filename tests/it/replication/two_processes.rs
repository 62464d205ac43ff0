//! One process reads the slot, and another waits until it ends.

use super::streaming::{Signal, Streaming, publish_note};
use crate::support::chaos::ChaosProxy;
use crate::support::config::replication;
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::slot::slot;

#[tokio::test]
async fn a_second_process_waits_and_takes_over_when_the_first_stops() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    let mut first = Streaming::start(database.url(), &replication()).await;
    let mut second = Streaming::begin(database.url(), &replication(), 8);
    eventually("the second process has found the slot in use", async || {
        (second.metrics.reconnects.get() > 1).then_some(())
    })
    .await;
    sql.batch_execute("insert into note values (1, 'x')")
        .await
        .unwrap();
    assert_eq!(first.changes(1).await[0].inserted_id(), 1);
    let listener = first.stop().await;
    assert_eq!(
        listener.signals,
        [Signal::Live],
        "the first process was not interrupted"
    );

    second.ready().await;
    sql.batch_execute("insert into note values (2, 'y')")
        .await
        .unwrap();
    assert_eq!(second.changes(1).await[0].inserted_id(), 2);
    second.stop().await;
    assert_eq!(slot(&sql).await, None);
}

#[tokio::test]
async fn a_silent_process_loses_the_slot() {
    let database = TestDatabase::bare().await;
    let sql = database.connect().await;
    publish_note(&sql).await;
    // The long timeout of PostgreSQL ensures that the second process takes over only because the
    // first one is silent.
    sql.batch_execute(&format!(
        "alter database {} set wal_sender_timeout = '10min'",
        database.name()
    ))
    .await
    .unwrap();
    let (proxy, through) = ChaosProxy::before(database.url()).await;
    let first = Streaming::start(&through, &replication()).await;
    let (_, first_pid) = slot(&sql).await.unwrap();
    proxy.pause();
    let second = Streaming::begin(database.url(), &replication(), 8);
    second.ready().await;
    let (_, second_pid) = slot(&sql).await.unwrap();
    assert_ne!(first_pid, second_pid);
    proxy.refuse(true);
    proxy.cut();
    first.stop().await;
    assert!(
        slot(&sql).await.is_some(),
        "the second process has the slot"
    );
    second.stop().await;
    assert_eq!(slot(&sql).await, None);
}
