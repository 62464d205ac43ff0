//! The composition root: which parts there are, in which order they start and stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::auth::{KeyError, Verifier};
use crate::bus::Bus;
use crate::chat::ChatState;
use crate::config::Config;
use crate::db::connect::{ConnectError, Connector};
use crate::db::{Db, DbError};
use crate::http::Authentication;
use crate::http::peer::TrustedProxies;
use crate::http::serve::{HEAD_DEADLINE, serve};
use crate::observability::metrics::Metrics;
use crate::observability::readiness::Readiness;
use crate::realtime::Realtime;
use crate::replication::{Replication, ReplicationError};
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

        let address = config.server.listen;
        let listen_error = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen_error)?;
        let local_address = listener.local_addr().map_err(listen_error)?;

        let (bus, changes) = Bus::new(BUS_CAPACITY);
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
        // After its listener: a full bus would stop it at once.
        let replication = Replication::start(
            &owner,
            &config.replication,
            bus.change_sink(),
            metrics.replication.clone(),
            readiness.clone(),
            tasks,
        )?;

        let authentication = Authentication::new(verifier, &config.server, &config.auth);
        let router = router(Parts {
            chat: ChatState::new(authentication, db.clone()),
            realtime,
            readiness: readiness.clone(),
            metrics,
            metrics_token: config
                .server
                .metrics_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
        });
        probe_database(db.clone(), tasks);
        let server = front.spawn(
            "http server",
            serve(listener, router, HEAD_DEADLINE, front.token().clone()),
        );
        tracing::info!(%local_address, "listening");
        Ok(Self {
            local_address,
            readiness,
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

    /// Stops in the reverse order: no new work, sockets and requests end, the position in the log
    /// is acknowledged, connections close. `false` when something had to be cut off after the
    /// configured deadline.
    pub async fn stop(self) -> bool {
        self.readiness.set_draining();
        self.front.stop();
        let drained = tokio::time::timeout(self.deadline, self.server).await;
        match &drained {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the http server has failed"),
            Err(_) => tracing::warn!("requests were still open at the deadline"),
        }
        self.replication.stop().await;
        self.db.close();
        self.tasks.stop();
        let ended = self.tasks.finished(self.deadline).await;
        if !ended {
            tracing::warn!("tasks were still running at the deadline");
        }
        drained.is_ok() && ended
    }
}

/// Keeps `/ready` true while nobody uses the pool: asking reports what came out.
fn probe_database(db: Db, tasks: &Tasks) {
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
        }
    });
}
