//! One connection without I/O: a message or an event in, effects out.
//!
//! The session decides; `socket.rs` carries out. Nothing here waits, reads a clock or knows a
//! stream: the time is an argument, and what needs the database is an effect whose outcome
//! comes back as an [`Outcome`]. While such work is under way for a topic, its messages wait in
//! order, and every other topic goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::channel::authorize::Permission;
use super::channel::postgres_changes::{self, Subscription};
use super::channel::{Channel, Holder, Joining, OwnedMessage, TokenMark, TokenMarks};
use super::error::{JoinRefusal, expiry, no_permission, token_text};
use super::hub::{Hub, MemberSpec, StreamState};
use super::limits::{Bucket, UnixMillis};
use super::protocol::{
    AccessToken, ClientEvent, ClientMessage, JoinPayload, Ref, Reply, ServerMessage, Status,
    SystemNotice, TOPIC_PREFIX, sub_topic,
};
use crate::auth::{Claims, Verifier};
use crate::config::RealtimeConfig;
use crate::observability::metrics::DropReason;
use crate::visibility::{Binding, ChannelId, Identity, SubscribeError, SubscribeOptions};
use serde_json::value::RawValue;

/// Messages of one topic that wait for the answer to its join. Clients buffer on their side
/// until then, so more than a handful is no client.
const MAX_WAITING: usize = 64;

/// Bytes of their payloads.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// Bindings of one channel. The original sets no limit; registering is work per binding.
const MAX_BINDINGS: usize = 1_000;

/// How long the reply to a join waits for its bindings to be registered. Clients give up on a
/// join after ten seconds, and the database's part takes milliseconds.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(3);

/// How long a join waits whose client asked for it: the original's default and its maximum.
const WAIT_DEFAULT_MS: u64 = 15_000;
const WAIT_MAX_MS: u64 = 20_000;

/// What a push is answered that asks for a part of the protocol this server does not have.
const NO_BROADCAST: &str = "Broadcast is not available on this server";
const NO_PRESENCE: &str = "Presence is not available on this server";
/// What a push is answered that comes while too many wait.
const TOO_MANY_WAITING: &str = "Too many messages before the join was answered";
/// What a channel is told whose bindings are not registered in time.
const SUBSCRIBE_LATE: &str = "Changes are not live yet: the database takes long to answer";

/// What all sessions share.
pub struct Shared {
    /// Verifies tokens.
    pub verifier: Verifier,
    /// Settings.
    pub config: RealtimeConfig,
    /// Who is here.
    pub hub: Arc<Hub>,
    /// Recognizes tokens.
    pub marks: TokenMarks,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Queue a message for the client.
    Send(ServerMessage),
    /// Make a channel known to the hub; its deliveries are held.
    Attach(ChannelId, MemberSpec),
    /// Let its deliveries through.
    Open(ChannelId),
    /// Forget a channel, in the hub and in visibility.
    Detach(ChannelId),
    /// Register bindings, aside.
    Subscribe(SubscribeOrder),
    /// Ask for permissions, aside.
    Authorize(AuthorizeOrder),
}

/// Bindings to be registered.
#[derive(Debug, PartialEq)]
pub struct SubscribeOrder {
    /// For this channel.
    pub channel: ChannelId,
    /// Its topic, by which the outcome finds it.
    pub topic: Arc<str>,
    /// Under this identity.
    pub identity: Arc<Identity>,
    /// All its bindings.
    pub bindings: Vec<Binding>,
    /// What it wants differently.
    pub options: SubscribeOptions,
    /// When the session wants to hear that it takes long; the work goes on.
    pub patience: Duration,
    /// Attempts in a row that met no database: there is a pause before the next.
    pub failures: u32,
    /// Done only when the change stream is live.
    pub until_live: bool,
}

/// Permissions to be asked for.
#[derive(Debug, PartialEq)]
pub struct AuthorizeOrder {
    /// For this channel.
    pub channel: ChannelId,
    /// Its topic, by which the outcome finds it.
    pub topic: Arc<str>,
    /// For these claims.
    pub claims: Arc<Claims>,
    /// The mark of the token they came in, which the outcome repeats.
    pub mark: TokenMark,
    /// Presence is asked for as well.
    pub presence: bool,
}

