//! Row 17 of `docs/benchmarks.md`: all users in one channel track presence at once, and every user
//! must receive the presence of every user.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::client::phoenix::JoinConfig;
use crate::crowd::{Counted, Crowd, Seat};
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;

/// Time after which the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time without frames after which no further frame is expected. It spans several of the intervals
/// in which the server collects changes of presence.
const QUIET: Duration = Duration::from_millis(300);

struct Run {
    seconds: f64,
    frames: f64,
    cpu_seconds: f64,
    p99_ms: f64,
}

/// Measures row 17.
pub(super) fn storm(lab: &Laboratory) -> Result<Outcome, Failure> {
    let members = lab.settings.clients(300);
    let seats: Vec<Seat> = lab
        .seats(members, 1)?
        .into_iter()
        .enumerate()
        .map(|(id, seat)| Seat {
            config: JoinConfig {
                presence_key: Some(format!("person-{id}")),
                ..JoinConfig::default()
            },
            ..seat
        })
        .collect();
    let mut runs = Vec::new();
    let mut faults = Vec::new();
    for _ in 0..lab.settings.runs {
        let server = Server::rapport(&lab.database)?;
        let topics = vec!["realtime:room".to_owned()];
        let mut crowd = Crowd::new(server.address, Counted::Presences, topics, seats.clone())?;
        crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
        crowd.idle(lab.settings.pause())?;
        runs.push(run(&mut crowd, &server, members, &mut faults)?);
        drop(crowd);
        server.stop()?;
    }
    let of = |value: fn(&Run) -> f64| rounded(median(runs.iter().map(value)));
    let figure = Figure {
        name: "until every user has received every presence",
        unit: "s",
        value: median(runs.iter().map(|run| run.seconds)),
        better: Better::Lower,
        floor: 1.0,
        goal: 0.2,
    };
    Ok(Outcome {
        figures: vec![figure],
        runs: runs.len(),
        detail: json!({
            "members": members, "frames": of(|run| run.frames), "p99_ms": of(|run| run.p99_ms),
            "server_cpu_seconds": of(|run| run.cpu_seconds),
            "each_run": runs.iter().map(|run| rounded(run.seconds)).collect::<Vec<_>>(),
        }),
        faults,
    })
}

fn run(
    crowd: &mut Crowd,
    server: &Server,
    members: usize,
    faults: &mut Vec<String>,
) -> Result<Run, Failure> {
    let expected = (members * members) as u64;
    crowd.ledger.window.take();
    let (begun, cpu) = (Instant::now(), server.process.cpu_seconds());
    for id in 0..members {
        crowd.track(id);
        if id % 64 == 63 {
            crowd.turn(Duration::ZERO)?;
        }
    }
    while crowd.ledger.window.deliveries < expected && begun.elapsed() < PATIENCE {
        crowd.turn(Duration::from_millis(2))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = server.process.cpu_seconds() - cpu;
    crowd.idle(QUIET)?;
    let window = crowd.ledger.window.take();
    if window.deliveries != expected || window.repeated > 0 {
        faults.push(format!(
            "{} presences were received instead of {expected}",
            window.deliveries
        ));
    }
    faults.append(&mut crowd.ledger.complaints);
    Ok(Run {
        seconds,
        frames: window.frames as f64,
        cpu_seconds,
        p99_ms: window.latency_ms(0.99),
    })
}
