//! The counters and gauges of the process, each name declared once.
//!
//! Subsystems hold clones of their section; `/metrics` reads the registry. Every name stands in
//! `docs/metrics.md`, which a test checks. Labels have few values by construction: no user, topic
//! or address ever becomes one, because each combination is kept for the life of the process.

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

/// What every name begins with.
const PREFIX: &str = "rapport";

/// All sections and the registry that prints them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reading row changes.
    pub replication: ReplicationMetrics,
    /// Who may see row changes.
    pub visibility: VisibilityMetrics,
    /// Between the parts of the process.
    pub bus: BusMetrics,
    /// Who is there because of sockets.
    pub presence: PresenceMetrics,
    /// Sockets and channels.
    pub realtime: RealtimeMetrics,
    /// The chat's routes.
    pub chat: ChatMetrics,
    /// HTTP requests.
    pub http: HttpMetrics,
    /// Connections for people's requests.
    pub database: DatabaseMetrics,
    /// What decides whether the process is ready.
    pub process: ProcessMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Every section at zero.
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
        let database = DatabaseMetrics::default();
        database.register(registry.sub_registry_with_prefix("database"));
        let process = ProcessMetrics::default();
        process.register(&mut registry);
        Self {
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
        }
    }

    /// Where a subsystem that declares its own section registers it, before the start.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The text that `/metrics` answers (`application/openmetrics-text; version=1.0.0`).
    ///
    /// # Errors
    /// Only when a metric of its own encoding fails, which none here does.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry)?;
        Ok(encoded)
    }
}

/// Reading row changes from the database. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct ReplicationMetrics {
    /// Committed transactions with a change of a published table.
    pub transactions: Counter,
    /// Row changes in them.
    pub changes: Counter,
    /// Rows inserted into `realtime.messages`.
    pub messages: Counter,
    /// Bytes of the messages they came in.
    pub bytes: Counter,
    /// Tables emptied by TRUNCATE, of which subscribers are not told.
    pub truncated_tables: Counter,
    /// Times the connection was opened again after it was lost.
    pub reconnects: Counter,
    /// Times the slot was made anew, so that changes may have been missed.
    pub slot_recreated: Counter,
    /// Log that the database holds back for us, in bytes, when last measured.
    pub wal_held_bytes: Gauge<i64, AtomicI64>,
    /// Log that is written and not acknowledged, in bytes, when last measured.
    pub lag_bytes: Gauge<i64, AtomicI64>,
    /// Time from writing log to its acknowledgement, in seconds, when last measured.
    pub lag_seconds: Gauge<f64, AtomicU64>,
}

impl ReplicationMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "transactions",
            "Committed transactions with a change of a published table",
            self.transactions.clone(),
        );
        registry.register("changes", "Row changes read", self.changes.clone());
        registry.register(
            "messages",
            "Rows of realtime.messages read",
            self.messages.clone(),
        );
        registry.register("bytes", "Bytes of change messages read", self.bytes.clone());
        registry.register(
            "truncated_tables",
            "Tables emptied by TRUNCATE, of which subscribers are not told",
            self.truncated_tables.clone(),
        );
        registry.register(
            "reconnects",
            "Times the replication connection was opened again after it was lost",
            self.reconnects.clone(),
        );
        registry.register(
            "slot_recreated",
            "Times the slot was made anew and changes may have been missed",
            self.slot_recreated.clone(),
        );
        registry.register(
            "wal_held_bytes",
            "Log the database holds back for the slot, when last measured",
            self.wal_held_bytes.clone(),
        );
        registry.register(
            "lag_bytes",
            "Log that is written and not acknowledged, when last measured",
            self.lag_bytes.clone(),
        );
        registry.register(
            "lag_seconds",
            "Time from writing log to its acknowledgement, when last measured",
            self.lag_seconds.clone(),
        );
    }
}

