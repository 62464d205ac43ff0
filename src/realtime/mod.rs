//! Clients over WebSocket: sessions that join channels, and what reaches them there.

pub mod frame;
pub mod protocol;
