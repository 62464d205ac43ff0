//! The composition root: which parts there are, in which order they start and stop.

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
use crate::chat::ChatState;
use crate::config::Config;
use crate::db::connect::{ConnectError, Connector};
use crate::db::{Db, DbError};
use crate::http::peer::TrustedProxies;
use crate::http::serve::{self, HEAD_DEADLINE, serve};
use crate::http::{self, Authentication, metrics as metrics_route};
use crate::observability::metrics::{DatabaseMetrics, Metrics};
use crate::observability::readiness::Readiness;
use crate::realtime::Realtime;
use crate::realtime::messages::partitions;
use crate::replication::{Replication, ReplicationError, Sinks};
use crate::router::{Parts, router};
use crate::shutdown::Tasks;
use crate::visibility::Visibility;

/// Events on the way from replication to the change feed, which takes them out at once and does
/// its own gathering. Each is bounded in bytes itself (`replication.chunk_max_bytes`), so that this
/// many of them are bounded, too.
const BUS_CAPACITY: usize = 32;

/// How often the database is asked whether it answers, for `/ready`. Twice within the ten
/// seconds at which balancers commonly look.
const PROBE_INTERVAL: Duration = Duration::from_secs(4);

/// What a stop keeps of its deadline for what comes after the last request: acknowledging, dropping the slot
/// and closing connections. An idle database needs some ten milliseconds for that.
const RELEASE_TIME: Duration = Duration::from_secs(5);

/// Why the server cannot start. Nothing that waits for a database is here: a database that is
/// down is waited for, and said by `/ready`.
#[derive(Debug, Error)]
pub enum StartError {
    /// A connection string is wrong.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The pool cannot be made.
    #[error(transparent)]
    Pool(#[from] DbError),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The settings for replication can never work.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The address is taken or not ours.
    #[error("Cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// The running server.
pub struct App {
    local_address: SocketAddr,
    readiness: Readiness,
    sockets: Realtime,
    /// Listener and sockets: what has to end first.
    front: Tasks,
    server: JoinHandle<()>,
    replication: Replication,
    db: Db,
    tasks: Tasks,
    deadline: Duration,
}

impl App {
    /// Starts every part and returns as soon as the listener accepts; [`App::readiness`] tells when
    /// the database and the change stream are there.
    ///
    /// # Errors
    /// [`StartError`] for what can never work.
    pub async fn start(config: &Config, tasks: &Tasks) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::new();
        let front = tasks.part();

        let owner = Connector::new(config.database.url.expose())?;
        let requests = Connector::new(config.database.request_url.expose())?;
        let db = Db::new(requests, &config.database, readiness.clone(), tasks)?;
        let verifier = Verifier::from_config(&config.auth)?;

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
        let realtime = Realtime::start(
            verifier.clone(),
            visibility,
            changes,
            config.realtime.clone(),
            metrics.realtime.clone(),
            &front,
        )
        .with_private_channels(owner.clone())
        .behind(TrustedProxies::new(&config.server.trusted_proxies));
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
        // After its listener: a full bus would stop it at once.
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

        let mut metrics_token = config.server.metrics_token.clone();
        if let Some((listener, address)) = metrics_listener {
            let route = metrics_route::separate_routes(
                Arc::clone(&metrics),
                readiness.clone(),
                tasks.clone(),
                metrics_token.take(),
            );
            let route = http::finish(route.into_parts().0, metrics.http.clone());
            let serving = serve(listener, route, HEAD_DEADLINE, tasks.token().clone());
            tasks.spawn("metrics server", serving);
            tracing::info!(%address, "metrics are shown");
        }
        let authentication = Authentication::new(verifier, &config.server, &config.auth);
        let chat = ChatState::new(
            authentication,
            db.clone(),
            bus,
            config.chat_limits.clone(),
            metrics.chat.clone(),
            &front,
        );
        chat.start(&config.chat, metrics.presence.clone(), tasks);
        let router = router(Parts {
            chat,
            realtime,
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            metrics_token,
            has_docs_page: config.server.docs_page,
        });
        probe_database(db.clone(), metrics.database.clone(), tasks);
        let server = front.spawn(
            "http server",
            serve(listener, router, HEAD_DEADLINE, front.token().clone()),
        );
        tracing::info!(%local_address, "listening");
        Ok(Self {
            local_address,
            readiness,
            sockets,
            front,
            server,
            replication,
            db,
            tasks: tasks.clone(),
            deadline: config.server.shutdown_deadline,
        })
    }

    /// Where it listens: the port that was found, when any would do.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Whether the parts can do their work.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Stops in the reverse order: joins are refused and sockets told to go, requests end, the
    /// position in the log is acknowledged, connections close. `/ready` says so from the
    /// beginning, and until the sockets are told, requests are answered as ever: a balancer needs a
    /// moment to notice. `false` when something had to be cut off at the configured deadline.
    pub async fn stop(self) -> bool {
        let end = Instant::now() + self.deadline;
        let front_end = end - RELEASE_TIME.min(self.deadline / 4);
        self.readiness.set_draining();
        tracing::info!(deadline = ?self.deadline, "stopping");
        let (sockets, server) = (self.sockets, self.server);
        let front = async {
            sockets.drain(self.deadline / 2).await;
            // Connections to the database end when nobody holds them any more.
            drop(sockets);
            self.front.stop();
            server.await
        };
        let drained = timeout_at(front_end, front).await;
        self.front.stop();
        match &drained {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the http server has failed"),
            Err(_) => tracing::warn!("requests were still open at the deadline"),
        }
        let released = timeout_at(end, self.replication.stop()).await;
        if released.is_err() {
            tracing::warn!("the replication slot was not released by the deadline");
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

/// A listener, and where it listens: the port that was found, when any would do.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Listen { address, source };
    let listener = serve::listen(address).await.map_err(error)?;
    let local_address = listener.local_addr().map_err(error)?;
    Ok((listener, local_address))
}

/// Keeps `/ready` true while nobody uses the pool: asking reports what came out. The pool is looked
/// at on the way.
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
                tracing::debug!(%error, "the database was asked and did not answer");
            }
            let status = db.status();
            let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
            metrics.connections.set(gauge(status.size));
            metrics.connections_idle.set(gauge(status.available));
            metrics.requests_waiting.set(gauge(status.waiting));
        }
    });
}
