//! Rows 19 to 21 of `docs/benchmarks.md`: the overhead of the REST routes compared with PostgreSQL,
//! and how the routes scale with the number of messages.

use std::process::Command;
use std::time::Duration;

use rapport::dev::binaries::Binaries;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Laboratory;
use crate::Failure;
use crate::crowd::window::{milliseconds, quantiles};
use crate::meter::{Cost, Meter};
use crate::population::Population;
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::rest::{self, Request};
use crate::server::Server;

/// Number of concurrent requests. It equals the number of database connections, so that no request
/// waits for a connection.
const SENDERS: usize = 10;

/// Number of concurrent readers: enough to keep the server busy, few enough not to queue for a
/// core.
const READERS: usize = 2;

/// Messages per page: the default page size.
const PAGE: i64 = 50;

/// The transaction of `POST /messages` as a pgbench script.
const SEND: &str = include_str!("send.pgbench.sql");

/// Measures row 19: messages sent over REST, relative to the same transactions sent by pgbench.
pub(super) fn sending(lab: &Laboratory) -> Result<Outcome, Failure> {
    let population = Population::new(lab.settings.is_quick);
    population.fill(&lab.database)?;
    let tokens = (0..population.people)
        .map(|person| lab.database.token(person))
        .collect::<Result<Vec<_>, _>>()?;
    // The server reads the WAL during both measurements.
    let server = Server::with_busy_people(&lab.database)?;
    let next = || {
        let person = fastrand::usize(..population.people);
        let conversation = population.conversation(person);
        let body = json!({
            "conversation_id": conversation, "client_message_id": Uuid::new_v4(),
            "content": "Shall we meet at the usual place at noon?",
        });
        Request {
            method: "POST",
            path: "/messages".to_owned(),
            token: tokens[person].clone(),
            body: Some(body.to_string()),
        }
    };
    let window = lab.settings.window.max(Duration::from_secs(1));
    // Warm-up: prepares the statements.
    rest::ask(server.address, SENDERS, window / 4, next, 201)?;
    let (mut ours, mut pgbench, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    let mut latency = None;
    for _ in 0..lab.settings.runs {
        let meter = Meter::start(&server);
        let took = rest::ask(server.address, SENDERS, window, next, 201)?;
        let cost = meter.stop();
        ours.push(took.len() as f64 / cost.seconds);
        costs.push(cost);
        latency = Some(took);
        pgbench.push(run_pgbench(lab, population.people, window)?);
    }
    server.stop()?;
    let (ours, pgbench) = (median(ours), median(pgbench));
    Ok(Outcome {
        figures: vec![Figure {
            name: "messages per second, relative to the same transaction in pgbench",
            unit: "%",
            value: 100.0 * ours / pgbench,
            better: Better::Higher,
            floor: 60.0,
            goal: 85.0,
        }],
        runs: lab.settings.runs,
        detail: json!({
            "sent_per_second": rounded(ours),
            "pgbench_per_second": rounded(pgbench),
            "cores": Cost::medians(costs.iter()),
            "last_run_ms": latency.as_ref().map(quantiles),
        }),
        faults: Vec::new(),
    })
}

/// Returns the transactions per second.
fn run_pgbench(lab: &Laboratory, people: usize, window: Duration) -> Result<f64, Failure> {
    let script = lab.database.directory().join("send.pgbench.sql");
    std::fs::write(&script, SEND)?;
    let output = Command::new(Binaries::find(None)?.program("pgbench"))
        .env_clear()
        // pgbench prepares the statements before the transaction sets a role.
        .env("PGOPTIONS", "-c role=authenticated")
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
        .arg(format!("--client={SENDERS}"))
        .arg(format!("--time={}", window.as_secs().max(1)))
        .arg(format!("--define=people={people}"))
        .arg("--file")
        .arg(&script)
        .arg(lab.database.request_url())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = || {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("pgbench: {}: {errors}{text}", output.status)
    };
    if !output.status.success() || !text.contains("number of failed transactions: 0 ") {
        return Err(failed().into());
    }
    let speed = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next())
        .ok_or_else(failed)?;
    Ok(speed.parse()?)
}

