//! Limits of the sockets.

use std::time::Duration;

use super::reader::Reader;

/// The names of the presets of limits, which [`super::raw`] applies.
const PRESETS: &[(&str, ())] = &[("rapport", ()), (super::raw::SUPABASE, ())];

/// The highest configurable `no_channel_timeout`: one week.
const MAX_NO_CHANNEL_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// The highest configurable memory limit in bytes: 1 TiB.
const MAX_MEMORY: usize = 1 << 40;

/// Factor by which the memory of an incoming frame can exceed its size, because its buffer doubles
/// as it grows.
const FRAME_GROWTH: usize = 2;

/// The highest configurable rate; no machine reaches it.
const MAX_RATE: u64 = 1_000_000_000_000;

/// `[realtime]`.
#[derive(Clone, Debug)]
pub struct RealtimeConfig {
    /// Maximum open sockets.
    pub max_sockets: usize,
    /// Maximum open sockets of one address. Zero means any number.
    pub max_sockets_per_address: usize,
    /// Maximum sockets that have joined a channel.
    pub max_concurrent_users: usize,
    /// Messages sent and delivered per second, on average.
    pub max_events_per_second: u64,
    /// Joins per second of all sockets, on average.
    pub max_joins_per_second: u64,
    /// Maximum channels of one socket.
    pub max_channels_per_socket: usize,
    /// Joins per second of one socket, on average.
    pub max_joins_per_second_per_socket: u32,
    /// Sockets opened per second from one address, on average.
    pub connections_per_second_per_address: u32,
    /// Burst of sockets opened from one address.
    pub connection_burst_per_address: u32,
    /// Maximum body size of a broadcast request.
    pub max_request_bytes: usize,
    /// Maximum size of a frame from a client.
    pub max_frame_bytes: usize,
    /// Maximum size of a frame from a client that has not joined a channel, if that is below
    /// `max_frame_bytes`.
    pub max_frame_bytes_before_join: usize,
    /// Timeout for a message, from its first byte to its last.
    pub frame_timeout: Duration,
    /// Maximum memory of all incomplete frames.
    pub all_frames_max_bytes: usize,
    /// Maximum payload size of a broadcast.
    pub max_broadcast_bytes: usize,
    /// Maximum frames queued for one client.
    pub queue_max_frames: usize,
    /// Maximum bytes queued for one client. Large enough for the largest frame.
    pub queue_max_bytes: usize,
    /// Maximum memory of the queues of all clients.
    pub all_queues_max_bytes: usize,
    /// Maximum memory of the channels of all clients.
    pub all_channels_max_bytes: usize,
    /// Maximum memory of the bodies of all incoming broadcast requests.
    pub all_requests_max_bytes: usize,
    /// Time without any message from the client after which a socket is closed.
    pub idle_timeout: Duration,
    /// Time over which socket closes are spread at shutdown.
    pub drain_window: Duration,
    /// How long a socket may stay open without a channel.
    pub no_channel_timeout: Duration,
    /// How long before the expiry of its token a channel is warned.
    pub expiry_warning: Duration,
    /// Whether public channels are refused.
    pub private_only: bool,
    /// Presence pushes and delivered diffs per second, on average.
    pub max_presence_events_per_second: u64,
    /// Maximum presence pushes on one channel within a window.
    pub max_presence_calls_per_window: u32,
    /// The length of a window for presence pushes.
    pub presence_window: Duration,
    /// Maximum size of the presence state of one topic.
    pub max_presence_state_bytes: usize,
    /// Maximum size of a row that is sent completely.
    pub max_record_bytes: usize,
    /// Maximum number of stored messages that are replayed to a join.
    pub replay_max_messages: i64,
    /// Days after today for which `realtime.messages` has partitions, if this server created that
    /// table.
    pub message_days_ahead: i32,
    /// Days before today for which `realtime.messages` keeps its messages.
    pub message_days_kept: i32,
}

