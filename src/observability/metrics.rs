//! The metrics of the process. Each name is declared once.
//!
//! Subsystems hold clones of their section, and `/metrics` reads the registry. `docs/metrics.md`
//! lists every name, which a test checks. Labels have few values by design. A user, topic or
//! address never becomes a label value, because every combination of label values that has occurred
//! is kept for the lifetime of the process.

mod auth;
mod upstream;

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::readiness::{ReplicationState, Report};
pub use auth::{AuthMetrics, KeySetMetrics};
pub use upstream::{ServiceMetrics, UpstreamMetrics};

/// The prefix of every metric's name.
const PREFIX: &str = "rapport";

/// All sections, and the registry that exports them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Metrics of the change stream.
    pub replication: ReplicationMetrics,
    /// Metrics of visibility checks.
    pub visibility: VisibilityMetrics,
    /// Metrics of the queues between the parts of the process.
    pub bus: BusMetrics,
    /// Metrics of presence that is derived from open sockets.
    pub presence: PresenceMetrics,
    /// Metrics of sockets and channels.
    pub realtime: RealtimeMetrics,
    /// Metrics of the chat's routes.
    pub chat: ChatMetrics,
    /// Metrics of HTTP requests.
    pub http: HttpMetrics,
    /// Metrics of tokens and published key sets.
    pub auth: AuthMetrics,
    /// Metrics of forwarded requests.
    pub upstream: UpstreamMetrics,
    /// Metrics of database connections for user requests.
    pub database: DatabaseMetrics,
    /// Metrics of the process: its readiness and its tasks.
    pub process: ProcessMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates all metrics with the value zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let replication = ReplicationMetrics::default();
        replication.register(registry.sub_registry_with_prefix("replication"));
        let visibility = VisibilityMetrics::default();
        visibility.register(registry.sub_registry_with_prefix("visibility"));
        let bus = BusMetrics::default();
        bus.register(registry.sub_registry_with_prefix("bus"));
        let presence = PresenceMetrics::default();
        presence.register(registry.sub_registry_with_prefix("presence"));
        let realtime = RealtimeMetrics::default();
        realtime.register(registry.sub_registry_with_prefix("realtime"));
        let chat = ChatMetrics::default();
        chat.register(registry.sub_registry_with_prefix("chat"));
        let http = HttpMetrics::default();
        http.register(registry.sub_registry_with_prefix("http"));
        let auth = AuthMetrics::default();
        auth.register(registry.sub_registry_with_prefix("auth"));
        let upstream = UpstreamMetrics::default();
        upstream.register(registry.sub_registry_with_prefix("upstream"));
        let database = DatabaseMetrics::default();
        database.register(registry.sub_registry_with_prefix("database"));
        let process = ProcessMetrics::default();
        process.register(&mut registry);
        Self {
            auth,
            bus,
            presence,
            chat,
            database,
            process,
            registry,
            replication,
            visibility,
            realtime,
            http,
            upstream,
        }
    }

    /// Returns the registry, for subsystems that declare their own section. Call it before the
    /// server starts.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Returns the response body of `/metrics` (`application/openmetrics-text; version=1.0.0`).
    ///
    /// # Errors
    /// Only if the encoding of a metric fails, which does not happen for these metrics.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry)?;
        Ok(encoded)
    }
}

/// The metrics of reading row changes from the database. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct ReplicationMetrics {
    /// Committed transactions with a row change or a row inserted into `realtime.messages`.
    pub transactions: Counter,
    /// Row changes in these transactions, without rows of `realtime.messages`.
    pub changes: Counter,
    /// Rows inserted into `realtime.messages`.
    pub messages: Counter,
    /// Bytes of the pgoutput messages read, except those that begin or commit a transaction.
    pub bytes: Counter,
    /// Tables emptied by TRUNCATE. Subscribers are not notified of that.
    pub truncated_tables: Counter,
    /// Connections that were lost and attempts that failed, each followed by another attempt.
    pub reconnects: Counter,
    /// Number of times that the slot was recreated and changes may have been missed.
    pub slot_recreated: Counter,
    /// WAL that the database retains for the slot, in bytes, at the last check.
    pub wal_held_bytes: Gauge<i64, AtomicI64>,
    /// WAL written but not yet acknowledged, in bytes, at the last check.
    pub lag_bytes: Gauge<i64, AtomicI64>,
    /// Time from the write of WAL to its acknowledgement, in seconds, at the last check.
    pub lag_seconds: Gauge<f64, AtomicU64>,
}

