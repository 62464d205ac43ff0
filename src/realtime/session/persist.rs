//! Broadcasts that are stored before they are sent (protocol 4.8).
//!
//! A channel stores one broadcast at a time, and its further messages wait. This preserves the
//! order of a sender's messages, whether or not they are stored.

use std::sync::Arc;

use uuid::Uuid;

use super::super::error::store_refusal;
use super::super::messages::store::{StoreError, StoreOrder, StorePayload};
use super::super::protocol::{Broadcast, ClientMessage, Persist, Ref, Reply, UserPayload};
use super::effect::{Effect, PersistOrder};
use super::state::Session;
use crate::limits::UnixMillis;
use crate::observability::metrics::DropReason;

impl Session {
    /// Starts storing a broadcast that was accepted and that the client may send.
    pub(super) fn store(
        &mut self,
        message: &ClientMessage<'_>,
        broadcast: &Broadcast<'_>,
        persist: Persist,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return;
        };
        // Only a binary push has metadata, so only a binary push can request to be stored.
        let Broadcast::User { event, payload, .. } = broadcast else {
            return;
        };
        let payload = match payload {
            UserPayload::Json(text) => StorePayload::Json((*text).into()),
            UserPayload::Binary(bytes) => StorePayload::Binary((*bytes).into()),
        };
        channel.storing = Some(event.len() + payload.bytes());
        effects.push(Effect::Persist(PersistOrder {
            channel: channel.id,
            topic: Arc::clone(&channel.topic),
            reference: message.reference.clone(),
            store: StoreOrder {
                topic: channel.key(),
                event: (*event).into(),
                payload,
                persist,
                except: (!channel.echo).then_some(channel.id),
                claims: Arc::clone(&channel.holder.claims),
                headers: Arc::clone(&self.headers),
            },
        }));
        self.count_held();
    }

    /// Handles the result of storing. After an error, the broadcast was neither stored nor sent.
    pub(super) fn stored_broadcast(
        &mut self,
        topic: &Arc<str>,
        reference: Option<Ref>,
        result: Result<Uuid, StoreError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        channel.storing = None;
        match result {
            Ok(id) => {
                if channel.ack {
                    effects.push(Effect::Send(channel.reply(reference, Reply::Stored(id))));
                }
            }
            Err(error) => {
                let text = store_refusal(&error, channel.sub_topic());
                self.shared.hub.metrics().dropped(DropReason::Forbidden);
                if channel.ack {
                    let reply = channel.reply(reference, Reply::NotStored(text));
                    effects.push(Effect::Send(reply));
                } else {
                    self.send_limited_notice(topic, text, now, effects);
                }
            }
        }
        self.receive_waiting(topic, now, effects);
    }
}
