//! Row changes from the bus, through visibility, to the channels that may see them.
//!
//! Guarantees: changes are delivered in commit order, and what becomes of the stream (live,
//! interrupted, a gap) is told in its place among them. While the database cannot be asked who
//! may see a change, this waits, the bus fills, and replication stops reading: nothing is lost
//! and nothing is shown on a guess.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use uuid::Uuid;

use super::hub::{GAP, Hub, StreamState};
use super::protocol::{ChangeData, RowData, SystemNotice};
use super::wire::body::Body;
use crate::bus::Listener;
use crate::bus::people::Delivered;
use crate::change::{Action, ChangeEvent, ChangeTransaction, StreamEvent};
use crate::observability::metrics::DropReason;
use crate::shutdown::Tasks;
use crate::visibility::record::{PAYLOAD_TOO_LARGE, write_old_record, write_record};
use crate::visibility::{Delivery, Payload, RecordDetail, Visibility};

/// Changes that may gather while the database is asked about those before. A question costs little
/// more for many rows than for a few, so the batch grows with the load until it keeps up; beyond
/// this the first row of a batch would wait too long for the last.
const GATHERED_CHANGES: usize = 4_096;

/// Bytes of them, after which replication waits.
const GATHERED_BYTES: usize = 32 * 1024 * 1024;

/// Frames queued before other tasks of the worker thread get their turn. Queueing and writing a
/// frame takes a few microseconds, so this is a pause of a few milliseconds for the others.
const FRAMES_PER_TURN: usize = 2_048;

/// Runs until every publisher is gone or the server stops.
pub async fn run(listener: Listener, visibility: Visibility, hub: Arc<Hub>, tasks: Tasks) {
    let delivered = listener.delivered();
    let feed = async {
        let mut gathering = Gathering::new(listener);
        while gathering.wait().await {
            let batch = gathering.take_changes();
            if !batch.is_empty() {
                // Boxed: its state is large, and would be part of this task.
                let resolving = Box::pin(visibility.resolve(&batch));
                let resolved = gathering.during(resolving).await;
                deliver(&resolved.batch, &resolved.deliveries, &hub, &delivered).await;
            }
            match gathering.take_event() {
                Some(StreamEvent::Live) => hub.set_stream(StreamState::Live),
                Some(StreamEvent::Interrupted) => hub.set_stream(StreamState::Interrupted),
                Some(StreamEvent::Gap) => hub.tell_subscribed(&SystemNotice::changes_error(GAP)),
                Some(StreamEvent::Changes(_)) | None => {}
            }
        }
    };
    tokio::select! {
        () = feed => {}
        () = tasks.token().cancelled() => {}
    }
}

/// What has come from the bus and has not been worked on.
struct Gathering {
    listener: Listener,
    events: VecDeque<StreamEvent>,
    changes: usize,
    bytes: usize,
    is_open: bool,
}

impl Gathering {
    fn new(listener: Listener) -> Self {
        Self {
            listener,
            events: VecDeque::new(),
            changes: 0,
            bytes: 0,
            is_open: true,
        }
    }

    /// Waits until there is something to work on; `false` when nothing will come any more.
    async fn wait(&mut self) -> bool {
        if self.events.is_empty() {
            match self.listener.next().await {
                Some(event) => self.add(event),
                None => self.is_open = false,
            }
        }
        while self.has_room()
            && let Some(event) = self.listener.try_next()
        {
            self.add(event);
        }
        !self.events.is_empty()
    }

