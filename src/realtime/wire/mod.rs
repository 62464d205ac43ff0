//! The wire of a socket: WebSocket frames, the bounded queue of frames to be written, and the
//! memory limits for all sockets together.

pub mod body;
pub mod frame;
pub mod outbound;
mod queue;
pub mod sockets;
