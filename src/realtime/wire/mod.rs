//! What goes over a socket's wire: WebSocket frames, and the bounded queue of those that wait to be written.

pub mod frame;
pub mod outbound;
