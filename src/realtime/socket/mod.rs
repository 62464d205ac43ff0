//! A socket, from its handshake to its end.
//!
//! `handshake` admits it, and `task` reads and writes it.

mod handshake;
mod task;

pub use self::handshake::upgrade;
