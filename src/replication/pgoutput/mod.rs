//! Decodes the output of PostgreSQL's `pgoutput` plugin, protocol version 1, into [`WalMessage`].
//!
//! This module performs no I/O and has no state. No input causes a panic. Column values and message
//! contents are slices of the input, not copies. The format is described in the PostgreSQL manual,
//! "Logical Replication Message Formats".

mod message;
mod reader;
mod tuple;

#[cfg(any(test, fuzzing))]
pub(super) mod encode;
#[cfg(test)]
mod tests;

pub(super) use message::{WalMessage, decode, timestamp};
pub(super) use reader::DecodeError;