/// What came of work done aside.
#[derive(Debug)]
pub struct Outcome {
    /// The channel it was for.
    pub channel: ChannelId,
    /// Its topic.
    pub topic: Arc<str>,
    /// What it was.
    pub result: WorkResult,
}

/// See [`Outcome`].
#[derive(Debug)]
pub enum WorkResult {
    /// Bindings are registered, and this is where the change stream stands; or they are not.
    Subscribed(Result<StreamState, SubscribeError>),
    /// Registering takes long and goes on.
    SubscribeLate,
    /// What a question about this holder's permissions was answered.
    Authorized(Permission, TokenMark),
}

/// One connection.
pub struct Session {
    shared: Arc<Shared>,
    /// Who the connection was opened by.
    connection: Holder,
    channels: HashMap<Arc<str>, Box<Channel>>,
    joins: Bucket,
    /// Nothing happens by itself before this time.
    deadline: Option<UnixMillis>,
}

impl Session {
    /// A connection that was opened with verified claims.
    pub fn new(shared: Arc<Shared>, connection: Holder, now: UnixMillis) -> Self {
        let joins = Bucket::full(join_burst(&shared.config), now);
        Self {
            shared,
            connection,
            channels: HashMap::new(),
            joins,
            deadline: None,
        }
    }

    /// When [`Session::tick`] is to be called next.
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.deadline
    }

    /// A message from the client.
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
        match self.channels.get_mut(&*message.topic) {
            Some(channel) => {
                if let Some(joining) = &mut channel.joining {
                    let owned = OwnedMessage::new(message, Arc::clone(&channel.topic));
                    if let Some(refused) = joining.wait(owned) {
                        self.shared.hub.metrics().dropped(DropReason::RateLimited);
                        if refused.is_some() {
                            effects.push(Effect::Send(
                                channel.reply(refused, Reply::Error(TOO_MANY_WAITING.into())),
                            ));
                        }
                    }
                    return;
                }
                self.receive_joined(message, now, effects);
            }
            None => self.receive_unjoined(message, now, effects),
        }
        self.find_deadline();
    }

    /// Work that was done aside is done.
    pub fn complete(&mut self, outcome: Outcome, now: UnixMillis, effects: &mut Vec<Effect>) {
        let Some(channel) = self
            .channels
            .get_mut(&outcome.topic)
            .filter(|channel| channel.id == outcome.channel)
        else {
            // The channel left meanwhile: whatever was registered for it must not stay.
            effects.push(Effect::Detach(outcome.channel));
            return;
        };
        match outcome.result {
            WorkResult::SubscribeLate => {
                if channel.is_joining_without_wait() {
                    self.join_done(&outcome.topic, effects);
                    self.tell(
                        &outcome.topic,
                        SystemNotice::changes_error(SUBSCRIBE_LATE),
                        effects,
                    );
                    self.settle(&outcome.topic, now, effects);
                }
            }
            WorkResult::Subscribed(result) => {
                self.subscribed(&outcome.topic, result, now, effects);
            }
            WorkResult::Authorized(permission, mark) => {
                self.authorized(&outcome.topic, permission, mark, now, effects);
            }
        }
        self.find_deadline();
    }

    /// The time of [`Session::deadline`] has come.
    pub fn tick(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        let warn_before = self.shared.config.expiry_warning;
        let topics: Vec<_> = self.channels.keys().cloned().collect();
        for topic in topics {
            let Some(channel) = self.channels.get_mut(&topic) else {
                continue;
            };
            if let Some(joining) = &channel.joining {
                if joining.wait_until.is_some_and(|until| until <= now) {
                    self.refuse_joining(&topic, &JoinRefusal::DatabaseUnavailable, now, effects);
                }
                continue;
            }
            if let Some(error) = expiry(&channel.holder.claims, now.seconds()) {
                self.close_channel(&topic, token_text(&error), effects);
                continue;
            }
            let expires_at = channel.holder.expires_at();
            if !channel.is_warned && expires_at.before(warn_before) <= now {
                channel.is_warned = true;
                let seconds = expires_at.since(now).as_secs();
                let notice = SystemNotice::channel(
                    Status::Ok,
                    format!("Token expires in {seconds} seconds"),
                );
                effects.push(Effect::Send(channel.system(notice)));
            }
        }
        self.find_deadline();
    }

    /// The socket is gone: so are its channels.
    pub fn end(&mut self, effects: &mut Vec<Effect>) {
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
        let reply = match &message.event {
            ClientEvent::Join(payload) if message.topic.starts_with(TOPIC_PREFIX) => {
                self.join(message, payload, now, effects);
                return;
            }
            ClientEvent::Leave => Reply::Ok,
            _ => {
                self.shared.hub.metrics().dropped(DropReason::NotJoined);
                Reply::Error("unmatched topic".into())
            }
        };
        effects.push(Effect::Send(ServerMessage::Reply {
            join_ref: None,
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
                // Strict, unlike everything else: a leave that is late must not end the channel
                // that was joined since (protocol 2.5, 2.6).
                if channel.join_ref.is_none() || channel.join_ref == message.join_ref {
                    effects.push(Effect::Send(channel.reply(reference, Reply::Ok)));
                    effects.push(Effect::Send(channel.close()));
                    effects.push(Effect::Detach(channel.id));
                    self.channels.remove(&*message.topic);
                }
            }
            ClientEvent::AccessToken(payload) => {
                self.refresh(&message.topic, payload, now, effects);
            }
            ClientEvent::Broadcast(_) | ClientEvent::UserBroadcast { .. } => {
                self.shared
                    .hub
                    .metrics()
                    .dropped(DropReason::NotExpressible);
                if channel.ack {
                    effects.push(Effect::Send(
                        channel.reply(reference, Reply::Error(NO_BROADCAST.into())),
                    ));
                }
            }
            ClientEvent::Presence(_) => {
                self.shared
                    .hub
                    .metrics()
                    .dropped(DropReason::NotExpressible);
                effects.push(Effect::Send(
                    channel.reply(reference, Reply::Error(NO_PRESENCE.into())),
                ));
            }
            // No reply, as in the original; a heartbeat is one on its own topic only.
            ClientEvent::Heartbeat | ClientEvent::Other(_) => {
                self.shared
                    .hub
                    .metrics()
                    .dropped(DropReason::NotExpressible);
            }
        }
    }

    fn join(
        &mut self,
        message: &ClientMessage<'_>,
        payload: &RawValue,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        // A second join of a topic ends the first, whatever becomes of the second.
        let replaced = self.channels.remove(&*message.topic).map(|channel| {
            effects.push(Effect::Detach(channel.id));
            channel.join_ref
        });
        match self.begin_join(message, payload, now, effects) {
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
        payload: &RawValue,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) -> Result<Arc<str>, JoinRefusal> {
        let config = &self.shared.config;
        let topic: Arc<str> = (*message.topic).into();
        let sub_topic = sub_topic(&topic);
        if sub_topic.is_empty() {
            return Err(JoinRefusal::TopicNameRequired);
        }
        if self.shared.hub.is_stopping() {
            return Err(JoinRefusal::Restarting);
        }
        let payload = JoinPayload::parse(payload);
        let join = payload.config.as_ref();
        let is_private = join.is_some_and(|join| join.private);
        if config.private_only && !is_private {
            return Err(JoinRefusal::PrivateOnly);
        }
        if !self
            .joins
            .take(join_burst(config), config.joins_per_second, now)
        {
            return Err(JoinRefusal::TooManyJoins);
        }
        if self.channels.len() >= config.max_channels_per_socket {
            return Err(JoinRefusal::TooManyChannels);
        }
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
            presence: join.is_some_and(|join| join.presence.enabled),
            is_private,
            is_warned: false,
            subscription,
            joining: Some(Box::new(Joining {
                reply: postgres_changes::echo(params, &ids),
                replaced: None,
                wait_until,
                waiting: std::collections::VecDeque::new(),
                waiting_bytes: 0,
            })),
            refreshing: None,
        };
        effects.push(Effect::Attach(
            channel.id,
            MemberSpec {
                topic: Arc::clone(&topic),
                join_ref: channel.push_ref(),
                is_legacy: join.is_none(),
            },
        ));
        self.channels.insert(Arc::clone(&topic), Box::new(channel));
        Ok(topic)
    }

    /// The next step of a join: permissions, then bindings, then the reply.
    fn advance_join(&mut self, topic: &Arc<str>, now: UnixMillis, effects: &mut Vec<Effect>) {
        let Some(channel) = self.channels.get(topic) else {
            return;
        };
        if channel.is_private {
            effects.push(Effect::Authorize(AuthorizeOrder {
                channel: channel.id,
                topic: Arc::clone(topic),
                claims: Arc::clone(&channel.holder.claims),
                mark: channel.holder.mark,
                presence: channel.presence,
            }));
            return;
        }
        self.subscribe_joining(topic, now, effects);
    }

    fn subscribe_joining(&mut self, topic: &Arc<str>, now: UnixMillis, effects: &mut Vec<Effect>) {
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

    fn subscribed(
        &mut self,
        topic: &Arc<str>,
        result: Result<StreamState, SubscribeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let is_waited_for = channel
            .joining
            .as_ref()
            .is_some_and(|joining| joining.wait_until.is_some());
        let Some(subscription) = &mut channel.subscription else {
            return;
        };
        subscription.is_running = false;
        let was_failing = subscription.failures > 0;
        let mut again = std::mem::take(&mut subscription.is_stale);
        let notice = match &result {
            Ok(state) => {
                subscription.failures = 0;
                Some(state.notice())
            }
            Err(error) if error.is_retryable() => {
                subscription.failures = subscription.failures.saturating_add(1);
                again = true;
                // Said once: the next news is that it works.
                (!was_failing).then(|| SystemNotice::changes_error(error.client_text()))
            }
            Err(error) if is_waited_for => {
                let refusal = JoinRefusal::Subscription(error.client_text());
                self.refuse_joining(topic, &refusal, now, effects);
                return;
            }
            Err(error) => Some(SystemNotice::changes_error(error.client_text())),
        };
        let keeps_waiting = is_waited_for && result.is_err();
        if again {
            effects.extend(channel.subscribe());
        }
        if keeps_waiting {
            return;
        }
        let was_joining = channel.joining.is_some();
        if was_joining {
            self.join_done(topic, effects);
        }
        if let Some(notice) = notice {
            self.tell(topic, notice, effects);
        }
        if was_joining {
            self.settle(topic, now, effects);
        }
    }

    fn authorized(
        &mut self,
        topic: &Arc<str>,
        permission: Permission,
        mark: TokenMark,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let name = channel.sub_topic().to_owned();
        if channel.joining.is_some() {
            match permission {
                Permission::Read => self.subscribe_joining(topic, now, effects),
                Permission::None => {
                    self.refuse_joining(topic, &JoinRefusal::Unauthorized(name), now, effects);
                }
                Permission::Unknown => {
                    self.refuse_joining(topic, &JoinRefusal::DatabaseUnavailable, now, effects);
                }
            }
            return;
        }
        // A newer token may have come since: then this answer is about nobody any more.
        let Some(holder) = channel.refreshing.take_if(|holder| holder.mark == mark) else {
            return;
        };
        match permission {
            Permission::Read => {
                channel.take_over(*holder);
                effects.extend(channel.subscribe());
            }
            Permission::None => self.close_channel(topic, no_permission(&name), effects),
            Permission::Unknown => self.close_channel(
                topic,
                "Realtime was unable to connect to the project database".to_owned(),
                effects,
            ),
        }
    }

    /// Answers a join: the reply, the end of the channel it replaces, then what was held.
    fn join_done(&mut self, topic: &Arc<str>, effects: &mut Vec<Effect>) {
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
    }

    /// What comes after the first news of a join: the presence of others, then the messages that
    /// waited.
    fn settle(&mut self, topic: &Arc<str>, now: UnixMillis, effects: &mut Vec<Effect>) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        if channel.presence {
            // Clients show nobody joining before they have seen a state (protocol 5.2).
            effects.push(Effect::Send(ServerMessage::PresenceState {
                join_ref: channel.push_ref(),
                topic: Arc::clone(topic),
                state: "{}".into(),
            }));
        }
        let waiting = channel.joining.take().map(|joining| joining.waiting);
        self.receive_waiting(waiting.unwrap_or_default(), now, effects);
    }

    fn receive_waiting(
        &mut self,
        waiting: impl IntoIterator<Item = OwnedMessage>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        for message in waiting {
            self.receive(&message.borrow(), now, effects);
        }
    }

    fn refuse_joining(
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
        self.receive_waiting(joining.waiting, now, effects);
    }

    fn refuse(
        &self,
        topic: &Arc<str>,
        (join_ref, reference): (Option<Ref>, Option<Ref>),
        replaced: Option<Option<Ref>>,
        refusal: &JoinRefusal,
        effects: &mut Vec<Effect>,
    ) {
        self.shared.hub.metrics().joins_refused.inc();
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

    /// `access_token`: never answered (protocol 3.6).
    fn refresh(
        &mut self,
        topic: &str,
        payload: &RawValue,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let AccessToken::Token(token) = AccessToken::parse(payload) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let mark = self.shared.marks.of(&token);
        let current = channel.refreshing.as_deref().unwrap_or(&channel.holder);
        if current.mark == mark {
            return;
        }
        match self.shared.verifier.verify_socket(&token) {
            Err(error) => self.close_channel(topic, token_text(&error), effects),
            Ok(claims) => {
                let holder = Holder { claims, mark };
                if let Some(error) = expiry(&holder.claims, now.seconds()) {
                    self.close_channel(topic, token_text(&error), effects);
                } else if channel.is_private {
                    effects.push(Effect::Authorize(AuthorizeOrder {
                        channel: channel.id,
                        topic: Arc::clone(&channel.topic),
                        claims: Arc::clone(&holder.claims),
                        mark: holder.mark,
                        presence: channel.presence,
                    }));
                    channel.refreshing = Some(Box::new(holder));
                } else {
                    channel.take_over(holder);
                    effects.extend(channel.subscribe());
                }
            }
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

    /// Ends a channel and says why. The socket stays.
    fn close_channel(&mut self, topic: &str, why: String, effects: &mut Vec<Effect>) {
        if let Some(channel) = self.channels.remove(topic) {
            let notice = SystemNotice::channel(Status::Error, why);
            effects.push(Effect::Send(channel.system(notice)));
            effects.push(Effect::Send(channel.close()));
            effects.push(Effect::Detach(channel.id));
        }
    }

    fn tell(&self, topic: &str, notice: SystemNotice, effects: &mut Vec<Effect>) {
        if let Some(channel) = self.channels.get(topic) {
            effects.push(Effect::Send(channel.system(notice)));
        }
    }

    fn find_deadline(&mut self) {
        let warn_before = self.shared.config.expiry_warning;
        self.deadline = self
            .channels
            .values()
            .filter_map(|channel| match &channel.joining {
                Some(joining) => joining.wait_until,
                None if channel.is_warned => Some(channel.holder.expires_at()),
                None => Some(channel.holder.expires_at().before(warn_before)),
            })
            .min();
    }
}

impl Channel {
    fn is_joining_without_wait(&self) -> bool {
        self.joining
            .as_ref()
            .is_some_and(|joining| joining.wait_until.is_none())
    }

    /// Acts for somebody else from here on.
    fn take_over(&mut self, holder: Holder) {
        self.holder = holder;
        self.is_warned = false;
    }

    /// The order to register the bindings under the channel's present identity. One at a time:
    /// a second is made when the first is done.
    fn subscribe(&mut self) -> Option<Effect> {
        let until_live = self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.wait_until.is_some());
        let identity = self.holder.identity();
        let subscription = self.subscription.as_mut()?;
        let bindings = subscription.bindings.as_ref().ok()?.clone();
        if std::mem::replace(&mut subscription.is_running, true) {
            subscription.is_stale = true;
            return None;
        }
        Some(Effect::Subscribe(SubscribeOrder {
            channel: self.id,
            topic: Arc::clone(&self.topic),
            identity,
            bindings,
            options: subscription.options,
            patience: SUBSCRIBE_PATIENCE,
            failures: subscription.failures,
            until_live,
        }))
    }
}

impl Joining {
    /// Keeps a message for later. When there are too many: the reference to answer.
    fn wait(&mut self, message: OwnedMessage) -> Option<Option<Ref>> {
        let bytes = self.waiting_bytes + message.payload_bytes();
        if self.waiting.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES {
            return Some(message.into_reference());
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(message);
        None
    }
}

/// Joins that may come at once: a client that comes back joins all its channels together.
fn join_burst(config: &RealtimeConfig) -> u32 {
    let channels = u32::try_from(config.max_channels_per_socket).unwrap_or(u32::MAX);
    config.joins_per_second.max(channels)
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
