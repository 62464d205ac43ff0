//! Measures how a thousand hostile sockets of each kind affect the memory of the server and a
//! hundred honest sockets.
//!
//! The hostile sockets have only the public key and reconnect when closed. The honest users chat in
//! rooms of ten and subscribe to row changes. Nothing sent to the honest users may be lost, and the
//! latency is reported for each phase.

mod attack;
mod honest;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Failure;
use crate::database::Database;
use crate::report::rounded;
use crate::server::Server;
use attack::{Attack, Kind};
use honest::Honest;

/// Interval of memory samples.
const LOOK: Duration = Duration::from_millis(200);

/// Maximum memory of the server in MiB, whatever the hostile sockets do.
const MAX_MEMORY: f64 = 256.0;

/// Runs this many sockets of each kind for `duration`, then all kinds together. Returns the result
/// and whether it is correct.
pub(crate) fn attack(hostile: usize, duration: Duration) -> Result<(Value, bool), Failure> {
    let database = Database::start()?;
    let server = Server::rapport(&database)?;
    let mut honest = Honest::gather(&database, &server)?;
    let mut phases = vec![phase(
        "before",
        &[],
        0,
        duration,
        &server,
        &mut honest,
        &database,
    )?];
    for kind in Kind::ALL {
        let name = kind.as_str();
        phases.push(phase(
            name,
            &[kind],
            hostile,
            duration,
            &server,
            &mut honest,
            &database,
        )?);
    }
    phases.push(phase(
        "all",
        &Kind::ALL,
        hostile,
        duration,
        &server,
        &mut honest,
        &database,
    )?);
    phases.push(phase(
        "after",
        &[],
        0,
        duration,
        &server,
        &mut honest,
        &database,
    )?);
    let faults = honest.faults();
    server.stop()?;
    let largest = phases
        .iter()
        .filter_map(|phase| phase["memory_mib"].as_f64())
        .fold(0.0, f64::max);
    let is_well = faults.is_empty() && largest <= MAX_MEMORY;
    let result = json!({
        "what": "hostile", "hostile_of_each_kind": hostile, "honest": honest::CLIENTS, "phases": phases,
        "largest_memory_mib": largest, "faults": faults, "holds": is_well,
    });
    Ok((result, is_well))
}

fn phase(
    name: &str,
    kinds: &[Kind],
    hostile: usize,
    duration: Duration,
    server: &Server,
    honest: &mut Honest,
    database: &Database,
) -> Result<Value, Failure> {
    let attacks = kinds
        .iter()
        .map(|kind| Attack::start(*kind, hostile, server.address, &public_key(database)?))
        .collect::<Result<Vec<_>, Failure>>()?;
    honest.begin();
    let (begun, mut memory, mut looked) = (Instant::now(), 0.0_f64, Instant::now());
    let cpu = server.process.cpu_seconds();
    while begun.elapsed() < duration {
        honest.turn()?;
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            memory = memory.max(server.process.memory_kib() / 1024.0);
        }
    }
    let cores = (server.process.cpu_seconds() - cpu) / begun.elapsed().as_secs_f64();
    let seen = honest.end()?;
    let attacks: Vec<Value> = attacks.into_iter().map(Attack::stop).collect();
    let value = json!({
        "phase": name, "memory_mib": rounded(memory), "server_cores": rounded(cores), "honest": seen,
        "attacks": attacks,
    });
    eprintln!("{value}");
    Ok(value)
}

/// Returns the public key, which every client has.
fn public_key(database: &Database) -> Result<String, Failure> {
    let exp = jiff::Timestamp::now().as_second() + 86_400;
    let claims = json!({ "role": "anon", "exp": exp });
    Ok(rapport::auth::mint(&database.keys.jwt_secret, &claims)?)
}
