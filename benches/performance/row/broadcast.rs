//! Rows 1 to 7 of `docs/benchmarks.md`: broadcasts from a client to the other clients of its topic,
//! as binary frames.
//!
//! The yardstick and Rapport are measured alternately, each time in a new process.

use std::time::Instant;

use serde_json::{Value, json};

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::crowd::publish::{Pace, Publisher};
use crate::crowd::{Counted, Crowd, Seat};
use crate::meter::{Cost, Meter};
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;

/// The receivers, and how broadcasts are sent to them.
#[derive(Clone, Copy)]
struct Case {
    receivers: usize,
    topics: usize,
    pace: Pace,
}

impl Case {
    const fn one_in_flight(receivers: usize, topics: usize) -> Self {
        Self {
            receivers,
            topics,
            pace: Pace::InFlight(1),
        }
    }
}

/// Measures row 1.
pub(super) fn thousand(lab: &Laboratory) -> Result<Outcome, Failure> {
    share(lab, Case::one_in_flight(1000, 1), 0.70, 0.90)
}

/// Measures row 2.
pub(super) fn hundred(lab: &Laboratory) -> Result<Outcome, Failure> {
    share(lab, Case::one_in_flight(100, 1), 0.60, 0.80)
}

/// Measures row 3.
pub(super) fn rooms(lab: &Laboratory) -> Result<Outcome, Failure> {
    share(lab, Case::one_in_flight(1000, 100), 0.55, 0.75)
}

/// Measures row 4.
pub(super) fn five_thousand(lab: &Laboratory) -> Result<Outcome, Failure> {
    share(lab, Case::one_in_flight(5000, 1), 0.65, 0.90)
}

/// Measures row 5.
pub(super) fn queued(lab: &Laboratory) -> Result<Outcome, Failure> {
    let case = Case {
        pace: Pace::InFlight(8),
        ..Case::one_in_flight(1000, 1)
    };
    share(lab, case, 0.25, 0.55)
}

/// Measures row 6.
pub(super) fn paced(lab: &Laboratory) -> Result<Outcome, Failure> {
    const DELIVERIES_PER_SECOND: f64 = 20_000.0;
    let receivers = lab.settings.clients(1000);
    let case = Case {
        receivers,
        topics: 1,
        pace: Pace::PerSecond(DELIVERIES_PER_SECOND / receivers as f64),
    };
    let sides = Sides::measure(lab, case)?;
    let p99 = |runs: &[Run]| median(runs.iter().map(|run| run.p99_ms));
    let figure = Figure {
        name: "p99 relative to the yardstick",
        unit: "times",
        value: p99(&sides.rapport) / p99(&sides.yardstick),
        better: Better::Lower,
        floor: 1.6,
        goal: 1.2,
    };
    Ok(sides.outcome(vec![figure]))
}

/// Measures row 7.
pub(super) fn latency(lab: &Laboratory) -> Result<Outcome, Failure> {
    let sides = Sides::measure(lab, Case::one_in_flight(100, 1))?;
    let figure = |name, floor, goal, of: fn(&Run) -> f64| Figure {
        name,
        unit: "ms",
        value: median(sides.rapport.iter().map(of)),
        better: Better::Lower,
        floor,
        goal,
    };
    let figures = vec![
        figure("p50", 0.5, 0.3, |run| run.p50_ms),
        figure("p99", 2.0, 1.0, |run| run.p99_ms),
    ];
    Ok(sides.outcome(figures))
}

/// Measures the deliveries per CPU second of the server, relative to the yardstick.
fn share(lab: &Laboratory, case: Case, floor: f64, goal: f64) -> Result<Outcome, Failure> {
    let sides = Sides::measure(lab, case)?;
    let figure = Figure {
        name: "deliveries per server CPU second, relative to the yardstick",
        unit: "share",
        value: per_cpu_second(&sides.rapport) / per_cpu_second(&sides.yardstick),
        better: Better::Higher,
        floor,
        goal,
    };
    Ok(sides.outcome(vec![figure]))
}

/// The results of one run with one of the servers.
struct Run {
    per_cpu_second: f64,
    per_second: f64,
    cost: Cost,
    p50_ms: f64,
    p99_ms: f64,
    faults: Vec<String>,
}

fn per_cpu_second(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.per_cpu_second))
}

struct Sides {
    yardstick: Vec<Run>,
    rapport: Vec<Run>,
}

impl Sides {
    /// Measures both servers alternately.
    fn measure(lab: &Laboratory, case: Case) -> Result<Self, Failure> {
        let mut sides = Self {
            yardstick: Vec::new(),
            rapport: Vec::new(),
        };
        for _ in 0..lab.settings.runs {
            let server = Server::yardstick(lab.database.directory())?;
            sides.yardstick.push(run(lab, case, &server)?);
            drop(server);
            let server = Server::rapport(&lab.database)?;
            sides.rapport.push(run(lab, case, &server)?);
            server.stop()?;
        }
        Ok(sides)
    }

    fn outcome(self, figures: Vec<Figure>) -> Outcome {
        Outcome {
            figures,
            runs: self.rapport.len(),
            detail: json!({"rapport": medians(&self.rapport), "yardstick": medians(&self.yardstick)}),
            faults: [self.rapport, self.yardstick]
                .into_iter()
                .flatten()
                .flat_map(|run| run.faults)
                .collect(),
        }
    }
}

fn medians(runs: &[Run]) -> Value {
    let of = |value: fn(&Run) -> f64| rounded(median(runs.iter().map(value)));
    json!({
        "deliveries_per_cpu_second": of(|run| run.per_cpu_second),
        "each_run": runs.iter().map(|run| rounded(run.per_cpu_second)).collect::<Vec<_>>(),
        "deliveries_per_second": of(|run| run.per_second),
        "cores": Cost::medians(runs.iter().map(|run| &run.cost)),
        "p50_ms": of(|run| run.p50_ms),
        "p99_ms": of(|run| run.p99_ms),
    })
}

fn run(lab: &Laboratory, case: Case, server: &Server) -> Result<Run, Failure> {
    let settings = lab.settings;
    let topics = case.topics.min(settings.clients(case.topics));
    let mut seats = lab.seats(settings.clients(case.receivers), topics)?;
    for topic in 0..topics {
        seats.push(Seat {
            topic,
            publishes: true,
            ..seats[topic].clone()
        });
    }
    let names = (0..topics).map(|n| format!("realtime:room-{n}")).collect();
    let mut crowd = Crowd::new(server.address, Counted::Broadcasts, names, seats)?;
    crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
    crowd.idle(settings.pause())?;

    let mut publisher = Publisher::new(&crowd, case.pace);
    publisher.run(&mut crowd, Instant::now() + settings.pause())?;
    crowd.ledger.window.take();
    let meter = Meter::start(server);
    publisher.run(&mut crowd, Instant::now() + settings.window)?;
    let window = crowd.ledger.window.take();
    let cost = meter.stop();
    publisher.drain(&mut crowd)?;

    let faults = crowd.ledger.faults(&window, publisher.lost);
    Ok(Run {
        per_cpu_second: window.deliveries as f64 / cost.server_cpu,
        per_second: window.deliveries as f64 / cost.seconds,
        cost,
        p50_ms: window.latency_ms(0.5),
        p99_ms: window.latency_ms(0.99),
        faults,
    })
}
