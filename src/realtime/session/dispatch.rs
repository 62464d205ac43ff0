//! The inputs of a session: messages from the client, results of background work, and the time.

use super::super::channel::JoinState;
use super::super::error::{JoinRefusal, MESSAGES_LATE, MESSAGES_LIVE, expiry, token_text};
use super::super::protocol::{
    ClientEvent, ClientMessage, Reply, ServerMessage, Status, SystemNotice, TOPIC_PREFIX,
};
use super::super::wire::close::CloseReason;
use super::broadcast::Push;
use super::effect::{Effect, Outcome, WorkResult};
use super::state::Session;
use crate::limits::UnixMillis;
use crate::observability::metrics::DropReason;

impl Session {
    /// Handles a message from the client.
    pub fn receive(
        &mut self,
        message: &ClientMessage<'_>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        if let ClientEvent::Heartbeat = message.event
            && message.topic == "phoenix"
        {
            effects.push(Effect::Send(ServerMessage::Heartbeat {
                reference: message.reference.clone(),
            }));
            return;
        }
        let channels = self.channels.len();
        match self.channels.get(&*message.topic) {
            Some(channel) => {
                if channel.holds_messages() {
                    self.hold(message, effects);
                    return;
                }
                self.receive_joined(message, now, effects);
            }
            None => self.receive_unjoined(message, now, effects),
        }
        if message.event.may_move_deadlines() || self.channels.len() != channels {
            self.find_deadline(now);
        }
    }

    /// Handles the result of background work.
    pub fn complete(&mut self, outcome: Outcome, now: UnixMillis, effects: &mut Vec<Effect>) {
        let is_known = self
            .channels
            .get(&outcome.topic)
            .is_some_and(|channel| channel.id == outcome.channel);
        if !is_known {
            // The channel ended in the meantime, so anything registered for it must be removed.
            effects.push(Effect::Detach(outcome.channel));
            return;
        }
        match outcome.result {
            WorkResult::SubscribeLate => {
                self.subscribe_late(&outcome.topic, now, effects);
            }
            WorkResult::Subscribed(result) => {
                self.subscribed(&outcome.topic, result, now, effects);
            }
            WorkResult::Authorized {
                kind,
                mark,
                round,
                result,
            } => {
                if !self.is_outdated(&outcome.topic, (kind, mark, round), &result, effects) {
                    self.authorized(&outcome.topic, kind, mark, result, now, effects);
                }
            }
            WorkResult::Stored { reference, result } => {
                self.stored_broadcast(&outcome.topic, reference, result, now, effects);
            }
            WorkResult::Rechecked(result) => {
                self.rechecked(&outcome.topic, result, now, effects);
            }
            WorkResult::Replay(messages) => {
                self.continue_with_replay(&outcome.topic, messages, now, effects)
            }
            WorkResult::MessagesLive(true) => {
                let notice = SystemNotice::channel(Status::Ok, MESSAGES_LIVE);
                self.send_notice(&outcome.topic, notice, effects);
            }
            WorkResult::MessagesLive(false) => {
                self.close_channel(&outcome.topic, MESSAGES_LATE.to_owned(), now, effects);
            }
        }
        self.find_deadline(now);
    }

    /// Handles everything that is due. Called when [`Session::deadline`] is reached.
    pub fn tick(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        if self.expires_without_channel().is_some_and(|at| at <= now) {
            self.without_channel = None;
            effects.push(Effect::Close(CloseReason::NoChannel));
        }
        let warn_before = self.shared.config.expiry_warning;
        let topics: Vec<_> = self.channels.keys().cloned().collect();
        for topic in topics {
            let Some(channel) = self.channels.get_mut(&topic) else {
                continue;
            };
            if let Some(joining) = channel.joining() {
                if let Some(wait) = joining.wait.filter(|wait| wait.until <= now) {
                    let refusal = JoinRefusal::SubscriptionLate(wait.millis);
                    self.refuse_joining(&topic, &refusal, now, effects);
                }
                continue;
            }
            if let Some(error) = expiry(&channel.holder.claims, now.seconds()) {
                self.close_channel(&topic, token_text(&error), now, effects);
                continue;
            }
            let expires_at = channel.holder.expires_at();
            if let JoinState::Joined { is_warned } = &mut channel.join_state
                && !*is_warned
                && expires_at.before(warn_before) <= now
            {
                *is_warned = true;
                let seconds = expires_at.since(now).as_secs();
                let notice = SystemNotice::channel(
                    Status::Ok,
                    format!("Token expires in {seconds} seconds"),
                );
                effects.push(Effect::Send(channel.system(notice)));
            }
        }
        self.find_deadline(now);
    }

