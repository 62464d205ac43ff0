//! Channels that wait until all their tables are published.

use std::collections::HashMap;
use std::sync::Arc;

use super::binding::{Binding, ChannelId, Subscriber};
use super::catalog::Catalog;
use super::error::SubscribeError;
use super::request::SubscriptionRequest;

/// A channel that waits until the tables of all its bindings are published.
#[derive(Clone)]
pub(super) struct WaitingChannel {
    /// Distinguishes this wait from a later one of the same channel.
    number: u64,
    pub(super) subscriber: Subscriber,
    pub(super) bindings: Arc<[Binding]>,
}

/// All waiting channels.
#[derive(Default)]
pub(super) struct WaitingChannels {
    next: u64,
    channels: HashMap<ChannelId, WaitingChannel>,
}

impl WaitingChannels {
    /// Adds a channel, or replaces its entry.
    pub(super) fn add(
        &mut self,
        channel: ChannelId,
        subscriber: Subscriber,
        bindings: Arc<[Binding]>,
    ) {
        self.next += 1;
        let waiting = WaitingChannel {
            number: self.next,
            subscriber,
            bindings,
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

    /// Returns whether `waiting` is still the entry of this channel.
    pub(super) fn is_same(&self, channel: ChannelId, waiting: &WaitingChannel) -> bool {
        self.channels
            .get(&channel)
            .is_some_and(|now| now.number == waiting.number)
    }

    /// Returns the channels whose tables are all published.
    pub(super) fn published(&self, catalog: &Catalog) -> Vec<(ChannelId, WaitingChannel)> {
        self.channels
            .iter()
            .filter(|(_, waiting)| unpublished(catalog, &waiting.bindings).is_none())
            .map(|(channel, waiting)| (*channel, waiting.clone()))
            .collect()
    }
}

/// Returns the error for a binding without a published table.
pub(super) fn not_published(request: &SubscriptionRequest) -> SubscribeError {
    SubscribeError::NotPublished {
        params: request.describe(),
    }
}

/// Returns the first binding without a published table.
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
