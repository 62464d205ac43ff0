//! Joins: the immediate checks, the work that needs the database, and the reply (protocol 3).

use std::sync::Arc;

use serde_json::value::RawValue;

use super::super::channel::postgres_changes::{self, Registration, Subscription};
use super::super::channel::{
    Access, Channel, Holder, JoinState, Joining, Replaced, Replay, ReplayParams, Rights, Tracked,
    Tracking, Wait, join_bytes,
};
use super::super::error::{JoinRefusal, expiry};
use super::super::hub::{MemberSpec, ReplayedMessage};
use super::super::protocol::{
    ClientMessage, JoinPayload, Ref, ReplayConfig, Reply, ServerMessage, SystemNotice, sub_topic,
};
use super::effect::{Effect, ReplayOrder};
use super::state::{Session, join_burst};
use crate::config::RealtimeConfig;
use crate::limits::{UnixMillis, Window};
use crate::observability::metrics::{DropReason, Limit};
use crate::visibility::SubscribeOptions;

/// Maximum number of bindings per channel, because each takes work to register. Supabase Realtime
/// has no limit.
const MAX_BINDINGS: usize = 1_000;

/// Maximum number of bindings of all channels of a socket, because each change of a table may be
/// compared with all of them. `visibility` limits those of a user over all sockets. Supabase
/// Realtime has no limit.
const MAX_BINDINGS_PER_SOCKET: usize = 2_000;

/// Maximum size of a join's topic and payload in bytes. A channel stores its topic and bindings, so
/// a socket can use this much memory per channel. Supabase Realtime closes a socket that uses 50
/// MB.
const MAX_JOIN_BYTES: usize = 256 << 10;

/// Number of stored messages to replay if the join sets no limit. Supabase Realtime has the same
/// default.
const REPLAY_DEFAULT_LIMIT: i64 = 25;

/// One replay may fill this fraction (1/n) of the socket's queue. Several channels of a socket may
/// request a replay at the same time, and live messages need room too.
const REPLAY_SHARE_OF_QUEUE: usize = 4;

