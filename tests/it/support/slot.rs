//! Reads, interrupts and drops the replication slot of a test's database.

use tokio_postgres::Client;

use super::eventually::eventually;

/// Returns the name of this database's slot, and the process that reads it.
pub(crate) async fn slot(client: &Client) -> Option<(String, Option<i32>)> {
    client
        .query_opt(
            "select slot_name::text, active_pid from pg_replication_slots
             where database = current_database()",
            &[],
        )
        .await
        .unwrap()
        .map(|row| (row.get(0), row.get(1)))
}

/// Drops the slot that the stream is reading.
pub(crate) async fn steal_slot(sql: &Client) {
    eventually("the slot can be dropped", async || {
        // One statement terminates the reader and drops the slot, so that the stream cannot
        // reconnect in between.
        sql.batch_execute(
            "do $$
             declare found pg_replication_slots;
             begin
                 select * into found from pg_replication_slots where database = current_database();
                 perform pg_terminate_backend(found.active_pid, 1000);
                 perform pg_drop_replication_slot(found.slot_name);
             end $$",
        )
        .await
        .ok()
    })
    .await;
}

/// Waits until this database's slot has a walsender, and terminates it.
pub(crate) async fn kill_walsender(sql: &Client) {
    eventually("there is a walsender", async || {
        let killed = sql
            .query_opt(
                "select pg_terminate_backend(active_pid) from pg_replication_slots
                 where database = current_database() and active_pid is not null",
                &[],
            )
            .await
            .unwrap();
        killed.map(|_| ())
    })
    .await;
}
