//! Deciding who may see a row when PostgreSQL must be asked, without sockets and replication.
//!
//! The policy calls a `security definer` function; every row is visible to two of many people.
//! Batches of one-row transactions are resolved one after the other, as they would have gathered
//! while the last was under way. Prints one JSON line for each size of batch:
//!
//!     cargo bench --bench row_visibility -- --people 200 --seconds 5

#![allow(clippy::print_stdout, reason = "the result is printed")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use rapport::change::{
    ChangeEvent, ChangeTransaction, Column, ColumnValue, Lsn, Relation, ReplicaIdentity, Row,
    RowChange, TableName, TimestampMicros,
};
use rapport::config::VisibilityConfig;
use rapport::db::connect::Connector;
use rapport::dev::binaries::Binaries;
use rapport::dev::postgres::{Cluster, ClusterOptions, Storage};
use rapport::observability::metrics::VisibilityMetrics;
use rapport::shutdown::Tasks;
use rapport::visibility::{
    Binding, ChannelId, Identity, SubscribeOptions, SubscriptionRequest, Visibility,
};
use serde_json::json;
use tokio_postgres::NoTls;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    /// Subscribers, each with a `sub` of its own; two share a room.
    #[arg(long, default_value_t = 200)]
    people: u32,
    /// How long each size of batch is tried.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections that ask.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Given by `cargo bench`, without meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let cluster = Cluster::start(ClusterOptions {
        binaries: Binaries::find(None)?,
        storage: Storage::Scratch(std::env::temp_dir().join("rapport-bench-visibility")),
        port: None,
        settings: vec![("fsync", "off")],
    })?;
    let url = cluster.url_for("postgres");
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(&arguments, &url))
}

fn person(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

async fn set_up(arguments: &Arguments, client: &tokio_postgres::Client) -> Result<(), Failure> {
    client
        .batch_execute(
            "create role authenticated; create role rapport_request;
             create schema auth; grant usage on schema auth to public; create schema private;
             create function auth.uid() returns uuid language sql stable as
               $$ select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
             create table private.members (room int, person uuid, primary key (room, person));
             create function private.is_member(wanted int) returns boolean
               language sql stable security definer set search_path = '' as
               $$ select exists (select from private.members m where m.room = wanted and m.person = auth.uid()) $$;
             create table messages (id bigint primary key, room int, body text);
             alter table messages enable row level security;
             grant select on messages to authenticated;
             create policy members on messages for select to authenticated using (private.is_member(room));
             create publication supabase_realtime for table messages;",
        )
        .await?;
    for number in 0..arguments.people {
        let room = i32::try_from(number / 2)?;
        client
            .execute(
                "insert into private.members values ($1, $2::text::uuid)",
                &[&room, &person(number)],
            )
            .await?;
    }
    client.batch_execute("analyze private.members").await?;
    Ok(())
}

async fn measure(arguments: &Arguments, url: &str) -> Result<(), Failure> {
    let tasks = Tasks::new();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tasks.spawn("bench connection", async move {
        let _ = connection.await;
    });
    set_up(arguments, &client).await?;
    let config = VisibilityConfig {
        pool_size: arguments.connections,
        catalog_ttl: Duration::from_secs(1),
        batch_max_rows: 500,
        statement_timeout: Duration::from_secs(5),
        delete_without_old_row: true,
    };
    let visibility = Visibility::new(
        Connector::new(url)?,
        &config,
        "supabase_realtime",
        1 << 20,
        VisibilityMetrics::default(),
        &tasks,
    );
    for number in 0..arguments.people {
        let claims =
            json!({"sub": person(number), "role": "authenticated", "aud": "authenticated"});
        let identity = Identity {
            role: "authenticated".to_owned(),
            claims: claims.to_string().into(),
        };
        let request =
            SubscriptionRequest::parse(&json!({"schema": "public", "table": "messages"}))?;
        visibility
            .subscribe(
                ChannelId(number.into()),
                Arc::new(identity),
                vec![Binding { id: 1, request }],
                SubscribeOptions::default(),
            )
            .await?;
    }
    let oid: u32 = client
        .query_one("select 'messages'::regclass::oid", &[])
        .await?
        .get(0);
    let relation = relation(oid);
    let mut id = 0;
    for size in [1, 10, 100, 500] {
        let before = cpu();
        let begun = Instant::now();
        let (mut rows, mut received) = (0_usize, 0_usize);
        while begun.elapsed().as_secs_f64() < arguments.seconds {
            let batch: Vec<_> = (0..size)
                .map(|_| {
                    id += 1;
                    transaction(&relation, id, u64::from(arguments.people / 2))
                })
                .collect();
            rows += batch.len();
            let deliveries = visibility.resolve(&batch).await;
            received += deliveries
                .iter()
                .map(|delivery| delivery.recipients.len())
                .sum::<usize>();
        }
        if received != rows * 2 {
            return Err(format!("{rows} rows were received {received} times").into());
        }
        let seconds = begun.elapsed().as_secs_f64();
        let after = cpu();
        println!(
            "{}",
            json!({
                "people": arguments.people,
                "batch": size,
                "rows_per_second": (rows as f64 / seconds).round(),
                "own_cpu_us_per_row": ((after.0 - before.0) * 1e6 / rows as f64).round(),
                "database_cpu_us_per_row": ((after.1 - before.1) * 1e6 / rows as f64).round(),
            })
        );
    }
    tasks.stop();
    Ok(())
}

fn relation(oid: u32) -> Arc<Relation> {
    let column = |name: &str, type_oid, is_identity| Column {
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        is_identity,
    };
    Arc::new(Relation {
        oid,
        table: TableName::new("public", "messages"),
        identity: ReplicaIdentity::Default,
        columns: vec![
            column("id", 20, true),
            column("room", 23, false),
            column("body", 25, false),
        ],
    })
}

/// A new message; rooms take turns in an order that is none.
fn transaction(relation: &Arc<Relation>, id: u64, rooms: u64) -> Arc<ChangeTransaction> {
    let room = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % rooms;
    let text = |text: String| ColumnValue::Text(text.into());
    Arc::new(ChangeTransaction {
        commit_lsn: Lsn(id),
        committed_at: TimestampMicros(0),
        first_ordinal: 0,
        changes: vec![ChangeEvent {
            relation: Arc::clone(relation),
            row: RowChange::Insert {
                new: Row(vec![
                    text(id.to_string()),
                    text(room.to_string()),
                    text("hello".to_owned()),
                ]),
            },
        }],
        is_last: true,
        bytes: 0,
    })
}

/// Seconds of processor time of this process and of all PostgreSQL processes below it.
fn cpu() -> (f64, f64) {
    // The unit of `/proc/<pid>/stat`, `sysconf(_SC_CLK_TCK)`, is 100 per second on Linux.
    const TICKS: f64 = 100.0;
    let own_id = std::process::id();
    let (mut own, mut database) = (0.0, 0.0);
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return (own, database);
    };
    let mut processes = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((_, fields)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |at: usize| {
            fields
                .get(at)
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let parent = fields
            .get(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        processes.push((pid, parent, (number(11) + number(12)) / TICKS));
    }
    let mut family = vec![own_id];
    let mut at = 0;
    while let Some(pid) = family.get(at).copied() {
        family.extend(
            processes
                .iter()
                .filter(|(_, parent, _)| *parent == pid)
                .map(|(child, _, _)| *child),
        );
        at += 1;
    }
    for (pid, _, seconds) in processes {
        if pid == own_id {
            own += seconds;
        } else if family.contains(&pid) {
            database += seconds;
        }
    }
    (own, database)
}
