//! Rows of `realtime.messages` arrive once, in order, and separately from row changes. This holds
//! whatever happens to the slot, the publications and the partitions.

use rapport::change::ColumnValue;
use rapport::replication::MESSAGES_PUBLICATION;
use tokio_postgres::Client;

use super::streaming::{Signal, Streaming, text};
use crate::support::config::replication;
use crate::support::database::TestDatabase;
use crate::support::slot::{kill_walsender, slot, steal_slot};

/// Returns the events of the next `count` messages.
async fn events(streaming: &mut Streaming, count: usize) -> Vec<String> {
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let next = tokio::time::timeout(
            std::time::Duration::from_secs(60),
            streaming.messages.recv(),
        );
        let inserted = next.await.expect("a message within a minute").unwrap();
        for (relation, row) in inserted.rows {
            let place = relation
                .columns
                .iter()
                .position(|column| column.name == "event");
            events.push(text(&row.0[place.unwrap()]).to_owned());
        }
    }
    assert_eq!(events.len(), count, "more than expected: {events:?}");
    events
}

/// Waits until the stream has started to read the publication of messages, or has stopped reading
/// it.
async fn until_live(streaming: &mut Streaming, expected: bool) {
    let waiting = streaming.messages_live.wait_for(|live| *live == expected);
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting)
        .await
        .expect("the publication is noticed within a minute")
        .unwrap();
}

async fn send(sql: &Client, event: &str) {
    sql.execute("select realtime.send('{}', $1, 'room', false)", &[&event])
        .await
        .unwrap();
}

async fn publish(sql: &Client) {
    sql.batch_execute(&format!(
        "create publication {MESSAGES_PUBLICATION} for table realtime.messages"
    ))
    .await
    .unwrap();
}

async fn unpublish(sql: &Client) {
    sql.batch_execute(&format!("drop publication {MESSAGES_PUBLICATION}"))
        .await
        .unwrap();
}

