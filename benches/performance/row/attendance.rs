//! Row 24 of `docs/benchmarks.md`: the cost in PostgreSQL of users who come online and stay idle.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{JOIN_PATIENCE, JOINS_AT_ONCE, Laboratory};
use crate::Failure;
use crate::crowd::{Counted, Crowd, Seat};
use crate::meter::Meter;
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;

/// Number of the first user of this row. The users of all other rows have lower numbers.
const FIRST: usize = 100_000;

/// How long the users stay.
const STAY: Duration = Duration::from_mins(1);

/// Time until PostgreSQL has counted the work of its sessions. Sessions report just before they
/// become idle, but at most once per second (PostgreSQL manual, "The Cumulative Statistics
/// System"). A postponed report follows after up to ten idle seconds.
const COUNTED: Duration = Duration::from_secs(12);

/// The work of PostgreSQL during a period: transactions, rows written to the tables of presence,
/// and CPU seconds.
#[derive(Clone, Copy)]
struct Work {
    transactions: i64,
    rows: i64,
    cpu: f64,
}

/// One run: the cost of users who come online, and the work of the database while all users are
/// idle and while there are none.
struct Run {
    rows_each: f64,
    cpu_each_ms: f64,
    idle: Work,
    empty: Work,
}

/// Measures row 24.
pub(super) fn measure(lab: &Laboratory) -> Result<Outcome, Failure> {
    let people = lab.settings.clients(5_000);
    lab.database.execute(&format!(
        "insert into public.teams (id, name) values ('50000000-0000-4000-8000-0000000000fe', 'Attendance') \
         on conflict do nothing; \
         insert into public.users (id, email, full_name, team_id) \
         select ('50000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, \
             format('guest-%s@attendance.example', n), 'Guest ' || n, '50000000-0000-4000-8000-0000000000fe' \
         from generate_series({FIRST}, {FIRST} + {people} - 1) n \
         on conflict do nothing",
    ))?;
    let stay = if lab.settings.is_quick {
        lab.settings.window
    } else {
        STAY
    };
    let mut faults = Vec::new();
    let mut runs = Vec::new();
    for _ in 0..lab.settings.runs.min(2) {
        lab.database
            .execute("truncate public.user_presence cascade")?;
        runs.push(run(lab, people, stay, &mut faults)?);
    }
    let minute = STAY.as_secs_f64() / stay.as_secs_f64();
    let medians = |of: fn(&Run) -> f64| median(runs.iter().map(of));
    let figures = vec![
        Figure {
            name: "rows written per arriving user",
            unit: "rows",
            value: medians(|run| run.rows_each),
            better: Better::Lower,
            floor: 6.0,
            goal: 3.1,
        },
        Figure {
            name: "rows written per minute with all users idle",
            unit: "rows",
            value: minute * medians(|run| run.idle.rows as f64),
            better: Better::Lower,
            floor: 60.0,
            goal: 15.0,
        },
        Figure {
            name: "transactions per minute with all users idle",
            unit: "transactions",
            value: minute * medians(|run| run.idle.transactions as f64),
            better: Better::Lower,
            floor: 240.0,
            goal: 90.0,
        },
    ];
    Ok(Outcome {
        figures,
        runs: runs.len(),
        detail: json!({
            "people": people,
            "seconds": stay.as_secs_f64(),
            "database_cpu_ms_for_each_who_comes": rounded(medians(|run| run.cpu_each_ms)),
            "database_cpu_s_idle": rounded(medians(|run| run.idle.cpu)),
            "database_cpu_s_nobody_there": rounded(medians(|run| run.empty.cpu)),
            "transactions_idle": medians(|run| run.idle.transactions as f64),
            "transactions_nobody_there": medians(|run| run.empty.transactions as f64),
        }),
        faults,
    })
}

fn run(
    lab: &Laboratory,
    people: usize,
    stay: Duration,
    faults: &mut Vec<String>,
) -> Result<Run, Failure> {
    let server = Server::rapport(&lab.database)?;
    let mut no_users = Crowd::new(server.address, Counted::Broadcasts, Vec::new(), Vec::new())?;
    let empty = during(lab, &server, || no_users.idle(stay))?;
    let seats = (FIRST..FIRST + people)
        .map(|person| {
            Ok(Seat {
                topic: 0,
                token: lab.database.token(person)?,
                config: Default::default(),
                publishes: false,
            })
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let topics = vec!["realtime:attendance".to_owned()];
    let mut crowd = Crowd::new(server.address, Counted::Broadcasts, topics, seats)?;
    let coming = during(lab, &server, || {
        crowd.gather(JOINS_AT_ONCE, JOIN_PATIENCE)?;
        let begun = Instant::now();
        while online(lab)? < people {
            crowd.idle(Duration::from_millis(100))?;
            if begun.elapsed() > JOIN_PATIENCE {
                return Err(format!("{} of {people} are online", online(lab)?).into());
            }
        }
        Ok(())
    })?;
    let idle = during(lab, &server, || crowd.idle(stay))?;
    if online(lab)? < people {
        faults.push("a user did not stay online".to_owned());
    }
    faults.append(&mut crowd.ledger.complaints);
    drop(crowd);
    server.stop()?;
    Ok(Run {
        rows_each: coming.rows as f64 / people as f64,
        cpu_each_ms: 1000.0 * coming.cpu / people as f64,
        idle,
        empty,
    })
}

/// Returns the number of users shown as online.
fn online(lab: &Laboratory) -> Result<usize, Failure> {
    let query = "select count(*) from public.user_presence where status = 'online'";
    Ok(usize::try_from(lab.database.number(query)?)?)
}

/// Measures the work of PostgreSQL while `work` runs.
fn during(
    lab: &Laboratory,
    server: &Server,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<Work, Failure> {
    let before = counts(lab)?;
    let meter = Meter::start(server);
    work()?;
    let cost = meter.stop();
    // The sessions report their counts with a delay.
    let pause = if lab.settings.is_quick {
        lab.settings.pause()
    } else {
        COUNTED
    };
    std::thread::sleep(pause);
    let after = counts(lab)?;
    // The transactions include those of the pause, so only the measured period's share counts.
    let share = cost.seconds / (cost.seconds + pause.as_secs_f64());
    let scaled = |count: i64| (count as f64 * share).round() as i64;
    Ok(Work {
        transactions: scaled(after.0 - before.0),
        rows: after.1 - before.1,
        cpu: cost.database_cpu,
    })
}

/// Returns the number of transactions, and of rows written to the presence tables.
fn counts(lab: &Laboratory) -> Result<(i64, i64), Failure> {
    let transactions = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
    let rows = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables \
                where relname in ('user_presence', 'presence_processes', 'presence_sessions', 'presence_reports', 'presence_report_sessions')";
    Ok((
        lab.database.number(transactions)?,
        lab.database.number(rows)?,
    ))
}
