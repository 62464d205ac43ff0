//! Messages that wait until the current work of their channel is done, and what happens to them
//! when the channel ends.

use std::sync::Arc;

use super::super::channel::OwnedMessage;
use super::super::protocol::{ClientMessage, Reply, Status, SystemNotice};
use super::effect::Effect;
use super::state::Session;
use crate::limits::UnixMillis;
use crate::observability::metrics::DropReason;

/// Maximum total size of the payloads that wait in all channels of a socket, in bytes. It exceeds
/// the default of `realtime.max_frame_bytes`, because the first message of a channel usually waits.
const MAX_WAITING_BYTES_OF_SESSION: usize = 8 << 20;

/// The reply to a push that arrives while too many messages wait for the reply to a join.
const TOO_MANY_BEFORE_JOIN: &str = "Too many messages before the join was answered";
/// The reply to a push that arrives while too many messages wait for other work of the channel.
pub(super) const TOO_MANY_WAITING: &str = "Too many messages are waiting to be checked or stored";

impl Session {
    /// Holds a message until the current work of its channel is done. If there is no room, refuses
    /// it.
    pub(super) fn hold(&mut self, message: &ClientMessage<'_>, effects: &mut Vec<Effect>) {
        let waiting: usize = self
            .channels
            .values()
            .filter_map(|channel| channel.waiting.as_ref())
            .map(|waiting| waiting.bytes())
            .sum();
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return;
        };
        let owned = OwnedMessage::new(message, Arc::clone(&channel.topic));
        let bytes = owned.payload_bytes();
        let is_joining = channel.joining().is_some();
        let kept = channel.waiting.get_or_insert_default();
        if kept.has_room(bytes, !is_joining) && waiting + bytes <= MAX_WAITING_BYTES_OF_SESSION {
            kept.push(owned);
            self.count_held();
            return;
        }
        self.shared.hub.metrics().dropped(DropReason::RateLimited);
        let reference = owned.into_reference();
        if reference.is_some() {
            let reason = if is_joining {
                TOO_MANY_BEFORE_JOIN
            } else {
                TOO_MANY_WAITING
            };
            effects.push(Effect::Send(
                channel.reply(reference, Reply::Error(reason.into())),
            ));
        }
    }

    /// Handles the waiting messages in order. If a message starts new work, the messages behind it
    /// wait again.
    pub(super) fn receive_waiting(
        &mut self,
        topic: &str,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self
            .channels
            .get_mut(topic)
            .and_then(|channel| channel.waiting.take());
        for message in waiting.unwrap_or_default().messages {
            self.receive(&message.borrow(), now, effects);
        }
    }

    /// Closes a channel and sends the reason. The socket stays open.
    pub(super) fn close_channel(
        &mut self,
        topic: &str,
        why: String,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.remove(topic) else {
            return;
        };
        let notice = SystemNotice::channel(Status::Error, why);
        effects.push(Effect::Send(channel.system(notice)));
        effects.push(Effect::Send(channel.close()));
        effects.push(Effect::Detach(channel.id));
        // The waiting messages are handled without the channel. One of them may join the topic
        // again.
        for message in channel.waiting.unwrap_or_default().messages {
            self.receive(&message.borrow(), now, effects);
        }
    }
}
