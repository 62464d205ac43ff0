//! The topics whose presence has changed since their last diff.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::super::protocol::{PhxRefs, TrackPayload};
use super::presence::TrackResult;
use super::topic::Topic;
use crate::visibility::ChannelId;

/// The topics whose presence has changed, and the generator of references.
#[derive(Debug, Default)]
pub(super) struct PresenceChanges {
    refs: PhxRefs,
    /// The changed topics, each once. A plain mutex, held for a push or a take.
    topics: Mutex<Vec<Arc<Topic>>>,
    wake: Notify,
}

impl PresenceChanges {
    /// Adds a channel, with its payload, to the presence of a topic under `key`. `max_bytes` limits
    /// the approximate size of the topic's state.
    pub(super) fn track(
        &self,
        topic: &Arc<Topic>,
        channel: ChannelId,
        key: &Arc<str>,
        payload: TrackPayload,
        max_bytes: usize,
    ) -> TrackResult {
        let phx_ref = self.refs.next();
        let mut set = topic.presence();
        let tracked = set.track(channel, key, payload, phx_ref, max_bytes);
        if tracked == TrackResult::Changed {
            self.mark(topic);
        }
        tracked
    }

    /// Removes a channel from the presence of its topic.
    pub(super) fn untrack(&self, topic: &Arc<Topic>, channel: ChannelId) {
        let mut set = topic.presence();
        if set.untrack(channel) {
            self.mark(topic);
        }
    }

    /// Removes and returns the topics that changed since the last call.
    pub(super) fn take(&self) -> Vec<Arc<Topic>> {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until a topic has changed.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Marks the presence of a topic as changed. Called while the presence of the topic is locked,
    /// so that the next diff includes the change.
    fn mark(&self, topic: &Arc<Topic>) {
        if !topic.presence_is_marked.swap(true, Ordering::Relaxed) {
            self.lock().push(Arc::clone(topic));
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Topic>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
