//! Joining: what is decided at once, what waits for the database, and the reply (protocol 3).

use std::sync::Arc;

use serde_json::value::RawValue;

use super::super::channel::authorize::Permissions;
use super::super::channel::postgres_changes::{self, Subscription};
use super::super::channel::{Channel, Holder, Joining, Tracking, WritePermission};
use super::super::error::{JoinRefusal, expiry};
use super::super::hub::MemberSpec;
use super::super::limits::{UnixMillis, Window};
use super::super::protocol::{ClientMessage, JoinPayload, Ref, Reply, ServerMessage, sub_topic};
use super::Session;
use super::effect::Effect;
use crate::config::RealtimeConfig;
use crate::observability::metrics::{DropReason, Limit};
use crate::visibility::SubscribeOptions;

/// Bindings of one channel. The original sets no limit; registering is work per binding.
const MAX_BINDINGS: usize = 1_000;

/// Bytes of a join's topic and payload. A channel keeps its topic and bindings, so this times the
/// channels of a socket is what one socket can make the server hold; the original ends a socket
/// that holds 50 MB.
const MAX_JOIN_BYTES: usize = 256 << 10;

/// How long a join waits whose client asked for it: the original's default and its maximum.
const WAIT_DEFAULT_MS: u64 = 15_000;
const WAIT_MAX_MS: u64 = 20_000;

impl Session {
    pub(super) fn join(
        &mut self,
        message: &ClientMessage<'_>,
        payload: &RawValue,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let bytes = message.topic.len() + payload.get().len();
        // Before it is parsed: as values, JSON can take a hundred times the memory of its text.
        let payload = if bytes > MAX_JOIN_BYTES {
            Err(JoinRefusal::TooLarge(MAX_JOIN_BYTES))
        } else if let Ok(payload) = JoinPayload::parse(payload) {
            Ok(payload)
        } else {
            self.shared.hub.metrics().dropped(DropReason::Malformed);
            return;
        };
        // A second join of a topic ends the first, whatever becomes of the second.
        let replaced = self.channels.remove(&*message.topic).map(|channel| {
            effects.push(Effect::Detach(channel.id));
            channel.join_ref
        });
        let begun = payload.and_then(|payload| self.begin_join(message, &payload, now, effects));
        match begun {
            Ok(topic) => {
                if let Some(joining) = self
                    .channels
                    .get_mut(&topic)
                    .and_then(|channel| channel.joining.as_mut())
                {
                    joining.replaced = replaced;
                }
                self.advance_join(&topic, now, effects);
            }
            Err(refusal) => {
                let topic: Arc<str> = (*message.topic).into();
                self.refuse(
                    &topic,
                    (message.join_ref.clone(), message.reference.clone()),
                    replaced,
                    &refusal,
                    effects,
                );
            }
        }
    }

