//! Row changes under row-level security whose policy cannot be taken apart: every row is visible to two of many.
//!
//! The policy calls a `security definer` function, so that Postgres must be asked. One row per transaction is written
//! at a fixed rate; each must reach its two people and nobody else. Prints one JSON line:
//!
//!     cargo bench --bench changes_under_rls -- --subscribers 200 --rate 1000 --seconds 60

#![allow(clippy::print_stdout, reason = "the result is printed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use support::{Failure, Server, Subscriber};
use tokio::sync::mpsc;
use uuid::Uuid;

/// How long a row may take after the last was written before it counts as lost.
const DRAIN: Duration = Duration::from_secs(20);

/// Connections that write, so that the rate does not hang on the latency of one commit.
const WRITERS: u64 = 4;

#[derive(Parser)]
struct Arguments {
    /// Sockets, each with a `sub` of its own.
    #[arg(long, default_value_t = 200)]
    subscribers: u64,
    /// Rows per second, one per transaction.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// How long rows are written.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Given by `cargo bench`, without meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one subscriber received: who, which row, and how long after it was sent to the database.
struct Receipt {
    subscriber: u64,
    row: u64,
    delay: Duration,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let server = Server::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(measure(&arguments, &server))?;
    println!("{result}");
    if !server.stop()? {
        return Err("the server did not stop cleanly".into());
    }
    let complete = ["lost", "misdelivered", "repeated"]
        .iter()
        .all(|key| result[key] == 0);
    if complete {
        Ok(())
    } else {
        Err("not every row reached its two people and nobody else, once".into())
    }
}

/// A person's id, told by their number.
fn person(number: u64) -> Uuid {
    Uuid::from_u64_pair(0x5000_0000_0000_4000, 0x8000_0000_0000_0000 | number)
}

/// Persons 2n and 2n + 1 share room n.
async fn set_up(arguments: &Arguments, client: &tokio_postgres::Client) -> Result<(), Failure> {
    client
        .batch_execute(
            "create schema private;
             create table public.items (
                 id bigint generated always as identity primary key,
                 room_id int not null, row_number bigint not null, sent_ns bigint not null, body text not null);
             create table private.room_members (
                 room_id int not null, user_id uuid not null, primary key (user_id, room_id));
             create function private.is_member(room int) returns boolean
                 language sql stable security definer set search_path = ''
                 as $$ select exists (select 1 from private.room_members m
                                      where m.room_id = room and m.user_id = (select auth.uid())) $$;
             alter table public.items enable row level security;
             create policy \"members read their room\" on public.items for select to authenticated
                 using (private.is_member(room_id));
             grant select on public.items to authenticated;
             alter publication supabase_realtime add table public.items;",
        )
        .await?;
    let rooms: Vec<i32> = (0..arguments.subscribers).map(|n| (n / 2) as i32).collect();
    let people: Vec<Uuid> = (0..arguments.subscribers).map(person).collect();
    client
        .execute(
            "insert into private.room_members select * from unnest($1::int[], $2::uuid[])",
            &[&rooms, &people],
        )
        .await?;
    client.batch_execute("analyze private.room_members").await?;
    Ok(())
}

async fn connect(url: &str) -> Result<tokio_postgres::Client, Failure> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    drop(tokio::task::spawn_local(connection));
    Ok(client)
}

async fn measure(arguments: &Arguments, server: &Server) -> Result<Value, Failure> {
    tokio::task::LocalSet::new()
        .run_until(run(arguments, server))
        .await
}

