//! The `rapport` program: parse, run, exit code.
fn main() {}
