//! The idle connections of permission checks, for workers and for insertions (see [`super`]), and
//! the last failure to open one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::error::AuthorizeError;
use super::evaluate::Evaluator;
use super::insert::Prober;
use crate::db::connect::Connector;
use crate::shutdown::Tasks;

/// Maximum time for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a failure to connect applies to all checks. The time is short, so that a client that
/// retries soon reaches a database that is available again.
const FAILURE_SHARED_FOR: Duration = Duration::from_millis(500);

/// Opens connections, and keeps idle ones.
pub(super) struct Connections {
    connector: Connector,
    tasks: Tasks,
    /// Idle connections for workers. A plain mutex: it is held only for a push or a pop.
    evaluators: Mutex<Vec<Evaluator>>,
    /// Idle connections for insertions. A plain mutex: it is held only for a push or a pop.
    probers: Mutex<Vec<Prober>>,
    /// The time and the reason of the last failure to connect. A plain mutex: it is held only to
    /// copy or replace them.
    failure: Mutex<Option<(Instant, AuthorizeError)>>,
}

impl Connections {
    /// Creates the state without any connection.
    pub(super) fn new(connector: Connector, tasks: Tasks) -> Self {
        Self {
            connector,
            tasks,
            evaluators: Mutex::default(),
            probers: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Returns the reason why a check fails immediately: the database was recently unavailable, and
    /// there is no idle connection for workers that may still work.
    pub(super) fn known_failure(&self) -> Option<AuthorizeError> {
        self.recent_failure()
            .filter(|_| lock(&self.evaluators).is_empty())
    }

    /// Takes an idle connection for workers, if one is still open.
    pub(super) fn take_evaluator(&self) -> Option<Evaluator> {
        take_open(&self.evaluators, Evaluator::client)
    }

    /// Opens a connection for a worker.
    pub(super) async fn open_evaluator(&self) -> Result<Evaluator, AuthorizeError> {
        self.open(Evaluator::open(&self.connector, &self.tasks))
            .await
    }

    /// Keeps a connection for the next worker.
    pub(super) fn keep_evaluator(&self, evaluator: Evaluator) {
        lock(&self.evaluators).push(evaluator);
    }

    /// Takes an idle connection for insertions, if one is still open.
    pub(super) fn take_prober(&self) -> Option<Prober> {
        take_open(&self.probers, |prober| &prober.client)
    }

    /// Opens a connection for insertions.
    pub(super) async fn open_prober(&self) -> Result<Prober, AuthorizeError> {
        self.open(Prober::open(&self.connector, &self.tasks)).await
    }

    /// Keeps a connection for the next insertion.
    pub(super) fn keep_prober(&self, prober: Prober) {
        lock(&self.probers).push(prober);
    }

    async fn open<T>(
        &self,
        opening: impl Future<Output = Result<T, AuthorizeError>>,
    ) -> Result<T, AuthorizeError> {
        if let Some(error) = self.recent_failure() {
            return Err(error);
        }
        let opened = timeout(CONNECT_TIMEOUT, Box::pin(opening))
            .await
            .unwrap_or(Err(AuthorizeError::Unavailable));
        *lock(&self.failure) = match &opened {
            // The database was reached: a policy error is caused by the rights of the login.
            Ok(_) | Err(AuthorizeError::Policy { .. }) => None,
            Err(error) => Some((Instant::now(), error.clone())),
        };
        opened
    }

    fn recent_failure(&self) -> Option<AuthorizeError> {
        lock(&self.failure)
            .as_ref()
            .filter(|(at, _)| at.elapsed() < FAILURE_SHARED_FOR)
            .map(|(_, error)| error.clone())
    }
}

/// Takes the most recently used connection that is still open.
fn take_open<T>(idle: &Mutex<Vec<T>>, client: impl Fn(&T) -> &Client) -> Option<T> {
    let mut idle = lock(idle);
    while let Some(connection) = idle.pop() {
        if !client(&connection).is_closed() {
            return Some(connection);
        }
    }
    None
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