    /// Everything that can be decided at once, in the order of protocol 3.2.
    fn begin_join(
        &mut self,
        message: &ClientMessage<'_>,
        payload: &JoinPayload,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) -> Result<Arc<str>, JoinRefusal> {
        let topic: Arc<str> = (*message.topic).into();
        let sub_topic = sub_topic(&topic);
        if sub_topic.is_empty() {
            return Err(JoinRefusal::TopicNameRequired);
        }
        if self.shared.hub.is_stopping() {
            return Err(JoinRefusal::Restarting);
        }
        let join = payload.config.as_ref();
        let is_private = join.is_some_and(|join| join.private);
        if self.shared.config.private_only && !is_private {
            return Err(JoinRefusal::PrivateOnly);
        }
        self.within_limits(now).map_err(JoinRefusal::Limit)?;
        let holder = self.holder(payload.access_token.as_deref(), now)?;
        if join.is_some_and(|join| join.broadcast.replay) {
            return Err(if is_private {
                JoinRefusal::ReplayUnavailable
            } else {
                JoinRefusal::ReplayOfPublicChannel
            });
        }
        let derived;
        let params = match join {
            Some(join) => join.postgres_changes.as_slice(),
            None => {
                derived = [postgres_changes::from_sub_topic(sub_topic)];
                &derived
            }
        };
        if params.len() > MAX_BINDINGS {
            return Err(JoinRefusal::TooManyBindings(MAX_BINDINGS));
        }
        let ids = postgres_changes::assign_ids(params);
        let options = join
            .map(|join| join.postgres_changes_options)
            .unwrap_or_default();
        let wait_until = (options.wait && !params.is_empty()).then(|| {
            let millis = options
                .timeout_ms
                .unwrap_or(WAIT_DEFAULT_MS)
                .min(WAIT_MAX_MS);
            UnixMillis(now.0 + i64::try_from(millis).unwrap_or(0))
        });
        let subscription = (!params.is_empty()).then(|| {
            Box::new(Subscription {
                bindings: postgres_changes::parse(params, &ids),
                options: SubscribeOptions {
                    bigint_as_string: options.bigint_as_string,
                },
                is_running: false,
                is_stale: false,
                failures: 0,
            })
        });
        let channel = Channel {
            id: self.shared.hub.next_channel(),
            topic: Arc::clone(&topic),
            join_ref: message.join_ref.clone(),
            join_reference: message.reference.clone(),
            holder,
            ack: join.is_some_and(|join| join.broadcast.ack),
            echo: join.is_some_and(|join| join.broadcast.echo),
            presence: join.is_some_and(|join| join.presence.enabled),
            tracking: Tracking {
                key: join
                    .and_then(|join| join.presence.key.as_deref())
                    .map(Arc::from),
                bytes: 0,
                calls: Window::new(now),
            },
            is_private,
            read: if is_private {
                Permissions::default()
            } else {
                Permissions::ALL
            },
            is_presence_asked: join.is_some_and(|join| join.presence.enabled),
            write: WritePermission::NotAsked,
            is_warned: false,
            subscription,
            joining: Some(Box::new(Joining {
                reply: postgres_changes::echo(params, &ids),
                replaced: None,
                wait_until,
            })),
            refreshing: None,
            waiting: None,
        };
        effects.push(Effect::Attach(
            channel.id,
            MemberSpec {
                topic: channel.key(),
                join_ref: channel.push_ref(),
                is_legacy: join.is_none(),
                // Of a private topic nothing is read before the policies were asked.
                read: channel.read,
                // Who did not ask for presence gets diffs all the same, where it may read them
                // (protocol 5.3).
                awaits_state: channel.presence,
            },
        ));
        self.channels.insert(Arc::clone(&topic), Box::new(channel));
        Ok(topic)
    }

    /// Whether another join is within every limit, and counts it if so.
    fn within_limits(&mut self, now: UnixMillis) -> Result<(), Limit> {
        let (config, hub) = (&self.shared.config, &self.shared.hub);
        let joins = &hub.rates().joins;
        // A socket that has joined before is counted already.
        if !self.is_user && hub.user_count() >= config.max_concurrent_users {
            return Err(Limit::Users);
        }
        if joins.is_over() {
            return Err(Limit::Joins);
        }
        let per_second = config.max_joins_per_second_per_socket;
        if !self.joins.take(join_burst(config), per_second, now) {
            return Err(Limit::SocketJoins);
        }
        if self.channels.len() >= config.max_channels_per_socket {
            return Err(Limit::Channels);
        }
        joins.add(1);
        Ok(())
    }

    /// The next step of a join: permissions, then bindings, then the reply.
    fn advance_join(&mut self, topic: &Arc<str>, now: UnixMillis, effects: &mut Vec<Effect>) {
        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        if channel.is_private {
            effects.push(channel.ask_to_read(&channel.holder, &self.headers, 0));
            return;
        }
        self.subscribe_joining(topic, now, effects);
    }