/// How long the reply to a join waits if the client requests the wait without a time, in
/// milliseconds. Supabase Realtime has the same default.
const WAIT_DEFAULT_MS: u64 = 15_000;
/// The longest wait that a client can request, in milliseconds. Supabase Realtime has the same
/// limit.
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
        // The size is checked before parsing, because parsed JSON can take a hundred times the
        // memory of its text.
        let payload = if bytes > MAX_JOIN_BYTES {
            Err(JoinRefusal::TooLarge(MAX_JOIN_BYTES))
        } else if let Ok(payload) = JoinPayload::parse(payload) {
            Ok(payload)
        } else {
            self.shared.hub.metrics().dropped(DropReason::Malformed);
            return;
        };
        // A second join of a topic ends the first channel, even if the second join fails.
        let replaced = self.channels.remove(&*message.topic).map(|channel| {
            effects.push(Effect::Detach(channel.id));
            Replaced(channel.join_ref)
        });
        let begun = payload.and_then(|payload| self.begin_join(message, &payload, now, effects));
        match begun {
            Ok(topic) => {
                if let Some(joining) = self
                    .channels
                    .get_mut(&topic)
                    .and_then(|channel| channel.joining_mut())
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

    /// Makes the immediate checks, in the order of protocol 3.2, and creates the channel.
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
        let broadcast = join.map(|join| join.broadcast).unwrap_or_default();
        let replay = replay_params(broadcast.replay, is_private, &self.shared.config)?;
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
        // The channel that this join replaces does not count.
        let others = self.channels.iter().filter(|(other, _)| **other != topic);
        let bindings: usize = others.map(|(_, channel)| channel.bindings()).sum();
        if bindings + params.len() > MAX_BINDINGS_PER_SOCKET {
            return Err(JoinRefusal::TooManyBindingsOfSocket(
                MAX_BINDINGS_PER_SOCKET,
            ));
        }
        let ids = postgres_changes::assign_ids(params);
        let options = join
            .map(|join| join.postgres_changes_options)
            .unwrap_or_default();
        let wait = (options.wait && !params.is_empty()).then(|| {
            let millis = options
                .timeout_ms
                .unwrap_or(WAIT_DEFAULT_MS)
                .min(WAIT_MAX_MS);
            Wait {
                until: UnixMillis(now.0 + i64::try_from(millis).unwrap_or(0)),
                millis,
            }
        });
        let subscription = (!params.is_empty()).then(|| {
            Box::new(Subscription {
                bindings: postgres_changes::parse(params, &ids),
                options: SubscribeOptions {
                    bigint_as_string: options.bigint_as_string,
                },
                registration: Registration::Idle,
                failures: 0,
            })
        });
        let reply = postgres_changes::echo(params, &ids);
        let is_managed = is_private && (self.shared.is_managed)(sub_topic);
        let presence_key = if is_managed {
            Tracking::key_of_subject(&holder)
        } else {
            let wanted = join.and_then(|join| join.presence.key.as_deref());
            wanted.map(Arc::from)
        };
        let wants_presence = join.is_some_and(|join| join.presence.enabled);
        let channel = Channel {
            id: self.shared.hub.next_channel(),
            topic: Arc::clone(&topic),
            join_ref: message.join_ref.clone(),
            join_reference: message.reference.clone(),
            holder,
            ack: join.is_some_and(|join| join.broadcast.ack),
            echo: join.is_some_and(|join| join.broadcast.echo),
            bytes: join_bytes(&topic, presence_key.as_deref(), &reply),
            wants_presence,
            tracking: Tracking {
                key: presence_key,
                tracked: Tracked::Nothing,
                calls: Window::new(now),
            },
            access: if is_private {
                Access::Private(Box::new(Rights::new(is_managed, wants_presence)))
            } else {
                Access::Public
            },
            storing: None,
            subscription,
            join_state: JoinState::Joining(Box::new(Joining {
                reply,
                replaced: None,
                wait,
                replay: replay.map_or(Replay::None, Replay::Pending),
                awaits_messages: broadcast.replication_ready,
            })),
            unverified: None,
            waiting: None,
        };
        effects.push(Effect::Attach(
            channel.id,
            MemberSpec {
                topic: channel.key(),
                join_ref: channel.push_ref(),
                is_legacy: join.is_none(),
                // On a private topic, nothing may be read before the policies are checked.
                read: channel.access.read(),
                // A client that did not request presence still receives diffs if it may read
                // presence (protocol 5.3).
                awaits_state: channel.wants_presence,
                is_replaying: replay.is_some(),
                user_id: channel.holder.claims.user_id(),
            },
        ));
        self.channels.insert(Arc::clone(&topic), Box::new(channel));
        Ok(topic)
    }

    /// Checks that another join is within all limits. If it is, counts the join.
    fn within_limits(&mut self, now: UnixMillis) -> Result<(), Limit> {
        let (config, hub) = (&self.shared.config, &self.shared.hub);
        let joins = &hub.rates().joins;
        // A socket that has joined before is already counted as a user.
        if !self.counts_as_user && hub.user_count() >= config.max_concurrent_users {
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

    /// Starts the first step of a join: the permission check on a private topic, otherwise the
    /// registration of the bindings.
    fn advance_join(&mut self, topic: &Arc<str>, now: UnixMillis, effects: &mut Vec<Effect>) {
        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        if channel.is_private() {
            effects.extend(channel.check_read(&channel.holder, &self.headers, 0));
            return;
        }
        self.subscribe_joining(topic, now, effects);
    }

    /// Continues a private join after its permissions are known. If the join requests stored
    /// messages, reads them.
    pub(super) fn read_stored(
        &mut self,
        topic: &Arc<str>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        let Some(&Replay::Pending(params)) = channel.joining().map(|joining| &joining.replay)
        else {
            self.subscribe_joining(topic, now, effects);
            return;
        };
        if !channel.access.read().broadcast {
            let refusal = JoinRefusal::Unauthorized(channel.sub_topic().to_owned());
            self.refuse_joining(topic, &refusal, now, effects);
            return;
        }
        let max_bytes = self.shared.config.queue_max_bytes / REPLAY_SHARE_OF_QUEUE;
        effects.push(Effect::ReadStored(ReplayOrder {
            channel: channel.id,
            topic: Arc::clone(topic),
            params,
            max_bytes: i64::try_from(max_bytes).unwrap_or(i64::MAX),
        }));
    }

    /// Continues a join with its stored messages. `None` means that they could not be read.
    pub(super) fn continue_with_replay(
        &mut self,
        topic: &Arc<str>,
        messages: Option<Vec<ReplayedMessage>>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(joining) = self
            .channels
            .get_mut(topic)
            .and_then(|channel| channel.joining_mut())
        else {
            return;
        };
        let Some(messages) = messages else {
            self.refuse_joining(topic, &JoinRefusal::ReplayUnavailable, now, effects);
            return;
        };
        joining.replay = Replay::Read(messages);
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
            None => self.answer_join(topic, None, now, effects),
            Some(subscription) => match &subscription.bindings {
                Ok(_) => effects.extend(channel.subscribe()),
                Err(error) => {
                    let error = error.clone();
                    self.subscribed(topic, Err(error), now, effects);
                }
            },
        }
    }

    /// Answers a join: sends the reply, closes the replaced channel, replays messages and releases
    /// the deliveries that were held back. The notice about the bindings and the presence state
    /// follow. At the end, the waiting messages are handled. Does nothing if the join has already
    /// been answered.
    pub(super) fn answer_join(
        &mut self,
        topic: &Arc<str>,
        notice: Option<SystemNotice>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let joining = match std::mem::replace(
            &mut channel.join_state,
            JoinState::Joined { is_warned: false },
        ) {
            JoinState::Joining(joining) => *joining,
            joined @ JoinState::Joined { .. } => {
                channel.join_state = joined;
                return;
            }
        };
        let reference = channel.join_reference.clone();
        let reply = Reply::Joined(joining.reply);
        effects.push(Effect::Send(channel.reply(reference, reply)));
        if let Some(Replaced(join_ref)) = joining.replaced {
            effects.push(Effect::Send(ServerMessage::Close {
                join_ref,
                topic: Arc::clone(topic),
            }));
        }
        if let Replay::Read(messages) = joining.replay
            && !messages.is_empty()
        {
            effects.push(Effect::Replay(channel.id, messages));
        }
        effects.push(Effect::Open(channel.id));
        if joining.awaits_messages {
            effects.push(Effect::AwaitMessages(channel.id, Arc::clone(topic)));
        }
        if !std::mem::replace(&mut self.counts_as_user, true) {
            self.shared.hub.add_user();
        }
        if let Some(notice) = notice {
            effects.push(Effect::Send(channel.system(notice)));
        }
        if channel.wants_presence && channel.access.read().presence {
            // Clients report no joins of members until they have received a state (protocol 5.2).
            effects.push(Effect::PresenceState(channel.id));
        }
        channel.start_due_recheck(&self.headers, effects);
        self.receive_waiting(topic, now, effects);
    }

    pub(super) fn refuse_joining(
        &mut self,
        topic: &Arc<str>,
        refusal: &JoinRefusal,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.remove(topic) else {
            return;
        };
        effects.push(Effect::Detach(channel.id));
        let JoinState::Joining(joining) = channel.join_state else {
            return;
        };
        self.refuse(
            topic,
            (channel.join_ref, channel.join_reference),
            joining.replaced,
            refusal,
            effects,
        );
        for message in channel.waiting.unwrap_or_default().messages {
            self.receive(&message.borrow(), now, effects);
        }
    }

    fn refuse(
        &self,
        topic: &Arc<str>,
        (join_ref, reference): (Option<Ref>, Option<Ref>),
        replaced: Option<Replaced>,
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
        if let Some(Replaced(join_ref)) = replaced {
            effects.push(Effect::Send(ServerMessage::Close {
                join_ref,
                topic: Arc::clone(topic),
            }));
        }
    }

    /// Returns the identity that a join acts for: the identity in its token, or that of the
    /// connection.
    fn holder(&self, token: Option<&str>, now: UnixMillis) -> Result<Holder, JoinRefusal> {
        let Some(token) = token else {
            let claims = &self.opener.claims;
            return match expiry(claims, now.seconds()) {
                None => match self.shared.verifier.check_signer(claims) {
                    Ok(()) => Ok(self.opener.clone()),
                    Err(error) => Err(JoinRefusal::Token(error)),
                },
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

/// Checks the replay parameters of a join (protocol 4.7).
fn replay_params(
    replay: ReplayConfig,
    is_private: bool,
    config: &RealtimeConfig,
) -> Result<Option<ReplayParams>, JoinRefusal> {
    match replay {
        ReplayConfig::Absent => Ok(None),
        _ if !is_private => Err(JoinRefusal::ReplayOfPublicChannel),
        ReplayConfig::NotAnObject => Ok(None),
        ReplayConfig::Invalid => Err(JoinRefusal::ReplayParams),
        ReplayConfig::Since { since_ms, limit } => {
            let limit = limit.unwrap_or(REPLAY_DEFAULT_LIMIT);
            Ok(Some(ReplayParams {
                since_ms,
                limit: limit.clamp(1, config.replay_max_messages),
            }))
        }
    }
}
