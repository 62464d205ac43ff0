//! Detects tables that leave the publication or return to it.
//!
//! The stream does not show that a table has left the publication. The catalogue is therefore
//! checked periodically while there are subscriptions.

use std::sync::Arc;
use std::time::Duration;

use super::binding::ChannelId;
use super::catalog::Catalog;
use super::engine::Engine;
use super::error::SubscribeError;
use super::waiting::WaitingChannel;

/// Minimum pause between two checks. Within the limits, the pause is `visibility.catalog_ttl_ms`. A
/// check costs one comparison of fingerprints, unless a row has caused such a comparison since the
/// last check.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Maximum pause between two checks. Channels must be notified within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A channel whose bindings were registered or refused because the publication has changed.
pub type PublicationNews = (ChannelId, Result<(), SubscribeError>);

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
                    // A changed policy or replica identity may require snapshots.
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
            let WaitingChannel {
                subscriber,
                bindings,
                ..
            } = &waiting;
            let checked = match self.check_bindings(&subscriber.identity, bindings).await {
                // The table is not published after all, or its state is unknown. The next check
                // decides.
                Err(SubscribeError::NotPublished { .. } | SubscribeError::Unavailable) => continue,
                checked => checked,
            };
            let result = self.with_subscriptions(|subscriptions| {
                if !subscriptions.waiting.is_same(channel, &waiting) {
                    return None;
                }
                subscriptions.remove(channel);
                Some(checked.and_then(|checked| {
                    let (subscriber, bindings) = (subscriber.clone(), Arc::clone(bindings));
                    subscriptions.register(channel, subscriber, bindings, checked)
                }))
            });
            news.extend(result.map(|result| (channel, result)));
        }
        news
    }
}
