//! Visibility checks that require PostgreSQL, without sockets and replication.
//!
//! Batches of one-row transactions are resolved one after the other, as if each batch had
//! accumulated during the check of the previous one. Table, policy and users are those of row 12 in
//! `docs/benchmarks.md`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rapport::change::{
    ChangeEvent, ChangeTransaction, Column, ColumnValue, Lsn, Relation, ReplicaIdentity, Row,
    RowChange, TableName, TimestampMicros,
};
use rapport::config::VisibilityConfig;
use rapport::db::connect::Connector;
use rapport::observability::metrics::VisibilityMetrics;
use rapport::shutdown::Tasks;
use rapport::visibility::{
    Binding, ChannelId, Identity, Subscriber, SubscriptionRequest, Visibility,
};
use serde_json::json;

use crate::Failure;
use crate::database::{Database, person_id};
use crate::process::{database_cpu_seconds, own_cpu_seconds};
use crate::report::rounded;
use crate::row::changes;
use crate::writer::{PEOPLE_PER_ROOM, place_of};

/// Batch sizes: numbers of rows that accumulated during the previous check.
const BATCHES: [u64; 4] = [1, 10, 100, 500];

/// Prints one JSON line for each batch size.
pub(crate) fn measure(
    people: usize,
    duration: Duration,
    connections: usize,
) -> Result<(), Failure> {
    // Every room is full, so two users may see each row.
    let people = people.next_multiple_of(PEOPLE_PER_ROOM);
    let database = Database::start()?;
    changes::prepare(&database, people)?;
    let oid = database.number("select 'public.bench_items'::regclass::oid::bigint")?;
    let relation = relation(u32::try_from(oid)?);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(resolve_batches(
            &database,
            &relation,
            people,
            duration,
            connections,
        ))
}

async fn resolve_batches(
    database: &Database,
    relation: &Arc<Relation>,
    people: usize,
    duration: Duration,
    connections: usize,
) -> Result<(), Failure> {
    let tasks = Tasks::new();
    let visibility = subscribe(database, people, connections, &tasks).await?;
    let rooms = people.div_ceil(PEOPLE_PER_ROOM) as u64;
    let mut id = 0;
    for size in BATCHES {
        let cpu = (own_cpu_seconds(), database_cpu_seconds());
        let begun = Instant::now();
        let (mut rows, mut received) = (0, 0);
        while begun.elapsed() < duration {
            let batch: Vec<_> = (id..id + size)
                .map(|row| transaction(relation, row, rooms))
                .collect();
            id += size;
            rows += batch.len();
            let deliveries = visibility.resolve(&batch).await.deliveries;
            received += deliveries
                .iter()
                .map(|delivery| delivery.recipients.len())
                .sum::<usize>();
        }
        if received != rows * PEOPLE_PER_ROOM {
            return Err(format!("{rows} rows were received {received} times").into());
        }
        let microseconds = |cpu: f64| rounded(cpu * 1e6 / rows as f64);
        println!(
            "{}",
            json!({
                "what": "deciding", "people": people, "batch": size,
                "rows_per_second": rounded(rows as f64 / begun.elapsed().as_secs_f64()),
                "own_cpu_us_per_row": microseconds(own_cpu_seconds() - cpu.0),
                "database_cpu_us_per_row": microseconds(database_cpu_seconds() - cpu.1),
            })
        );
    }
    tasks.stop();
    Ok(())
}

/// Creates a visibility component in which all users subscribe to the whole table.
async fn subscribe(
    database: &Database,
    people: usize,
    connections: usize,
    tasks: &Tasks,
) -> Result<Visibility, Failure> {
    let config = VisibilityConfig {
        pool_size: connections,
        catalog_ttl: Duration::from_secs(1),
        batch_max_rows: 500,
        statement_timeout: Duration::from_secs(5),
        delete_without_old_row: true,
        tell_unauthorized: true,
        tables_without_old_rows: Vec::new(),
        tables_with_unchecked_old_rows: Vec::new(),
    };
    let visibility = Visibility::new(
        Connector::new(&database.url())?,
        &config,
        "supabase_realtime",
        1 << 20,
        VisibilityMetrics::default(),
        tasks,
    );
    for number in 0..people {
        let claims =
            json!({"sub": person_id(number), "role": "authenticated", "aud": "authenticated"});
        let identity = Identity {
            role: "authenticated".to_owned(),
            claims: claims.to_string().into(),
        };
        let request =
            SubscriptionRequest::parse(&json!({"schema": "public", "table": "bench_items"}))?;
        visibility
            .subscribe(
                ChannelId(number as u64),
                Subscriber::new(Arc::new(identity)),
                vec![Binding { id: 1, request }],
            )
            .await?;
    }
    Ok(visibility)
}

/// Returns the table as a relation message describes it.
fn relation(oid: u32) -> Arc<Relation> {
    // The types are bigint, integer and text.
    let column = |name: &str, type_oid, is_identity| Column {
        name: name.to_owned(),
        type_oid,
        type_modifier: -1,
        is_identity,
    };
    Arc::new(Relation {
        oid,
        table: TableName::new("public", "bench_items"),
        identity: ReplicaIdentity::Default,
        columns: vec![
            column("id", 20, true),
            column("room", 23, false),
            column("body", 25, false),
        ],
    })
}

/// Returns a transaction that contains one insert.
fn transaction(relation: &Arc<Relation>, id: u64, rooms: u64) -> Arc<ChangeTransaction> {
    let text = |text: String| ColumnValue::Text(text.into());
    let new = Row(vec![
        text(id.to_string()),
        text(place_of(id, rooms).to_string()),
        text("hello".to_owned()),
    ]);
    Arc::new(ChangeTransaction {
        commit_lsn: Lsn(id + 1),
        committed_at: TimestampMicros(0),
        // The lowest normal transaction id, which every snapshot sees.
        xid: 3,
        first_ordinal: 0,
        changes: vec![ChangeEvent {
            relation: Arc::clone(relation),
            row: RowChange::Insert { new },
        }],
        is_last: true,
        bytes: 0,
    })
}
