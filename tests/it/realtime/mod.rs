//! Tests of the socket, from the handshake to the close frame, and of broadcasting over HTTP.

mod api;
mod broadcast;
mod database_broadcast;
mod deletes;
mod frames;
mod handshake;
mod join;
mod limits;
mod permissions;
mod persist;
mod postgres_changes;
mod presence;
mod private_channels;
mod publication;
mod replay;
mod rights;
mod table_shapes;
mod token;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use rapport::auth::Verifier;
use rapport::bus::Bus;
use rapport::change::StreamEvent;
use rapport::config::{AuthConfig, RealtimeConfig, ReplicationConfig, Secret, VisibilityConfig};
use rapport::db::connect::Connector;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::serve::serve;
use rapport::observability::metrics::{
    BusMetrics, HttpMetrics, RealtimeMetrics, ReplicationMetrics, VisibilityMetrics,
};
use rapport::observability::readiness::Readiness;
use rapport::realtime::api::tenant_health;
use rapport::realtime::{Realtime, routes};
use rapport::replication::{Replication, Sinks};
use rapport::shutdown::Tasks;
use rapport::visibility::Visibility;
use serde_json::{Value, json};

use crate::support::config::replication;
use crate::support::socket::{PhoenixSocket, Version};
use crate::support::token::{JWT_SECRET, anon_key};
use crate::visibility::bench::strict;

/// The realtime module alone, behind a separate listener. It stops when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    sinks: Sinks,
    pub(crate) metrics: RealtimeMetrics,
    visibility: Visibility,
    tasks: Tasks,
}

/// The publication of the tables that the tests create.
const PUBLICATION: &str = "supabase_realtime";

/// The project's public API key of the newer kind.
const OPAQUE_PUBLIC_KEY: &str = "sb_publishable_for_tests";
/// The project's secret API key of the newer kind.
const OPAQUE_SERVICE_KEY: &str = "sb_secret_for_tests";

fn auth_config() -> AuthConfig {
    AuthConfig {
        jwt_secret: Some(Secret::new(JWT_SECRET)),
        jwt_secret_next: None,
        jwks: None,
        jwks_refresh: Duration::from_secs(600),
        jwks_max_age: Duration::from_secs(86_400),
        issuers: Vec::new(),
        audience: None,
        issuer: None,
        cookie_names: Vec::new(),
        anon_key: Some(Secret::new(OPAQUE_PUBLIC_KEY)),
        service_role_key: Some(Secret::new(OPAQUE_SERVICE_KEY)),
        publishable_keys: Vec::new(),
        secret_keys: Vec::new(),
    }
}

/// Returns the default settings, for tests that change some of them.
pub(crate) fn config() -> RealtimeConfig {
    RealtimeConfig {
        max_sockets: 1_000,
        max_sockets_per_address: 0,
        max_channels_per_socket: 200,
        max_concurrent_users: 1_000,
        max_events_per_second: 10_000_000,
        max_joins_per_second: 20_000,
        max_joins_per_second_per_socket: 100,
        connections_per_second_per_address: 1_000,
        connection_burst_per_address: 20_000,
        max_request_bytes: 8_000_000,
        max_frame_bytes: 5_000_000,
        max_frame_bytes_before_join: 300_000,
        frame_timeout: Duration::from_secs(60),
        all_frames_max_bytes: 64 << 20,
        max_broadcast_bytes: 3_000_500,
        queue_max_frames: 2_000,
        queue_max_bytes: 16 << 20,
        all_queues_max_bytes: 64 << 20,
        all_channels_max_bytes: 256 << 20,
        all_requests_max_bytes: 64 << 20,
        idle_timeout: Duration::from_secs(60),
        drain_window: Duration::ZERO,
        no_channel_timeout: Duration::from_secs(600),
        expiry_warning: Duration::from_secs(60),
        private_only: false,
        max_presence_events_per_second: 1_000_000,
        max_presence_calls_per_window: 300,
        presence_window: Duration::from_secs(30),
        max_presence_state_bytes: 8 << 20,
        max_record_bytes: 1 << 20,
        replay_max_messages: 500,
        message_days_ahead: 30,
        message_days_kept: 3,
    }
}

impl Server {
    /// Starts a server with a live change stream and an unreachable database.
    pub(crate) async fn start(config: RealtimeConfig) -> Self {
        // Port 1 is reserved and has no listener.
        let server = Self::start_over(config, "postgres://nobody@127.0.0.1:1/none").await;
        server.sinks.changes.send(StreamEvent::Live).await.unwrap();
        server
    }

    /// Starts a server on a database, without a change stream.
    async fn start_over(config: RealtimeConfig, url: &str) -> Self {
        Self::start_with_settings(config, &strict(), url).await
    }

    /// Like [`Self::start_over`], with custom visibility settings.
    async fn start_with_settings(
        config: RealtimeConfig,
        visibility_config: &VisibilityConfig,
        url: &str,
    ) -> Self {
        let tasks = Tasks::new();
        let visibility = Visibility::new(
            Connector::new(url).unwrap(),
            visibility_config,
            PUBLICATION,
            config.max_record_bytes,
            VisibilityMetrics::default(),
            &tasks,
        );
        let verifier = Verifier::from_config(&auth_config()).unwrap();
        let (bus, listener) = Bus::new(64, BusMetrics::default());
        let metrics = RealtimeMetrics::default();
        let realtime = Realtime::start(
            verifier,
            visibility.clone(),
            listener,
            config,
            metrics.clone(),
            &tasks,
        )
        .with_private_channels(Connector::new(url).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(
            listener,
            routes(realtime.clone())
                .merge(tenant_health(realtime, Readiness::new()))
                .into_parts()
                .0,
            Heads::new(HEAD_DEADLINE, usize::MAX, &HttpMetrics::default()),
            tasks.token().clone(),
        );
        tasks.spawn("server", serving);
        Self {
            address,
            sinks: Sinks {
                changes: bus.change_sink(),
                messages: bus.message_sink(),
                messages_live: bus.messages_live(),
            },
            metrics,
            visibility,
            tasks,
        }
    }

    /// Connects a client with the public key.
    pub(crate) async fn client(&self, version: Version) -> PhoenixSocket {
        PhoenixSocket::connect(self.address, &anon_key(), version).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Starts the change stream of a server and waits until it is live.
async fn replicate(server: &Server, url: &str) -> Replication {
    let config = ReplicationConfig {
        backoff_max: Duration::from_millis(200),
        ..replication()
    };
    let readiness = Readiness::new();
    readiness.set_database_reachable(true);
    let replication = Replication::start(
        &Connector::new(url).unwrap(),
        &config,
        server.sinks.clone(),
        ReplicationMetrics::default(),
        readiness.clone(),
        &server.tasks,
    )
    .unwrap();
    tokio::time::timeout(Duration::from_secs(30), readiness.wait_until_ready())
        .await
        .unwrap();
    replication
}

/// Returns the payload of a join without options. Presence must be disabled explicitly.
pub(crate) fn plain_join() -> Value {
    json!({ "config": { "presence": { "enabled": false } } })
}
