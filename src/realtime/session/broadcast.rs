//! Broadcasts from a client: which ones are forwarded, and how the sender learns that one was
//! refused (protocol 4).

use serde_json::value::RawValue;

use super::super::channel::{Channel, Writing};
use super::super::error::BroadcastRefusal;
use super::super::protocol::{
    Broadcast, ClientMessage, PayloadEncoding, Persist, PersistError, Reply, UserPayload,
};
use super::effect::{BroadcastOrder, Effect};
use super::state::Session;
use crate::config::RealtimeConfig;
use crate::limits::UnixMillis;
use crate::observability::metrics::{DropReason, Limit};

/// The error text for a channel that sends while the server exceeds its rate of events (protocol
/// 3.5).
const TOO_MANY_EVENTS: &str = "Too many messages per second";

/// A push that requests a broadcast. As in Supabase Realtime, the metadata of a binary push is not
/// forwarded. It determines whether the message is stored.
pub(super) enum Push<'a> {
    /// A text push.
    Text(&'a RawValue),
    /// A binary push.
    User {
        /// The user's own event name.
        event: &'a str,
        /// The text of a JSON object, or empty.
        metadata: &'a str,
        /// How to read `payload`.
        encoding: PayloadEncoding,
        /// The user's payload.
        payload: &'a [u8],
    },
}

impl Session {
    /// Handles a `broadcast` push, text or binary, on a joined channel.
    pub(super) fn broadcast(
        &mut self,
        message: &ClientMessage<'_>,
        push: &Push<'_>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        if self.shared.hub.rates().events.is_over() {
            self.close_over_rate(message, now, effects);
            return;
        }
        let accepted = accept(channel, push, &self.shared.config);
        if accepted.is_ok() && !self.may_write(message, Writing::Broadcast, now, effects) {
            return;
        }
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        match accepted {
            Ok((broadcast, Some(persist))) => self.store(message, &broadcast, persist, effects),
            Ok((broadcast, None)) => effects.push(Effect::Broadcast(BroadcastOrder {
                topic: channel.key(),
                message: broadcast.into(),
                except: (!channel.echo).then_some(channel.id),
                reply: channel
                    .ack
                    .then(|| channel.reply(message.reference.clone(), Reply::Ok)),
            })),
            Err(refusal) => {
                let metrics = self.shared.hub.metrics();
                metrics.dropped(refusal.drop_reason());
                if let Some(limit) = refusal.limit() {
                    metrics.limited(limit);
                }
                if channel.ack {
                    let reply = channel.reply(message.reference.clone(), refusal.reply());
                    effects.push(Effect::Send(reply));
                } else {
                    self.send_limited_notice(
                        &message.topic,
                        refusal.to_string().into(),
                        now,
                        effects,
                    );
                }
            }
        }
    }

    /// Closes a channel that sends while the server exceeds its rate of events (protocol 4.4).
    fn close_over_rate(
        &mut self,
        message: &ClientMessage<'_>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let metrics = self.shared.hub.metrics();
        metrics.limited(Limit::Events);
        metrics.dropped(DropReason::RateLimited);
        if let Some(channel) = self.channels.get(&*message.topic).filter(|it| it.ack) {
            let reply = channel.reply(
                message.reference.clone(),
                Reply::Error(TOO_MANY_EVENTS.into()),
            );
            effects.push(Effect::Send(reply));
        }
        self.close_channel(&message.topic, TOO_MANY_EVENTS.to_owned(), now, effects);
    }
}

/// Returns the broadcast that a push requests and how to store it, or the reason why it is refused.
fn accept<'a>(
    channel: &Channel,
    push: &Push<'a>,
    config: &RealtimeConfig,
) -> Result<(Broadcast<'a>, Option<Persist>), BroadcastRefusal> {
    let limit = config.max_broadcast_bytes;
    let mut persist = None;
    let check_size = |bytes: usize| match bytes {
        bytes if bytes > limit => Err(BroadcastRefusal::TooLarge(limit)),
        _ => Ok(()),
    };
    let broadcast = match push {
        Push::Text(payload) => {
            check_size(payload.get().len())?;
            Broadcast::Text { payload }
        }
        Push::User {
            event,
            metadata,
            encoding,
            payload,
        } => {
            check_size(payload.len())?;
            persist = Persist::from_metadata(metadata, config.max_message_ttl_seconds())?;
            if persist.is_some() && !channel.is_private() {
                return Err(PersistError::Public.into());
            }
            Broadcast::User {
                event,
                metadata: "",
                payload: match encoding {
                    PayloadEncoding::Json => UserPayload::json(payload)?,
                    PayloadEncoding::Binary => UserPayload::Binary(payload),
                },
            }
        }
    };
    broadcast.check(&channel.topic)?;
    Ok((broadcast, persist))
}
