//! The stop signal, and the tracker that spawns every task.
//!
//! A lint forbids plain `tokio::spawn`: a task that is not awaited can be cut off in the middle of
//! a write, and its origin is unknown.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns named tasks and stops them together. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Creates a tracker without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a child that can be stopped before its parent. Stopping the parent stops the child,
    /// and waiting for the parent waits for the child.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
            tracker: self.tracker.clone(),
        }
    }

    /// Returns the stop signal. Long-running loops end when it is cancelled.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Spawns a task that [`Tasks::finished`] waits for. The task is not aborted; it must watch
    /// [`Tasks::token`]. `name` appears in the log.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tracing::trace!(task = name, "task started");
        self.tracker.spawn(future)
    }

    /// Returns the number of running tasks in the whole tree, whichever node of the tree this is.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Asks every task to stop.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Waits until every task has ended. Returns `false` if some were still running after
    /// `deadline`.
    pub async fn finished(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }
}