/// Who may see row changes. Clones share their values.
#[derive(Clone, Debug)]
pub struct VisibilityMetrics {
    /// Decisions (identity and change) made without SQL.
    pub decided_locally: Counter,
    /// Decisions for which PostgreSQL evaluated policies on the row image.
    pub asked_by_image: Counter,
    /// Decisions for which the row was selected by key because its image is incomplete.
    pub asked_by_key: Counter,
    /// Decisions about a deleted row for which PostgreSQL evaluated policies on the state before.
    pub asked_before: Counter,
    /// Decisions that could not be made; the row was not delivered.
    pub unanswered: Counter,
    /// Executions repeated on a half because one row among many failed.
    pub bisections: Counter,
    /// Questions asked again because the database was away.
    pub retries: Counter,
    /// Looks at which a committed transaction was not yet visible, and its changes waited.
    pub commit_waits: Counter,
    /// Times the catalogue was compared with what is known of it.
    pub catalog_checks: Counter,
    /// Times the catalogue was read anew because it had changed.
    pub catalog_loads: Counter,
    /// Seconds that the questions of one batch took.
    pub ask_seconds: Histogram,
    /// Changes resolved together.
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
            // 0.2 ms to 13 s
            ask_seconds: Histogram::new(exponential_buckets(0.0002, 3.0, 11)),
            // 1 to 4096
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
                "Decisions by evaluating policies on the row image",
                &self.asked_by_image,
            ),
            (
                "asked_by_key",
                "Decisions by selecting the row, its image being incomplete",
                &self.asked_by_key,
            ),
            (
                "asked_before",
                "Decisions about deleted rows by the state before their deletion",
                &self.asked_before,
            ),
            (
                "unanswered",
                "Decisions that could not be made",
                &self.unanswered,
            ),
            (
                "bisections",
                "Questions split because one row failed",
                &self.bisections,
            ),
            (
                "retries",
                "Questions repeated because the database was away",
                &self.retries,
            ),
            (
                "commit_waits",
                "Looks at which a committed transaction was not yet visible",
                &self.commit_waits,
            ),
            (
                "catalog_checks",
                "Comparisons of the catalogue with what is known of it",
                &self.catalog_checks,
            ),
            (
                "catalog_loads",
                "Catalogue readings after a change",
                &self.catalog_loads,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "ask_seconds",
            "Seconds that the questions of a batch took",
            self.ask_seconds.clone(),
        );
        registry.register(
            "batch_changes",
            "Changes resolved together",
            self.batch_changes.clone(),
        );
    }
}

/// Who is there because of sockets. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct PresenceMetrics {
    /// People with sockets here, as the database was told.
    pub people: Gauge,
    /// Reports about people that were written.
    pub reports: Counter,
    /// Times the process took a lease: once at its start, and again after each that it lost.
    pub leases: Counter,
}

impl PresenceMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "people",
            "People with sockets here, as the database was told",
            self.people.clone(),
        );
        registry.register(
            "reports",
            "Reports about people that were written",
            self.reports.clone(),
        );
        registry.register(
            "leases",
            "Times the process took a lease",
            self.leases.clone(),
        );
    }
}

/// What passes between the parts of the process. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct BusMetrics {
    /// Row changes that a listener of some tables lost because it was too slow.
    pub changes_missed: Counter,
    /// Broadcasts that the server itself sent.
    pub broadcasts: Counter,
    /// Those that found no room.
    pub broadcasts_dropped: Counter,
    /// Deliveries that were not noted because too many waited to be written.
    pub deliveries_missed: Counter,
}

impl BusMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "changes_missed",
            "Row changes that a slow listener lost, and was told so",
            self.changes_missed.clone(),
        );
        registry.register(
            "broadcasts",
            "Broadcasts that the server itself sent",
            self.broadcasts.clone(),
        );
        registry.register(
            "broadcasts_dropped",
            "Broadcasts of the server that found no room",
            self.broadcasts_dropped.clone(),
        );
        registry.register(
            "deliveries_missed",
            "Deliveries of messages that were not noted for their sender",
            self.deliveries_missed.clone(),
        );
    }
}

/// The chat's routes. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct ChatMetrics {
    /// Requests to `/sync` that wait for something to change.
    pub sync_waiting: Gauge,
    /// Requests refused because somebody made too many, by class.
    pub rate_limited: Family<RateLimitLabels, Counter>,
    /// Errors that clients reported.
    pub client_errors: Counter,
}

/// The labels of [`ChatMetrics::rate_limited`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RateLimitLabels {
    /// What was asked for too often.
    pub class: &'static str,
}

impl ChatMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "sync_waiting",
            "Requests that wait for something to change",
            self.sync_waiting.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests refused because somebody made too many",
            self.rate_limited.clone(),
        );
        registry.register(
            "client_errors",
            "Errors that clients reported",
            self.client_errors.clone(),
        );
    }
}