/// Creates a published table for row changes.
async fn add_note(sql: &Client) {
    sql.batch_execute(
        "create table note (id bigint primary key, title text);
         alter publication supabase_realtime add table note;",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn messages_are_separate_from_changes_and_arrive_only_when_committed() {
    let database = TestDatabase::new().await;
    let mut sql = database.connect().await;
    add_note(&sql).await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    until_live(&mut streaming, true).await;
    let rolled_back = sql.transaction().await.unwrap();
    rolled_back
        .batch_execute("select realtime.send('{}', 'never', 'room', false)")
        .await
        .unwrap();
    rolled_back.rollback().await.unwrap();
    sql.batch_execute(
        "begin;
         insert into note values (1, 'x');
         select realtime.send('{}', 'first', 'room', false);
         update note set title = 'y';
         savepoint undone;
         select realtime.send('{}', 'undone', 'room', false);
         rollback to undone;
         insert into realtime.messages (topic, extension, event) values ('room', 'broadcast', 'direct');
         update realtime.messages set topic = 'other';
         commit;
         delete from realtime.messages;",
    )
    .await
    .unwrap();
    send(&sql, "last").await;
    assert_eq!(events(&mut streaming, 3).await, ["first", "direct", "last"]);
    assert_eq!(
        streaming.lines(2).await,
        [
            "INSERT note new(id=1,title=x)",
            "UPDATE note new(id=1,title=y)"
        ]
    );
    assert_eq!(streaming.metrics.messages.get(), 3);
    streaming.stop().await;
}

#[tokio::test]
async fn messages_published_twice_are_not_row_changes() {
    let database = TestDatabase::new().await;
    let sql = database.connect().await;
    add_note(&sql).await;
    sql.batch_execute("alter publication supabase_realtime add table realtime.messages")
        .await
        .unwrap();
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    // With this option off, the WAL names the partition instead of the table.
    for (at, root) in ["false", "true", "false"].into_iter().enumerate() {
        sql.batch_execute(&format!(
            "alter publication supabase_realtime set (publish_via_partition_root = {root})"
        ))
        .await
        .unwrap();
        let event = format!("message {at}");
        send(&sql, &event).await;
        assert_eq!(events(&mut streaming, 1).await, [event]);
    }
    sql.batch_execute("insert into note values (1, 'x')")
        .await
        .unwrap();
    assert_eq!(streaming.lines(1).await, ["INSERT note new(id=1,title=x)"]);
    streaming.stop().await;
}

/// Receives until there are `messages` messages and `changes` changes, and kills the walsender at
/// every 700th message. Both queues are read continuously, because messages wait while the queue of
/// changes is full.
async fn take_both(
    streaming: &mut Streaming,
    sql: &Client,
    seen: &mut Vec<String>,
    messages: usize,
    taken: &mut usize,
    changes: usize,
) {
    while seen.len() < messages || *taken < changes {
        tokio::select! {
            inserted = streaming.messages.recv() => for (relation, row) in inserted.unwrap().rows {
                let place = relation.columns.iter().position(|column| column.name == "event");
                let ColumnValue::Text(event) = &row.0[place.unwrap()] else { panic!("an event") };
                seen.push(String::from_utf8(event.to_vec()).unwrap());
                if seen.len().is_multiple_of(700) {
                    kill_walsender(sql).await;
                }
            },
            received = streaming.listener.next() => {
                if let Some(super::streaming::Received::Changes(chunk)) = received {
                    *taken += chunk.changes.len();
                }
            }
        }
    }
}

#[tokio::test]
async fn a_thousand_messages_of_a_transaction_survive_killed_walsenders_in_order() {
    let database = TestDatabase::new().await;
    let sql = database.connect().await;
    add_note(&sql).await;
    let small = rapport::config::ReplicationConfig {
        chunk_max_changes: 50,
        ..replication()
    };
    // The queue has room for one chunk, so that a connection dies while the stream waits to hand
    // over the next one.
    let mut streaming = Streaming::begin(database.url(), &small, 1);
    streaming.listener.until(Signal::Live).await;
    let mut expected = Vec::new();
    let mut seen = Vec::new();
    let mut changes = 0;
    for round in 0..3 {
        sql.batch_execute(&format!(
            "insert into note
             select {round} * 1000 + n, realtime.send('{{}}', '{round}.' || n, 'room', false)::text
             from generate_series(1, 1000) n"
        ))
        .await
        .unwrap();
        expected.extend((1..=1000).map(|n| format!("{round}.{n}")));
        kill_walsender(&sql).await;
        take_both(
            &mut streaming,
            &sql,
            &mut seen,
            expected.len(),
            &mut changes,
            expected.len(),
        )
        .await;
    }
    let all = expected.len();
    send(&sql, "last").await;
    expected.push("last".to_owned());
    take_both(&mut streaming, &sql, &mut seen, all + 1, &mut changes, all).await;
    assert_eq!(seen, expected);
    assert_eq!(changes, all);
    assert!(!streaming.listener.signals.contains(&Signal::Gap));
    drop(streaming);
}

#[tokio::test]
async fn creating_and_dropping_a_publication_loses_no_change() {
    let database = TestDatabase::new().await;
    let mut sql = database.connect().await;
    add_note(&sql).await;
    unpublish(&sql).await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    until_live(&mut streaming, false).await;
    send(&sql, "before").await;
    let mut seen = Vec::new();
    for round in 0..2 {
        // This transaction is open while the publication is created. Its rows can be decoded only
        // without the publication.
        let open = sql.transaction().await.unwrap();
        open.execute(
            "insert into note values ($1, 'open')",
            &[&(10 * round + 1_i64)],
        )
        .await
        .unwrap();
        publish(&database.connect().await).await;
        open.commit().await.unwrap();
        seen.extend(streaming.listener.until(Signal::Live).await);
        until_live(&mut streaming, true).await;
        send(&sql, &format!("after {round}")).await;
        sql.execute(
            "insert into note values ($1, 'x')",
            &[&(10 * round + 2_i64)],
        )
        .await
        .unwrap();
        assert_eq!(events(&mut streaming, 1).await, [format!("after {round}")]);
        unpublish(&sql).await;
        sql.execute(
            "insert into note values ($1, 'y')",
            &[&(10 * round + 3_i64)],
        )
        .await
        .unwrap();
        until_live(&mut streaming, false).await;
        seen.extend(streaming.listener.until(Signal::Live).await);
    }
    let rest = 6 - seen.len();
    seen.extend(streaming.changes(rest).await);
    let ids: Vec<i64> = seen.iter().map(|change| change.inserted_id()).collect();
    assert_eq!(ids, [1, 2, 3, 11, 12, 13]);
    assert!(!streaming.listener.signals.contains(&Signal::Gap));
    streaming.stop().await;
}

#[tokio::test]
async fn messages_are_read_if_row_changes_have_no_publication() {
    let database = TestDatabase::new().await;
    let sql = database.connect().await;
    let role = format!("reader_{}", database.name());
    sql.batch_execute(&format!(
        "drop publication supabase_realtime;
         create role {role} login replication password 'x';
         create table note (id bigint primary key, title text);"
    ))
    .await
    .unwrap();
    let (_, address) = database.url().split_once('@').unwrap();
    let url = format!("postgres://{role}:x@{address}");
    let mut streaming = Streaming::start(&url, &replication()).await;
    until_live(&mut streaming, true).await;
    send(&sql, "first").await;
    assert_eq!(events(&mut streaming, 1).await, ["first"]);
    // Row changes are read as well once their publication exists.
    sql.batch_execute("create publication supabase_realtime for table note")
        .await
        .unwrap();
    streaming.listener.until(Signal::Live).await;
    sql.batch_execute("insert into note values (1, 'x')")
        .await
        .unwrap();
    assert_eq!(streaming.lines(1).await, ["INSERT note new(id=1,title=x)"]);
    send(&sql, "second").await;
    assert_eq!(events(&mut streaming, 1).await, ["second"]);
    assert!(!streaming.listener.signals.contains(&Signal::Gap));
    streaming.stop().await;
    sql.batch_execute(&format!("drop role {role}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lost_slot_repeats_no_message() {
    let database = TestDatabase::new().await;
    let sql = database.connect().await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    send(&sql, "before").await;
    assert_eq!(events(&mut streaming, 1).await, ["before"]);
    steal_slot(&sql).await;
    streaming.listener.until(Signal::Gap).await;
    streaming.listener.until(Signal::Live).await;
    send(&sql, "after").await;
    assert_eq!(events(&mut streaming, 1).await, ["after"]);
    streaming.stop().await;
    assert_eq!(slot(&sql).await, None);
}

#[tokio::test]
async fn rows_that_move_to_the_partition_of_their_day_are_not_repeated() {
    let database = TestDatabase::new().await;
    let sql = database.connect().await;
    let mut streaming = Streaming::start(database.url(), &replication()).await;
    sql.batch_execute(
        "insert into realtime.messages (topic, extension, event, inserted_at)
         values ('room', 'broadcast', 'far', current_date + 40), ('room', 'broadcast', 'near', now())",
    )
    .await
    .unwrap();
    assert_eq!(events(&mut streaming, 2).await, ["far", "near"]);
    let made: i32 = sql
        .query_one("select chat.maintain_message_partitions(45, 3)", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(made, 15);
    let home: String = sql
        .query_one(
            "select tableoid::regclass::text from realtime.messages where event = 'far'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(home.starts_with("realtime.messages_2"), "{home}");
    // The maintenance attaches a partition with a row, leaves a row in the default partition, and
    // drops an old partition.
    sql.batch_execute(
        "insert into realtime.messages (topic, extension, event, inserted_at)
         values ('room', 'broadcast', 'far again', current_date + 40), ('room', 'broadcast', 'farther', current_date + 80)",
    )
    .await
    .unwrap();
    sql.execute("select chat.maintain_message_partitions(5, -3)", &[])
        .await
        .unwrap();
    send(&sql, "last").await;
    assert_eq!(
        events(&mut streaming, 3).await,
        ["far again", "farther", "last"]
    );
    streaming.stop().await;
}