impl ReplicationMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "transactions",
            "Committed transactions with a change of a published table or a row of realtime.messages",
            self.transactions.clone(),
        );
        registry.register("changes", "Row changes read", self.changes.clone());
        registry.register(
            "messages",
            "Rows of realtime.messages read",
            self.messages.clone(),
        );
        registry.register(
            "bytes",
            "Bytes of pgoutput messages read, except those that begin and end transactions",
            self.bytes.clone(),
        );
        registry.register(
            "truncated_tables",
            "Tables emptied by TRUNCATE, about which subscribers are not notified",
            self.truncated_tables.clone(),
        );
        registry.register(
            "reconnects",
            "Attempts to reconnect, also those that find the slot in use",
            self.reconnects.clone(),
        );
        registry.register(
            "slot_recreated",
            "Times the slot was recreated and changes may have been missed",
            self.slot_recreated.clone(),
        );
        registry.register(
            "wal_held_bytes",
            "WAL in bytes that the database retains for the slot, at the last check",
            self.wal_held_bytes.clone(),
        );
        registry.register(
            "lag_bytes",
            "WAL in bytes written but not yet acknowledged, at the last check",
            self.lag_bytes.clone(),
        );
        registry.register(
            "lag_seconds",
            "Seconds from the write of WAL to its acknowledgement, at the last check",
            self.lag_seconds.clone(),
        );
    }
}

/// The metrics of visibility checks of row changes. Clones share their values.
#[derive(Clone, Debug)]
pub struct VisibilityMetrics {
    /// Decisions that were made without SQL. There is one decision per identity and change.
    pub decided_locally: Counter,
    /// Decisions made by evaluating policies in PostgreSQL on the row image. Rows that are equal in
    /// the columns that the policies read count once per identity.
    pub asked_by_image: Counter,
    /// Decisions made by selecting the row by key, because its image is incomplete.
    pub asked_by_key: Counter,
    /// Decisions about a deleted row made by evaluating policies on the state before its deletion.
    pub asked_before: Counter,
    /// Decisions that could not be made. The row was not delivered.
    pub unanswered: Counter,
    /// Checks that were split in half because one of several rows failed.
    pub bisections: Counter,
    /// Queries repeated because the database was unavailable.
    pub retries: Counter,
    /// Polls that found a committed transaction not yet visible, so that its changes had to wait.
    pub commit_waits: Counter,
    /// Comparisons of the catalogue with the cached information.
    pub catalog_checks: Counter,
    /// Number of times that the catalogue was read: at first, after a change, or for a new role.
    pub catalog_loads: Counter,
    /// Seconds spent on the checks of one batch.
    pub ask_seconds: Histogram,
    /// Changes in one table batch.
    pub batch_changes: Histogram,
}

impl Default for VisibilityMetrics {
    fn default() -> Self {
        Self {
            decided_locally: Counter::default(),
            asked_by_image: Counter::default(),
            asked_by_key: Counter::default(),
            asked_before: Counter::default(),
            unanswered: Counter::default(),
            bisections: Counter::default(),
            retries: Counter::default(),
            commit_waits: Counter::default(),
            catalog_checks: Counter::default(),
            catalog_loads: Counter::default(),
            // From 0.2 ms to 12 s.
            ask_seconds: Histogram::new(exponential_buckets(0.0002, 3.0, 11)),
            // From 1 to 4,096 changes.
            batch_changes: Histogram::new(exponential_buckets(1.0, 4.0, 7)),
        }
    }
}