/// Sockets, channels, and what did not reach them. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct RealtimeMetrics {
    /// Sockets that are open.
    pub sockets: Gauge<i64, AtomicI64>,
    /// Those that have joined a channel since they were opened.
    pub sockets_joined: Gauge<i64, AtomicI64>,
    /// Channels that are joined.
    pub channels: Gauge<i64, AtomicI64>,
    /// Frames read from clients.
    pub frames_received: Counter,
    /// Frames queued for clients.
    pub frames_sent: Counter,
    /// Frames from or for a client that were dropped, by the reason.
    pub frames_dropped: Family<DropLabels, Counter>,
    /// Sockets that ended, by the reason.
    pub sockets_closed: Family<CloseLabels, Counter>,
    /// Sockets refused, because there are as many as allowed or the key was not good.
    pub sockets_refused: Counter,
    /// Joins that were refused.
    pub joins_refused: Counter,
    /// What is tracked: one for each channel that is listed in the presence of its topic.
    pub presences: Gauge<i64, AtomicI64>,
    /// Diffs of presence that were made; each goes to all members of its topic.
    pub presence_diffs: Counter,
    /// Questions about the permissions of private channels, by the way they were answered.
    pub permissions_asked: Family<PermissionLabels, Counter>,
    /// Times something was refused because of a limit, by its setting.
    pub limits_reached: Family<LimitLabels, Counter>,
    /// Memory that all sockets hold together, in bytes, by what it is.
    pub held: Family<HeldLabels, Gauge<i64, AtomicI64>>,
    /// Bytes of the bodies of requests to broadcast that arrive or are worked on.
    pub requests_bytes: Gauge<i64, AtomicI64>,
    /// Rows of `realtime.messages` handed to the members of their topic.
    pub database_broadcasts: Counter,
    /// Rows of `realtime.messages` that cannot be broadcast.
    pub database_broadcasts_refused: Counter,
}

/// A limit, named as the setting of `[realtime]` that raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Sockets that are open.
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
    /// Pushes of presence on one channel.
    PresenceCalls,
    /// Pushes of presence, and diffs delivered.
    PresenceEvents,
    /// Everything tracked on one topic.
    PresenceState,
    /// Bytes of a frame.
    Frame,
    /// Bytes of a frame of a socket that has not joined a channel.
    FrameBeforeJoin,
    /// How long a message may take from its first byte on.
    FrameTime,
    /// Unfinished frames of all sockets.
    AllFrames,
    /// What waits for all sockets.
    AllQueues,
    /// Channels of all sockets.
    AllChannels,
    /// Bodies of all requests that arrive.
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
    /// Which.
    pub limit: Limit,
}

/// What clients make the server hold for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// Frames and fragmented messages that are begun and not finished.
    Frames,
    /// Frames that wait to be written.
    Queues,
    /// Channels: their topics, their subscriptions, what they track, and messages that wait for them.
    Channels,
}

impl Held {
    /// All kinds, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Frames, Self::Queues, Self::Channels];

    /// The label's text, also in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Queues => "queues",
            Self::Channels => "channels",
        }
    }

    /// The limit of all sockets together.
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
    /// What is held.
    pub held: Held,
}

/// How a question about the permissions of a private channel was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermissionWay {
    /// From the catalogue alone.
    Known,
    /// Its policies were evaluated without writing.
    Evaluated,
    /// A message was inserted and rolled back.
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
    /// How.
    pub way: PermissionWay,
}

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// It could not be parsed.
    Malformed,
    /// Its channel is not joined.
    NotJoined,
    /// The sender may not send there.
    Forbidden,
    /// Its payload is above the limit.
    TooLarge,
    /// The sender sends too much.
    RateLimited,
    /// The receiver's queue was full.
    QueueFull,
    /// The receiver speaks a version of the protocol that has no such frame.
    NotExpressible,
    /// A row change that visibility could not decide.
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
    /// Why.
    pub reason: DropReason,
}

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseLabel {
    /// The client closed it.
    Client,
    /// The connection broke without a word.
    Broken,
    /// Nothing was heard for too long.
    Idle,
    /// No channel was joined for too long.
    NoChannel,
    /// What came was not the protocol, or too large.
    Fault,
    /// The client read too slowly.
    SlowConsumer,
    /// All sockets together held too much memory, and it held most.
    Memory,
    /// The server stops.
    Restarting,
}

impl CloseLabel {
    /// The label's text, also in the log.
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
    /// Why.
    pub reason: CloseLabel,
}

impl RealtimeMetrics {
    /// The counter of sockets that ended for this reason.
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

