//! Pauses between retries while the database is unreachable.

use std::time::Duration;

use super::error::QueryError;
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::VisibilityMetrics;

/// The first pause before a query is repeated. It is short, because a restart of PostgreSQL takes
/// only about a second.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// The longest pause. In an outage longer than a restart, retrying every 50 ms would only cause
/// load.
const LAST_RETRY: Duration = Duration::from_secs(2);

/// The increasing pauses between attempts while the database is unreachable.
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

    /// Waits after an error. Each pause is longer than the one before, up to [`LAST_RETRY`].
    pub(super) async fn wait(&mut self, error: &QueryError) {
        self.metrics.retries.inc();
        tracing::warn!(error = %Excerpt(&error), "row visibility is waiting for the database; retrying");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }
}
