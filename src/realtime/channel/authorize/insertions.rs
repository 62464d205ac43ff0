//! Runs checks by insertion, each in its own transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::catalog::Evaluation;
use super::check::{Check, CheckResult, PendingCheck};
use super::connections::Connections;
use super::error::AuthorizeError;
use super::insert::Prober;
use super::limits::{CHECK_TIMEOUT, MAX_CONNECTIONS, QUEUE_TIMEOUT};
use super::queue::MAX_QUEUED;
use crate::observability::metrics::{PermissionWay, RealtimeMetrics};
use crate::shutdown::Tasks;

/// Runs checks by insertion.
pub(super) struct Insertions {
    connections: Arc<Connections>,
    metrics: RealtimeMetrics,
    tasks: Tasks,
    /// The semaphore with one permit per connection for insertions.
    permits: Semaphore,
    /// Number of checks that run by insertion or wait for it.
    pending: AtomicUsize,
}

impl Insertions {
    /// Creates the state in which no check is running.
    pub(super) fn new(
        connections: Arc<Connections>,
        metrics: RealtimeMetrics,
        tasks: Tasks,
    ) -> Self {
        Self {
            connections,
            metrics,
            tasks,
            permits: Semaphore::new(MAX_CONNECTIONS),
            pending: AtomicUsize::new(0),
        }
    }

    /// Runs all of these checks.
    pub(super) fn start_all(self: &Arc<Self>, checks: &mut Vec<PendingCheck>) {
        for pending in checks.drain(..) {
            self.start(pending, None);
        }
    }

    /// Runs a check by insertion. If that succeeds where `evaluation` failed, the evaluation
    /// is not used again.
    pub(super) fn start(
        self: &Arc<Self>,
        pending: PendingCheck,
        evaluation: Option<Arc<Evaluation>>,
    ) {
        if self.pending.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            pending.send_result(&Err(AuthorizeError::PoolExhausted));
            return;
        }
        let insertions = Arc::clone(self);
        self.tasks.spawn("permission by insertion", async move {
            let result = insertions.check(&pending.check).await;
            insertions
                .metrics
                .permission_checked(PermissionWay::Inserted);
            if let Some(evaluation) = evaluation.filter(|_| result.is_ok()) {
                evaluation.mark_unusable();
            }
            insertions.pending.fetch_sub(1, Ordering::Relaxed);
            pending.send_result(&result);
        });
    }

    async fn check(&self, check: &Check) -> CheckResult {
        let _permit = timeout(QUEUE_TIMEOUT, self.permits.acquire())
            .await
            .map_err(|_| AuthorizeError::PoolExhausted)?
            // The semaphore is never closed, so `acquire` cannot fail.
            .map_err(|_| AuthorizeError::unexpected())?;
        timeout(CHECK_TIMEOUT, self.insert(check))
            .await
            .map_err(|_| AuthorizeError::Unavailable)?
    }

    async fn insert(&self, check: &Check) -> CheckResult {
        if let Some(idle) = self.connections.take_prober() {
            match self.probe(idle, check).await {
                // The connection broke while it was idle, so the check runs on another one.
                Err(AuthorizeError::Unavailable) => {}
                result => return result,
            }
        }
        let prober = self.connections.open_prober().await?;
        self.probe(prober, check).await
    }

    /// Runs a check by insertion on this connection. If the future is dropped before it
    /// completes, or if a transaction may still be open, the connection is closed.
    async fn probe(&self, prober: Prober, check: &Check) -> CheckResult {
        let (result, is_sound) = prober.check(check).await;
        if is_sound {
            self.connections.keep_prober(prober);
        }
        result
    }
}
