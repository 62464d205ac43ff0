//! Channels that ask for a table which is not published: told so, and registered when it is.
//!
//! No row tells that a table has left the publication, so the catalogue is looked at from time to
//! time while there are subscriptions, whatever comes or does not come from the stream.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::catalog::Catalog;
use super::error::SubscribeError;
use super::request::SubscriptionRequest;
use super::resolve::Resolver;
use super::subscription::Subscriptions;
use super::{Binding, ChannelId, Identity, SubscribeOptions};

/// The pause between two looks is `visibility.catalog_ttl_ms` within these limits. A look costs one
/// comparison of fingerprints where no row has caused one since the last look; and a channel
/// should hear within a minute.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What became of a channel's bindings without its doing: they are registered, or refused.
pub type PublicationNews = (ChannelId, Result<(), SubscribeError>);

/// A channel that waits until every table it asked for is published.
#[derive(Clone)]
pub(super) struct Waiting {
    /// Tells this wait from a later one.
    number: u64,
    identity: Arc<Identity>,
    bindings: Arc<[Binding]>,
    options: SubscribeOptions,
}

/// The channels that wait.
#[derive(Default)]
pub(super) struct WaitingChannels {
    next: u64,
    channels: HashMap<ChannelId, Waiting>,
}

impl WaitingChannels {
    /// Lets a channel wait, in place of an earlier wait of it.
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

    /// Forgets a channel.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        self.channels.remove(&channel);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether a channel still waits as it did.
    fn is_same(&self, channel: ChannelId, waiting: &Waiting) -> bool {
        self.channels
            .get(&channel)
            .is_some_and(|now| now.number == waiting.number)
    }

    /// Those whose tables are published by now.
    fn published(&self, catalog: &Catalog) -> Vec<(ChannelId, Waiting)> {
        self.channels
            .iter()
            .filter(|(_, waiting)| unpublished(catalog, &waiting.bindings).is_none())
            .map(|(channel, waiting)| (*channel, waiting.clone()))
            .collect()
    }
}

/// Why a binding is refused of which no table is published.
pub(super) fn not_published(request: &SubscriptionRequest) -> SubscribeError {
    SubscribeError::NotPublished {
        params: request.describe(),
    }
}

/// The first of these bindings of which no table is published.
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

impl Resolver {
    /// See [`super::Visibility::publication_news`].
    pub(super) async fn publication_news(&self) -> Vec<PublicationNews> {
        let pause = self.catalog.ttl().clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            tokio::time::sleep(pause).await;
            if self.with_subscriptions(|subscriptions| subscriptions.is_empty()) {
                continue;
            }
            match self.catalog.within(&[], pause).await {
                Ok(catalog) => {
                    let news = self.look(&catalog).await;
                    if !news.is_empty() {
                        return news;
                    }
                }
                // Whether it is published cannot be told, so nobody is told anything.
                Err(error) => tracing::debug!(%error, "the publication cannot be looked at"),
            }
        }
    }

    async fn look(&self, catalog: &Arc<Catalog>) -> Vec<PublicationNews> {
        let (withdrawn, published) = self.with_subscriptions(|subscriptions| {
            let published = subscriptions.waiting.published(catalog);
            (subscriptions.withdraw(catalog), published)
        });
        let withdrawn = withdrawn.into_iter();
        let mut news: Vec<_> = withdrawn
            .map(|(channel, why)| (channel, Err(why)))
            .collect();
        for (channel, waiting) in published {
            let Waiting {
                identity,
                bindings,
                options,
                ..
            } = &waiting;
            let checked = match self.drafts(identity, bindings).await {
                // It is gone again, or this has to wait for the next look.
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
