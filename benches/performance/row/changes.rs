//! Rows 11 to 13 and 16 of `docs/benchmarks.md`: row changes under row-level security.
//!
//! The policy looks up the user among the members of the row's room, so PostgreSQL must evaluate
//! it. Every user subscribes to the whole table, and two users may see each row.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::client::phoenix::JoinConfig;
use crate::crowd::lane::Lane;
use crate::crowd::{Counted, Crowd, Seat};
use crate::database::{Database, person_id};
use crate::meter::{Cost, Meter};
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;
use crate::writer::{Order, PEOPLE_PER_ROOM, Writer};

/// Timeout of a row that waits behind many others.
const PATIENCE: Duration = Duration::from_secs(60);

/// The table, its policy, and a table without subscribers.
const SCHEMA: &str = "
    create schema if not exists private;
    create table if not exists private.bench_members (
        room int not null, person uuid not null, primary key (room, person));
    create table if not exists public.bench_items (
        id bigint generated always as identity primary key, room int not null, body text not null);
    create table if not exists public.bench_unsubscribed (
        id bigint generated always as identity primary key, room int not null, body text not null);
    alter table public.bench_items enable row level security;
    drop policy if exists \"Members read their room\" on public.bench_items;
    create policy \"Members read their room\" on public.bench_items for select to authenticated
        using (exists (select from private.bench_members m
                       where m.room = bench_items.room and m.person = (select auth.uid())));
    grant usage on schema private to authenticated;
    grant select on public.bench_items, private.bench_members to authenticated;
    do $$ begin
        if not exists (select from pg_publication_tables
                       where pubname = 'supabase_realtime' and tablename = 'bench_items') then
            alter publication supabase_realtime add table public.bench_items, public.bench_unsubscribed;
        end if;
    end $$;
    truncate public.bench_items, public.bench_unsubscribed, private.bench_members;";

const INSERT: &str = "insert into public.bench_items (room, body)
    select * from unnest($1::int[], $2::text[])";

/// Measures row 11: one row at a time on an idle server.
pub(super) fn latency(lab: &Laboratory) -> Result<Outcome, Failure> {
    const ROWS_PER_SECOND: f64 = 50.0;
    let load = Load {
        people: PEOPLE_PER_ROOM,
        rows_per_statement: 1,
        per_second: Some(ROWS_PER_SECOND),
        in_flight: 1000,
        at_least: Duration::ZERO,
    };
    let runs = load.measure(lab)?;
    let figure = |name, floor, goal, of: fn(&Run) -> f64| Figure {
        name,
        unit: "ms",
        value: median(runs.iter().map(of)),
        better: Better::Lower,
        floor,
        goal,
    };
    let figures = vec![
        figure("p50", 20.0, 3.0, |run| run.p50_ms),
        figure("p99", 80.0, 10.0, |run| run.p99_ms),
    ];
    Ok(outcome(figures, vec![("people_2", runs)]))
}

/// Measures row 12: maximum throughput of rows to 50 and to 200 subscribers.
pub(super) fn throughput(lab: &Laboratory) -> Result<Outcome, Failure> {
    let few = Load::saturating(50).measure(lab)?;
    let many = Load::saturating(200).measure(lab)?;
    let figure = |name, floor, goal, runs: &[Run]| Figure {
        name,
        unit: "rows/s",
        value: median(runs.iter().map(|run| run.rows_per_second)),
        better: Better::Higher,
        floor,
        goal,
    };
    let figures = vec![
        figure("50 subscribers", 2000.0, 8000.0, &few),
        figure("200 subscribers", 1000.0, 4000.0, &many),
    ];
    Ok(outcome(
        figures,
        vec![("people_50", few), ("people_200", many)],
    ))
}

/// Measures row 13: maximum throughput of rows to 5,000 subscribers. The goal assumes that the
/// database uses one core. The details of the result show how many cores it used.
pub(super) fn crowded(lab: &Laboratory) -> Result<Outcome, Failure> {
    let load = Load {
        // With more rows in flight, batches would take longer, and too few would be measured.
        in_flight: 200,
        at_least: Duration::from_secs(20),
        ..Load::saturating(5000)
    };
    let runs = load.measure(lab)?;
    let figure = Figure {
        name: "5,000 subscribers",
        unit: "rows/s",
        value: median(runs.iter().map(|run| run.rows_per_second)),
        better: Better::Higher,
        floor: 50.0,
        goal: 150.0,
    };
    Ok(outcome(vec![figure], vec![("people_5000", runs)]))
}

