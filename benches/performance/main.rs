//! The benchmarks: every row of the table in `docs/benchmarks.md`, the soak test, simulated users,
//! hostile clients, and visibility checks.
//!
//!     cargo bench --bench performance                      every row
//!     cargo bench --bench performance -- --row 1,5         these rows
//!     cargo bench --bench performance -- --quick           check that everything still works
//!     cargo bench --bench performance -- soak              random use of sockets (`--minutes 15`)
//!     cargo bench --bench performance -- people            users of the chat (`--minutes 5`)
//!     cargo bench --bench performance -- hostile           clients that only have the public key
//!     cargo bench --bench performance -- deciding          only the visibility checks of row 12
//!
//! Prints one JSON line for each row. The exit status of the rows depends only on whether every
//! message arrived exactly once, and only at its receivers. It does not depend on speed, because
//! speed depends on the machine and its load. `soak` and `hostile` also fail if the server uses too
//! much memory, and `people` if messages arrive too late.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod client;
mod crowd;
mod database;
mod deciding;
mod hostile;
mod meter;
mod people;
mod population;
mod process;
mod publish;
mod report;
mod rest;
mod row;
mod server;
mod soak;
mod writer;
mod yardstick;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::Value;

use database::Database;
use row::{Laboratory, ROWS, Settings};

/// Any error of a benchmark, printed as text.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rows to measure, separated by commas; all rows by default
    #[arg(long, value_delimiter = ',')]
    row: Vec<u32>,
    /// Number of measurements (in comparisons: of each side); the median is reported
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Duration of one measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Few clients and one short run, to check that everything still works
    #[arg(long)]
    quick: bool,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Random joins, leaves, broadcasts, presence, row changes and lost connections
    Soak {
        #[arg(long, default_value_t = 15.0)]
        minutes: f64,
        /// Seed of the random choices; what they lead to still depends on the machine
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Users of the whole chat; at the end the state on each device must equal the database
    People {
        #[arg(long, default_value_t = 200)]
        people: usize,
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// Seed of the actions of each user; the order between users still depends on the machine
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Hostile sockets that occupy as much memory as they can, alongside honest ones
    Hostile {
        /// Number of hostile sockets of each kind
        #[arg(long, default_value_t = 1000)]
        sockets: usize,
        /// Duration of each phase
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Visibility checks that require PostgreSQL, without sockets and replication
    Deciding {
        /// Number of subscribers; two share a room
        #[arg(long, default_value_t = 200)]
        people: usize,
        /// Duration for each batch size
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Number of connections for visibility checks
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
    /// Write the results of a full run into the document
    Publish { results: PathBuf, document: PathBuf },
    /// Run a minimal server on a free port and print the port
    #[command(hide = true)]
    Yardstick,
    /// Replace this process with a program that ends with its parent
    #[command(hide = true)]
    Tied {
        program: OsString,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = process::raise_file_limit().and_then(|()| run(&arguments));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("performance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(Command::Yardstick) => yardstick::serve().map_err(Failure::from),
        Some(Command::Tied { program, arguments }) => Err(process::become_tied(program, arguments)),
        Some(Command::Soak { minutes, seed }) => {
            report(soak::soak(Duration::from_secs_f64(60.0 * minutes), *seed))
        }
        Some(Command::People {
            people,
            minutes,
            seed,
        }) => {
            let duration = Duration::from_secs_f64(60.0 * minutes);
            report(people::run(*people, duration, *seed))
        }
        Some(Command::Hostile { sockets, seconds }) => {
            report(hostile::attack(*sockets, Duration::from_secs_f64(*seconds)))
        }
        Some(Command::Deciding {
            people,
            seconds,
            connections,
        }) => deciding::measure(*people, Duration::from_secs_f64(*seconds), *connections),
        Some(Command::Publish { results, document }) => publish::publish(results, document),
        None => measure_rows(arguments),
    }
}

fn measure_rows(arguments: &Arguments) -> Result<(), Failure> {
    let known = |number: &&u32| ROWS.iter().any(|row| row.number == **number);
    if let Some(number) = arguments.row.iter().find(|number| !known(number)) {
        return Err(format!("row {number} does not exist").into());
    }
    let settings = Settings {
        runs: if arguments.quick { 1 } else { arguments.runs },
        window: Duration::from_secs_f64(if arguments.quick {
            0.5
        } else {
            arguments.seconds
        }),
        is_quick: arguments.quick,
    };
    let lab = Laboratory {
        database: Database::start()?,
        settings,
    };
    let mut has_failed = false;
    for row in ROWS {
        if arguments.row.is_empty() || arguments.row.contains(&row.number) {
            match (row.measure)(&lab) {
                Ok(outcome) => {
                    has_failed |= !outcome.faults.is_empty();
                    println!("{}", outcome.line(row.number, row.what));
                }
                // The remaining rows run even if one fails.
                Err(error) => {
                    has_failed = true;
                    eprintln!("row {}: {error}", row.number);
                }
            }
        }
    }
    if has_failed {
        return Err("some messages were lost, repeated or misdelivered".into());
    }
    Ok(())
}

/// Prints the result of a run that must end in a correct state.
fn report(outcome: Result<(Value, bool), Failure>) -> Result<(), Failure> {
    let (result, is_well) = outcome?;
    println!("{result}");
    if is_well {
        Ok(())
    } else {
        Err("the run ended in an incorrect state".into())
    }
}