/// Measures row 20: a page of a conversation with a million messages, relative to a conversation
/// with only one page.
pub(super) fn history(lab: &Laboratory) -> Result<Outcome, Failure> {
    let population = Population::new(lab.settings.is_quick);
    population.fill(&lab.database)?;
    let (person, [long, short, empty]) = population.apart();
    let token = lab.database.token(person)?;
    let length = lab.database.number(&format!(
        "select last_seq from public.user_conversations where id = '{long}'"
    ))?;
    let page = |conversation: Uuid, before: Option<i64>| {
        let before = before.map_or_else(String::new, |seq| format!("&before={seq}"));
        Request {
            method: "GET",
            path: format!("/messages?conversation_id={conversation}&limit={PAGE}{before}"),
            token: token.clone(),
            body: None,
        }
    };
    let server = Server::with_busy_people(&lab.database)?;
    let sides: [(&str, &dyn Fn() -> Request); 4] = [
        ("of fifty, all of it", &|| page(short, None)),
        ("of a million, any page", &|| {
            page(long, Some(fastrand::i64(PAGE + 1..=length)))
        }),
        ("of a million, the newest", &|| page(long, None)),
        ("empty", &|| page(empty, None)),
    ];
    let mut took = sides.map(|_| Vec::new());
    for _ in 0..=lab.settings.runs {
        for ((_, next), took) in sides.iter().zip(&mut took) {
            took.push(rest::ask(
                server.address,
                READERS,
                lab.settings.window,
                next,
                200,
            )?);
        }
    }
    server.stop()?;
    // The first run is a warm-up.
    let at = |side: usize, quantile| {
        median(
            took[side][1..]
                .iter()
                .map(|run| milliseconds(run, quantile)),
        )
    };
    let of_each = |quantile| -> Value {
        let sides = sides.iter().enumerate();
        sides
            .map(|(side, (name, _))| (*name, rounded(at(side, quantile))))
            .collect()
    };
    Ok(Outcome {
        figures: vec![Figure {
            name: "p99 of a random page, relative to a conversation of one page",
            unit: "times",
            value: at(1, 0.99) / at(0, 0.99),
            better: Better::Lower,
            floor: 2.0,
            goal: 1.2,
        }],
        runs: lab.settings.runs,
        detail: json!({
            "p50_ms": of_each(0.5),
            "p99_ms": of_each(0.99),
        }),
        faults: Vec::new(),
    })
}

/// Measures row 21: a search by a user who may read 300,000 messages.
pub(super) fn search(lab: &Laboratory) -> Result<Outcome, Failure> {
    let population = Population::new(lab.settings.is_quick);
    population.fill(&lab.database)?;
    let token = lab.database.token(0)?;
    let server = Server::with_busy_people(&lab.database)?;
    let next = || {
        let word = Population::word(fastrand::f64());
        Request {
            method: "GET",
            path: format!("/search?type=messages&q={word}"),
            token: token.clone(),
            body: None,
        }
    };
    rest::ask(server.address, 1, lab.settings.window, next, 200)?;
    let runs = (0..lab.settings.runs)
        .map(|_| rest::ask(server.address, 1, lab.settings.window, next, 200))
        .collect::<Result<Vec<_>, _>>()?;
    server.stop()?;
    let at = |quantile| median(runs.iter().map(|run| milliseconds(run, quantile)));
    Ok(Outcome {
        figures: vec![Figure {
            name: "p95",
            unit: "ms",
            value: at(0.95),
            better: Better::Lower,
            floor: 50.0,
            goal: 5.0,
        }],
        runs: runs.len(),
        detail: json!({
            "ms": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)},
        }),
        faults: Vec::new(),
    })
}
