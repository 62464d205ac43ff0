//! The handle through which other modules subscribe channels and resolve changes.

use std::sync::{Arc, Mutex};

use super::binding::{Binding, ChannelId, SubscribeOptions};
use super::catalog_cache::CatalogCache;
use super::committed::CommitWatch;
use super::delivery::Resolved;
use super::descriptions::Descriptions;
use super::engine::Engine;
use super::error::SubscribeError;
use super::identity::Identity;
use super::queries::QueryPool;
use super::slow_filters::SlowFilters;
use super::snapshots::SnapshotHistory;
use super::subscription::Subscriptions;
use super::unpublished::PublicationNews;
use crate::change::ChangeTransaction;
use crate::config::VisibilityConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::VisibilityMetrics;
use crate::shutdown::Tasks;

/// Decides who receives which change. Cheap to clone; clones share subscriptions and connections.
#[derive(Clone)]
pub struct Visibility {
    engine: Arc<Engine>,
}

impl Visibility {
    /// Nobody is subscribed yet. Connections are opened when they are needed, and again when
    /// they are lost. Tables of `publication` can be subscribed to; rows of more than
    /// `max_record_bytes` are delivered without their long values (protocol 6.5, item 8).
    pub fn new(
        connector: Connector,
        config: &VisibilityConfig,
        publication: &str,
        max_record_bytes: usize,
        metrics: VisibilityMetrics,
        tasks: &Tasks,
    ) -> Self {
        let catalog = CatalogCache::new(
            connector.clone(),
            publication.to_owned(),
            config.catalog_ttl,
            metrics.clone(),
            tasks,
        );
        let commits = CommitWatch::new(connector.clone(), metrics.clone(), tasks);
        let snapshots = SnapshotHistory::new(connector.clone(), tasks);
        let pool = QueryPool::new(connector, config.pool_size, config.statement_timeout, tasks);
        Self {
            engine: Arc::new(Engine {
                subscriptions: Mutex::default(),
                catalog,
                commits,
                snapshots: Arc::new(snapshots),
                pool,
                metrics,
                config: config.clone(),
                max_record_bytes,
                descriptions: Descriptions::default(),
                slow_filters: SlowFilters::default(),
            }),
        }
    }

    /// Checks all bindings of a channel against the catalogue and registers them, all or none,
    /// in place of what the channel had. A row committed after this has returned is delivered.
    /// Nothing stays of a channel whose bindings are refused: what it had was another identity's.
    /// If a table is not published, the channel is registered once it is; see
    /// [`Self::publication_news`]. While the database cannot be asked it keeps what it had.
    ///
    /// One call at a time for a channel, and none under way when it is unsubscribed.
    ///
    /// # Errors
    /// The first binding at fault; [`SubscribeError::Unavailable`] when the database cannot be asked.
    pub async fn subscribe(
        &self,
        channel: ChannelId,
        identity: Arc<Identity>,
        bindings: Vec<Binding>,
        options: SubscribeOptions,
    ) -> Result<(), SubscribeError> {
        let checked = self.engine.check_bindings(&identity, &bindings).await;
        let result = self.subscriptions(|subscriptions| match checked {
            Ok(checked) => {
                subscriptions.replace(channel, identity, bindings.into(), checked, options);
                Ok(())
            }
            Err(error) => {
                if !error.is_retryable() {
                    subscriptions.remove(channel);
                }
                if let SubscribeError::NotPublished { .. } = error {
                    let waiting = &mut subscriptions.waiting;
                    waiting.add(channel, identity, bindings.into(), options);
                }
                Err(error)
            }
        });
        if result.is_ok() {
            self.engine.start_snapshots().await;
        }
        result
    }

    /// Waits until a table that a channel asked for leaves the publication or returns to it. A
    /// channel whose table has left is unregistered, with the error that a new subscription would
    /// get. A channel whose tables are all published again is registered. Must be called in a loop
    /// by one task. If the future is dropped, its news may be lost.
    pub async fn publication_news(&self) -> Vec<PublicationNews> {
        self.engine.publication_news().await
    }

    /// Forgets what a channel had.
    pub fn unsubscribe(&self, channel: ChannelId) {
        self.subscriptions(|subscriptions| subscriptions.remove(channel));
    }

    /// Channels that have subscriptions.
    pub fn subscribed_channels(&self) -> usize {
        self.subscriptions(|subscriptions| subscriptions.channels())
    }

    /// Who receives what of these transactions, in commit order. Sees every subscription that
    /// was registered before the call.
    ///
    /// Waits for as long as the database is unreachable. Dropping the future is safe: nothing
    /// has been delivered.
    pub async fn resolve<'b>(&self, batch: &'b [Arc<ChangeTransaction>]) -> Resolved<'b> {
        self.engine.resolve(batch).await
    }

    fn subscriptions<T>(&self, change: impl FnOnce(&mut Subscriptions) -> T) -> T {
        self.engine.with_subscriptions(change)
    }
}