    pub(super) fn subscribe_joining(
        &mut self,
        topic: &Arc<str>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        match &channel.subscription {
            None => {
                self.join_done(topic, effects);
                self.settle(topic, now, effects);
            }
            Some(subscription) => match &subscription.bindings {
                Ok(_) => effects.extend(channel.subscribe()),
                Err(error) => {
                    let error = error.clone();
                    self.subscribed(topic, Err(error), now, effects);
                }
            },
        }
    }

    /// Answers a join: the reply, the end of the channel it replaces, then what was held.
    pub(super) fn join_done(&mut self, topic: &Arc<str>, effects: &mut Vec<Effect>) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let Some(joining) = &mut channel.joining else {
            return;
        };
        let reply = Reply::Joined(std::mem::take(&mut joining.reply));
        let replaced = joining.replaced.take();
        let reference = channel.join_reference.clone();
        effects.push(Effect::Send(channel.reply(reference, reply)));
        if let Some(join_ref) = replaced {
            effects.push(Effect::Send(ServerMessage::Close {
                join_ref,
                topic: Arc::clone(topic),
            }));
        }
        effects.push(Effect::Open(channel.id));
        if !std::mem::replace(&mut self.is_user, true) {
            self.shared.hub.add_user();
        }
    }

    /// What comes after the first news of a join: the presence of others, then the messages that
    /// waited.
    pub(super) fn settle(&mut self, topic: &Arc<str>, now: UnixMillis, effects: &mut Vec<Effect>) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        if channel.presence && channel.read.presence {
            // Clients show nobody joining before they have seen a state (protocol 5.2).
            effects.push(Effect::PresenceState(channel.id));
        }
        channel.joining = None;
        self.receive_waiting(topic, now, effects);
    }

    pub(super) fn refuse_joining(
        &mut self,
        topic: &Arc<str>,
        refusal: &JoinRefusal,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(mut channel) = self.channels.remove(topic) else {
            return;
        };
        effects.push(Effect::Detach(channel.id));
        let Some(joining) = channel.joining.take() else {
            return;
        };
        self.refuse(
            topic,
            (channel.join_ref, channel.join_reference),
            joining.replaced,
            refusal,
            effects,
        );
        for message in channel.waiting.take().unwrap_or_default().messages {
            self.receive(&message.borrow(), now, effects);
        }
    }

    fn refuse(
        &self,
        topic: &Arc<str>,
        (join_ref, reference): (Option<Ref>, Option<Ref>),
        replaced: Option<Option<Ref>>,
        refusal: &JoinRefusal,
        effects: &mut Vec<Effect>,
    ) {
        let metrics = self.shared.hub.metrics();
        metrics.joins_refused.inc();
        if let JoinRefusal::Limit(limit) = refusal {
            metrics.limited(*limit);
        }
        effects.push(Effect::Send(ServerMessage::Reply {
            join_ref,
            reference,
            topic: Arc::clone(topic),
            reply: Reply::Error(refusal.reason()),
        }));
        if let Some(join_ref) = replaced {
            effects.push(Effect::Send(ServerMessage::Close {
                join_ref,
                topic: Arc::clone(topic),
            }));
        }
    }

    /// Who a join acts for: the token it brought, or the connection's.
    fn holder(&self, token: Option<&str>, now: UnixMillis) -> Result<Holder, JoinRefusal> {
        let Some(token) = token else {
            return match expiry(&self.connection.claims, now.seconds()) {
                None => Ok(self.connection.clone()),
                Some(error) => Err(JoinRefusal::Token(error)),
            };
        };
        let claims = self
            .shared
            .verifier
            .verify_socket(token)
            .map_err(JoinRefusal::Token)?;
        let mark = self.shared.marks.of(token);
        Ok(Holder { claims, mark })
    }
}

/// Joins that may come at once: a client that comes back joins all its channels together.
pub(super) fn join_burst(config: &RealtimeConfig) -> u32 {
    let channels = u32::try_from(config.max_channels_per_socket).unwrap_or(u32::MAX);
    config.max_joins_per_second_per_socket.max(channels)
}
