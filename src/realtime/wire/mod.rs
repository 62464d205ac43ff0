//! The wire of a socket: WebSocket frames, the bounded queue of frames to be written, and the
//! memory limits for all sockets together.
//!
//! Read `body` and `frame` first, then `close`, `queue`, `sockets` and `outbound`.

pub mod body;
pub mod close;
pub mod frame;
pub mod outbound;
mod queue;
pub mod sockets;