/// Measures row 16: changes of a table without subscribers, while another table has some.
pub(super) fn unsubscribed(lab: &Laboratory) -> Result<Outcome, Failure> {
    let changes = lab.settings.clients(200_000);
    let (mut imported, mut single) = (Vec::new(), Vec::new());
    for _ in 0..lab.settings.runs {
        // Transactions of a thousand rows, as in an import, then transactions of one row, back to
        // back.
        imported.push(unsubscribed_rate(lab, changes, 1000)?);
        single.push(unsubscribed_rate(lab, changes, 1)?);
    }
    let figure = |name, rates: &[f64]| Figure {
        name,
        unit: "changes/CPU s",
        value: median(rates.iter().copied()),
        better: Better::Higher,
        floor: 50_000.0,
        goal: 200_000.0,
    };
    Ok(Outcome {
        figures: vec![
            figure(
                "changes per server CPU second, 1,000 per transaction",
                &imported,
            ),
            figure(
                "changes per server CPU second, one per transaction",
                &single,
            ),
        ],
        runs: imported.len(),
        detail: json!({
            "changes": changes,
            "imported": imported.into_iter().map(rounded).collect::<Vec<_>>(),
            "single": single.into_iter().map(rounded).collect::<Vec<_>>(),
        }),
        faults: Vec::new(),
    })
}

/// Returns the changes per CPU second of a newly started server.
fn unsubscribed_rate(
    lab: &Laboratory,
    changes: usize,
    per_transaction: usize,
) -> Result<f64, Failure> {
    let server = Server::rapport(&lab.database)?;
    let mut crowd = subscribers(lab, &server, PEOPLE_PER_ROOM)?;
    crowd.idle(lab.settings.pause())?;
    let cpu = server.process.cpu_seconds();
    lab.database.execute(&format!(
        "do $$ begin for batch in 1..{changes} by {per_transaction} loop
             insert into public.bench_unsubscribed (room, body)
             select n, repeat('x', 200) from generate_series(1, least({per_transaction}, {changes})) n;
             commit;
         end loop; end $$"
    ))?;
    // The last row has a subscriber, so it arrives after all other rows have been read.
    let mark = crowd.ledger.mark(0);
    lab.database.execute(&format!(
        "insert into public.bench_items (room, body) values (0, '{mark}')"
    ))?;
    let begun = Instant::now();
    while crowd.ledger.outstanding() > 0 {
        crowd.turn(Duration::from_millis(5))?;
        if begun.elapsed() > PATIENCE {
            return Err("the row after the changes did not arrive".into());
        }
    }
    let rate = changes as f64 / (server.process.cpu_seconds() - cpu);
    server.stop()?;
    Ok(rate)
}

/// The number of subscribers, and how rows are written.
struct Load {
    people: usize,
    rows_per_statement: u64,
    per_second: Option<f64>,
    in_flight: u64,
    /// Minimum duration of a measurement.
    at_least: Duration,
}

impl Load {
    /// Returns a load for maximum throughput. With ten rows per transaction, writing is not the
    /// bottleneck.
    fn saturating(people: usize) -> Self {
        Self {
            people,
            rows_per_statement: 10,
            per_second: None,
            in_flight: 2000,
            at_least: Duration::ZERO,
        }
    }

    fn measure(&self, lab: &Laboratory) -> Result<Vec<Run>, Failure> {
        (0..lab.settings.runs).map(|_| self.run(lab)).collect()
    }