impl VisibilityMetrics {
    fn register(&self, registry: &mut Registry) {
        let counters = [
            (
                "decided_locally",
                "Decisions made without SQL",
                &self.decided_locally,
            ),
            (
                "asked_by_image",
                "Row images that PostgreSQL evaluated policies on, per identity",
                &self.asked_by_image,
            ),
            (
                "asked_by_key",
                "Decisions made by selecting the row, because its image is incomplete",
                &self.asked_by_key,
            ),
            (
                "asked_before",
                "Decisions about deleted rows made on the state before their deletion",
                &self.asked_before,
            ),
            (
                "unanswered",
                "Decisions that could not be made",
                &self.unanswered,
            ),
            (
                "bisections",
                "Checks split because one row failed",
                &self.bisections,
            ),
            (
                "retries",
                "Queries repeated because the database was unavailable",
                &self.retries,
            ),
            (
                "commit_waits",
                "Polls that found a committed transaction not yet visible",
                &self.commit_waits,
            ),
            (
                "catalog_checks",
                "Comparisons of the catalogue with the cached information",
                &self.catalog_checks,
            ),
            (
                "catalog_loads",
                "Readings of the catalogue: the first, after a change, and for a new role",
                &self.catalog_loads,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "ask_seconds",
            "Seconds spent on the checks of one batch",
            self.ask_seconds.clone(),
        );
        registry.register(
            "batch_changes",
            "Changes resolved together",
            self.batch_changes.clone(),
        );
    }
}

/// The metrics of presence that is derived from open sockets. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct PresenceMetrics {
    /// Users with sockets in this process, as reported to the database.
    pub people: Gauge,
    /// Reports about users written to the database.
    pub reports: Counter,
    /// Reports that were postponed because a transaction held the user's rows.
    pub reports_held: Counter,
    /// Leases taken by the process: one at start, and one after each lost lease. The users of a
    /// process count as online for as long as its lease is valid.
    pub leases: Counter,
}

impl PresenceMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "people",
            "Users with sockets of this process, as reported to the database",
            self.people.clone(),
        );
        registry.register(
            "reports",
            "Reports about users written to the database",
            self.reports.clone(),
        );
        registry.register(
            "reports_held",
            "Reports put off because another transaction held rows of the user",
            self.reports_held.clone(),
        );
        registry.register("leases", "Leases taken by the process", self.leases.clone());
    }
}

/// The metrics of the queues between the parts of the process. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct BusMetrics {
    /// Row changes that were dropped because a listener of some tables was too slow.
    pub changes_missed: Counter,
    /// Broadcasts sent by the server itself.
    pub broadcasts: Counter,
    /// Broadcasts of the server that were dropped because the queue was full.
    pub broadcasts_dropped: Counter,
    /// Deliveries that were not recorded because too many were waiting to be written.
    pub deliveries_missed: Counter,
    /// Deliveries that were postponed because a transaction held the receipt.
    pub deliveries_held: Counter,
}

impl BusMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "changes_missed",
            "Row changes dropped because an internal listener was too slow",
            self.changes_missed.clone(),
        );
        registry.register(
            "broadcasts",
            "Broadcasts sent by the server itself",
            self.broadcasts.clone(),
        );
        registry.register(
            "broadcasts_dropped",
            "Broadcasts of the server dropped because the queue was full",
            self.broadcasts_dropped.clone(),
        );
        registry.register(
            "deliveries_missed",
            "Deliveries of messages that were not recorded",
            self.deliveries_missed.clone(),
        );
        registry.register(
            "deliveries_held",
            "Deliveries put off because another transaction held the receipt",
            self.deliveries_held.clone(),
        );
    }
}

/// The metrics of the chat's routes. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct ChatMetrics {
    /// `/sync` requests that are waiting for a change.
    pub sync_waiting: Gauge,
    /// Requests refused by a rate limit, by class.
    pub rate_limited: RateLimitRefusals,
    /// Errors reported by clients.
    pub client_errors: Counter,
    /// Comparisons of the activity, role and teams of all connected users.
    pub standings_compared: Counter,
}

/// Requests refused by a rate limit, by class. Clones share their values.
pub type RateLimitRefusals = Family<RateLimitLabels, Counter>;

/// The labels of [`RateLimitRefusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RateLimitLabels {
    /// The kind of request that was limited.
    pub class: &'static str,
}

impl ChatMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "sync_waiting",
            "Requests to /sync that are waiting for a change",
            self.sync_waiting.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests refused by a rate limit",
            self.rate_limited.clone(),
        );
        registry.register(
            "client_errors",
            "Errors reported by clients",
            self.client_errors.clone(),
        );
        registry.register(
            "standings_compared",
            "Comparisons of the activity, role and teams of all connected users",
            self.standings_compared.clone(),
        );
    }
}

