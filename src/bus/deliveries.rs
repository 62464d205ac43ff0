//! Records up to which position the messages of a conversation were delivered to the sockets of a
//! user. `realtime` delivers rows. `chat` knows which rows are messages, and writes the positions
//! to the database.
//!
//! The record is a state, not a queue. The writer takes the positions that have changed since the
//! last time and puts back those that it could not write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::change::ChangeEvent;
use crate::observability::metrics::BusMetrics;

/// Maximum number of pairs of conversation and user with a delivery that is waiting to be written.
/// During a database outage, deliveries of further pairs are dropped and counted; the next
/// delivered message makes up for them.
const MAX_DELIVERIES: usize = 65_536;

/// A message whose deliveries are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message's conversation.
    pub conversation: Uuid,
    /// The message's sender, whose own sockets do not count.
    pub sender: Option<Uuid>,
    /// The message's position in the conversation.
    pub seq: i64,
}

/// Reads a row change as a message. Returns `None` if it is not a new message.
pub type ReadMessage = fn(&ChangeEvent) -> Option<Message>;

/// The positions up to which messages were delivered to the sockets of their recipients.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The function that recognizes new messages. Until it is set, [`Delivered::of_change`] records
    /// nothing.
    read: OnceLock<ReadMessage>,
    /// The positions by conversation and user. A standard mutex, because it is held only to change
    /// one position or to take all.
    positions: Mutex<HashMap<(Uuid, Uuid), i64>>,
    notify: Notify,
    metrics: BusMetrics,
}

/// Records the users to whose sockets one message was delivered.
#[derive(Debug)]
pub struct Recipients<'a> {
    message: Message,
    delivered: &'a Delivered,
}

impl Delivered {
    pub(super) fn new(metrics: BusMetrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                metrics,
                ..Inner::default()
            }),
        }
    }

    /// Sets the function that recognizes messages. Only the first call takes effect, because only
    /// one part of the process knows the messages.
    pub fn recognize(&self, read: ReadMessage) {
        if self.inner.read.set(read).is_err() {
            tracing::error!("the recognizer of messages is already set; ignoring the second one");
        }
    }

    /// Returns the recorder of a new message's deliveries, or `None` if the row change is not a new
    /// message. Called once per row change that is delivered.
    pub fn of_change(&self, change: &ChangeEvent) -> Option<Recipients<'_>> {
        Some(Recipients {
            message: self.inner.read.get()?(change)?,
            delivered: self,
        })
    }

    /// Records that a message with this `seq` was delivered to a socket of this user.
    pub fn note(&self, conversation: Uuid, user_id: Uuid, seq: i64) {
        let mut positions = self.lock();
        let key = (conversation, user_id);
        if let Some(position) = positions.get_mut(&key) {
            *position = seq.max(*position);
            return;
        }
        if positions.len() >= MAX_DELIVERIES {
            self.inner.metrics.deliveries_missed.inc();
            return;
        }
        let is_first = positions.is_empty();
        positions.insert(key, seq);
        drop(positions);
        if is_first {
            self.inner.notify.notify_one();
        }
    }

    /// Counts positions whose writing was postponed because their receipts were locked.
    pub fn note_held(&self, positions: usize) {
        self.inner.metrics.deliveries_held.inc_by(positions as u64);
    }

    /// Waits until there is a position to take.
    pub async fn recorded(&self) {
        loop {
            if !self.lock().is_empty() {
                return;
            }
            self.inner.notify.notified().await;
        }
    }

    /// Returns the positions recorded since the last call, keyed by conversation and user.
    pub fn take(&self) -> HashMap<(Uuid, Uuid), i64> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Uuid, Uuid), i64>> {
        self.inner
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recipients<'_> {
    /// Records that the message was delivered to a socket of this user.
    pub fn add(&self, user_id: Uuid) {
        let Message {
            conversation,
            sender,
            seq,
        } = self.message;
        if sender != Some(user_id) {
            self.delivered.note(conversation, user_id, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Relation, ReplicaIdentity, Row, RowChange, TableName};

    const PLACE: Uuid = Uuid::from_u128(1);
    const ANA: Uuid = Uuid::from_u128(2);
    const BEN: Uuid = Uuid::from_u128(3);

    fn insert_into(table: &str) -> ChangeEvent {
        ChangeEvent {
            relation: Arc::new(Relation {
                oid: 1,
                table: TableName::new("public", table),
                identity: ReplicaIdentity::Full,
                columns: Vec::new(),
            }),
            row: RowChange::Insert {
                new: Row(Vec::new()),
            },
        }
    }

    #[test]
    fn positions_only_move_forward_and_are_bounded() {
        let metrics = BusMetrics::default();
        let delivered = Delivered::new(metrics.clone());
        delivered.note(ANA, BEN, 2);
        delivered.note(ANA, BEN, 1);
        assert_eq!(delivered.take(), HashMap::from([((ANA, BEN), 2)]));
        assert!(delivered.take().is_empty());
        for user_id in 0..=MAX_DELIVERIES as u128 {
            delivered.note(ANA, Uuid::from_u128(user_id), 1);
        }
        assert_eq!(metrics.deliveries_missed.get(), 1);
        assert_eq!(delivered.take().len(), MAX_DELIVERIES);
    }

    #[test]
    fn a_message_is_delivered_to_everyone_but_its_sender() {
        let delivered = Delivered::new(BusMetrics::default());
        let message = insert_into("messages");
        assert!(
            delivered.of_change(&message).is_none(),
            "not recognized yet"
        );
        delivered.recognize(|change| {
            (change.relation.table.name == "messages").then_some(Message {
                conversation: PLACE,
                sender: Some(ANA),
                seq: 7,
            })
        });
        assert!(delivered.of_change(&insert_into("other")).is_none());
        let recipients = delivered.of_change(&message).unwrap();
        recipients.add(ANA);
        recipients.add(BEN);
        assert_eq!(delivered.take(), HashMap::from([((PLACE, BEN), 7)]));
    }
}
