//! The database fails during a check. No visibility is decided without the database, and nothing is
//! lost.

use std::sync::Arc;

use rapport::change::RowChange;
use rapport::shutdown::Tasks;
use serde_json::json;

use super::bench::{Bench, identity, strict, transaction, user};
use crate::support::database::{connect, own_cluster};
use crate::support::eventually::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_a_check_loses_nothing() {
    let cluster = Arc::new(own_cluster().await);
    let url = cluster.url_for("postgres");
    let bench = Bench::at(
        &url,
        strict(),
        "create table t (id int primary key, owner uuid);
         alter table t enable row level security; grant select on t to authenticated;
         create table gate (open boolean); grant select on gate to authenticated;
         create function private.waits() returns boolean language plpgsql as $$
           begin
             while not (select open from public.gate) loop perform pg_sleep(0.01); end loop;
             return true;
           end $$;
         create policy own on t using (owner = auth.uid() and private.waits());
         alter publication supabase_realtime add table t;
         insert into gate values (false);",
    )
    .await;
    bench
        .run(&format!("insert into t values (1, '{}')", user(1)))
        .await;
    for n in 1..=5 {
        bench.watch(n, &identity("authenticated", n), "t").await;
    }
    let relation = bench.relation("t").await;
    let new = bench.images(&relation, "true").await.remove(0);
    let batch = [transaction(&relation, RowChange::Insert { new })];
    let visibility = bench.visibility.clone();
    let resolving = Tasks::new().spawn("resolve", async move {
        visibility
            .resolve(&batch)
            .await
            .deliveries
            .into_iter()
            .flat_map(|delivery| delivery.recipients)
            .map(|recipient| recipient.channel.0)
            .collect::<Vec<_>>()
    });
    eventually("a check is running", async || {
        let asked = bench
            .admin
            .query_one(
                "select count(*) from pg_stat_activity
                 where application_name = 'rapport visibility' and state = 'active'",
                &[],
            )
            .await
            .unwrap();
        (asked.get::<_, i64>(0) > 0).then_some(())
    })
    .await;

    let stopping = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || stopping.stop())
        .await
        .unwrap()
        .unwrap();
    let params = json!({"schema": "public", "table": "t"});
    let refused = bench
        .subscribe(9, &identity("authenticated", 9), params.clone())
        .await;
    assert!(refused.unwrap_err().is_retryable());
    assert!(!resolving.is_finished(), "an outage is not a result");
    let starting = Arc::clone(&cluster);
    tokio::task::spawn_blocking(move || starting.resume())
        .await
        .unwrap()
        .unwrap();
    connect(&url)
        .await
        .batch_execute("update gate set open = true")
        .await
        .unwrap();

    assert_eq!(resolving.await.unwrap(), [1]);
    assert!(bench.metrics.retries.get() > 0);
    assert_eq!(bench.metrics.unanswered.get(), 0);
    bench
        .subscribe(9, &identity("authenticated", 9), params)
        .await
        .unwrap();
}

#[tokio::test]
async fn connections_that_are_terminated_are_replaced() {
    let bench = Bench::new(
        "create table t (id int primary key, owner uuid);
         alter table t enable row level security; grant select on t to authenticated;
         create policy own on t using (owner = auth.uid());
         alter publication supabase_realtime add table t;",
    )
    .await;
    bench
        .run(&format!("insert into t values (1, '{}')", user(1)))
        .await;
    for n in 1..=5 {
        bench.watch(n, &identity("authenticated", n), "t").await;
    }
    let relation = bench.relation("t").await;
    let new = bench.images(&relation, "true").await.remove(0);
    for _ in 0..10 {
        let seen = bench
            .seen(&relation, vec![RowChange::Insert { new: new.clone() }])
            .await;
        assert_eq!(seen[0].rows, [1].into());
        assert!(seen[0].unanswered.is_empty());
        bench
            .run("select pg_terminate_backend(pid) from pg_stat_activity
                  where application_name like 'rapport visibility%' and datname = current_database()")
            .await;
    }
}
