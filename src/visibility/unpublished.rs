//! Channels whose table is not in the publication. They are registered once it is.
//!
//! The stream does not show that a table has left the publication. The catalogue is therefore
//! checked periodically while there are subscriptions.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::catalog::Catalog;
use super::engine::Engine;
use super::error::SubscribeError;
use super::request::SubscriptionRequest;
use super::subscription::Subscriptions;
use super::{Binding, ChannelId, Identity, SubscribeOptions};

/// Limits of the pause between two checks, which is `visibility.catalog_ttl_ms`. A check costs one
/// comparison of fingerprints, unless a row has caused one since the last check. Channels
/// must be told within a minute.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A channel whose bindings were registered or refused because the publication has changed.
pub type PublicationNews = (ChannelId, Result<(), SubscribeError>);

/// A channel that waits until all tables of its bindings are published.
#[derive(Clone)]
pub(super) struct Waiting {
    /// Distinguishes this wait from a later one of the same channel.
    number: u64,
    identity: Arc<Identity>,
    bindings: Arc<[Binding]>,
    options: SubscribeOptions,
}

/// All waiting channels.
#[derive(Default)]
pub(super) struct WaitingChannels {
    next: u64,
    channels: HashMap<ChannelId, Waiting>,
}

impl WaitingChannels {
    /// Adds a channel, or replaces its entry.
    pub(super) fn add(
        &mut self,
        channel: ChannelId,
        identity: Arc<Identity>,
        bindings: Arc<[Binding]>,
        options: SubscribeOptions,
    ) {
        self.next += 1;
        let waiting = Waiting {
            number: self.next,
            identity,
            bindings,
            options,
        };
        self.channels.insert(channel, waiting);
    }

    /// Removes a channel.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        self.channels.remove(&channel);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether the entry of a channel is still this one.
    fn is_same(&self, channel: ChannelId, waiting: &Waiting) -> bool {
        self.channels
            .get(&channel)
            .is_some_and(|now| now.number == waiting.number)
    }

    /// The channels whose tables are published.
    fn published(&self, catalog: &Catalog) -> Vec<(ChannelId, Waiting)> {
        self.channels
            .iter()
            .filter(|(_, waiting)| unpublished(catalog, &waiting.bindings).is_none())
            .map(|(channel, waiting)| (*channel, waiting.clone()))
            .collect()
    }
}

/// The error for a binding without a published table.
pub(super) fn not_published(request: &SubscriptionRequest) -> SubscribeError {
    SubscribeError::NotPublished {
        params: request.describe(),
    }
}

/// The first binding without a published table.
pub(super) fn unpublished<'a>(
    catalog: &Catalog,
    bindings: &'a [Binding],
) -> Option<&'a SubscriptionRequest> {
    let mut requests = bindings.iter().map(|binding| &binding.request);
    requests.find(|request| match request.exact_table() {
        Some(name) => catalog.table_named(&name).is_none(),
        None => !catalog
            .tables()
            .any(|table| request.accepts_table(&table.name)),
    })
}

impl Engine {
    /// See [`super::Visibility::publication_news`].
    pub(super) async fn publication_news(self: &Arc<Self>) -> Vec<PublicationNews> {
        let pause = self.catalog.ttl().clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            tokio::time::sleep(pause).await;
            if self.with_subscriptions(|subscriptions| subscriptions.is_empty()) {
                continue;
            }
            match self.catalog.within(&[], pause).await {
                Ok(catalog) => {
                    // A policy or a replica identity may have changed.
                    self.start_snapshots().await;
                    let news = self.check_publication(&catalog).await;
                    if !news.is_empty() {
                        return news;
                    }
                }
                Err(error) => tracing::debug!(%error, "publication check failed; retrying"),
            }
        }
    }

    async fn check_publication(&self, catalog: &Arc<Catalog>) -> Vec<PublicationNews> {
        let (unregistered, published) = self.with_subscriptions(|subscriptions| {
            let published = subscriptions.waiting.published(catalog);
            (subscriptions.unregister_unpublished(catalog), published)
        });
        let unregistered = unregistered.into_iter();
        let mut news: Vec<_> = unregistered
            .map(|(channel, why)| (channel, Err(why)))
            .collect();
        for (channel, waiting) in published {
            let Waiting {
                identity,
                bindings,
                options,
                ..
            } = &waiting;
            let checked = match self.check_bindings(identity, bindings).await {
                // Not published after all, or not known: the next check decides.
                Err(SubscribeError::NotPublished { .. } | SubscribeError::Unavailable) => continue,
                checked => checked,
            };
            let result = self.with_subscriptions(|subscriptions| {
                if !subscriptions.waiting.is_same(channel, &waiting) {
                    return None;
                }
                subscriptions.remove(channel);
                Some(checked.map(|checked| {
                    let (identity, bindings) = (Arc::clone(identity), Arc::clone(bindings));
                    subscriptions.replace(channel, identity, bindings, checked, *options);
                }))
            });
            news.extend(result.map(|result| (channel, result)));
        }
        news
    }

    pub(super) fn with_subscriptions<T>(&self, change: impl FnOnce(&mut Subscriptions) -> T) -> T {
        change(
            &mut self
                .subscriptions
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
