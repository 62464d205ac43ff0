//! The answer to "who receives what": payloads of changes and the channels they go to.

use std::borrow::Cow;
use std::sync::Arc;

use super::binding::ChannelId;
use super::columns::VisibleColumns;
use super::record::RecordDetail;
use crate::change::ChangeTransaction;

/// A batch that was decided.
#[derive(Debug)]
pub struct Resolved<'b> {
    /// The batch, whose images now hold what records are written from.
    pub batch: Cow<'b, [Arc<ChangeTransaction>]>,
    /// Who receives what of it, in commit order.
    pub deliveries: Vec<Delivery>,
}

/// One payload of one change, for the channels that receive exactly it.
#[derive(Debug)]
pub struct Delivery {
    /// Index of the transaction in the batch.
    pub transaction: usize,
    /// Index of the change in the transaction's `changes`.
    pub change: usize,
    /// What is sent.
    pub payload: Payload,
    /// To whom; a channel appears once, and again in another delivery of the same change only if
    /// some of its bindings are due another payload.
    pub recipients: Vec<Recipient>,
}

/// A channel and the bindings of it that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The channel.
    pub channel: ChannelId,
    /// Ids of the bindings, ascending.
    pub ids: Vec<u32>,
}

/// What a delivery holds.
#[derive(Clone, Debug)]
pub enum Payload {
    /// The row, restricted to these columns, whole or (if it is over the size limit) in short.
    Row(Arc<VisibleColumns>, RecordDetail),
    /// No row, only this error: `Error 401: Unauthorized` or `Error 400: Bad Request, no primary key`.
    Refused(&'static str),
    /// The check of this row failed: the channel gets a `system` error with this text instead of it.
    Unanswered(String),
}
