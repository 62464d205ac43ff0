//! What carries events between the parts of this process that must not know each other.
//!
//! In one process it is a bounded queue: whoever publishes faster than the listener works
//! waits, so that a slow database check slows the reading of the log instead of filling memory.

use tokio::sync::mpsc;

use crate::change::StreamEvent;

/// The bus of one process. Replication publishes, the change feed listens.
#[derive(Clone, Debug)]
pub struct Bus {
    changes: mpsc::Sender<StreamEvent>,
}

/// The receiving end, of which there is one: changes are worked on in commit order.
#[derive(Debug)]
pub struct Listener {
    changes: mpsc::Receiver<StreamEvent>,
}

impl Bus {
    /// A bus that holds at most `capacity` events that the listener has not taken yet.
    pub fn new(capacity: usize) -> (Self, Listener) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { changes: sender }, Listener { changes: receiver })
    }

    /// Where the change stream is handed over.
    pub fn change_sink(&self) -> mpsc::Sender<StreamEvent> {
        self.changes.clone()
    }
}

impl Listener {
    /// Waits for the next event; `None` when every publisher is gone. Nothing is lost when the
    /// future is dropped before it is done.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        self.changes.recv().await
    }

    /// The next event, if one waits.
    pub fn try_next(&mut self) -> Option<StreamEvent> {
        self.changes.try_recv().ok()
    }
}
