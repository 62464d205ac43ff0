//! Presence pushes: their checks, limits and replies (protocol 5).

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::super::channel::{Channel, Holder, Tracked, Tracking, Writing};
use super::super::error::PresenceRefusal;
use super::super::protocol::{ClientMessage, PresenceCall, Reply, TrackPayload, is_hostile_key};
use super::effect::{Effect, TrackOrder};
use super::state::Session;
use crate::limits::UnixMillis;

/// Maximum total size of the presence keys and payloads that one socket may track on all its
/// channels, in bytes. A single payload may be as large as a broadcast, but it stays in memory as
/// long as its channel.
const MAX_TRACKED_BYTES: usize = 8 << 20;

impl Session {
    /// Handles a `presence` push on a joined channel. Each push receives a reply.
    pub(super) fn presence(
        &mut self,
        message: &ClientMessage<'_>,
        push: &RawValue,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let call = PresenceCall::parse(push);
        // The permission is checked before the push is counted, because a message that waits for
        // the policies is handled twice.
        if matches!(call, PresenceCall::Track(_))
            && !self.may_write(message, Writing::Presence, now, effects)
        {
            return;
        }
        let carried_out = self.carry_out(message, call, now, effects);
        self.count_held();
        if let Err(refusal) = carried_out
            && let Some(channel) = self.channels.get(&*message.topic)
        {
            refusal.count(self.shared.hub.metrics());
            let reply = channel.reply(message.reference.clone(), refusal.reply());
            effects.push(Effect::Send(reply));
        }
    }

    fn carry_out(
        &mut self,
        message: &ClientMessage<'_>,
        call: PresenceCall<'_>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) -> Result<(), PresenceRefusal> {
        let config = &self.shared.config;
        let tracked_elsewhere: usize = self
            .channels
            .values()
            .filter(|channel| *channel.topic != *message.topic)
            .map(|channel| channel.tracking.tracked.bytes())
            .sum();
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return Ok(());
        };
        let is_counted = !matches!(call, PresenceCall::Missing);
        let hub = &self.shared.hub;
        let (calls, window) = (config.max_presence_calls_per_window, config.presence_window);
        if is_counted && !channel.tracking.calls.take(calls, window, now) {
            return Err(PresenceRefusal::TooManyCalls);
        }
        if is_counted && hub.rates().presence.is_over() {
            return Err(PresenceRefusal::TooManyEvents);
        }
        hub.rates().presence.add(u64::from(is_counted));
        let reply = |reply| channel.reply(message.reference.clone(), reply);
        match call {
            PresenceCall::Missing => effects.push(Effect::Send(reply(Reply::Ok))),
            PresenceCall::Unknown => return Err(PresenceRefusal::UnknownEvent),
            PresenceCall::Untrack => {
                let reply = reply(Reply::Ok);
                channel.untrack(effects);
                effects.push(Effect::Send(reply));
            }
            PresenceCall::Track(payload) => {
                let bytes = payload.map_or(0, |payload| payload.get().len());
                if bytes > config.max_broadcast_bytes {
                    return Err(PresenceRefusal::TooLarge);
                }
                let payload = match payload {
                    Some(payload) => {
                        TrackPayload::parse(payload).map_err(|_| PresenceRefusal::NotAMap)?
                    }
                    None => TrackPayload::default(),
                };
                let reply = reply(Reply::Ok);
                let key = channel.tracking.key();
                if is_hostile_key(&key) {
                    return Err(PresenceRefusal::HostileKey(key));
                }
                let bytes = key.len() + bytes;
                if tracked_elsewhere + bytes > MAX_TRACKED_BYTES {
                    return Err(PresenceRefusal::TooLarge);
                }
                channel.tracking.tracked = Tracked::Payload { bytes };
                effects.push(Effect::Track(TrackOrder {
                    channel: channel.id,
                    key,
                    payload,
                    reply,
                }));
            }
        }
        Ok(())
    }
}

impl Channel {
    /// Removes the presence of the channel.
    pub(super) fn untrack(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Untrack(self.id));
        self.tracking.tracked = Tracked::Nothing;
    }
}

impl Tracking {
    /// Returns the presence key on a managed topic (see `Rights::is_managed`), which is the `sub`
    /// of the token. Returns `None` if there is no `sub`. The key is then random, never chosen by
    /// the client.
    pub(super) fn key_of_subject(holder: &Holder) -> Option<Arc<str>> {
        let subject = holder.claims.subject.as_deref();
        subject.filter(|it| !it.is_empty()).map(Arc::from)
    }

    /// Returns whether the channel tracks a payload, or tried to when the topic was full.
    pub(super) fn is_tracking(&self) -> bool {
        self.tracked != Tracked::Nothing
    }

    /// Returns the presence key of the channel. If there is none yet, generates a unique one.
    fn key(&mut self) -> Arc<str> {
        let key = self
            .key
            .get_or_insert_with(|| Uuid::new_v4().to_string().into());
        Arc::clone(key)
    }
}
