//! The project's benchmarks: every row of the table in `docs/benchmarks.md`, the soak, and people who chat.
//!
//!     cargo bench --bench performance                      every row
//!     cargo bench --bench performance -- --row 1,5         these
//!     cargo bench --bench performance -- --quick           whether all of it still works
//!     cargo bench --bench performance -- soak --minutes 15
//!     cargo bench --bench performance -- people --minutes 5
//!     cargo bench --bench performance -- hostile           people who only have the public key
//!     cargo bench --bench performance -- deciding          a part of row 12 alone
//!
//! Prints one JSON line for each row. Speed never decides how the program ends, only whether every
//! message arrived once and nowhere else: figures move with the machine and what else it does.

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

/// What a benchmark may fail with: its text is printed.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rows to measure, separated by commas; all of them without
    #[arg(long, value_delimiter = ',')]
    row: Vec<u32>,
    /// Measurements of each side, whose medians are taken
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How long one measurement takes
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Few clients, one short run: whether everything still works
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench`, without meaning here
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Joins, leaves, broadcasts, presence, row changes and lost connections at random
    Soak {
        #[arg(long, default_value_t = 15.0)]
        minutes: f64,
        /// Repeats the order of what happens
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// People who use the whole chat at once: what each of them sees in the end must be what the database has
    People {
        #[arg(long, default_value_t = 200)]
        people: usize,
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// Repeats what each person does; in which order is up to the machine
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Sockets that make the server hold as much as they can, beside honest ones that must not notice
    Hostile {
        /// Hostile sockets of each kind
        #[arg(long, default_value_t = 1000)]
        sockets: usize,
        /// How long each phase takes
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// Who may see a row when PostgreSQL must be asked, without sockets and replication
    Deciding {
        /// Subscribers, two of whom share a room
        #[arg(long, default_value_t = 200)]
        people: usize,
        /// How long each size of batch is tried
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Connections that ask
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
    /// Write the lines of a full run into the document
    Publish { results: PathBuf, document: PathBuf },
    /// The least that a server can do, on a free port that is printed
    #[command(hide = true)]
    Yardstick,
    /// Becomes another program that ends with its parent
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
            tell(soak::soak(Duration::from_secs_f64(60.0 * minutes), *seed))
        }
        Some(Command::People {
            people,
            minutes,
            seed,
        }) => {
            let duration = Duration::from_secs_f64(60.0 * minutes);
            tell(people::live_together(*people, duration, *seed))
        }
        Some(Command::Hostile { sockets, seconds }) => {
            tell(hostile::attack(*sockets, Duration::from_secs_f64(*seconds)))
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
        return Err(format!("there is no row {number}").into());
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
                // The other rows are worth having all the same.
                Err(error) => {
                    has_failed = true;
                    eprintln!("row {}: {error}", row.number);
                }
            }
        }
    }
    if has_failed {
        return Err("not everything arrived once and where it belongs".into());
    }
    Ok(())
}

/// Prints what came of something that must be well in the end.
fn tell(outcome: Result<(Value, bool), Failure>) -> Result<(), Failure> {
    let (result, is_well) = outcome?;
    println!("{result}");
    if is_well {
        Ok(())
    } else {
        Err("not all is well in the end".into())
    }
}
