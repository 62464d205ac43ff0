//! Clients over WebSocket: sessions that join channels, and what reaches them there.
//!
//! A *socket* is a connection; a *session* is what it stands for, without any I/O; a *channel* is
//! a session's membership of a *topic*. Two things come in: messages of clients, which a session
//! turns into effects, and row changes from the bus, which the change feed hands to the channels
//! that may see them. Both leave through the bounded queue of a socket.

pub mod channel;
pub mod error;
pub mod frame;
pub mod hub;
pub mod limits;
pub mod outbound;
pub mod protocol;
pub mod session;
