//! Carries broadcasts that the server itself sends on private topics, and shows whether a topic has
//! members.
//!
//! Sending never blocks. If the queue is full, the broadcast is dropped and counted. Broadcasts are
//! only hints, because clients can read the same information through the API.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::observability::metrics::BusMetrics;

/// Capacity of the queue. A broadcast has a few hundred bytes and takes some microseconds to send,
/// or more with many members. So the queue takes at most a few MB, and covers a burst of some tens
/// of milliseconds.
const CAPACITY: usize = 8_192;

/// A broadcast on a private topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBroadcast {
    /// The topic's name without the prefix `realtime:`.
    pub topic: String,
    /// The event name that clients subscribe to.
    pub event: &'static str,
    /// A JSON object as text. It is shared, because one event may be sent to many topics.
    pub payload: Arc<str>,
}

/// Looks up the members of private topics in this process.
pub trait Audiences: fmt::Debug + Send + Sync {
    /// Returns whether the topic has members. This must be cheap, because it is called before
    /// anything is computed for the topic.
    fn has_members(&self, topic: &str) -> bool;

    /// Returns the topics that have members and a name that starts with `prefix`. Iterates over all
    /// topics.
    fn topics(&self, prefix: &str) -> Vec<String>;
}

/// The sending end of the queue.
#[derive(Clone, Debug)]
pub struct Broadcasts {
    queue: mpsc::Sender<ServerBroadcast>,
    audiences: Arc<OnceLock<Arc<dyn Audiences>>>,
    metrics: BusMetrics,
}

/// The receiving end of the queue. There is only one.
#[derive(Debug)]
pub struct BroadcastListener {
    queue: mpsc::Receiver<ServerBroadcast>,
    audiences: Arc<OnceLock<Arc<dyn Audiences>>>,
}

impl Broadcasts {
    pub(super) fn new(metrics: BusMetrics) -> (Self, BroadcastListener) {
        let (queue, receiver) = mpsc::channel(CAPACITY);
        let audiences = Arc::default();
        let broadcasts = Self {
            queue,
            audiences: Arc::clone(&audiences),
            metrics,
        };
        let listener = BroadcastListener {
            queue: receiver,
            audiences,
        };
        (broadcasts, listener)
    }

    /// Returns whether the private topic has members in this process.
    pub fn has_members(&self, topic: &str) -> bool {
        self.audiences
            .get()
            .is_some_and(|audiences| audiences.has_members(topic))
    }

    /// Returns the private topics that have members and a name that starts with `prefix`.
    pub fn topics(&self, prefix: &str) -> Vec<String> {
        self.audiences
            .get()
            .map(|audiences| audiences.topics(prefix))
            .unwrap_or_default()
    }

    /// Queues a broadcast, or drops it if the queue is full.
    pub fn send(&self, broadcast: ServerBroadcast) {
        match self.queue.try_send(broadcast) {
            Ok(()) => {
                self.metrics.broadcasts.inc();
            }
            Err(_) => {
                self.metrics.broadcasts_dropped.inc();
            }
        }
    }
}

impl BroadcastListener {
    /// Sets the lookup of topic members. Only the first call takes effect, because only one part of
    /// the process owns the topics.
    pub fn set_audiences(&self, audiences: Arc<dyn Audiences>) {
        if self.audiences.set(audiences).is_err() {
            tracing::error!("topic lookup is already set; ignoring the second one");
        }
    }

    /// Waits for the next broadcast. Returns `None` once all senders are gone. Cancel-safe:
    /// dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<ServerBroadcast> {
        self.queue.recv().await
    }

    /// Returns the next broadcast, if one is queued.
    pub fn try_next(&mut self) -> Option<ServerBroadcast> {
        self.queue.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Everybody;

    impl Audiences for Everybody {
        fn has_members(&self, topic: &str) -> bool {
            topic == "user:1"
        }

        fn topics(&self, prefix: &str) -> Vec<String> {
            vec![format!("{prefix}1")]
        }
    }

    fn broadcast() -> ServerBroadcast {
        ServerBroadcast {
            topic: "user:1".to_owned(),
            event: "unread.updated",
            payload: "{}".into(),
        }
    }

    #[test]
    fn topics_have_no_members_until_a_lookup_is_set() {
        let (broadcasts, listener) = Broadcasts::new(BusMetrics::default());
        assert!(!broadcasts.has_members("user:1"));
        assert!(broadcasts.topics("user:").is_empty());
        listener.set_audiences(Arc::new(Everybody));
        assert!(broadcasts.has_members("user:1") && !broadcasts.has_members("user:2"));
        assert_eq!(broadcasts.topics("user:"), ["user:1"]);
    }

    #[test]
    fn dropped_broadcasts_are_counted() {
        let metrics = BusMetrics::default();
        let (broadcasts, mut listener) = Broadcasts::new(metrics.clone());
        for _ in 0..CAPACITY + 2 {
            broadcasts.send(broadcast());
        }
        assert_eq!(metrics.broadcasts.get(), CAPACITY as u64);
        assert_eq!(metrics.broadcasts_dropped.get(), 2);
        assert_eq!(listener.try_next(), Some(broadcast()));
    }
}