/// The metrics of sockets, channels and frames. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct RealtimeMetrics {
    /// Open sockets.
    pub sockets: Gauge<i64, AtomicI64>,
    /// Open sockets that have joined a channel.
    pub sockets_joined: Gauge<i64, AtomicI64>,
    /// Joined channels.
    pub channels: Gauge<i64, AtomicI64>,
    /// Frames read from clients.
    pub frames_received: Counter,
    /// Frames queued for clients.
    pub frames_sent: Counter,
    /// Dropped frames from or to a client, by reason.
    pub frames_dropped: Family<DropLabels, Counter>,
    /// Closed sockets, by reason.
    pub sockets_closed: Family<CloseLabels, Counter>,
    /// Refused handshakes, for any reason.
    pub sockets_refused: Counter,
    /// Refused joins.
    pub joins_refused: Counter,
    /// Channels listed in the presence of their topic.
    pub presences: Gauge<i64, AtomicI64>,
    /// Presence diffs that were created. Each is sent to all members of its topic.
    pub presence_diffs: Counter,
    /// Repeated permission checks of channels, each after a change that may have revoked a right.
    pub rechecks: Counter,
    /// Channels closed because a permission was revoked.
    pub channels_revoked: Counter,
    /// Permission checks of private channels, by the way in which they were decided.
    pub permissions_asked: Family<PermissionLabels, Counter>,
    /// Refusals because of a limit, by its setting.
    pub limits_reached: Family<LimitLabels, Counter>,
    /// Memory that the server holds for all sockets, in bytes, by kind.
    pub held: Family<HeldLabels, Gauge<i64, AtomicI64>>,
    /// Bytes of the bodies of broadcast requests that are arriving or being processed.
    pub requests_bytes: Gauge<i64, AtomicI64>,
    /// Rows of `realtime.messages` sent to the members of their topic.
    pub database_broadcasts: Counter,
    /// Rows of `realtime.messages` that could not be broadcast.
    pub database_broadcasts_refused: Counter,
    /// Broadcasts of clients that were stored and sent.
    pub broadcasts_stored: Counter,
    /// Broadcasts of clients that could not be stored and were therefore not sent.
    pub broadcasts_not_stored: Counter,
}

/// A limit. Its label is the setting in `[realtime]` that raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Open sockets.
    Sockets,
    /// Sockets that have joined a channel.
    Users,
    /// Messages sent and delivered.
    Events,
    /// Joins of all sockets.
    Joins,
    /// Joins of one socket.
    SocketJoins,
    /// Channels of one socket.
    Channels,
    /// Sockets opened from one address.
    Address,
    /// Presence pushes on one channel.
    PresenceCalls,
    /// Presence pushes, and delivered diffs.
    PresenceEvents,
    /// The presence state that is tracked on one topic.
    PresenceState,
    /// Bytes of a frame.
    Frame,
    /// Bytes of a frame from a client that has not joined a channel.
    FrameBeforeJoin,
    /// Time between the first and the last byte of a message.
    FrameTime,
    /// Incomplete frames of all sockets.
    AllFrames,
    /// Queues of all sockets.
    AllQueues,
    /// Channels of all sockets.
    AllChannels,
    /// Bodies of all incoming requests.
    AllRequests,
    /// Bytes of a broadcast's payload.
    Broadcast,
    /// Bytes of a request's body.
    Request,
}

impl EncodeLabelValue for Limit {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(match self {
            Self::Sockets => "max_sockets",
            Self::Users => "max_concurrent_users",
            Self::Events => "max_events_per_second",
            Self::Joins => "max_joins_per_second",
            Self::SocketJoins => "max_joins_per_second_per_socket",
            Self::Channels => "max_channels_per_socket",
            Self::Address => "connections_per_second_per_address",
            Self::PresenceCalls => "max_presence_calls_per_window",
            Self::PresenceEvents => "max_presence_events_per_second",
            Self::PresenceState => "max_presence_state_bytes",
            Self::Frame => "max_frame_bytes",
            Self::FrameBeforeJoin => "max_frame_bytes_before_join",
            Self::FrameTime => "frame_timeout_ms",
            Self::AllFrames => "all_frames_max_bytes",
            Self::AllQueues => "all_queues_max_bytes",
            Self::AllChannels => "all_channels_max_bytes",
            Self::AllRequests => "all_requests_max_bytes",
            Self::Broadcast => "max_broadcast_bytes",
            Self::Request => "max_request_bytes",
        })
    }
}

