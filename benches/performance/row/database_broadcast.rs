//! Row 23 of `docs/benchmarks.md`: broadcasts sent by SQL (`realtime.send`) to a public channel of
//! 100 clients.

use serde_json::{Value, json};

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::crowd::lane::Lane;
use crate::crowd::{Counted, Crowd};
use crate::meter::{Cost, Meter};
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;
use crate::writer::{Order, Writer};

/// Does not use its first parameter, the place of each row, because there is only one topic.
const SEND: &str = "select realtime.send(jsonb_build_object('m', body), 'message', 'room', false)
    from unnest($1::int[], $2::text[]) as messages (place, body)";

struct Run {
    deliveries_per_second: f64,
    per_cpu_second: f64,
    cost: Cost,
    p50_ms: f64,
    p99_ms: f64,
    faults: Vec<String>,
}

/// Measures row 23.
pub(super) fn measure(lab: &Laboratory) -> Result<Outcome, Failure> {
    const SENDS_PER_SECOND: f64 = 500.0;
    let (mut paced, mut saturated) = (Vec::new(), Vec::new());
    for _ in 0..lab.settings.runs {
        paced.push(run(lab, Some(SENDS_PER_SECOND), 1)?);
        saturated.push(run(lab, None, 10)?);
    }
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value));
    let latency = |name, value, floor, goal| Figure {
        name,
        unit: "ms",
        value,
        better: Better::Lower,
        floor,
        goal,
    };
    let figures = vec![
        latency("p50 at 500 sends/s", of(&paced, |run| run.p50_ms), 3.0, 1.2),
        latency(
            "p99 at 500 sends/s",
            of(&paced, |run| run.p99_ms),
            15.0,
            4.0,
        ),
        Figure {
            name: "deliveries at saturation",
            unit: "1/s",
            value: of(&saturated, |run| run.deliveries_per_second),
            better: Better::Higher,
            floor: 100_000.0,
            goal: 250_000.0,
        },
    ];
    Ok(Outcome {
        figures,
        runs: paced.len(),
        detail: json!({"paced": medians(&paced), "saturated": medians(&saturated)}),
        faults: [paced, saturated]
            .into_iter()
            .flatten()
            .flat_map(|run| run.faults)
            .collect(),
    })
}

fn medians(runs: &[Run]) -> Value {
    let of = |value: fn(&Run) -> f64| rounded(median(runs.iter().map(value)));
    json!({
        "deliveries_per_second": of(|run| run.deliveries_per_second),
        "deliveries_per_server_cpu_second": of(|run| run.per_cpu_second),
        "cores": Cost::medians(runs.iter().map(|run| &run.cost)),
        "p50_ms": of(|run| run.p50_ms),
        "p99_ms": of(|run| run.p99_ms),
    })
}

fn run(lab: &Laboratory, per_second: Option<f64>, per_statement: u64) -> Result<Run, Failure> {
    let settings = lab.settings;
    let server = Server::rapport(&lab.database)?;
    let receivers = settings.clients(100);
    let topics = vec!["realtime:room".to_owned()];
    let seats = lab.seats(receivers, 1)?;
    let mut crowd = Crowd::new(server.address, Counted::Broadcasts, topics, seats)?;
    crowd.ledger.lanes = vec![Lane::following(receivers as u32)];
    crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
    crowd.idle(settings.pause())?;
    let writer = Writer::start(Order {
        url: lab.database.url(),
        statement: SEND.to_owned(),
        places: 1,
        rows_per_statement: per_statement,
        per_second,
        in_flight: 1000,
        epoch: crowd.ledger.epoch,
    })?;
    let mut lost = writer.follow(&mut crowd, settings.pause())?;
    crowd.ledger.window.take();
    let meter = Meter::start(&server);
    lost += writer.follow(&mut crowd, settings.window)?;
    let window = crowd.ledger.window.take();
    let cost = meter.stop();
    lost += writer.drain(&mut crowd)?;
    let faults = crowd.ledger.faults(&window, lost);
    drop(crowd);
    server.stop()?;
    Ok(Run {
        deliveries_per_second: window.deliveries as f64 / cost.seconds,
        per_cpu_second: window.deliveries as f64 / cost.server_cpu,
        cost,
        p50_ms: window.latency_ms(0.5),
        p99_ms: window.latency_ms(0.99),
        faults,
    })
}