    /// Counts one answer about permissions.
    pub fn permission_asked(&self, way: PermissionWay) {
        self.permissions_asked
            .get_or_create(&PermissionLabels { way })
            .inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("sockets", "Sockets that are open", self.sockets.clone());
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
            "Memory that all sockets hold together",
            self.held.clone(),
        );
        registry.register(
            "requests_bytes",
            "Bodies of requests to broadcast that arrive or are worked on",
            self.requests_bytes.clone(),
        );
        registry.register(
            "channels",
            "Channels that are joined",
            self.channels.clone(),
        );
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
            "Frames from or for a client that were dropped",
            self.frames_dropped.clone(),
        );
        registry.register(
            "sockets_closed",
            "Sockets that ended",
            self.sockets_closed.clone(),
        );
        registry.register(
            "sockets_refused",
            "Sockets that were refused",
            self.sockets_refused.clone(),
        );
        registry.register(
            "permissions_asked",
            "Questions about the permissions of private channels",
            self.permissions_asked.clone(),
        );
        registry.register(
            "joins_refused",
            "Joins that were refused",
            self.joins_refused.clone(),
        );
        registry.register(
            "presences",
            "Channels that are listed in the presence of their topic",
            self.presences.clone(),
        );
        registry.register(
            "presence_diffs",
            "Diffs of presence that were made",
            self.presence_diffs.clone(),
        );
        registry.register(
            "database_broadcasts",
            "Rows of realtime.messages handed to the members of their topic",
            self.database_broadcasts.clone(),
        );
        registry.register(
            "database_broadcasts_refused",
            "Rows of realtime.messages that cannot be broadcast",
            self.database_broadcasts_refused.clone(),
        );
    }
}

/// HTTP requests. Clones share their values.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Seconds from the request's head to the answer's head.
    pub request_seconds: Histogram,
    /// Requests answered 503 because every connection was busy.
    pub pool_exhausted: Counter<u64, AtomicU64>,
    /// Bytes of request heads that are not whole.
    pub heads_bytes: Gauge<i64, AtomicI64>,
    /// Connections cut because there were too many of these.
    pub heads_refused: Counter,
    /// Requests without a sign-in refused because their address sent too many.
    pub rate_limited: Counter,
}

/// The labels of [`HttpMetrics::requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method; one that is not among HTTP's own is `OTHER`.
    pub method: &'static str,
    /// The route's pattern, never a path: a path has ids in it.
    pub route: String,
    /// The answer's status.
    pub status: u16,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // From 0.5 ms to 16 s: below lies the clock's own noise, above a proxy gives up.
            request_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            pool_exhausted: Counter::default(),
            heads_bytes: Gauge::default(),
            heads_refused: Counter::default(),
            rate_limited: Counter::default(),
        }
    }
}

impl HttpMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_seconds",
            "Seconds from a request's head to its answer's head",
            self.request_seconds.clone(),
        );
        registry.register(
            "pool_exhausted",
            "Requests answered 503 because every connection was busy",
            self.pool_exhausted.clone(),
        );
        registry.register(
            "heads_bytes",
            "Request heads that have begun to arrive and are not whole",
            self.heads_bytes.clone(),
        );
        registry.register(
            "heads_refused",
            "Connections cut because such heads took too much memory",
            self.heads_refused.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests without a sign-in refused because their address sent too many",
            self.rate_limited.clone(),
        );
    }
}

/// Connections for people's requests, when last looked at. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct DatabaseMetrics {
    /// Connections that are open.
    pub connections: Gauge<i64, AtomicI64>,
    /// Of these, idle ones.
    pub connections_idle: Gauge<i64, AtomicI64>,
    /// Requests that wait for one.
    pub requests_waiting: Gauge<i64, AtomicI64>,
}

impl DatabaseMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Connections for requests that are open, when last looked at",
            self.connections.clone(),
        );
        registry.register(
            "connections_idle",
            "Connections for requests that are idle, when last looked at",
            self.connections_idle.clone(),
        );
        registry.register(
            "requests_waiting",
            "Requests that wait for a connection, when last looked at",
            self.requests_waiting.clone(),
        );
    }
}

/// What decides whether the process is ready, each 1 or 0, and what it does. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct ProcessMetrics {
    /// New work is welcome: what `/ready` answers.
    pub ready: Gauge<i64, AtomicI64>,
    /// The database answered when it was last asked.
    pub database_reachable: Gauge<i64, AtomicI64>,
    /// Changes are delivered as they are committed.
    pub streaming: Gauge<i64, AtomicI64>,
    /// The process is stopping.
    pub draining: Gauge<i64, AtomicI64>,
    /// Tasks that are running.
    pub tasks: Gauge<i64, AtomicI64>,
}

impl ProcessMetrics {
    /// Takes over a report and the number of running tasks. Called before the metrics are printed.
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
        registry.register("build", "The program that runs", Info::new(vec![version]));
        registry.register(
            "ready",
            "Whether new work is welcome, as /ready says",
            self.ready.clone(),
        );
        registry.register(
            "database_reachable",
            "Whether the database answered when it was last asked",
            self.database_reachable.clone(),
        );
        registry.register(
            "streaming",
            "Whether changes are delivered as they are committed",
            self.streaming.clone(),
        );
        registry.register(
            "draining",
            "Whether the process is stopping",
            self.draining.clone(),
        );
        registry.register("tasks", "Tasks that are running", self.tasks.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_event_is_printed_with_its_labels() {
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
