//! The composition root: which parts exist, and in which order they start and stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::auth::{KeyError, Verifier};
use crate::bus::Bus;
use crate::chat::{self, ChatState};
use crate::config::Config;
use crate::db::connect::{ConnectError, Connector};
use crate::db::{Db, DbError};
use crate::http::anonymous_limiter::AnonymousLimiter;
use crate::http::heads::{HEAD_DEADLINE, Heads};
use crate::http::idle::Idle;
use crate::http::openapi::ApiRouter;
use crate::http::peer::TrustedProxies;
use crate::http::responses::{READ_DEADLINE, Responses};
use crate::http::serve::{self, serve};
use crate::http::{self, Authentication, demo, metrics as metrics_route};
use crate::observability::metrics::{DatabaseMetrics, Metrics};
use crate::observability::readiness::Readiness;
use crate::realtime::Realtime;
use crate::realtime::messages::partitions;
use crate::replication::{Replication, ReplicationError, Sinks};
use crate::router::{Parts, router};
use crate::shutdown::Tasks;
use crate::upstream::{Gateway, TlsError, fetch_key_sets};
use crate::visibility::Visibility;

/// Maximum events queued between replication and the change feed. The change feed takes events out
/// immediately and does its own batching. Each event is limited in bytes
/// (`replication.chunk_max_bytes`), so this also limits the total.
const BUS_CAPACITY: usize = 32;

/// Interval of database checks for `/ready`. Load balancers commonly check every ten seconds, so
/// there are at least two database checks per check of the load balancer.
const PROBE_INTERVAL: Duration = Duration::from_secs(4);

/// Part of the shutdown deadline that is reserved for the work after the last request:
/// acknowledging the position in the WAL, dropping the slot and closing connections. With an idle
/// database, this work takes about ten milliseconds.
const RELEASE_TIME: Duration = Duration::from_secs(5);

