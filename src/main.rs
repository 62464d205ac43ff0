//! The `rapport` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    rapport::cli::run()
}