    /// Goes on gathering, as far as there is room, while `work` is under way.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let can_gather = self.is_open && self.has_room();
            tokio::select! {
                biased;
                done = &mut work => return done,
                event = self.listener.next(), if can_gather => match event {
                    Some(event) => self.add(event),
                    None => self.is_open = false,
                },
            }
        }
    }

    /// The changes before the next event of another kind, in their order.
    fn take_changes(&mut self) -> Vec<Arc<ChangeTransaction>> {
        let mut batch = Vec::new();
        while let Some(StreamEvent::Changes(transaction)) = self
            .events
            .pop_front_if(|event| matches!(event, StreamEvent::Changes(_)))
        {
            self.changes -= transaction.changes.len();
            self.bytes -= transaction.bytes;
            batch.push(transaction);
        }
        batch
    }

    /// The next event, if it is not a change.
    fn take_event(&mut self) -> Option<StreamEvent> {
        self.events
            .pop_front_if(|event| !matches!(event, StreamEvent::Changes(_)))
    }

    fn has_room(&self) -> bool {
        self.changes < GATHERED_CHANGES && self.bytes < GATHERED_BYTES
    }

    fn add(&mut self, event: StreamEvent) {
        if let StreamEvent::Changes(transaction) = &event {
            self.changes += transaction.changes.len();
            self.bytes += transaction.bytes;
        }
        self.events.push_back(event);
    }
}

/// Hands a resolved batch to the channels that receive of it.
async fn deliver(
    batch: &[Arc<ChangeTransaction>],
    resolved: &[Delivery],
    hub: &Hub,
    delivered: &Delivered,
) {
    let mut deliveries = hub.deliveries();
    let mut frames = 0;
    for delivery in resolved {
        frames += delivery.recipients.len();
        if frames > FRAMES_PER_TURN {
            frames = 0;
            deliveries.flush();
            tokio::task::yield_now().await;
        }
        let Some((transaction, change)) = batch
            .get(delivery.transaction)
            .and_then(|transaction| Some((transaction, transaction.changes.get(delivery.change)?)))
        else {
            tracing::error!("a delivery refers to a change that is not in its batch");
            continue;
        };
        match encode(transaction, change, delivery) {
            Encoded::Data(data) => {
                let message = Message::read(change);
                for recipient in &delivery.recipients {
                    let is_handed_over = deliveries.change(
                        recipient.channel,
                        &recipient.ids,
                        change.action(),
                        &data,
                    );
                    if let Some(message) = &message
                        && is_handed_over
                        && let Some(person) = hub.person(recipient.channel)
                        && message.sender != Some(person)
                    {
                        delivered.note(message.conversation, person, message.seq);
                    }
                }
            }
            Encoded::Notice(notice) => {
                hub.metrics().dropped(DropReason::Undecided);
                for recipient in &delivery.recipients {
                    deliveries.system(recipient.channel, &notice);
                }
            }
        }
    }
}

/// A message of the chat, as far as its sender is told that it was delivered.
struct Message {
    conversation: Uuid,
    sender: Option<Uuid>,
    seq: i64,
}

impl Message {
    /// The new message that a change is, if it is one.
    fn read(change: &ChangeEvent) -> Option<Self> {
        let table = &change.relation.table;
        if change.action() != Action::Insert
            || table.name != "user_messages"
            || table.schema != "public"
        {
            return None;
        }
        let row = change.image();
        Some(Self {
            conversation: row.text("conversation_id")?.parse().ok()?,
            sender: row.text("sender_id").and_then(|id| id.parse().ok()),
            seq: row.text("seq")?.parse().ok()?,
        })
    }
}

/// What the receivers of a delivery get.
enum Encoded {
    Data(Body),
    Notice(SystemNotice),
}

fn encode(transaction: &ChangeTransaction, change: &ChangeEvent, delivery: &Delivery) -> Encoded {
    let data = |row| ChangeData {
        table: &change.relation.table,
        action: change.action(),
        row,
    };
    let mut out = Vec::with_capacity(512);
    match &delivery.payload {
        Payload::Row(columns, detail) => data(RowData::Visible {
            committed_at: transaction.committed_at,
            columns: &columns.header,
            error: (*detail == RecordDetail::ShortValues).then_some(PAYLOAD_TOO_LARGE),
        })
        .write(
            &mut out,
            |out| write_record(out, &change.row, columns, *detail),
            |out| write_old_record(out, &change.row, columns, *detail),
        ),
        Payload::Refused(reason) => {
            data(RowData::Refused(reason)).write(&mut out, |_| {}, |_| {});
        }
        Payload::Unanswered(text) => {
            return Encoded::Notice(SystemNotice::changes_error(text.clone()));
        }
    }
    Encoded::Data(out.into())
}