/// Why the server cannot start. An unavailable database is not an error: the server waits for it,
/// and `/ready` reports it.
#[derive(Debug, Error)]
pub enum StartError {
    /// A connection string is invalid.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pool could not be created.
    #[error(transparent)]
    Pool(#[from] DbError),
    /// The keys for tokens are unusable.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The services of Supabase cannot be reached with TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Replication can never work with these settings.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The address is in use or not local.
    #[error("Cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// The running server.
pub struct App {
    local_address: SocketAddr,
    has_demo_page: bool,
    readiness: Readiness,
    sockets: Realtime,
    verifier: Verifier,
    /// The listener and the sockets, which must end first.
    front: Tasks,
    server: JoinHandle<()>,
    replication: Replication,
    db: Db,
    tasks: Tasks,
    deadline: Duration,
}

impl App {
    /// Starts every part and returns once the listener accepts connections. [`App::readiness`]
    /// reports when the database and the change stream are available.
    ///
    /// # Errors
    /// [`StartError`] for problems that waiting cannot solve.
    pub async fn start(config: &Config, tasks: &Tasks) -> Result<Self, StartError> {
        Self::start_with(config, ApiRouter::new(), tasks).await
    }

    /// Like [`Self::start`], with additional routes.
    ///
    /// # Errors
    /// Same as [`Self::start`].
    pub async fn start_with(
        config: &Config,
        more_routes: ApiRouter,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::new();
        let front = tasks.child();

        let owner = Connector::new(config.database.url.expose())?;
        let requests = Connector::new(config.database.request_url.expose())?;
        let db = Db::new(requests, &config.database, readiness.clone(), tasks)?;
        let verifier = Verifier::from_config(&config.auth)?
            .for_chat(&config.chat)
            .counting(metrics.auth.clone());
        fetch_key_sets(config, &verifier, &metrics.auth, tasks)?;

        let (listener, local_address) = listen(config.server.listen).await?;
        let metrics_listener = match config.server.metrics_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };

        let (bus, changes) = Bus::new(BUS_CAPACITY, metrics.bus.clone());
        let visibility = Visibility::new(
            owner.clone(),
            &config.visibility,
            &config.replication.publication,
            config.realtime.max_record_bytes,
            metrics.visibility.clone(),
            tasks,
        );
        let anonymous_limiter =
            AnonymousLimiter::new(verifier.clone(), &config.server, metrics.http.clone());
        let gateway = Gateway::new(
            config,
            verifier.clone(),
            anonymous_limiter.clone(),
            &metrics.upstream,
            &front,
            tasks,
        )?;
        let realtime = Realtime::start(
            verifier.clone(),
            visibility,
            changes,
            config.realtime.clone(),
            metrics.realtime.clone(),
            &front,
        )
        .with_private_channels(owner.clone())
        .with_managed_topics(chat::is_chat_topic, bus.rechecks().clone())
        .with_trusted_proxies(TrustedProxies::new(&config.server.trusted_proxies))
        .with_anonymous_limiter(anonymous_limiter.clone());
        let sockets = realtime.clone();
        tasks.spawn(
            "message partitions",
            partitions::run(
                owner.clone(),
                config.realtime.message_days_ahead,
                config.realtime.message_days_kept,
                tasks.clone(),
            ),
        );
        // Replication starts after the change feed, which empties the bus. Otherwise, the bus would
        // soon be full and block replication.
        let replication = Replication::start(
            &owner,
            &config.replication,
            Sinks {
                changes: bus.change_sink(),
                messages: bus.message_sink(),
                messages_live: bus.messages_live(),
            },
            metrics.replication.clone(),
            readiness.clone(),
            tasks,
        )?;

        let proxies = TrustedProxies::new(&config.server.trusted_proxies);
        let heads = Heads::new(
            HEAD_DEADLINE,
            config.server.all_heads_max_bytes,
            &metrics.http,
        )
        .with_responses(Responses::new(
            READ_DEADLINE,
            config.server.all_responses_max_bytes,
            proxies.clone(),
            &metrics.http,
        ))
        .with_idle(Idle::of_process(proxies, &metrics.http));
        let mut metrics_token = config.server.metrics_token.clone();
        if let Some((listener, address)) = metrics_listener {
            let route = metrics_route::separate_routes(
                Arc::clone(&metrics),
                readiness.clone(),
                tasks.clone(),
                metrics_token.take(),
            );
            let route = http::finish(
                route.into_parts().0,
                metrics.http.clone(),
                anonymous_limiter.clone(),
            );
            let serving = serve(listener, route, heads.clone(), tasks.token().clone());
            tasks.spawn("metrics server", serving);
            tracing::info!(%address, "serving metrics");
        }
        let authentication = Authentication::new(verifier.clone(), &config.server, &config.auth);
        let chat = ChatState::new(
            authentication,
            db.clone(),
            bus,
            config.chat_limits.clone(),
            metrics.chat.clone(),
            &front,
        )
        .with_anonymous_limiter(anonymous_limiter.clone());
        chat.start(&config.chat, metrics.presence.clone(), tasks);
        let router = router(Parts {
            chat,
            realtime,
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            anonymous_limiter,
            gateway,
            metrics_token,
            has_docs_page: config.server.docs_page,
            has_demo_page: config.server.demo_page,
            more_routes,
        });
        probe_database(db.clone(), metrics.database.clone(), tasks);
        let server = front.spawn(
            "http server",
            serve(listener, router, heads, front.token().clone()),
        );
        tracing::info!(%local_address, "listening");
        Ok(Self {
            local_address,
            has_demo_page: config.server.demo_page && !demo::embedded().is_empty(),
            readiness,
            sockets,
            verifier,
            front,
            server,
            replication,
            db,
            tasks: tasks.clone(),
            deadline: config.server.shutdown_deadline,
        })
    }

    /// Returns the address of the listener, with the actual port if port 0 was configured.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Returns whether `/demo` shows a page: it is switched on, and the program embeds its files.
    pub fn has_demo_page(&self) -> bool {
        self.has_demo_page
    }

    /// Returns the readiness of all parts.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Fetches all published key sets again.
    pub fn refresh_keys(&self) {
        self.verifier.refresh_keys();
    }

    /// Stops the parts in reverse order: joins are refused and sockets closed, requests end, the
    /// position in the WAL is acknowledged, connections close. `/ready` reports the shutdown from
    /// the beginning. Requests are served until the sockets are closed, because load balancers need
    /// a moment to notice. Returns `false` if something had to be aborted at the configured
    /// deadline.
    pub async fn stop(self) -> bool {
        let end = Instant::now() + self.deadline;
        let front_end = end - RELEASE_TIME.min(self.deadline / 4);
        self.readiness.set_draining();
        tracing::info!(deadline = ?self.deadline, "shutting down");
        let (sockets, server) = (self.sockets, self.server);
        let connections = server.abort_handle();
        let front = async {
            sockets.drain(self.deadline / 2).await;
            // Database connections close when their last owner is dropped.
            drop(sockets);
            self.front.stop();
            server.await
        };
        let drained = timeout_at(front_end, front).await;
        self.front.stop();
        match &drained {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "HTTP server failed"),
            Err(_) => {
                tracing::warn!("requests were still open at the deadline; closing them");
                // The tasks of the connections end with the task of the server.
                connections.abort();
            }
        }
        let released = timeout_at(end, self.replication.stop()).await;
        if released.is_err() {
            tracing::warn!("replication slot was not released by the deadline");
        }
        self.db.close();
        self.tasks.stop();
        let left = end.saturating_duration_since(Instant::now());
        let ended = self.tasks.finished(left).await;
        if !ended {
            tracing::warn!("tasks were still running at the deadline");
        }
        drained.is_ok() && released.is_ok() && ended
    }
}

/// Opens a listener. Returns it with its address, which has the actual port if port 0 was
/// configured.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Listen { address, source };
    let listener = serve::listen(address).await.map_err(error)?;
    let local_address = listener.local_addr().map_err(error)?;
    Ok((listener, local_address))
}

/// Keeps `/ready` accurate while the pool is idle: each ping reports its result. Also updates the
/// pool metrics.
fn probe_database(db: Db, metrics: DatabaseMetrics, tasks: &Tasks) {
    let stop = tasks.token().clone();
    tasks.spawn("database probe", async move {
        let mut interval = tokio::time::interval(PROBE_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            if let Err(error) = db.ping().await {
                tracing::debug!(%error, "database check failed");
            }
            let status = db.status();
            let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
            metrics.connections.set(gauge(status.size));
            metrics.connections_idle.set(gauge(status.available));
            metrics.requests_waiting.set(gauge(status.waiting));
        }
    });
}
