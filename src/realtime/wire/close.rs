//! The reasons why the server closes a socket, and the code and text that the client receives.

use super::frame::FrameError;
use crate::observability::metrics::{CloseLabel, Held};

/// The reason why the server closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed the socket. Contains the peer's code, which is echoed.
    Peer(Option<u16>),
    /// No data was received for too long.
    Idle,
    /// No channel was joined for too long.
    NoChannel,
    /// The received bytes violate the WebSocket protocol, or a message is too large.
    Frame(FrameError),
    /// The client started a message and did not finish it in time.
    Unfinished,
    /// The client reads too slowly.
    SlowConsumer,
    /// All sockets together hold too much memory of this kind, and this socket is among those that
    /// hold the most.
    Memory(Held),
    /// The server is stopping.
    Restarting,
}

impl CloseReason {
    /// Returns the label under which the close is counted.
    pub fn label(self) -> CloseLabel {
        match self {
            Self::Peer(_) => CloseLabel::Client,
            Self::Idle => CloseLabel::Idle,
            Self::NoChannel => CloseLabel::NoChannel,
            Self::Frame(_) | Self::Unfinished => CloseLabel::Fault,
            Self::SlowConsumer => CloseLabel::SlowConsumer,
            Self::Memory(_) => CloseLabel::Memory,
            Self::Restarting => CloseLabel::Restarting,
        }
    }

    /// Returns whether the queued frames are dropped instead of being written before the close
    /// frame.
    pub fn drops_queue(self) -> bool {
        matches!(self, Self::SlowConsumer | Self::Memory(Held::Queues))
    }

    /// Returns the close code and the reason text (RFC 6455, 7.4.1). 1012 and 1013 are registered
    /// with IANA. `None` if the peer closed without a code.
    pub fn frame_parts(self) -> Option<(u16, &'static str)> {
        Some(match self {
            Self::Peer(code) => (code?, ""),
            Self::Idle => (1000, "Nothing was received for too long"),
            Self::NoChannel => (1000, "No channel was joined for too long"),
            Self::Frame(error) => (
                error.close_code(),
                match error {
                    FrameError::Protocol => "Protocol error",
                    FrameError::NotUtf8 => "Text is not UTF-8",
                    FrameError::TooBig => "Message too big",
                },
            ),
            Self::Unfinished => (1008, "A message was not finished in time"),
            Self::SlowConsumer | Self::Memory(Held::Queues) => (
                1013,
                "Too slow: messages were dropped; reconnect and load what is missing",
            ),
            Self::Memory(Held::Frames) => (
                1009,
                "The server is short of memory, and this socket holds too many unfinished messages",
            ),
            Self::Memory(Held::Channels) => (
                1008,
                "The server is short of memory, and the channels of this socket hold too much",
            ),
            Self::Restarting => (1012, "Server is restarting"),
        })
    }
}
