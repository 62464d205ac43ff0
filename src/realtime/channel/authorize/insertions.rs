//! Answers questions by insertion, each in its own transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::catalog::Evaluation;
use super::connections::Connections;
use super::error::AuthorizeError;
use super::insert::Prober;
use super::limits::{ANSWER_TIMEOUT, MAX_CONNECTIONS, QUEUE_TIMEOUT};
use super::question::{Answer, Group, Subject};
use super::queue::MAX_QUEUED;
use crate::observability::metrics::{PermissionWay, RealtimeMetrics};
use crate::shutdown::Tasks;

/// Answers questions by insertion.
pub(super) struct Insertions {
    connections: Arc<Connections>,
    metrics: RealtimeMetrics,
    tasks: Tasks,
    /// The semaphore with one permit per connection for insertions.
    permits: Semaphore,
    /// Number of questions that are being answered by insertion or wait for it.
    pending: AtomicUsize,
}

impl Insertions {
    /// Creates the state in which no question is being answered.
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

    /// Answers all of these questions.
    pub(super) fn start_all(self: &Arc<Self>, groups: &mut Vec<Group>) {
        for group in groups.drain(..) {
            self.start(group, None);
        }
    }

    /// Answers a question by insertion. If that succeeds where `evaluation` failed, the evaluation
    /// is not used again.
    pub(super) fn start(self: &Arc<Self>, group: Group, evaluation: Option<Arc<Evaluation>>) {
        if self.pending.fetch_add(1, Ordering::Relaxed) >= MAX_QUEUED {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            group.answer(&Err(AuthorizeError::PoolExhausted));
            return;
        }
        let insertions = Arc::clone(self);
        self.tasks.spawn("permission by insertion", async move {
            let answer = insertions.answer(&group.subject).await;
            insertions.metrics.permission_asked(PermissionWay::Inserted);
            if let Some(evaluation) = evaluation.filter(|_| answer.is_ok()) {
                evaluation.give_up();
            }
            insertions.pending.fetch_sub(1, Ordering::Relaxed);
            group.answer(&answer);
        });
    }

    async fn answer(&self, subject: &Subject) -> Answer {
        let _permit = timeout(QUEUE_TIMEOUT, self.permits.acquire())
            .await
            .map_err(|_| AuthorizeError::PoolExhausted)?
            // The semaphore is never closed, so `acquire` cannot fail.
            .map_err(|_| AuthorizeError::unexpected())?;
        timeout(ANSWER_TIMEOUT, self.answer_in_turn(subject))
            .await
            .map_err(|_| AuthorizeError::Unavailable)?
    }

    async fn answer_in_turn(&self, subject: &Subject) -> Answer {
        if let Some(idle) = self.connections.take_prober() {
            match self.probe(idle, subject).await {
                // The connection broke while it was idle, so the question is asked on another one.
                Err(AuthorizeError::Unavailable) => {}
                answer => return answer,
            }
        }
        let prober = self.connections.open_prober().await?;
        self.probe(prober, subject).await
    }

    /// Answers a question by insertion on this connection. If the future is dropped before it
    /// completes, or if a transaction may still be open, the connection is closed.
    async fn probe(&self, prober: Prober, subject: &Subject) -> Answer {
        let (answer, is_sound) = prober.ask(subject).await;
        if is_sound {
            self.connections.keep_prober(prober);
        }
        answer
    }
}
