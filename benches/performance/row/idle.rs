//! Rows 8 and 18 of `docs/benchmarks.md`: the cost of joined sockets that send only heartbeats.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::client::phoenix::HEARTBEAT_SECONDS;
use crate::crowd::{Counted, Crowd};
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;

/// Members per topic, a value between the extremes of one member and all clients.
const PER_TOPIC: usize = 100;

/// Measures row 8: memory of the process per socket.
pub(super) fn memory(lab: &Laboratory) -> Result<Outcome, Failure> {
    let mut runs = Vec::new();
    let mut faults = Vec::new();
    for _ in 0..lab.settings.runs {
        let server = Server::rapport(&lab.database)?;
        // Memory of the first sockets includes one-time allocations.
        let mut first = crowd(lab, &server, PER_TOPIC)?;
        first.idle(lab.settings.pause())?;
        let before = server.process.memory_kib();
        let mut crowd = crowd(lab, &server, 10_000)?;
        crowd.idle(2 * lab.settings.pause())?;
        let grown = server.process.memory_kib() - before;
        runs.push(grown / crowd.ledger.joined as f64);
        faults.append(&mut crowd.ledger.complaints);
        drop((first, crowd));
        server.stop()?;
    }
    let figure = Figure {
        name: "memory per socket",
        unit: "KiB",
        value: median(runs.iter().copied()),
        better: Better::Lower,
        floor: 10.0,
        goal: 3.0,
    };
    Ok(Outcome {
        figures: vec![figure],
        runs: runs.len(),
        detail: json!({"each_run": runs.into_iter().map(rounded).collect::<Vec<_>>()}),
        faults,
    })
}

/// Measures row 18: CPU time of heartbeats. A measurement takes one heartbeat interval.
pub(super) fn heartbeats(lab: &Laboratory) -> Result<Outcome, Failure> {
    let server = Server::rapport(&lab.database)?;
    let mut crowd = crowd(lab, &server, 5000)?;
    crowd.idle(lab.settings.pause())?;
    let window = if lab.settings.is_quick {
        lab.settings.window
    } else {
        Duration::from_secs_f64(HEARTBEAT_SECONDS)
    };
    let mut runs = Vec::new();
    for _ in 0..lab.settings.runs {
        let (begun, cpu) = (Instant::now(), server.process.cpu_seconds());
        crowd.idle(window)?;
        let cpu = server.process.cpu_seconds() - cpu;
        runs.push(100.0 * cpu / begun.elapsed().as_secs_f64());
    }
    let faults = std::mem::take(&mut crowd.ledger.complaints);
    drop(crowd);
    server.stop()?;
    let figure = Figure {
        name: "CPU time of one core",
        unit: "%",
        value: median(runs.iter().copied()),
        better: Better::Lower,
        floor: 2.0,
        goal: 0.4,
    };
    Ok(Outcome {
        figures: vec![figure],
        runs: runs.len(),
        detail: json!({"each_run": runs.into_iter().map(rounded).collect::<Vec<_>>()}),
        faults,
    })
}

/// Connects clients to topics of [`PER_TOPIC`] members and waits until all have joined.
fn crowd(lab: &Laboratory, server: &Server, clients: usize) -> Result<Crowd, Failure> {
    let clients = lab.settings.clients(clients);
    let topics = clients.div_ceil(PER_TOPIC);
    let names = (0..topics).map(|n| format!("realtime:room-{n}")).collect();
    let seats = lab.seats(clients, topics)?;
    let mut crowd = Crowd::new(server.address, Counted::Broadcasts, names, seats)?;
    crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
    Ok(crowd)
}
