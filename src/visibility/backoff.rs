//! Retries while the database is unreachable.

use std::time::Duration;

use super::error::QueryError;
use crate::observability::metrics::VisibilityMetrics;

/// First and longest wait before a query is repeated while the database is away. A restart
/// takes about a second; nobody is served by execution every 50 ms for an hour.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// The pauses between attempts while the database is away.
pub(super) struct Backoff<'a> {
    metrics: &'a VisibilityMetrics,
    wait: Duration,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(metrics: &'a VisibilityMetrics) -> Self {
        Self {
            metrics,
            wait: FIRST_RETRY,
        }
    }

    /// Waits after an error, longer each time.
    pub(super) async fn wait(&mut self, error: &QueryError) {
        self.metrics.retries.inc();
        tracing::warn!(%error, "row visibility waits for the database");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }
}
