//! Kills all connections of the server to PostgreSQL. Every row must still reach each subscriber
//! who may see it exactly once and in commit order.

use std::sync::Arc;

use rapport::app::App;
use rapport::dev::postgres::Cluster;
use rapport::schema::{self, InstallOptions};
use rapport::shutdown::Tasks;
use serde_json::json;
use tokio::sync::watch;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::config::config;
use crate::support::database::{connect, own_cluster};
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::user_token;

/// Number of rows in a large transaction.
const LARGE_TRANSACTION: i64 = 1_500;

/// Bytes of `body`, a column that the WAL contains but clients may not select. A large transaction
/// is several times the size of the buffers between walsender and server, so that a connection can
/// die in the middle of it.
const BODY_BYTES: i32 = 20_000;

/// Number of one-row transactions between two large ones.
const SMALL_TRANSACTIONS: i64 = 60;

/// Minimum number of rounds, each with one large transaction and the small ones. The total exceeds
/// 10,000 rows.
const ROUNDS: usize = 7;

/// Maximum number of rounds. On a busy machine, the walsender may have sent all of a large
/// transaction before it is killed. Such a round does not count towards [`KILLS_INSIDE`], so
/// another one follows.
const MAX_ROUNDS: usize = 30;

/// Minimum number of killed walsenders.
const KILLS: usize = 10;
/// Minimum number of walsenders that are killed in the middle of a transaction.
const KILLS_INSIDE: usize = 3;

/// The numbers of the rows that a subscriber has received, in the order of their arrival.
struct Subscriber {
    received: watch::Receiver<Vec<i64>>,
}

impl Subscriber {
    /// Joins as `person` and reads in a separate task.
    async fn join(app: &App, person: Uuid, version: Version, tasks: &Tasks) -> Self {
        let token = user_token(person);
        let mut socket = PhoenixSocket::connect(app.local_address(), &token, version).await;
        let binding = json!({"event": "INSERT", "schema": "public", "table": "items"});
        let payload = json!({"config": {"postgres_changes": [binding]}});
        socket.join("1", "realtime:items", payload).await;
        socket.expect_reply("1", "ok").await;
        let (status, text) = socket.expect_system("realtime:items").await;
        assert_eq!((&*status, &*text), ("ok", "Subscribed to PostgreSQL"));
        let (sender, received) = watch::channel(Vec::new());
        tasks.spawn("subscriber", async move {
            while !sender.is_closed() {
                let message = socket.receive().await;
                if message.event == "postgres_changes" {
                    let row = message.payload["data"]["record"]["n"].as_i64().unwrap();
                    sender.send_modify(|rows| rows.push(row));
                }
            }
        });
        Self { received }
    }

    /// Waits until the row arrives.
    async fn wait_for(&self, row: i64) {
        let mut received = self.received.clone();
        let seen = received.wait_for(|rows| rows.iter().rev().any(|seen| *seen == row));
        let patience = std::time::Duration::from_secs(60);
        let seen = tokio::time::timeout(patience, seen)
            .await
            .map(|rows| rows.map(|_| ()));
        assert!(matches!(seen, Ok(Ok(()))), "row {row} did not arrive");
    }
}

/// Writes rows over one connection at a time, so that the numbers of the rows are also their commit
/// order.
struct Writer {
    url: String,
    client: Client,
    owners: [Uuid; 2],
    next: i64,
}

impl Writer {
    /// Commits `count` rows in one transaction. One third belongs to the first user, one third to
    /// the second user, and one third to both.
    async fn commit(&mut self, count: i64) {
        let (first, last) = (self.next, self.next + count - 1);
        self.client
            .execute(
                "insert into public.items (n, owners, body)
                 select n, case n % 3 when 0 then array[$3::uuid] when 1 then array[$4::uuid] else array[$3::uuid, $4::uuid] end,
                        repeat('x', $5)
                 from generate_series($1::bigint, $2) n",
                &[&first, &last, &self.owners[0], &self.owners[1], &BODY_BYTES],
            )
            .await
            .unwrap();
        self.next = last + 1;
    }

    async fn reconnect(&mut self) {
        self.client = connect(&self.url).await;
    }

    /// Returns the rows that a user may see, in commit order.
    fn rows_of(&self, person: i64) -> Vec<i64> {
        (0..self.next)
            .filter(|n| n % 3 == 2 || n % 3 == person)
            .collect()
    }
}