/// The labels of [`RealtimeMetrics::limits_reached`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// The limit.
    pub limit: Limit,
}

/// The kinds of memory that the server holds for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// Incomplete frames and fragmented messages.
    Frames,
    /// Frames waiting to be written.
    Queues,
    /// Channels: their topics, subscriptions and tracked presence, and the messages that wait for a
    /// check of a channel.
    Channels,
}

impl Held {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Frames, Self::Queues, Self::Channels];

    /// Returns the label value, which the log also uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Queues => "queues",
            Self::Channels => "channels",
        }
    }

    /// Returns the limit that applies to all sockets together.
    pub fn limit(self) -> Limit {
        match self {
            Self::Frames => Limit::AllFrames,
            Self::Queues => Limit::AllQueues,
            Self::Channels => Limit::AllChannels,
        }
    }
}

impl EncodeLabelValue for Held {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

/// The labels of [`RealtimeMetrics::held`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HeldLabels {
    /// The kind of memory.
    pub held: Held,
}

/// How a permission check of a private channel was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermissionWay {
    /// From the catalogue, without a further query.
    Known,
    /// By evaluating the policies without writing.
    Evaluated,
    /// By inserting a message and rolling the insertion back.
    Inserted,
}

impl EncodeLabelValue for PermissionWay {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(match self {
            Self::Known => "known",
            Self::Evaluated => "evaluated",
            Self::Inserted => "inserted",
        })
    }
}

/// The labels of [`RealtimeMetrics::permissions_asked`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PermissionLabels {
    /// How the check was decided.
    pub way: PermissionWay,
}

/// The reason why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The frame could not be parsed.
    Malformed,
    /// The sender has not joined the channel.
    NotJoined,
    /// The sender lacks permission.
    Forbidden,
    /// The payload exceeds the limit.
    TooLarge,
    /// The sender exceeds a rate limit.
    RateLimited,
    /// The receiver's queue was full.
    QueueFull,
    /// The receiver's protocol version cannot express the frame.
    NotExpressible,
    /// The visibility of the row change could not be decided.
    Undecided,
}

impl EncodeLabelValue for DropReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(match self {
            Self::Malformed => "malformed",
            Self::NotJoined => "not_joined",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::NotExpressible => "not_expressible",
            Self::Undecided => "undecided",
        })
    }
}

/// The labels of [`RealtimeMetrics::frames_dropped`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropLabels {
    /// The reason.
    pub reason: DropReason,
}

/// The reason why a socket was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseLabel {
    /// The client closed it.
    Client,
    /// The connection broke without a close frame.
    Broken,
    /// The client sent nothing for too long.
    Idle,
    /// No channel was joined for too long.
    NoChannel,
    /// The client violated the protocol or exceeded a size limit.
    Fault,
    /// The client read too slowly.
    SlowConsumer,
    /// The sockets together held too much memory, and this was one of the largest of the client
    /// that held the most.
    Memory,
    /// The server is shutting down.
    Restarting,
}

impl CloseLabel {
    /// Returns the label value, which the log also uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::NoChannel => "no_channel",
            Self::Fault => "fault",
            Self::SlowConsumer => "slow_consumer",
            Self::Memory => "memory",
            Self::Restarting => "restarting",
        }
    }
}

impl EncodeLabelValue for CloseLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

/// The labels of [`RealtimeMetrics::sockets_closed`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    /// The reason.
    pub reason: CloseLabel,
}

impl RealtimeMetrics {
    /// Returns the counter of sockets closed for this reason.
    pub fn closed(&self, reason: CloseLabel) -> Counter {
        self.sockets_closed
            .get_or_create(&CloseLabels { reason })
            .clone()
    }

    /// Counts one dropped frame.
    pub fn dropped(&self, reason: DropReason) {
        self.frames_dropped
            .get_or_create(&DropLabels { reason })
            .inc();
    }

    /// Counts one refusal because of a limit.
    pub fn limited(&self, limit: Limit) {
        self.limits_reached
            .get_or_create(&LimitLabels { limit })
            .inc();
    }

