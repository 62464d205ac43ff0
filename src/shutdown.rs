//! The one signal to stop, and the tracker through which every task is spawned.
//!
//! Bare `tokio::spawn` is banned by lint: a task nobody waits for can be cut off in
//! the middle of a write, and nobody can say who started it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks by name and stops them together. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// A tracker with nothing running.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part that can be stopped earlier than the whole; stopping the whole stops it too,
    /// and waiting for the whole waits for it.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tracker: self.tracker.clone(),
        }
    }

    /// The signal: long-running loops end when it is cancelled.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Starts a task that [`Tasks::finished`] waits for. It is not cancelled by force: it
    /// watches [`Tasks::token`]. `name` is what the log calls it.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tracing::trace!(task = name, "task started");
        self.tracker.spawn(future)
    }

    /// How many tasks are running: of the whole, whichever part is asked.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Asks every task to stop.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Waits until every task has ended. `false` if some were still running after `deadline`.
    pub async fn finished(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }
}
