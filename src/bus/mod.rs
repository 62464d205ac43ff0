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
    /// Waits for the next event and takes with it, into `batch`, what has gathered behind it, up to
    /// `limit` events. `false` when every publisher is gone.
    pub async fn next_batch(&mut self, batch: &mut Vec<StreamEvent>, limit: usize) -> bool {
        self.changes.recv_many(batch, limit).await > 0
    }
}
