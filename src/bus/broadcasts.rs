//! Broadcasts that the server itself sends on private topics, and who would hear them.
//!
//! Guarantees: whoever sends waits for nothing. What finds no room is dropped and counted: these are
//! hints, and what they say can be read.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::observability::metrics::BusMetrics;

/// Broadcasts that may wait for their delivery. Each is a few hundred bytes and takes some microseconds, more
/// with many members, so this is a burst of one tick.
const CAPACITY: usize = 8_192;

/// A broadcast on the private topic of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBroadcast {
    /// The topic's name, without `realtime:`.
    pub topic: String,
    /// The event, as clients listen for it.
    pub event: &'static str,
    /// The text of a JSON object.
    pub payload: String,
}

/// Who is on private topics of this process.
pub trait Audiences: fmt::Debug + Send + Sync {
    /// Whether anybody is on this one. Cheap: asked before anything is computed for it.
    fn has_members(&self, topic: &str) -> bool;

    /// Those with members whose names begin so. Looks at all topics.
    fn topics(&self, prefix: &str) -> Vec<String>;
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Broadcasts {
    queue: mpsc::Sender<ServerBroadcast>,
    audiences: Arc<OnceLock<Arc<dyn Audiences>>>,
    metrics: BusMetrics,
}

/// The receiving end, of which there is one.
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

    /// Whether anybody of this process is on the private topic.
    pub fn has_members(&self, topic: &str) -> bool {
        self.audiences
            .get()
            .is_some_and(|audiences| audiences.has_members(topic))
    }

    /// The private topics with members whose names begin so.
    pub fn topics(&self, prefix: &str) -> Vec<String> {
        self.audiences
            .get()
            .map(|audiences| audiences.topics(prefix))
            .unwrap_or_default()
    }

    /// Sends; drops what there is no room for.
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
    /// Says who is on topics, from now on. The first word counts: one part of the process knows.
    pub fn answer_with(&self, audiences: Arc<dyn Audiences>) {
        if self.audiences.set(audiences).is_err() {
            tracing::error!("two parts of the process claim to know who is on topics");
        }
    }

    /// Waits for the next broadcast; `None` when every sender is gone. Nothing is lost when the future
    /// is dropped before it is done.
    pub async fn next(&mut self) -> Option<ServerBroadcast> {
        self.queue.recv().await
    }

    /// The next broadcast, if one waits.
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
            payload: "{}".to_owned(),
        }
    }

    #[test]
    fn nobody_is_there_until_somebody_says_so() {
        let (broadcasts, listener) = Broadcasts::new(BusMetrics::default());
        assert!(!broadcasts.has_members("user:1"));
        assert!(broadcasts.topics("user:").is_empty());
        listener.answer_with(Arc::new(Everybody));
        assert!(broadcasts.has_members("user:1") && !broadcasts.has_members("user:2"));
        assert_eq!(broadcasts.topics("user:"), ["user:1"]);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
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
