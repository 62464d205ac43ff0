//! The result of resolving a batch: payloads of changes and the channels that receive them.

use std::borrow::Cow;
use std::sync::Arc;

use super::binding::ChannelId;
use super::columns::VisibleColumns;
use super::record::RecordDetail;
use crate::change::ChangeTransaction;

/// A resolved batch.
#[derive(Debug)]
pub struct Resolved<'b> {
    /// The batch, with completed images. Records are written from these images.
    pub batch: Cow<'b, [Arc<ChangeTransaction>]>,
    /// The deliveries, in commit order.
    pub deliveries: Vec<Delivery>,
}

/// One payload of one change, and the channels that receive it.
#[derive(Debug)]
pub struct Delivery {
    /// Index of the transaction in the batch.
    pub transaction: usize,
    /// Index of the change in the transaction's `changes`.
    pub change: usize,
    /// The payload.
    pub payload: Payload,
    /// The receiving channels, each once. A channel appears in two deliveries of one change only if
    /// some of its bindings receive a different payload.
    pub recipients: Vec<Recipient>,
}

/// A channel and its matching bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The channel.
    pub channel: ChannelId,
    /// Ids of the bindings, ascending.
    pub ids: Vec<u32>,
}

/// The content of a delivery.
#[derive(Clone, Debug)]
pub enum Payload {
    /// The row with these columns. [`RecordDetail`] states whether long values are omitted, because
    /// the change exceeds the size limit.
    Row(Arc<VisibleColumns>, RecordDetail),
    /// This error, which is sent instead of the row: `Error 401: Unauthorized` or `Error 400: Bad
    /// Request, no primary key`.
    Refused(&'static str),
    /// The check failed. The channel receives a `system` error with this text instead of the row.
    CheckFailed(String),
}
