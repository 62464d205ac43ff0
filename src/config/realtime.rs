//! Limits of the sockets.

use std::time::Duration;

use super::reader::Reader;

/// `[realtime]`.
#[derive(Clone, Debug)]
pub struct RealtimeConfig {
    /// Sockets open at once.
    pub max_sockets: usize,
    /// Channels of one socket.
    pub max_channels_per_socket: usize,
    /// Joins of one socket per second, on average.
    pub joins_per_second: u32,
    /// The largest frame a client may send.
    pub max_frame_bytes: usize,
    /// The largest payload of a broadcast.
    pub max_broadcast_bytes: usize,
    /// Frames that may wait for one client.
    pub queue_max_frames: usize,
    /// Bytes that may wait for one client; room for the largest frame at least.
    pub queue_max_bytes: usize,
    /// Silence after which a socket is closed.
    pub idle_timeout: Duration,
    /// How long before expiry a channel is warned.
    pub expiry_warning: Duration,
    /// Channels that are not private are refused.
    pub private_only: bool,
    /// The largest row that is sent whole.
    pub max_record_bytes: usize,
}

impl RealtimeConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let max_frame_bytes = reader.whole("realtime.max_frame_bytes", 1_024..=1 << 28);
        let queue_max_bytes = reader.whole("realtime.queue_max_bytes", 1_024..=1 << 32);
        if queue_max_bytes < max_frame_bytes {
            reader.problem(
                "realtime.queue_max_bytes",
                "must not be below `realtime.max_frame_bytes`: a frame of that size could never be sent",
            );
        }
        let expiry_warning_s: u64 = reader.whole("realtime.expiry_warning_s", 0..=86_400);
        Self {
            max_sockets: reader.whole("realtime.max_sockets", 1..=10_000_000),
            max_channels_per_socket: reader.whole("realtime.max_channels_per_socket", 1..=100_000),
            joins_per_second: reader.whole("realtime.joins_per_second", 1..=1_000_000),
            max_frame_bytes,
            max_broadcast_bytes: reader.whole("realtime.max_broadcast_bytes", 1..=1 << 28),
            queue_max_frames: reader.whole("realtime.queue_max_frames", 1..=10_000_000),
            queue_max_bytes,
            idle_timeout: reader.milliseconds("realtime.idle_timeout_ms", 1..=86_400_000),
            expiry_warning: Duration::from_secs(expiry_warning_s),
            private_only: reader.switch("realtime.private_only"),
            max_record_bytes: reader.whole("realtime.max_record_bytes", 1_024..=1 << 28),
        }
    }
}