    /// Counts one permission check.
    pub fn permission_checked(&self, way: PermissionWay) {
        self.permissions_asked
            .get_or_create(&PermissionLabels { way })
            .inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("sockets", "Open sockets", self.sockets.clone());
        registry.register(
            "sockets_joined",
            "Open sockets that have joined a channel",
            self.sockets_joined.clone(),
        );
        registry.register(
            "limits_reached",
            "Refusals because of a limit, by its setting",
            self.limits_reached.clone(),
        );
        registry.register(
            "held_bytes",
            "Memory in bytes that the server holds for all sockets",
            self.held.clone(),
        );
        registry.register(
            "requests_bytes",
            "Bytes of the bodies of broadcast requests that are arriving or being processed",
            self.requests_bytes.clone(),
        );
        registry.register("channels", "Joined channels", self.channels.clone());
        registry.register(
            "frames_received",
            "Frames read from clients",
            self.frames_received.clone(),
        );
        registry.register(
            "frames_sent",
            "Frames queued for clients",
            self.frames_sent.clone(),
        );
        registry.register(
            "frames_dropped",
            "Dropped frames from or to a client",
            self.frames_dropped.clone(),
        );
        registry.register(
            "sockets_closed",
            "Closed sockets",
            self.sockets_closed.clone(),
        );
        registry.register(
            "sockets_refused",
            "Refused sockets",
            self.sockets_refused.clone(),
        );
        registry.register(
            "permissions_asked",
            "Permission checks of private channels",
            self.permissions_asked.clone(),
        );
        registry.register(
            "rechecks",
            "Repeated permission checks of channels, each after a change that may have revoked a right",
            self.rechecks.clone(),
        );
        registry.register(
            "channels_revoked",
            "Channels closed because a permission was revoked",
            self.channels_revoked.clone(),
        );
        registry.register("joins_refused", "Refused joins", self.joins_refused.clone());
        registry.register(
            "presences",
            "Channels listed in the presence of their topic",
            self.presences.clone(),
        );
        registry.register(
            "presence_diffs",
            "Presence diffs created",
            self.presence_diffs.clone(),
        );
        registry.register(
            "database_broadcasts",
            "Rows of realtime.messages sent to the members of their topic",
            self.database_broadcasts.clone(),
        );
        registry.register(
            "database_broadcasts_refused",
            "Rows of realtime.messages that could not be broadcast",
            self.database_broadcasts_refused.clone(),
        );
        registry.register(
            "broadcasts_stored",
            "Broadcasts of clients that were stored and sent",
            self.broadcasts_stored.clone(),
        );
        registry.register(
            "broadcasts_not_stored",
            "Broadcasts of clients that could not be stored and were not sent",
            self.broadcasts_not_stored.clone(),
        );
    }
}

/// The metrics of HTTP requests. Clones share their values.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Requests that received a response.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from the request head to the response head.
    pub request_seconds: Histogram,
    /// Requests that received 503 because every database connection was busy.
    pub pool_exhausted: Counter<u64, AtomicU64>,
    /// Bytes of incomplete request heads.
    pub heads_bytes: Gauge<i64, AtomicI64>,
    /// Connections closed because incomplete heads took too much memory.
    pub heads_refused: Counter,
    /// Connections that wait for their client.
    pub connections_idle: Gauge<i64, AtomicI64>,
    /// Connections closed because too many waited for their client.
    pub connections_closed: Counter,
    /// Bytes of responses that wait for their clients to read.
    pub responses_bytes: Gauge<i64, AtomicI64>,
    /// Connections closed because their client did not read its response.
    pub responses_closed: Counter,
    /// Requests without a sign-in that were refused because their address had sent too many.
    pub rate_limited: Counter,
}

/// The labels of [`HttpMetrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method, or `OTHER` for a non-standard one.
    pub method: &'static str,
    /// The route's pattern, never the path, which contains ids.
    pub route: String,
    /// The response status.
    pub status: u16,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // From 0.5 ms to 16 s. Shorter times are mostly clock noise, and for longer ones the
            // exact value does not matter.
            request_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            pool_exhausted: Counter::default(),
            heads_bytes: Gauge::default(),
            heads_refused: Counter::default(),
            connections_idle: Gauge::default(),
            connections_closed: Counter::default(),
            responses_bytes: Gauge::default(),
            responses_closed: Counter::default(),
            rate_limited: Counter::default(),
        }
    }
}

