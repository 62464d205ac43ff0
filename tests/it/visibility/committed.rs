//! Changes are checked only after other transactions can see their commit.

use std::sync::Arc;

use rapport::change::RowChange;
use rapport::shutdown::Tasks;
use rapport::visibility::Payload;
use tokio_postgres::Client;

use super::bench::{Bench, identity, strict, transaction_with_xid, user};
use crate::support::database::{connect, own_cluster};
use crate::support::eventually::eventually;

/// Checks whether this backend, or any backend if `None`, has written a commit and waits for the
/// standby.
async fn is_held(client: &Client, backend: Option<i32>) -> Option<()> {
    let held = client
        .query_one(
            "select count(*) from pg_stat_activity
             where wait_event = 'SyncRep' and pid = coalesce($1, pid)",
            &[&backend],
        )
        .await
        .unwrap();
    (held.get::<_, i64>(0) > 0).then_some(())
}

/// A commit is in the WAL before other transactions can see it, normally only microseconds earlier.
/// A synchronous standby that does not respond prolongs that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_waits_until_the_commit_is_visible() {
    let cluster = own_cluster().await;
    let url = cluster.url_for("postgres");
    let bench = Arc::new(
        Bench::at(
            &url,
            strict(),
            "create table members (person uuid); grant select on members to authenticated;
             create table notes (id int primary key); grant select on notes to authenticated;
             alter table notes enable row level security;
             create policy members on notes using
               (exists (select from members where person = auth.uid()));
             create table gone (id int);
             create table plain (id int primary key); grant select on plain to authenticated;
             alter publication supabase_realtime add table notes, plain;",
        )
        .await,
    );
    for (n, table) in [(1, "notes"), (2, "plain")] {
        bench.watch(n, &identity("authenticated", n), table).await;
    }
    // Before commits are held, the catalogue must be read, and the functions must be created that
    // check many identities in one call.
    let notes = bench.relation("notes").await;
    bench
        .insert("notes", "insert into notes values (1)", "true")
        .await;

    let standby = connect(&url).await;
    standby
        .batch_execute("alter system set synchronous_standby_names = 'nobody'")
        .await
        .unwrap();
    standby
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    // The reload has taken effect once a commit is held.
    let first = connect(&url).await;
    let commits = Tasks::new().spawn("commits", async move {
        let commit = "set synchronous_commit = on; insert into gone values (1)";
        while first.batch_execute(commit).await.is_ok() {}
    });
    eventually("commits are held", async || is_held(&standby, None).await).await;
    commits.abort();
    bench
        .run(&format!(
            "begin; set local synchronous_commit = on;
             alter table plain add column text text; insert into plain values (2, 'new');
             insert into members values ('{}'); insert into notes values (2)",
            user(1)
        ))
        .await;
    let plain = bench.relation("plain").await;
    let row = bench.admin.query_one(
        "select pg_current_xact_id()::text::int8, pg_backend_pid()",
        &[],
    );
    let row = row.await.unwrap();
    let (xid, backend): (i64, i32) = (row.get(0), row.get(1));
    let mut batch = Vec::new();
    for (relation, condition) in [(&notes, "id = 2"), (&plain, "true")] {
        let new = bench.images(relation, condition).await.remove(0);
        let xid = u32::try_from(xid).unwrap();
        batch.push(transaction_with_xid(
            xid,
            relation,
            RowChange::Insert { new },
        ));
    }
    let committing = Arc::clone(&bench);
    let committed = Tasks::new().spawn("commit", async move { committing.run("commit").await });
    eventually("the commit waits for the standby", async || {
        is_held(&standby, Some(backend)).await
    })
    .await;

    let visibility = bench.visibility.clone();
    let resolved = Tasks::new().spawn("resolve", async move {
        visibility.resolve(&batch).await.deliveries
    });
    eventually("the changes wait for the commit", async || {
        (bench.metrics.commit_waits.get() > 0).then_some(())
    })
    .await;
    assert!(!committed.is_finished() && !resolved.is_finished());
    standby
        .batch_execute("alter system reset synchronous_standby_names")
        .await
        .unwrap();
    standby
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    committed.await.unwrap();

    let told: Vec<_> = resolved
        .await
        .unwrap()
        .iter()
        .map(|delivery| {
            let Payload::Row(columns, _) = &delivery.payload else {
                panic!("{:?}", delivery.payload);
            };
            let channel = delivery.recipients[0].channel.0;
            (
                channel,
                String::from_utf8_lossy(&columns.header).into_owned(),
            )
        })
        .collect();
    let id = r#"{"name":"id","type":"int4"}"#;
    let text = r#"{"name":"text","type":"text"}"#;
    assert_eq!(
        told,
        [(1, format!("[{id}]")), (2, format!("[{id},{text}]")),]
    );
}

/// After a failover, a batch may remain whose commit the new primary never received.
#[tokio::test]
async fn a_check_does_not_wait_for_a_commit_of_another_history() {
    let bench = Bench::with(
        strict(),
        "create table notes (id int primary key); grant select on notes to authenticated;
         alter table notes enable row level security;
         create policy everybody on notes for select using (auth.uid() is not null);
         alter publication supabase_realtime add table notes;",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "notes").await;
    let notes = bench.relation("notes").await;
    bench.run("insert into notes values (1)").await;
    let new = bench.images(&notes, "true").await.remove(0);
    let xid = bench
        .admin
        .query_one("select pg_current_xact_id()::text::int8", &[])
        .await
        .unwrap();
    let xid = u32::try_from(xid.get::<_, i64>(0)).unwrap() + 1_000_000;
    let future = transaction_with_xid(xid, &notes, RowChange::Insert { new });
    let told = bench.resolve(&[future]).await;
    assert_eq!(told.len(), 1);
}