impl RealtimeConfig {
    /// Returns the longest time, in seconds, for which a client can request that a message be kept:
    /// the time for which every message is kept by default.
    pub fn max_message_ttl_seconds(&self) -> i32 {
        const SECONDS_PER_DAY: i32 = 86_400;
        self.message_days_kept.saturating_mul(SECONDS_PER_DAY)
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        let max_frame_bytes = reader.integer("realtime.max_frame_bytes", 1_024..=1 << 28);
        let queue_max_bytes = reader.integer("realtime.queue_max_bytes", 1_024..=1 << 32);
        if queue_max_bytes < max_frame_bytes {
            reader.problem(
                "realtime.queue_max_bytes",
                "must not be below `realtime.max_frame_bytes`: a frame of that size could never be sent",
            );
        }
        let max_presence_state_bytes =
            reader.integer("realtime.max_presence_state_bytes", 1_024..=1 << 28);
        if queue_max_bytes < max_presence_state_bytes {
            reader.problem(
                "realtime.queue_max_bytes",
                "must not be below `realtime.max_presence_state_bytes`: a client that joins could \
                 never receive the presence state",
            );
        }
        let all_frames_max_bytes =
            reader.integer("realtime.all_frames_max_bytes", 2_048..=MAX_MEMORY);
        if all_frames_max_bytes / FRAME_GROWTH < max_frame_bytes {
            reader.problem(
                "realtime.all_frames_max_bytes",
                "must be at least twice `realtime.max_frame_bytes`: a frame of that size could \
                 never be received",
            );
        }
        let all_queues_max_bytes =
            reader.integer("realtime.all_queues_max_bytes", 1_024..=MAX_MEMORY);
        if all_queues_max_bytes < queue_max_bytes {
            reader.problem(
                "realtime.all_queues_max_bytes",
                "must not be below `realtime.queue_max_bytes`, the limit of a single client",
            );
        }
        let expiry_warning_s: u64 = reader.integer("realtime.expiry_warning_s", 0..=86_400);
        // The name is only validated here, because `raw` has already applied the preset.
        reader.choice("realtime.limits_preset", PRESETS);
        Self {
            max_sockets: reader.integer("realtime.max_sockets", 1..=10_000_000),
            max_sockets_per_address: reader
                .integer("realtime.max_sockets_per_address", 0..=10_000_000),
            max_concurrent_users: reader.integer("realtime.max_concurrent_users", 1..=10_000_000),
            max_events_per_second: reader.integer("realtime.max_events_per_second", 1..=MAX_RATE),
            max_joins_per_second: reader.integer("realtime.max_joins_per_second", 1..=MAX_RATE),
            max_channels_per_socket: reader
                .integer("realtime.max_channels_per_socket", 1..=100_000),
            max_joins_per_second_per_socket: reader
                .integer("realtime.max_joins_per_second_per_socket", 1..=1_000_000),
            connections_per_second_per_address: reader
                .integer("realtime.connections_per_second_per_address", 1..=1_000_000),
            connection_burst_per_address: reader
                .integer("realtime.connection_burst_per_address", 1..=1_000_000),
            max_request_bytes: reader.integer("realtime.max_request_bytes", 1_024..=1 << 30),
            max_frame_bytes,
            max_frame_bytes_before_join: reader
                .integer("realtime.max_frame_bytes_before_join", 1_024..=1 << 28),
            frame_timeout: reader.milliseconds("realtime.frame_timeout_ms", 1..=3_600_000),
            all_frames_max_bytes,
            max_broadcast_bytes: reader.integer("realtime.max_broadcast_bytes", 1..=1 << 28),
            queue_max_frames: reader.integer("realtime.queue_max_frames", 1..=10_000_000),
            queue_max_bytes,
            all_queues_max_bytes,
            all_channels_max_bytes: reader
                .integer("realtime.all_channels_max_bytes", 1_024..=MAX_MEMORY),
            all_requests_max_bytes: reader
                .integer("realtime.all_requests_max_bytes", 0..=MAX_MEMORY),
            idle_timeout: reader.milliseconds("realtime.idle_timeout_ms", 1..=86_400_000),
            drain_window: reader.milliseconds("realtime.drain_window_ms", 0..=600_000),
            no_channel_timeout: reader
                .milliseconds("realtime.no_channel_timeout_ms", 1..=MAX_NO_CHANNEL_MS),
            expiry_warning: Duration::from_secs(expiry_warning_s),
            private_only: reader.switch("realtime.private_only"),
            max_presence_events_per_second: reader
                .integer("realtime.max_presence_events_per_second", 1..=MAX_RATE),
            max_presence_calls_per_window: reader
                .integer("realtime.max_presence_calls_per_window", 1..=1_000_000),
            presence_window: reader.milliseconds("realtime.presence_window_ms", 1..=86_400_000),
            max_presence_state_bytes,
            max_record_bytes: reader.integer("realtime.max_record_bytes", 1_024..=1 << 28),
            replay_max_messages: reader.integer("realtime.replay_max_messages", 1..=10_000),
            message_days_ahead: reader.integer("realtime.message_days_ahead", 1..=365),
            message_days_kept: reader.integer("realtime.message_days_kept", 1..=3_650),
        }
    }
}
