//! Which subscriber may see which row change.
//!
//! A change reaches a subscriber exactly when `select` under that subscriber's role and claims
//! would return the row *as it stands in the log*: an image that was never visible to someone is
//! not sent to them, whatever the row has become since. When in doubt the answer is no, and
//! a check that failed is reported to the channel it failed for.
//!
//! How a change is judged, in this order:
//! 0. `generated` adds what the log lacks of its images.
//! 1. `subscription` finds the bindings it may concern; filters on equality are looked up.
//! 2. `predicate` decides filters whose types are reproduced exactly.
//! 3. `row_access` looks at rights and policies in the `catalog`. No row-level security, no
//!    policy, a role that bypasses: no query is needed.
//! 4. Otherwise `committed` waits until others see the commit, and `checks` has PostgreSQL evaluate the policies on the row image, once for each
//!    identity and batch, in a transaction under that identity's role and claims (`queries`).
//! 5. PostgreSQL decides the other filters (`conditions`), of rows that may be seen and of no others.
//! 6. `columns` takes out what the role may not select; `record` writes JSON.
//!
//! What to know about the limits of this:
//! - Rows are judged by the rules at the time of judging. If the stream shows that a table's
//!   policies or rights may have changed, these are never older than the row (`descriptions`).
//!   Roles, and other things that the stream does not show, may be as old as
//!   `visibility.catalog_ttl_ms`.
//! - Tables that a policy reads besides its own are read as they are when it is asked, which is
//!   after the commit: a membership that was revoked in between no longer counts.
//! - An image without a value that a policy needs (an unchanged large value, or a generated column
//!   that cannot be computed) is judged by the stored row, under the same role.
//! - A DELETE leaves no row. With `replica identity full` the old row is judged: after the commit,
//!   and again in the state before it if the policies read other rows (`snapshots`). Otherwise every
//!   subscriber with an applicable policy receives the columns of the primary key that the log
//!   holds, unless a setting forbids it.

mod catalog;
mod checks;
mod columns;
mod committed;
mod conditions;
mod delivery;
mod descriptions;
mod engine;
mod error;
mod filter;
pub(crate) mod fingerprint;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generated;
mod log_coverage;
mod predicate;
mod published;
mod queries;
pub mod record;
mod request;
mod resolution;
mod row_access;
mod slow_filters;
mod snapshots;
mod subscription;
mod unpublished;
mod validate;

use std::sync::{Arc, Mutex};

use crate::change::ChangeTransaction;
use crate::config::VisibilityConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::VisibilityMetrics;
use crate::shutdown::Tasks;
use catalog::CatalogCache;
use committed::CommitWatch;
use descriptions::Descriptions;
use engine::Engine;
use queries::QueryPool;
use slow_filters::SlowFilters;
use snapshots::SnapshotHistory;
use subscription::Subscriptions;

pub use columns::{VisibleColumn, VisibleColumns};
pub use delivery::{Delivery, Payload, Recipient, Resolved};
pub use error::SubscribeError;
pub use filter::{Condition, Operator};
pub use record::{RecordDetail, ValueEncoding};
pub use request::{EventSelector, Selector, SubscriptionRequest};
pub use unpublished::PublicationNews;

/// Who asks: a role with its claims. Subscribers with equal identities are judged once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Database role, from the token's `role` claim.
    pub role: String,
    /// All claims as JSON, for `request.jwt.claims`.
    pub claims: Arc<str>,
}

/// Names one joined channel of one socket for as long as it is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// A binding with the integer id that the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Equal parameters have equal ids; never 0 (protocol 3.3).
    pub id: u32,
    /// What was asked for.
    pub request: SubscriptionRequest,
}

/// What a channel wants differently from the protocol's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// `int8` and `numeric` as JSON strings, because JavaScript numbers lose digits.
    pub bigint_as_string: bool,
}

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
