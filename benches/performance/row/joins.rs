//! Rows 9 and 10 of `docs/benchmarks.md`: connecting to and joining public and private channels.

use serde_json::{Value, json};

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::client::phoenix::JoinConfig;
use crate::crowd::window::quantiles;
use crate::crowd::{Counted, Crowd, Seat};
use crate::meter::{Cost, Meter};
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;

/// Members of one topic.
const PER_TOPIC: usize = 100;

/// Typical policies of an application: every signed-in user may read and write the rooms.
pub(crate) const POLICIES: &str = "
    drop policy if exists \"Bench rooms are read\" on realtime.messages;
    drop policy if exists \"Bench rooms are written\" on realtime.messages;
    create policy \"Bench rooms are read\" on realtime.messages for select to authenticated
        using (realtime.topic() ~ '^(room|soak)-' and (select auth.uid()) is not null);
    create policy \"Bench rooms are written\" on realtime.messages for insert to authenticated
        with check (realtime.topic() ~ '^(room|soak)-' and (select auth.uid()) is not null);";

/// Measures row 9: sockets opened and joined to public channels per CPU second of the server.
pub(super) fn public(lab: &Laboratory) -> Result<Outcome, Failure> {
    let runs = measure(lab, false)?;
    let figure = Figure {
        name: "connects with a join per server CPU second",
        unit: "joins/CPU s",
        value: median(runs.iter().map(|run| run.per_cpu_second)),
        better: Better::Higher,
        floor: 6000.0,
        goal: 15_000.0,
    };
    Ok(outcome(figure, runs))
}

/// Measures row 10: sockets opened and joined to private channels per elapsed second.
pub(super) fn private(lab: &Laboratory) -> Result<Outcome, Failure> {
    lab.database.execute(POLICIES)?;
    let runs = measure(lab, true)?;
    let figure = Figure {
        name: "connects with a private join per second",
        unit: "joins/s",
        value: median(runs.iter().map(|run| run.per_second)),
        better: Better::Higher,
        floor: 1500.0,
        goal: 5000.0,
    };
    Ok(outcome(figure, runs))
}

struct Run {
    per_cpu_second: f64,
    per_second: f64,
    cost: Cost,
    connect_ms: Value,
    join_ms: Value,
    faults: Vec<String>,
}

fn measure(lab: &Laboratory, is_private: bool) -> Result<Vec<Run>, Failure> {
    let clients = lab.settings.clients(5000);
    let topics = clients.div_ceil(PER_TOPIC);
    let config = JoinConfig {
        is_private,
        ..JoinConfig::default()
    };
    let seats: Vec<Seat> = lab
        .seats(clients, topics)?
        .into_iter()
        .map(|seat| Seat {
            config: config.clone(),
            ..seat
        })
        .collect();
    let names: Vec<String> = (0..topics).map(|n| format!("realtime:room-{n}")).collect();
    let run = || -> Result<Run, Failure> {
        let server = Server::rapport(&lab.database)?;
        let mut crowd = Crowd::new(
            server.address,
            Counted::Broadcasts,
            names.clone(),
            seats.clone(),
        )?;
        let meter = Meter::start(&server);
        crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
        let cost = meter.stop();
        let run = Run {
            per_cpu_second: clients as f64 / cost.server_cpu,
            per_second: clients as f64 / cost.seconds,
            cost,
            connect_ms: quantiles(&crowd.ledger.connect_us),
            join_ms: quantiles(&crowd.ledger.join_us),
            faults: std::mem::take(&mut crowd.ledger.complaints),
        };
        drop(crowd);
        server.stop()?;
        Ok(run)
    };
    (0..lab.settings.runs).map(|_| run()).collect()
}

fn outcome(figure: Figure, mut runs: Vec<Run>) -> Outcome {
    let of = |value: fn(&Run) -> f64| rounded(median(runs.iter().map(value)));
    let detail = json!({
        "joins_per_server_cpu_second": of(|run| run.per_cpu_second),
        "joins_per_second": of(|run| run.per_second),
        "cores": Cost::medians(runs.iter().map(|run| &run.cost)),
        "last_run_connect_ms": runs.last().map(|run| &run.connect_ms),
        "last_run_join_ms": runs.last().map(|run| &run.join_ms),
    });
    Outcome {
        figures: vec![figure],
        runs: runs.len(),
        detail,
        faults: runs
            .iter_mut()
            .flat_map(|run| std::mem::take(&mut run.faults))
            .collect(),
    }
}
