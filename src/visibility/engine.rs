//! The state that all clones of [`super::Visibility`] share, and the operations that all steps use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::backoff::Backoff;
use super::catalog::Catalog;
use super::catalog_cache::CatalogCache;
use super::checks::{AccessCheck, AccessCheckResult, StaleCatalog, run_checks};
use super::committed::CommitWatch;
use super::descriptions::Descriptions;
use super::filter_time::FilterTime;
use super::queries::{DatabaseState, QueryPool};
use super::snapshots::SnapshotHistory;
use super::subscription::Subscriptions;
use crate::config::VisibilityConfig;
use crate::observability::metrics::VisibilityMetrics;

/// The state of row visibility.
pub(super) struct Engine {
    pub(super) subscriptions: Mutex<Subscriptions>,
    pub(super) catalog: Arc<CatalogCache>,
    pub(super) commits: CommitWatch,
    /// The snapshots from before deletions.
    pub(super) snapshots: Arc<SnapshotHistory>,
    pub(super) pool: QueryPool,
    pub(super) metrics: VisibilityMetrics,
    pub(super) config: VisibilityConfig,
    pub(super) max_record_bytes: usize,
    /// The latest description of each table in the stream.
    pub(super) descriptions: Descriptions,
    /// The connections on which filters are checked when a channel joins. Row changes do not wait
    /// for them.
    pub(super) filter_pool: QueryPool,
    /// The time that the filters of each user may take.
    pub(super) filter_time: FilterTime,
}

impl Engine {
    pub(super) fn with_subscriptions<T>(&self, change: impl FnOnce(&mut Subscriptions) -> T) -> T {
        change(
            &mut self
                .subscriptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Runs checks until each has a result; see [`run_checks`].
    pub(super) async fn run_checks(
        &self,
        checks: &[AccessCheck],
        state: &DatabaseState,
        may_be_stale: bool,
    ) -> Result<Vec<AccessCheckResult>, StaleCatalog> {
        let max_inputs = self.config.batch_max_rows;
        let (pool, metrics) = (&self.pool, &self.metrics);
        run_checks(pool, metrics, max_inputs, checks, state, may_be_stale).await
    }

    /// Returns whether a subscribed table needs snapshots from before its deletions.
    fn needs_snapshots(&self) -> bool {
        let Some(catalog) = self.catalog.latest() else {
            return false;
        };
        let mut tables = catalog.tables().filter(|table| table.needs_snapshots());
        tables.any(|table| self.with_subscriptions(|subscriptions| subscriptions.has(&table.name)))
    }

    /// Starts taking snapshots if they are needed, and waits for the first one.
    pub(super) async fn start_snapshots(self: &Arc<Self>) {
        if self.needs_snapshots() {
            let engine = Arc::clone(self);
            let is_needed = move || engine.needs_snapshots();
            self.snapshots.start(is_needed).await;
        }
    }

    /// Returns a reading of the catalogue that includes `roles`, and that is younger than `limit`
    /// or begins after this call. Waits while the database is unreachable.
    pub(super) async fn catalog_within(&self, roles: &[&str], limit: Duration) -> Arc<Catalog> {
        let mut backoff = Backoff::new(&self.metrics);
        loop {
            match self.catalog.within(roles, limit).await {
                Ok(catalog) => return catalog,
                Err(error) => backoff.wait(&error).await,
            }
        }
    }
}
