//! Settings: what file, environment and flags say, and the resolved values the program runs with.

pub mod source;