/// Kills the walsender of Rapport's slot. Returns whether the walsender died inside a transaction,
/// that is, before it had sent the last commit. A walsender without a `sent_lsn` has only just
/// started. It is not the one that was sending, so it is left alone.
async fn kill_walsender(client: &Client) -> bool {
    eventually("the slot is being read", async || {
        let rows = client
            .query(
                "select s.sent_lsn < pg_current_wal_lsn(), pg_terminate_backend(s.pid)
                 from pg_stat_replication s join pg_replication_slots r on r.active_pid = s.pid
                 where s.state in ('streaming', 'catchup') and s.sent_lsn is not null",
                &[],
            )
            .await
            .unwrap();
        rows.first().map(|row| row.get(0))
    })
    .await
}

async fn start(cluster: &Cluster, tasks: &Tasks) -> App {
    let url = cluster.url_for("postgres");
    let mut owner = connect(&url).await;
    schema::install(&mut owner, &InstallOptions::default())
        .await
        .unwrap();
    owner
        .batch_execute(
            "create table public.items (
                 id bigint generated always as identity primary key,
                 n bigint not null, owners uuid[] not null, body text not null);
             alter table public.items enable row level security;
             create policy \"owners read\" on public.items for select to authenticated
                 using ((select auth.uid()) = any (owners));
             grant select (id, n, owners) on public.items to authenticated;
             alter publication supabase_realtime add table public.items;",
        )
        .await
        .unwrap();
    let config = config(
        &url,
        &[
            // Chunks are small, so that a large transaction is split into many of them.
            ("RAPPORT_REPLICATION_CHUNK_MAX_CHANGES", "100"),
            ("RAPPORT_REPLICATION_BACKOFF_MAX_MS", "200"),
        ],
    );
    let app = App::start(&config, tasks).await.unwrap();
    app.readiness().wait_until_ready().await;
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_arrive_once_and_in_order_despite_killed_walsenders_and_a_restart() {
    let cluster = Arc::new(own_cluster().await);
    let tasks = Tasks::new();
    let app = start(&cluster, &tasks).await;
    let owners = [Uuid::new_v4(), Uuid::new_v4()];
    let first = Subscriber::join(&app, owners[0], Version::Two, &tasks).await;
    let second = Subscriber::join(&app, owners[1], Version::One, &tasks).await;
    let outsider = Subscriber::join(&app, Uuid::new_v4(), Version::Two, &tasks).await;
    let url = cluster.url_for("postgres");
    let client = connect(&url).await;
    let mut writer = Writer {
        url,
        client,
        owners,
        next: 0,
    };

    let (mut kills, mut kills_inside) = (0, 0);
    for round in 0..MAX_ROUNDS {
        if round >= ROUNDS && kills_inside >= KILLS_INSIDE {
            break;
        }
        let begin = writer.next;
        writer.commit(LARGE_TRANSACTION).await;
        // When a subscriber has received a row of the transaction, the walsender has begun to send
        // it.
        first.wait_for(begin + (3 - begin % 3) % 3).await;
        kills_inside += usize::from(kill_walsender(&writer.client).await);
        for _ in 0..SMALL_TRANSACTIONS / 2 {
            writer.commit(1).await;
        }
        kill_walsender(&writer.client).await;
        kills += 2;
        for _ in 0..SMALL_TRANSACTIONS / 2 {
            writer.commit(1).await;
        }
        if round == ROUNDS / 2 {
            // PostgreSQL restarts while a large transaction is being sent.
            writer.commit(LARGE_TRANSACTION).await;
            let restarting = Arc::clone(&cluster);
            let restarted = tokio::task::spawn_blocking(move || restarting.restart()).await;
            restarted.unwrap().unwrap();
            writer.reconnect().await;
        }
    }
    assert!(kills >= KILLS, "{kills} kills");
    assert!(
        kills_inside >= KILLS_INSIDE,
        "{kills_inside} kills inside a transaction"
    );

    // Both users receive the last row, but only after all earlier rows.
    while writer.next % 3 != 0 {
        writer.commit(1).await;
    }
    for (subscriber, person) in [(&first, 0), (&second, 1)] {
        subscriber.wait_for(writer.next - 1).await;
        assert!(
            *subscriber.received.borrow() == writer.rows_of(person),
            "user {person} did not receive each row once and in order"
        );
    }
    assert!(
        outsider.received.borrow().is_empty(),
        "an outsider received rows"
    );
    assert!(app.stop().await, "the server stopped in time");
}
