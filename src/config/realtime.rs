//! Limits of the sockets.

use std::time::Duration;

use super::reader::Reader;

/// The names of [`super::raw`]'s sets of limits.
const PRESETS: &[(&str, ())] = &[("rapport", ()), (super::raw::SUPABASE, ())];

/// A week.
const MAX_NO_CHANNEL_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// The most memory that can be asked for, in bytes: 1 TiB.
const MAX_MEMORY: usize = 1 << 40;

/// A frame that arrives takes up to so many times its size: its buffer doubles as it grows.
const FRAME_GROWTH: usize = 2;

/// The highest rate that can be asked for: no machine reaches it.
const MAX_RATE: u64 = 1_000_000_000_000;

/// `[realtime]`.
#[derive(Clone, Debug)]
pub struct RealtimeConfig {
    /// Sockets open at once.
    pub max_sockets: usize,
    /// Sockets that have joined a channel.
    pub max_concurrent_users: usize,
    /// Messages sent and delivered per second, on average.
    pub max_events_per_second: u64,
    /// Joins of all sockets per second, on average.
    pub max_joins_per_second: u64,
    /// Channels of one socket.
    pub max_channels_per_socket: usize,
    /// Joins of one socket per second, on average.
    pub max_joins_per_second_per_socket: u32,
    /// Sockets opened from one address per second, on average.
    pub connections_per_second_per_address: u32,
    /// Sockets opened from one address at once.
    pub connection_burst_per_address: u32,
    /// The largest body of a request to broadcast.
    pub max_request_bytes: usize,
    /// The largest frame a client may send.
    pub max_frame_bytes: usize,
    /// The largest frame of a socket that has not joined a channel, if that is smaller.
    pub max_frame_bytes_before_join: usize,
    /// How long a message may take from its first byte to its last.
    pub frame_timeout: Duration,
    /// Memory of all frames that are begun and not finished.
    pub all_frames_max_bytes: usize,
    /// The largest payload of a broadcast.
    pub max_broadcast_bytes: usize,
    /// Frames that may wait for one client.
    pub queue_max_frames: usize,
    /// Bytes that may wait for one client; room for the largest frame at least.
    pub queue_max_bytes: usize,
    /// Memory of what waits for all clients together.
    pub all_queues_max_bytes: usize,
    /// Memory of the channels of all clients together.
    pub all_channels_max_bytes: usize,
    /// Memory of the bodies of all requests to broadcast that arrive.
    pub all_requests_max_bytes: usize,
    /// Silence after which a socket is closed.
    pub idle_timeout: Duration,
    /// Over how long the ends of sockets are spread when the server stops.
    pub drain_window: Duration,
    /// How long a socket may be open without a channel.
    pub no_channel_timeout: Duration,
    /// How long before expiry a channel is warned.
    pub expiry_warning: Duration,
    /// Channels that are not private are refused.
    pub private_only: bool,
    /// Pushes of presence, and diffs delivered, per second, on average.
    pub max_presence_events_per_second: u64,
    /// Pushes of presence on one channel within a window.
    pub max_presence_calls_per_window: u32,
    /// The window.
    pub presence_window: Duration,
    /// The largest presence of one topic.
    pub max_presence_state_bytes: usize,
    /// The largest row that is sent whole.
    pub max_record_bytes: usize,
    /// Stored messages that a join may have replayed.
    pub replay_max_messages: i64,
    /// Days beyond today for which `realtime.messages` has partitions, where it is ours.
    pub message_days_ahead: i32,
    /// Days before today whose messages are kept there.
    pub message_days_kept: i32,
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
        let max_presence_state_bytes =
            reader.whole("realtime.max_presence_state_bytes", 1_024..=1 << 28);
        if queue_max_bytes < max_presence_state_bytes {
            reader.problem(
                "realtime.queue_max_bytes",
                "must not be below `realtime.max_presence_state_bytes`: a newcomer could never be \
                 sent who is present",
            );
        }
        let all_frames_max_bytes =
            reader.whole("realtime.all_frames_max_bytes", 2_048..=MAX_MEMORY);
        if all_frames_max_bytes / FRAME_GROWTH < max_frame_bytes {
            reader.problem(
                "realtime.all_frames_max_bytes",
                "must be twice `realtime.max_frame_bytes` at least: a frame of that size could \
                 never arrive",
            );
        }
        let all_queues_max_bytes =
            reader.whole("realtime.all_queues_max_bytes", 1_024..=MAX_MEMORY);
        if all_queues_max_bytes < queue_max_bytes {
            reader.problem(
                "realtime.all_queues_max_bytes",
                "must not be below `realtime.queue_max_bytes`, which it bounds for all clients",
            );
        }
        let expiry_warning_s: u64 = reader.whole("realtime.expiry_warning_s", 0..=86_400);
        // The written settings have been laid over those of the preset already.
        reader.choice("realtime.limits_preset", PRESETS);
        Self {
            max_sockets: reader.whole("realtime.max_sockets", 1..=10_000_000),
            max_concurrent_users: reader.whole("realtime.max_concurrent_users", 1..=10_000_000),
            max_events_per_second: reader.whole("realtime.max_events_per_second", 1..=MAX_RATE),
            max_joins_per_second: reader.whole("realtime.max_joins_per_second", 1..=MAX_RATE),
            max_channels_per_socket: reader.whole("realtime.max_channels_per_socket", 1..=100_000),
            max_joins_per_second_per_socket: reader
                .whole("realtime.max_joins_per_second_per_socket", 1..=1_000_000),
            connections_per_second_per_address: reader
                .whole("realtime.connections_per_second_per_address", 1..=1_000_000),
            connection_burst_per_address: reader
                .whole("realtime.connection_burst_per_address", 1..=1_000_000),
            max_request_bytes: reader.whole("realtime.max_request_bytes", 1_024..=1 << 30),
            max_frame_bytes,
            max_frame_bytes_before_join: reader
                .whole("realtime.max_frame_bytes_before_join", 1_024..=1 << 28),
            frame_timeout: reader.milliseconds("realtime.frame_timeout_ms", 1..=3_600_000),
            all_frames_max_bytes,
            max_broadcast_bytes: reader.whole("realtime.max_broadcast_bytes", 1..=1 << 28),
            queue_max_frames: reader.whole("realtime.queue_max_frames", 1..=10_000_000),
            queue_max_bytes,
            all_queues_max_bytes,
            all_channels_max_bytes: reader
                .whole("realtime.all_channels_max_bytes", 1_024..=MAX_MEMORY),
            all_requests_max_bytes: reader.whole("realtime.all_requests_max_bytes", 0..=MAX_MEMORY),
            idle_timeout: reader.milliseconds("realtime.idle_timeout_ms", 1..=86_400_000),
            drain_window: reader.milliseconds("realtime.drain_window_ms", 0..=600_000),
            no_channel_timeout: reader
                .milliseconds("realtime.no_channel_timeout_ms", 1..=MAX_NO_CHANNEL_MS),
            expiry_warning: Duration::from_secs(expiry_warning_s),
            private_only: reader.switch("realtime.private_only"),
            max_presence_events_per_second: reader
                .whole("realtime.max_presence_events_per_second", 1..=MAX_RATE),
            max_presence_calls_per_window: reader
                .whole("realtime.max_presence_calls_per_window", 1..=1_000_000),
            presence_window: reader.milliseconds("realtime.presence_window_ms", 1..=86_400_000),
            max_presence_state_bytes,
            max_record_bytes: reader.whole("realtime.max_record_bytes", 1_024..=1 << 28),
            replay_max_messages: reader.whole("realtime.replay_max_messages", 1..=10_000),
            message_days_ahead: reader.whole("realtime.message_days_ahead", 1..=365),
            message_days_kept: reader.whole("realtime.message_days_kept", 1..=3_650),
        }
    }
}