    fn run(&self, lab: &Laboratory) -> Result<Run, Failure> {
        let server = Server::rapport(&lab.database)?;
        let people = lab.settings.clients(self.people);
        let (mut pause, mut duration) = (lab.settings.pause(), lab.settings.window);
        if !lab.settings.is_quick {
            duration = duration.max(self.at_least);
            pause = pause.max(self.at_least / 4);
        }
        let mut crowd = subscribers(lab, &server, people)?;
        crowd.idle(lab.settings.pause())?;
        let writer = Writer::start(Order {
            url: lab.database.url(),
            statement: INSERT.to_owned(),
            places: people.div_ceil(PEOPLE_PER_ROOM) as u64,
            rows_per_statement: self.rows_per_statement,
            per_second: self.per_second,
            in_flight: self.in_flight,
            epoch: crowd.ledger.epoch,
        })?;
        let mut lost = writer.follow(&mut crowd, pause)?;
        crowd.ledger.window.take();
        let meter = Meter::start(&server);
        lost += writer.follow(&mut crowd, duration)?;
        let window = crowd.ledger.window.take();
        let cost = meter.stop();
        lost += writer.drain(&mut crowd)?;
        let faults = crowd.ledger.faults(&window, lost);
        drop(crowd);
        server.stop()?;
        let rows = window.completed as f64;
        Ok(Run {
            rows_per_second: rows / cost.seconds,
            rows_per_database_second: rows / cost.database_cpu,
            rows_per_server_second: rows / cost.server_cpu,
            cost,
            p50_ms: window.latency_ms(0.5),
            p99_ms: window.latency_ms(0.99),
            faults,
        })
    }
}

/// The results of one run.
struct Run {
    rows_per_second: f64,
    rows_per_database_second: f64,
    rows_per_server_second: f64,
    cost: Cost,
    p50_ms: f64,
    p99_ms: f64,
    faults: Vec<String>,
}

/// Creates empty tables, and makes two users members of each room.
pub(crate) fn prepare(database: &Database, people: usize) -> Result<(), Failure> {
    database.execute(SCHEMA)?;
    let members: Vec<String> = (0..people)
        .map(|person| format!("({}, '{}')", person / PEOPLE_PER_ROOM, person_id(person)))
        .collect();
    database.execute(&format!(
        "insert into private.bench_members values {}; analyze private.bench_members",
        members.join(", ")
    ))
}

/// Connects `people` users, two per room. Each user subscribes to the whole table.
fn subscribers(lab: &Laboratory, server: &Server, people: usize) -> Result<Crowd, Failure> {
    prepare(&lab.database, people)?;
    let binding = json!({"event": "INSERT", "schema": "public", "table": "bench_items"});
    let config = JoinConfig {
        bindings: vec![binding],
        ..JoinConfig::default()
    };
    let seats: Vec<Seat> = lab
        .seats(people, 1)?
        .into_iter()
        .map(|seat| Seat {
            config: config.clone(),
            ..seat
        })
        .collect();
    let topics = vec!["realtime:items".to_owned()];
    let mut crowd = Crowd::new(server.address, Counted::Changes, topics, seats)?;
    crowd.ledger.lanes = vec![Lane::following(PEOPLE_PER_ROOM as u32)];
    crowd.ledger.rooms = Some(people.div_ceil(PEOPLE_PER_ROOM) as u64);
    crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
    crowd.subscribe(JOIN_PATIENCE)?;
    Ok(crowd)
}

fn outcome(figures: Vec<Figure>, cases: Vec<(&str, Vec<Run>)>) -> Outcome {
    let runs = cases.first().map_or(0, |(_, runs)| runs.len());
    let detail = cases
        .iter()
        .map(|(name, runs)| ((*name).to_owned(), medians(runs)))
        .collect();
    Outcome {
        figures,
        runs,
        detail: Value::Object(detail),
        faults: cases
            .into_iter()
            .flat_map(|(_, runs)| runs)
            .flat_map(|run| run.faults)
            .collect(),
    }
}

fn medians(runs: &[Run]) -> Value {
    let of = |value: fn(&Run) -> f64| rounded(median(runs.iter().map(value)));
    json!({
        "rows_per_second": of(|run| run.rows_per_second),
        "each_run": runs.iter().map(|run| rounded(run.rows_per_second)).collect::<Vec<_>>(),
        "rows_per_database_cpu_second": of(|run| run.rows_per_database_second),
        "rows_per_server_cpu_second": of(|run| run.rows_per_server_second),
        "cores": Cost::medians(runs.iter().map(|run| &run.cost)),
        "p50_ms": of(|run| run.p50_ms),
        "p99_ms": of(|run| run.p99_ms),
    })
}
