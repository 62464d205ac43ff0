//! Row changes from the bus, through visibility, to the channels that may see them.
//!
//! Guarantees: changes are delivered in commit order, and what becomes of the stream (live,
//! interrupted, a gap) is told in its place among them. While the database cannot be asked who
//! may see a change, this waits, the bus fills, and replication stops reading: nothing is lost
//! and nothing is shown on a guess.

use std::sync::Arc;

use bytes::Bytes;

use super::hub::{GAP, Hub, StreamState};
use super::protocol::{ChangeData, RowData, SystemNotice};
use crate::bus::Listener;
use crate::change::{ChangeEvent, ChangeTransaction, StreamEvent};
use crate::observability::metrics::DropReason;
use crate::shutdown::Tasks;
use crate::visibility::record::{PAYLOAD_TOO_LARGE, write_old_record, write_record};
use crate::visibility::{Delivery, Payload, RecordDetail, Visibility};

/// Events taken from the bus at a time. More would only delay the first of them; fewer would ask
/// the database more often than it answers.
const BATCH_EVENTS: usize = 256;

/// Frames queued before other tasks of the worker thread get their turn. Queueing and writing a
/// frame takes a few microseconds, so this is a pause of a few milliseconds for the others.
const FRAMES_PER_TURN: usize = 2_048;

/// Runs until every publisher is gone or the server stops.
pub async fn run(mut listener: Listener, visibility: Visibility, hub: Arc<Hub>, tasks: Tasks) {
    let mut events = Vec::new();
    loop {
        let more = tokio::select! {
            more = listener.next_batch(&mut events, BATCH_EVENTS) => more,
            () = tasks.token().cancelled() => false,
        };
        if !more {
            return;
        }
        let mut batch = Vec::new();
        for event in events.drain(..) {
            if let StreamEvent::Changes(transaction) = event {
                batch.push(transaction);
                continue;
            }
            // What was committed before the event goes out before it.
            if !deliver(&mut batch, &visibility, &hub, &tasks).await {
                return;
            }
            match event {
                StreamEvent::Live => hub.set_stream(StreamState::Live),
                StreamEvent::Interrupted => hub.set_stream(StreamState::Interrupted),
                StreamEvent::Gap => hub.tell_subscribed(&SystemNotice::changes_error(GAP)),
                StreamEvent::Changes(_) => {}
            }
        }
        if !deliver(&mut batch, &visibility, &hub, &tasks).await {
            return;
        }
    }
}

/// Delivers a batch and empties it. `false` when the server stops meanwhile.
async fn deliver(
    batch: &mut Vec<Arc<ChangeTransaction>>,
    visibility: &Visibility,
    hub: &Hub,
    tasks: &Tasks,
) -> bool {
    if batch.is_empty() {
        return true;
    }
    let resolved = tokio::select! {
        resolved = visibility.resolve(batch) => resolved,
        () = tasks.token().cancelled() => return false,
    };
    let mut deliveries = hub.deliveries();
    let mut frames = 0;
    for delivery in &resolved {
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
                for recipient in &delivery.recipients {
                    deliveries.change(recipient.channel, &recipient.ids, change.action(), &data);
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
    drop(deliveries);
    batch.clear();
    true
}

/// What the receivers of a delivery get.
enum Encoded {
    Data(Bytes),
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
