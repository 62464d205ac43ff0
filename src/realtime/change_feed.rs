//! Delivers row changes from the bus to the channels that may see them, as determined by
//! `visibility`.
//!
//! Guarantees: changes are delivered in commit order. The other events of the stream (live,
//! interrupted, gap) are reported at their place in this order. While `visibility` cannot query the
//! database, this task waits. The bus then fills and replication stops reading, so no change is
//! lost, and none is delivered unchecked.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use super::hub::{GAP, Hub, StreamState};
use super::protocol::{ChangeData, RowData, SystemNotice};
use super::wire::body::Body;
use crate::bus::Listener;
use crate::bus::deliveries::Delivered;
use crate::change::{ChangeEvent, ChangeTransaction, StreamEvent};
use crate::observability::metrics::DropReason;
use crate::shutdown::Tasks;
use crate::visibility::record::{PAYLOAD_TOO_LARGE, write_old_record, write_record};
use crate::visibility::{Delivery, Payload, RecordDetail, Visibility};

/// Once this many changes have accumulated, no further event is taken from the bus. Changes
/// accumulate while the database is queried about the previous batch. A query costs little more for
/// many rows than for a few, so batches may grow until they keep up with the load. In a batch above
/// this limit, the first row would wait too long for the last.
const MAX_BACKLOG_CHANGES: usize = 4_096;

/// The same limit for the total size of the changes, in bytes. While either limit is reached, the
/// bus fills, and replication waits.
const MAX_BACKLOG_BYTES: usize = 32 * 1024 * 1024;

/// Approximate number of frames queued before other tasks of the worker thread run. Queueing and
/// writing a frame takes a few microseconds, so this delays other tasks by a few milliseconds.
const FRAMES_PER_TURN: usize = 2_048;

/// Runs until all publishers are dropped or the server stops.
pub async fn run(listener: Listener, visibility: Visibility, hub: Arc<Hub>, tasks: Tasks) {
    let delivered = listener.delivered();
    let feed = async {
        let mut backlog = Backlog::new(listener);
        while backlog.wait_for_event().await {
            let batch = backlog.take_changes();
            if !batch.is_empty() {
                // Boxed, because the future is large and would otherwise be part of this task.
                let resolving = Box::pin(visibility.resolve(&batch));
                let resolved = backlog.accumulate_during(resolving).await;
                deliver(&resolved.batch, &resolved.deliveries, &hub, &delivered).await;
            }
            match backlog.take_event() {
                Some(StreamEvent::Live) => hub.set_stream(StreamState::Live),
                Some(StreamEvent::Interrupted) => hub.set_stream(StreamState::Interrupted),
                Some(StreamEvent::Gap) => hub.notify_subscribed(&SystemNotice::changes_error(GAP)),
                Some(StreamEvent::Changes(_)) | None => {}
            }
        }
    };
    tokio::select! {
        () = feed => {}
        () = tasks.token().cancelled() => {}
    }
}

/// Events from the bus that have not been processed yet.
struct Backlog {
    listener: Listener,
    events: VecDeque<StreamEvent>,
    changes: usize,
    bytes: usize,
    is_open: bool,
}

impl Backlog {
    fn new(listener: Listener) -> Self {
        Self {
            listener,
            events: VecDeque::new(),
            changes: 0,
            bytes: 0,
            is_open: true,
        }
    }

    /// Waits for an event. Returns `false` when no further event can arrive.
    async fn wait_for_event(&mut self) -> bool {
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

    /// Runs `work` while accumulating events, up to the limits.
    async fn accumulate_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let can_accumulate = self.is_open && self.has_room();
            tokio::select! {
                biased;
                done = &mut work => return done,
                event = self.listener.next(), if can_accumulate => match event {
                    Some(event) => self.add(event),
                    None => self.is_open = false,
                },
            }
        }
    }

    /// Removes and returns, in order, the changes that precede the next event of another kind.
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

    /// Removes and returns the next event if it is not a change.
    fn take_event(&mut self) -> Option<StreamEvent> {
        self.events
            .pop_front_if(|event| !matches!(event, StreamEvent::Changes(_)))
    }

    fn has_room(&self) -> bool {
        self.changes < MAX_BACKLOG_CHANGES && self.bytes < MAX_BACKLOG_BYTES
    }

    fn add(&mut self, event: StreamEvent) {
        if let StreamEvent::Changes(transaction) = &event {
            self.changes += transaction.changes.len();
            self.bytes += transaction.bytes;
        }
        self.events.push_back(event);
    }
}

/// Delivers a resolved batch to its recipients.
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
            tracing::error!("delivery refers to a change outside its batch; dropping it");
            continue;
        };
        match encode(transaction, change, delivery) {
            Encoded::Data(data) => {
                let recorded = delivered.of_change(change);
                for recipient in &delivery.recipients {
                    let is_queued = deliveries.change(
                        recipient.channel,
                        &recipient.ids,
                        change.action(),
                        &data,
                    );
                    if let Some(recorded) = &recorded
                        && is_queued
                        && let Some(user_id) = hub.user_id(recipient.channel)
                    {
                        recorded.add(user_id);
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

/// The encoded form of a delivery: a row change, or a notice that replaces it.
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
        Payload::CheckFailed(text) => {
            return Encoded::Notice(SystemNotice::changes_error(text.clone()));
        }
    }
    Encoded::Data(out.into())
}
