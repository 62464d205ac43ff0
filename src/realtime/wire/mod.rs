//! What goes over a socket's wire: WebSocket frames, the bounded queue of those that wait to be written, and the
//! memory that all sockets may take.

pub mod body;
pub mod frame;
pub mod outbound;
mod queue;
pub mod sockets;
