//! A socket, from its handshake to its end.
//!
//! `handshake` accepts a socket, and `task` reads and writes it.

mod handshake;
mod task;

pub use self::handshake::upgrade;