    /// Ends all channels because the socket is closed.
    pub fn end(&mut self, effects: &mut Vec<Effect>) {
        self.device = None;
        if std::mem::take(&mut self.counts_as_user) {
            self.shared.hub.remove_user();
        }
        for (_, channel) in self.channels.drain() {
            effects.push(Effect::Detach(channel.id));
        }
    }

    fn receive_unjoined(
        &mut self,
        message: &ClientMessage<'_>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let (join_ref, reply) = match &message.event {
            ClientEvent::Join(payload) if message.topic.starts_with(TOPIC_PREFIX) => {
                self.join(message, payload, now, effects);
                return;
            }
            // For a topic that is not joined, no other reply contains the `join_ref`, as in
            // Supabase Realtime.
            ClientEvent::Leave => (message.join_ref.clone(), Reply::Ok),
            _ => {
                self.shared.hub.metrics().dropped(DropReason::NotJoined);
                (None, Reply::Error("unmatched topic".into()))
            }
        };
        effects.push(Effect::Send(ServerMessage::Reply {
            join_ref,
            reference: message.reference.clone(),
            topic: (*message.topic).into(),
            reply,
        }));
    }

    fn receive_joined(
        &mut self,
        message: &ClientMessage<'_>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        let reference = message.reference.clone();
        match &message.event {
            ClientEvent::Join(payload) => self.join(message, payload, now, effects),
            ClientEvent::Leave => {
                // Unlike other events, a leave must have the channel's `join_ref`, if there is one:
                // a late leave must not end a channel that has been joined again (protocol 2.5).
                if channel.join_ref.is_none() || channel.join_ref == message.join_ref {
                    effects.push(Effect::Send(channel.reply(reference, Reply::Ok)));
                    effects.push(Effect::Send(channel.close()));
                    effects.push(Effect::Detach(channel.id));
                    self.channels.remove(&*message.topic);
                }
            }
            ClientEvent::AccessToken(payload) => {
                self.refresh(message, payload, now, effects);
            }
            ClientEvent::Broadcast(payload) => {
                self.broadcast(message, &Push::Text(payload), now, effects);
            }
            ClientEvent::UserBroadcast {
                event,
                metadata,
                encoding,
                payload,
            } => {
                let push = Push::User {
                    event,
                    metadata,
                    encoding: *encoding,
                    payload,
                };
                self.broadcast(message, &push, now, effects);
            }
            ClientEvent::Presence(push) => self.presence(message, push, now, effects),
            // These events receive no reply, as in Supabase Realtime. A heartbeat is valid only on
            // its own topic.
            ClientEvent::Heartbeat | ClientEvent::Other(_) => {
                self.shared
                    .hub
                    .metrics()
                    .dropped(DropReason::NotExpressible);
            }
        }
    }
}

impl ClientEvent<'_> {
    /// Returns whether the purpose of the event is to start or end a channel, or to change its
    /// identity. The deadlines of all channels are searched after such an event. After the other
    /// events, which are more frequent, they are searched only if the event ended a channel.
    fn may_move_deadlines(&self) -> bool {
        match self {
            Self::Join(_) | Self::Leave | Self::AccessToken(_) => true,
            Self::Heartbeat
            | Self::Broadcast(_)
            | Self::UserBroadcast { .. }
            | Self::Presence(_)
            | Self::Other(_) => false,
        }
    }
}