impl HttpMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_seconds",
            "Seconds from the request head to the response head",
            self.request_seconds.clone(),
        );
        registry.register(
            "pool_exhausted",
            "Requests answered with 503 because every connection was busy",
            self.pool_exhausted.clone(),
        );
        registry.register(
            "heads_bytes",
            "Bytes of incomplete request heads",
            self.heads_bytes.clone(),
        );
        registry.register(
            "heads_refused",
            "Connections closed because incomplete request heads took too much memory",
            self.heads_refused.clone(),
        );
        registry.register(
            "connections_idle",
            "Connections that wait for their client",
            self.connections_idle.clone(),
        );
        registry.register(
            "connections_closed",
            "Connections closed because too many waited for their client",
            self.connections_closed.clone(),
        );
        registry.register(
            "responses_bytes",
            "Bytes of responses that wait for their clients to read",
            self.responses_bytes.clone(),
        );
        registry.register(
            "responses_closed",
            "Connections closed because their client did not read its response",
            self.responses_closed.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests without a sign-in that were refused because their address sent too many",
            self.rate_limited.clone(),
        );
    }
}

/// The metrics of database connections for user requests, at the last check. Clones share their
/// values.
#[derive(Clone, Debug, Default)]
pub struct DatabaseMetrics {
    /// Open connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Open connections that are idle.
    pub connections_idle: Gauge<i64, AtomicI64>,
    /// Requests waiting for a connection.
    pub requests_waiting: Gauge<i64, AtomicI64>,
}

impl DatabaseMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Open connections for requests, at the last check",
            self.connections.clone(),
        );
        registry.register(
            "connections_idle",
            "Idle connections for requests, at the last check",
            self.connections_idle.clone(),
        );
        registry.register(
            "requests_waiting",
            "Requests waiting for a connection, at the last check",
            self.requests_waiting.clone(),
        );
    }
}

/// The metrics of the process: its tasks, and its readiness as values of 1 or 0. Clones share their
/// values.
#[derive(Clone, Debug, Default)]
pub struct ProcessMetrics {
    /// Whether the process accepts work, as `/ready` reports.
    pub ready: Gauge<i64, AtomicI64>,
    /// Whether the database responded to the last check.
    pub database_reachable: Gauge<i64, AtomicI64>,
    /// Whether changes are delivered as they are committed.
    pub streaming: Gauge<i64, AtomicI64>,
    /// Whether the process is shutting down.
    pub draining: Gauge<i64, AtomicI64>,
    /// Running tasks.
    pub tasks: Gauge<i64, AtomicI64>,
}

impl ProcessMetrics {
    /// Sets these metrics from a readiness report and the number of running tasks. Called before
    /// the metrics are exported.
    pub fn set(&self, report: Report, tasks: usize) {
        self.ready.set(report.is_ready().into());
        self.database_reachable
            .set(report.database_reachable.into());
        let is_streaming = report.replication == ReplicationState::Streaming;
        self.streaming.set(is_streaming.into());
        self.draining.set(report.draining.into());
        self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    fn register(&self, registry: &mut Registry) {
        let version = ("version", env!("CARGO_PKG_VERSION"));
        registry.register("build", "The running program", Info::new(vec![version]));
        registry.register(
            "ready",
            "Whether the process accepts work, as /ready reports",
            self.ready.clone(),
        );
        registry.register(
            "database_reachable",
            "Whether the database answered the last check",
            self.database_reachable.clone(),
        );
        registry.register(
            "streaming",
            "Whether changes are delivered as they are committed",
            self.streaming.clone(),
        );
        registry.register(
            "draining",
            "Whether the process is shutting down",
            self.draining.clone(),
        );
        registry.register("tasks", "Running tasks", self.tasks.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_event_is_exported_with_its_labels() {
        let metrics = Metrics::new();
        metrics.realtime.dropped(DropReason::QueueFull);
        metrics
            .http
            .requests
            .get_or_create(&RequestLabels {
                method: "GET",
                route: "/health".to_owned(),
                status: 200,
            })
            .inc();
        let text = metrics.encode().unwrap();
        for line in [
            "rapport_realtime_frames_dropped_total{reason=\"queue_full\"} 1",
            "rapport_http_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 1",
            "rapport_replication_changes_total 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