async fn run(arguments: &Arguments, server: &Server) -> Result<Value, Failure> {
    set_up(arguments, &connect(&server.db_url).await?).await?;
    let epoch = Instant::now();
    let (receipts_in, mut receipts) = mpsc::channel(10_000);
    for number in 0..arguments.subscribers {
        let claims = json!({"sub": person(number), "role": "authenticated", "aud": "authenticated",
            "exp": jiff::Timestamp::now().as_second() + 3600});
        let token = rapport::auth::mint(&server.jwt_secret, &claims)?;
        let binding = json!({"event": "INSERT", "schema": "public", "table": "items"});
        let subscriber = Subscriber::join(server, &token, "items", binding).await?;
        drop(tokio::task::spawn_local(receive(
            subscriber,
            number,
            epoch,
            receipts_in.clone(),
        )));
    }
    drop(receipts_in);

    let rooms = arguments.subscribers.div_ceil(2);
    let total = (arguments.rate * arguments.seconds) as u64;
    let next = Arc::new(AtomicU64::new(0));
    let before = server.cpu_seconds();
    let begun = Instant::now();
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let (client, next, rate) = (
            connect(&server.db_url).await?,
            Arc::clone(&next),
            arguments.rate,
        );
        writers.push(tokio::task::spawn_local(write(
            client, next, total, rate, rooms, epoch,
        )));
    }

    let expected_per_row = |row: u64| {
        if room_of(row, rooms) * 2 + 1 < arguments.subscribers {
            2
        } else {
            1
        }
    };
    let expected: u64 = (0..total).map(expected_per_row).sum();
    let mut seen = vec![0u8; total as usize];
    let (mut received, mut misdelivered) = (0u64, 0u64);
    let mut delays = Histogram::<u64>::new(3)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs_f64(arguments.seconds) + DRAIN;
    while received < expected {
        let Ok(receipt) = tokio::time::timeout_at(deadline, receipts.recv()).await else {
            break;
        };
        let receipt: Receipt = receipt.ok_or("every socket was closed")??;
        received += 1;
        if receipt.subscriber / 2 == room_of(receipt.row, rooms) {
            seen[receipt.row as usize] += 1;
        } else {
            misdelivered += 1;
        }
        delays.record(receipt.delay.as_micros() as u64)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    for writer in writers {
        writer.await??;
    }
    let after = server.cpu_seconds();
    let counts = |test: &dyn Fn(u64, u64) -> u64| -> u64 {
        seen.iter()
            .enumerate()
            .map(|(row, count)| test(u64::from(*count), expected_per_row(row as u64)))
            .sum()
    };
    let milliseconds = |quantile: f64| delays.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(json!({
        "benchmark": "changes_under_rls", "subscribers": arguments.subscribers, "rows": total,
        "rows_per_second": (total as f64 / seconds).round(), "delivered": received,
        "lost": counts(&|got, wanted| wanted.saturating_sub(got)),
        "repeated": counts(&|got, wanted| got.saturating_sub(wanted)),
        "misdelivered": misdelivered,
        "latency_ms": {"p50": milliseconds(0.5), "p95": milliseconds(0.95), "p99": milliseconds(0.99),
                       "max": delays.max() as f64 / 1000.0},
        "server_cpu_seconds": after.0 - before.0, "database_cpu_seconds": after.1 - before.1,
    }))
}

/// Rooms in a scattered but repeatable order (multiplication by a number coprime to every small count).
fn room_of(row: u64, rooms: u64) -> u64 {
    row.wrapping_mul(2_654_435_761) % rooms
}

/// Writes rows in an open loop: a row is due at its time whether or not the one before is done.
async fn write(
    client: tokio_postgres::Client,
    next: Arc<AtomicU64>,
    total: u64,
    rate: f64,
    rooms: u64,
    epoch: Instant,
) -> Result<(), Failure> {
    let insert = client
        .prepare(
            "insert into public.items (room_id, row_number, sent_ns, body) values ($1, $2, $3, $4)",
        )
        .await?;
    let body = "x".repeat(180);
    let begun = tokio::time::Instant::now();
    loop {
        let row = next.fetch_add(1, Ordering::Relaxed);
        if row >= total {
            return Ok(());
        }
        tokio::time::sleep_until(begun + Duration::from_secs_f64(row as f64 / rate)).await;
        let sent_ns = epoch.elapsed().as_nanos() as i64;
        let room = room_of(row, rooms) as i32;
        client
            .execute(&insert, &[&room, &(row as i64), &sent_ns, &body])
            .await?;
    }
}

/// Reads one socket for ever and reports each row.
async fn receive(
    mut subscriber: Subscriber,
    number: u64,
    epoch: Instant,
    receipts: mpsc::Sender<Result<Receipt, Failure>>,
) {
    let mut heartbeat = tokio::time::interval(Duration::from_secs(25));
    loop {
        let message = tokio::select! {
            message = subscriber.next() => message,
            _ = heartbeat.tick() => match subscriber.heartbeat().await {
                Ok(()) => continue,
                Err(error) => Err(error),
            },
        };
        let receipt = match message {
            Ok((event, payload)) if event == "postgres_changes" => {
                let record = &payload["data"]["record"];
                let sent = Duration::from_nanos(record["sent_ns"].as_u64().unwrap_or_default());
                Ok(Receipt {
                    subscriber: number,
                    row: record["row_number"].as_u64().unwrap_or_default(),
                    delay: epoch.elapsed().saturating_sub(sent),
                })
            }
            Ok((event, payload)) if event == "system" => Err(payload.to_string().into()),
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        let failed = receipt.is_err();
        if receipts.send(receipt).await.is_err() || failed {
            return;
        }
    }
}
