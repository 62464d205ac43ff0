//! Groups the recipients of each change by payload.

use std::sync::Arc;

use super::binding::ChannelId;
use super::delivery::Payload;
use super::subscription::Subscription;

/// The groups of recipients, for each change of a table batch.
pub(super) type RecipientGroups = Vec<Vec<RecipientGroup>>;

/// A payload, and the channels and bindings that receive it.
pub(super) type RecipientGroup = (Payload, Vec<(ChannelId, u32)>);

/// Adds a recipient to the group with this payload.
pub(super) fn add(groups: &mut Vec<RecipientGroup>, payload: Payload, subscription: &Subscription) {
    let recipient = (subscription.channel, subscription.binding);
    let is_same = |known: &Payload| match (known, &payload) {
        (Payload::Row(known, known_detail), Payload::Row(columns, detail)) => {
            Arc::ptr_eq(known, columns) && known_detail == detail
        }
        (Payload::Refused(known), Payload::Refused(text)) => known == text,
        (Payload::CheckFailed(known), Payload::CheckFailed(text)) => known == text,
        _ => false,
    };
    match groups.iter_mut().find(|(known, _)| is_same(known)) {
        Some((_, recipients)) => recipients.push(recipient),
        None => groups.push((payload, vec![recipient])),
    }
}

/// Returns the text for a row whose check failed. It names the kind of failure, and no value.
pub(super) fn check_failed_text(table: &str, reason: &str) -> String {
    format!("A change of {table} was not delivered: the row-level security check failed ({reason})")
}
