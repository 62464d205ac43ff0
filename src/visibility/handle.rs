//! The handle that other modules use to subscribe channels and resolve changes.

use std::sync::{Arc, Mutex};

use super::binding::{Binding, ChannelId, Subscriber};
use super::catalog_cache::CatalogCache;
use super::committed::CommitWatch;
use super::delivery::Resolved;
use super::descriptions::Descriptions;
use super::engine::Engine;
use super::error::SubscribeError;
use super::filter_time::FilterTime;
use super::queries::QueryPool;
use super::snapshots::SnapshotHistory;
use super::subscription::Subscriptions;
use super::unpublished::PublicationNews;
use crate::change::ChangeTransaction;
use crate::config::VisibilityConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::VisibilityMetrics;
use crate::shutdown::Tasks;

/// Maximum connections on which the filters of joins are checked. A check takes less than a
/// millisecond. With two, the slow check of one user does not stop the others.
const FILTER_CONNECTIONS: usize = 2;

/// Decides which channels receive which changes. Clones are cheap, and share subscriptions and
/// connections.
#[derive(Clone)]
pub struct Visibility {
    engine: Arc<Engine>,
}

impl Visibility {
    /// Creates a handle without subscriptions. Connections are opened when they are needed, and
    /// reopened when they are lost. The tables of `publication` can be subscribed to. Rows larger
    /// than `max_record_bytes` are delivered without their long values (protocol 6.5, item 8).
    pub fn new(
        connector: Connector,
        config: &VisibilityConfig,
        publication: &str,
        max_record_bytes: usize,
        metrics: VisibilityMetrics,
        tasks: &Tasks,
    ) -> Self {
        let catalog = Arc::new(CatalogCache::new(
            connector.clone(),
            publication.to_owned(),
            config.catalog_ttl,
            metrics.clone(),
            tasks,
        ));
        let commits = CommitWatch::new(connector.clone(), metrics.clone(), tasks);
        let snapshots = SnapshotHistory::new(connector.clone(), tasks);
        let timeout = config.statement_timeout;
        let filter_pool = QueryPool::new(connector.clone(), FILTER_CONNECTIONS, timeout, tasks);
        let pool = QueryPool::new(connector, config.pool_size, timeout, tasks);
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
                filter_pool,
                filter_time: FilterTime::default(),
            }),
        }
    }

    /// Checks all bindings of a channel against the catalogue, then replaces the channel's previous
    /// bindings with them. A row that is committed after this call returns is delivered. If a
    /// binding is refused, the channel has no bindings at all, because the previous ones belong to
    /// another identity. If a table is not published, the channel is registered once the table is
    /// published; see [`Self::publication_news`]. If the database is unreachable, the previous
    /// bindings stay.
    ///
    /// Calls for one channel must not overlap with each other or with [`Self::unsubscribe`].
    ///
    /// # Errors
    /// The error of the first refused binding, or [`SubscribeError::Unavailable`] if the database
    /// is unreachable.
    pub async fn subscribe(
        &self,
        channel: ChannelId,
        subscriber: Subscriber,
        bindings: Vec<Binding>,
    ) -> Result<(), SubscribeError> {
        let checked = self
            .engine
            .check_bindings(&subscriber.identity, &bindings)
            .await;
        let bindings: Arc<[Binding]> = bindings.into();
        let result = self.subscriptions(|subscriptions| {
            let registered = checked.and_then(|checked| {
                let (subscriber, bindings) = (subscriber.clone(), Arc::clone(&bindings));
                subscriptions.register(channel, subscriber, bindings, checked)
            });
            if let Err(error) = &registered {
                if !error.is_retryable() {
                    subscriptions.remove(channel);
                }
                if let SubscribeError::NotPublished { .. } = error {
                    subscriptions.waiting.add(channel, subscriber, bindings);
                }
            }
            registered
        });
        if result.is_ok() {
            self.engine.start_snapshots().await;
        }
        result
    }

    /// Waits until a table that a channel requested leaves the publication or returns to it. A
    /// channel whose table has left is unregistered, with the error that a new subscription would
    /// receive. A channel whose tables are all published again is registered. Exactly one task must
    /// call this, in a loop. If the future is dropped, news may be lost.
    pub async fn publication_news(&self) -> Vec<PublicationNews> {
        self.engine.publication_news().await
    }

    /// Removes the bindings of a channel.
    pub fn unsubscribe(&self, channel: ChannelId) {
        self.subscriptions(|subscriptions| subscriptions.remove(channel));
    }

    /// Returns the number of channels with subscriptions.
    pub fn subscribed_channels(&self) -> usize {
        self.subscriptions(|subscriptions| subscriptions.channels())
    }

    /// Returns the deliveries of these transactions, in commit order. Includes every subscription
    /// that was registered before the call.
    ///
    /// Waits while the database is unreachable. The future may be dropped at any time, because
    /// nothing has been delivered yet.
    pub async fn resolve<'b>(&self, batch: &'b [Arc<ChangeTransaction>]) -> Resolved<'b> {
        self.engine.resolve(batch).await
    }

    fn subscriptions<T>(&self, change: impl FnOnce(&mut Subscriptions) -> T) -> T {
        self.engine.with_subscriptions(change)
    }
}
