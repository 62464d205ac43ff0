//! A DELETE leaves no row to check. Under row-level security, the key is sent. If the WAL contains
//! the old image, that image is checked.

use std::sync::Arc;

use rapport::change::{ChangeTransaction, ColumnValue, OldRow, Row, RowChange};
use rapport::config::VisibilityConfig;
use rapport::visibility::{ChannelId, Delivery, Payload, RecordDetail, record};
use serde_json::json;

use super::bench::{
    Bench, identity, key_image, rows, strict, transaction, transaction_with_xid, user,
};
use crate::support::eventually::eventually;

const NOTES: &str = "
create table notes (id int primary key, owner uuid, body text);
alter table notes enable row level security;
create policy own on notes for select to authenticated using (owner = auth.uid());
grant select on notes to authenticated, anon, service_role;
alter publication supabase_realtime add table notes;
";

async fn notes(config: VisibilityConfig, sql: &str) -> Bench {
    let bench = Bench::with(config, &format!("{NOTES}{sql}")).await;
    bench
        .run(&format!(
            "insert into notes values (1, '{}', 'text')",
            user(1)
        ))
        .await;
    bench.watch_as_each("notes").await;
    bench
}

#[tokio::test]
async fn under_row_security_subscribers_with_a_policy_receive_the_key() {
    let bench = notes(strict(), "").await;
    bench
        .subscribe(
            5,
            &identity("authenticated", 5),
            json!({"schema": "public", "table": "notes", "filter": "id=eq.1"}),
        )
        .await
        .unwrap();
    // The key alone does not show whether the filter would accept the row.
    bench
        .subscribe(
            6,
            &identity("authenticated", 6),
            json!({"schema": "public", "table": "notes", "filter": "body=eq.text"}),
        )
        .await
        .unwrap();
    let relation = bench.relation("notes").await;
    let row = bench.images(&relation, "true").await.remove(0);
    let old = key_image(&relation, &row);
    let seen = bench
        .seen(&relation, vec![RowChange::Delete { old: old.clone() }])
        .await;
    assert_eq!(seen, [rows(&[1, 2, 4, 5])]);

    let batch = [transaction(&relation, RowChange::Delete { old })];
    for delivery in bench.resolve(&batch).await {
        let Payload::Row(columns, detail) = &delivery.payload else {
            panic!("expected a row");
        };
        let mut out = Vec::new();
        record::write_old_record(&mut out, &batch[0].changes[0].row, columns, *detail);
        assert_eq!(out, br#"{"id":1}"#);
        out.clear();
        record::write_record(
            &mut out,
            &batch[0].changes[0].row,
            columns,
            RecordDetail::Whole,
        );
        assert_eq!(out, b"{}");
    }
}

#[tokio::test]
async fn a_setting_suppresses_deletions_that_cannot_be_checked() {
    let config = VisibilityConfig {
        delete_without_old_row: false,
        ..strict()
    };
    let bench = notes(config, "").await;
    let relation = bench.relation("notes").await;
    let row = bench.images(&relation, "true").await.remove(0);
    let old = key_image(&relation, &row);
    assert_eq!(
        bench.seen(&relation, vec![RowChange::Delete { old }]).await,
        [rows(&[4])]
    );
}

#[tokio::test]
async fn updates_of_a_table_without_old_rows_reveal_only_the_old_key() {
    let config = VisibilityConfig {
        tables_without_old_rows: vec!["public.notes".to_owned()],
        ..strict()
    };
    for (config, told) in [
        (config, r#"{"id":1}"#.to_owned()),
        (
            strict(),
            format!(r#"{{"id":1,"owner":"{}","body":"text"}}"#, user(1)),
        ),
    ] {
        let bench = notes(config, "alter table notes replica identity full;").await;
        let relation = bench.relation("notes").await;
        let row = bench.images(&relation, "true").await.remove(0);
        let batch = [transaction(
            &relation,
            RowChange::Update {
                old: Some(OldRow::Full(row.clone())),
                new: row,
            },
        )];
        let deliveries = bench.resolve(&batch).await;
        assert!(!deliveries.is_empty());
        for delivery in deliveries {
            let Payload::Row(columns, detail) = &delivery.payload else {
                panic!("expected a row");
            };
            let mut out = Vec::new();
            record::write_old_record(&mut out, &batch[0].changes[0].row, columns, *detail);
            assert_eq!(String::from_utf8(out).unwrap(), told);
        }
    }
}

#[tokio::test]
async fn with_the_old_row_only_subscribers_who_could_see_it_receive_a_deletion() {
    let bench = notes(strict(), "alter table notes replica identity full;").await;
    let relation = bench.relation("notes").await;
    let row = bench.images(&relation, "true").await.remove(0);
    let batch = [transaction(
        &relation,
        RowChange::Delete {
            old: OldRow::Full(row.clone()),
        },
    )];
    let seen = bench
        .seen(
            &relation,
            vec![RowChange::Delete {
                old: OldRow::Full(row),
            }],
        )
        .await;
    assert_eq!(seen, [rows(&[1, 4])]);
    let deliveries = bench.resolve(&batch).await;
    assert!(!deliveries.is_empty());
    for delivery in deliveries {
        let Payload::Row(columns, detail) = &delivery.payload else {
            panic!("expected a row");
        };
        let mut out = Vec::new();
        record::write_old_record(&mut out, &batch[0].changes[0].row, columns, *detail);
        assert_eq!(out, br#"{"id":1}"#, "the payload contains only the key");
    }
}

#[tokio::test]
async fn deletions_are_delivered_without_the_primary_key_in_the_identity() {
    for (delete_without_old_row, expected) in [(true, rows(&[1, 2, 4])), (false, rows(&[4]))] {
        let config = VisibilityConfig {
            delete_without_old_row,
            ..strict()
        };
        let bench = notes(
            config,
            "alter table notes alter body set not null;
             create unique index by_body on notes (body);
             alter table notes replica identity using index by_body;",
        )
        .await;
        let relation = bench.relation("notes").await;
        let row = bench.images(&relation, "true").await.remove(0);
        let old = key_image(&relation, &row);
        let batch = [transaction(
            &relation,
            RowChange::Delete { old: old.clone() },
        )];
        assert_eq!(
            bench.seen(&relation, vec![RowChange::Delete { old }]).await,
            [expected]
        );
        for delivery in bench.resolve(&batch).await {
            assert_eq!(
                old_record(&batch, &delivery),
                "{}",
                "only the key may be sent"
            );
        }
    }
}

/// The WAL marks the old image of a partition as full if the root has a full identity, even if the
/// image is incomplete.
#[tokio::test]
async fn an_incomplete_image_of_a_partition_that_is_marked_full_does_not_decide() {
    let config = VisibilityConfig {
        delete_without_old_row: false,
        ..strict()
    };
    let bench = Bench::with(
        config,
        "create table notes (id int primary key, body text) partition by list (id);
         create table notes_1 partition of notes for values in (1);
         alter table notes replica identity full;
         alter table notes enable row level security;
         create policy blank on notes for select to authenticated using (body is null);
         grant select on notes to authenticated, service_role;
         alter publication supabase_realtime set (publish_via_partition_root);
         alter publication supabase_realtime add table notes;",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "notes").await;
    bench.watch(2, &identity("service_role", 1), "notes").await;
    let blank = json!({"schema": "public", "table": "notes", "filter": "body=is.null"});
    bench
        .subscribe(3, &identity("service_role", 1), blank)
        .await
        .unwrap();
    let relation = bench.relation("notes").await;
    let old = OldRow::Full(Row(vec![ColumnValue::Text("1".into()), ColumnValue::Null]));
    let batch = [transaction(
        &relation,
        RowChange::Delete { old: old.clone() },
    )];
    let seen = bench
        .seen(&relation, vec![RowChange::Delete { old: old.clone() }])
        .await;
    assert_eq!(seen, [rows(&[2])], "the old body is unknown");
    let deliveries = bench.resolve(&batch).await;
    assert_eq!(old_record(&batch, &deliveries[0]), r#"{"id":1}"#);

    bench.run("alter table notes_1 replica identity full").await;
    let seen = bench.seen(&relation, vec![RowChange::Delete { old }]).await;
    assert_eq!(seen, [rows(&[1, 2, 3])]);
}

#[tokio::test]
async fn a_role_that_may_select_nothing_receives_no_deletion() {
    let bench = Bench::new(
        "create table t (id int primary key, a int); grant select (a) on t to authenticated;
         grant select on t to anon; alter publication supabase_realtime add table t;
         insert into t values (1, 2);",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "t").await;
    bench.watch(2, &identity("anon", 1), "t").await;
    bench.watch(3, &identity("vis_editor", 1), "t").await;
    let relation = bench.relation("t").await;
    let row = bench.images(&relation, "true").await.remove(0);
    let old = key_image(&relation, &row);
    let batch = [transaction(
        &relation,
        RowChange::Delete { old: old.clone() },
    )];
    let seen = bench.seen(&relation, vec![RowChange::Delete { old }]).await;
    assert_eq!(seen, [rows(&[1, 2])]);
    for delivery in bench.resolve(&batch).await {
        let expected = match delivery.recipients[0].channel.0 {
            1 => "{}",
            _ => r#"{"id":1}"#,
        };
        assert_eq!(old_record(&batch, &delivery), expected);
    }
}

fn old_record(batch: &[Arc<ChangeTransaction>], delivery: &Delivery) -> String {
    let Payload::Row(columns, detail) = &delivery.payload else {
        panic!("expected a row, not {:?}", delivery.payload);
    };
    let change = &batch[delivery.transaction].changes[delivery.change].row;
    let mut out = Vec::new();
    record::write_old_record(&mut out, change, columns, *detail);
    String::from_utf8(out).unwrap()
}

const POSTS: &str = "
create table members (room int, who uuid);
create table posts (id int primary key, room int);
alter table posts replica identity full;
alter table posts enable row level security;
create policy members on posts for select to authenticated
  using (exists (select from members m where m.room = posts.room and m.who = auth.uid()));
grant select on members, posts to authenticated;
alter publication supabase_realtime add table posts;
";

/// Deletes the only post in a transaction that also runs `also`. Returns the deletion as the stream
/// reports it.
async fn deletion(bench: &Bench, also: &str) -> [Arc<ChangeTransaction>; 1] {
    let relation = bench.relation("posts").await;
    bench.run("begin").await;
    let old = OldRow::Full(bench.images(&relation, "true").await.remove(0));
    bench.run(&format!("delete from posts; {also}")).await;
    let xid = bench
        .admin
        .query_one("select pg_current_xact_id()::text::int8", &[])
        .await
        .unwrap();
    bench.run("commit").await;
    let xid = u32::try_from(xid.get::<_, i64>(0)).unwrap();
    [transaction_with_xid(
        xid,
        &relation,
        RowChange::Delete { old },
    )]
}

async fn recipients(bench: &Bench, batch: &[Arc<ChangeTransaction>]) -> Vec<u64> {
    let deliveries = bench.resolve(batch).await;
    let recipients = deliveries.iter().flat_map(|it| &it.recipients);
    let mut channels: Vec<u64> = recipients.map(|recipient| recipient.channel.0).collect();
    channels.sort_unstable();
    channels
}

/// Creates a post, this many members, and one outsider. All users are subscribed.
async fn members(people: u32) -> Bench {
    let bench = Bench::new(POSTS).await;
    for n in 1..=people {
        bench
            .run(&format!("insert into members values (1, '{}')", user(n)))
            .await;
    }
    for n in 1..=people + 1 {
        bench.watch(n, &identity("authenticated", n), "posts").await;
    }
    bench.run("insert into posts values (1, 1)").await;
    bench
}

#[tokio::test]
async fn a_late_deletion_is_checked_against_the_state_before_it() {
    for people in [1, 7] {
        let bench = members(people).await;
        // One of the current snapshots sees the post.
        let batch = deletion(&bench, "delete from members").await;
        for n in 0..20 {
            // New snapshots continue to be taken. They see the deletion.
            bench
                .run(&format!("insert into members values (2, '{}')", user(n)))
                .await;
            bench
                .watch(100, &identity("authenticated", 100), "posts")
                .await;
        }
        let everybody: Vec<u64> = (1..=u64::from(people)).collect();
        assert_eq!(recipients(&bench, &batch).await, everybody);
        assert!(bench.metrics.asked_before.get() > 0);
    }
}

/// Returns the connections that hold snapshots.
async fn holders(bench: &Bench) -> Vec<i32> {
    let rows = bench.admin.query(
        "select pid from pg_stat_activity
         where datname = current_database() and application_name = 'rapport visibility snapshots'",
        &[],
    );
    let rows = rows.await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn without_a_snapshot_before_a_deletion_only_current_viewers_receive_it() {
    let bench = members(1).await;
    let batch = deletion(&bench, "delete from members").await;
    let before = holders(&bench).await;
    assert!(!before.is_empty());
    bench
        .run(&format!(
            "select pg_terminate_backend(pid) from unnest(array{before:?}) as pid"
        ))
        .await;
    eventually("other connections hold snapshots", async || {
        let now = holders(&bench).await;
        let is_new = !now.is_empty() && now.iter().all(|pid| !before.contains(pid));
        is_new.then_some(())
    })
    .await;
    assert_eq!(recipients(&bench, &batch).await, [0; 0]);
    // Later deletions are delivered again.
    bench
        .run(&format!(
            "insert into members values (1, '{}'); insert into posts values (1, 1)",
            user(1)
        ))
        .await;
    bench
        .watch(100, &identity("authenticated", 100), "posts")
        .await;
    let batch = deletion(&bench, "delete from members").await;
    assert_eq!(recipients(&bench, &batch).await, [1]);
}

#[tokio::test]
async fn no_snapshots_are_held_without_a_policy_that_reads_other_rows_or_without_subscribers() {
    let bench = notes(strict(), "alter table notes replica identity full;").await;
    bench.run(POSTS).await;
    assert!(holders(&bench).await.is_empty());
    bench.watch(9, &identity("authenticated", 1), "posts").await;
    assert_eq!(holders(&bench).await.len(), 1);
    bench.visibility.unsubscribe(ChannelId(9));
    eventually("no snapshots are held", async || {
        holders(&bench).await.is_empty().then_some(())
    })
    .await;
}
