//! One connection without I/O: messages and events go in, effects come out.
//!
//! The session decides, and `socket.rs` executes. The code here never waits, reads a clock or uses
//! a stream. The time is an argument. Work that needs the database is an effect, and its result
//! returns as an [`Outcome`]. Until then, the messages of its topic wait in order. Other topics
//! continue.

mod broadcast;
mod effect;
mod join;
mod permission;
mod persist;
mod presence;
mod recheck;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use self::broadcast::Push;
pub use self::effect::{
    AuthorizeOrder, BroadcastOrder, Effect, Outcome, OwnedBroadcast, PersistOrder, RecheckOrder,
    RecheckOutcome, ReplayOrder, SubscribeOrder, TrackOrder, WorkResult,
};
use self::join::join_burst;
use super::channel::{Channel, Holder, Refreshing, TokenMarks, Tracking, WritePermission};
use super::error::{CloseReason, JoinRefusal, MESSAGES_LATE, MESSAGES_LIVE, expiry, token_text};
use super::hub::{Hub, StreamState};
use super::protocol::{
    AccessToken, ClientEvent, ClientMessage, Reply, ServerMessage, Status, SystemNotice,
    TOPIC_PREFIX,
};
use crate::auth::Verifier;
use crate::bus::people::Device;
use crate::config::RealtimeConfig;
use crate::limits::{Bucket, UnixMillis};
use crate::observability::metrics::DropReason;
use crate::visibility::SubscribeError;

/// How long the reply to a join waits for its bindings to be registered. Clients give up on a join
/// after ten seconds, and the database usually takes milliseconds.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(3);

/// Replies to pushes that arrive while too many messages wait.
const TOO_MANY_BEFORE_JOIN: &str = "Too many messages before the join was answered";
const TOO_MANY_WAITING: &str = "Too many messages before the permissions are known";
/// Notice for a channel whose bindings are not registered in time.
const SUBSCRIBE_LATE: &str = "Changes are not live yet: the database takes long to answer";

/// Data that all sessions share.
#[derive(Clone)]
pub struct Shared {
    /// Verifies tokens.
    pub verifier: Verifier,
    /// Settings.
    pub config: RealtimeConfig,
    /// The sockets and channels of this process.
    pub hub: Arc<Hub>,
    /// Recognizes tokens that were seen before.
    pub marks: TokenMarks,
    /// Whether the server manages presence keys and permissions on the private topic of this name,
    /// given without `realtime:`.
    pub is_managed: fn(&str) -> bool,
}

/// One connection.
pub struct Session {
    shared: Arc<Shared>,
    /// The identity that opened the connection.
    connection: Holder,
    /// The text of a JSON object that policies read as `request.headers`.
    headers: Arc<str>,
    channels: HashMap<Arc<str>, Box<Channel>>,
    joins: Bucket,
    /// The connection has joined a channel. From then on, it counts as a user until it ends
    /// (protocol 1.3).
    is_user: bool,
    /// Budget for notices about pushes that are refused without a reply.
    notices: Bucket,
    /// When the connection last became one without channels. `None` if it has channels.
    without_channel: Option<UnixMillis>,
    /// No timed event is due before this time.
    deadline: Option<UnixMillis>,
    /// The device that the connection counts as, for the person that a joined channel acts for.
    device: Option<Device>,
    /// Approximate memory, in bytes, that the server needs for the channels and the headers.
    held_bytes: usize,
}

impl Session {
    /// Creates a session for a connection that was opened with verified claims and these headers.
    pub fn new(
        shared: Arc<Shared>,
        connection: Holder,
        headers: Arc<str>,
        now: UnixMillis,
    ) -> Self {
        let joins = Bucket::full(join_burst(&shared.config), now);
        let mut session = Self {
            shared,
            connection,
            headers,
            channels: HashMap::new(),
            joins,
            is_user: false,
            without_channel: Some(now),
            notices: broadcast::notices(now),
            deadline: None,
            device: None,
            held_bytes: 0,
        };
        session.find_deadline(now);
        session
    }

    /// Returns when [`Session::tick`] must be called next.
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.deadline
    }

    /// Estimates the memory, in bytes, that the server needs for the session: its headers, its
    /// channels, and the messages that wait for them.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the connection has joined a channel since it was opened.
    pub fn has_joined(&self) -> bool {
        self.is_user
    }

    fn count_held(&mut self) {
        let channels = self.channels.values().map(|channel| channel.held_bytes());
        self.held_bytes = self.headers.len() + channels.sum::<usize>();
    }

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
                if channel.is_holding() {
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
        let Some(channel) = self
            .channels
            .get_mut(&outcome.topic)
            .filter(|channel| channel.id == outcome.channel)
        else {
            // The channel has ended since, so anything registered for it must be removed.
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
            WorkResult::Authorized {
                question,
                mark,
                round,
                answer,
            } => {
                if !self.is_outdated(&outcome.topic, (question, mark, round), &answer, effects) {
                    self.authorized(&outcome.topic, question, mark, answer, now, effects);
                }
            }
            WorkResult::Persisted { reference, result } => {
                self.stored_broadcast(&outcome.topic, reference, result, now, effects);
            }
            WorkResult::Rechecked(result) => {
                self.rechecked(&outcome.topic, result, now, effects);
            }
            WorkResult::Stored(messages) => self.stored(&outcome.topic, messages, now, effects),
            WorkResult::MessagesLive(true) => {
                let notice = SystemNotice::channel(Status::Ok, MESSAGES_LIVE);
                self.tell(&outcome.topic, notice, effects);
            }
            WorkResult::MessagesLive(false) => {
                self.close_channel(&outcome.topic, MESSAGES_LATE.to_owned(), now, effects);
            }
        }
        self.find_deadline(now);
    }

    /// Handles everything that is due. Called when the time of [`Session::deadline`] has come.
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
            if let Some(joining) = &channel.joining {
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
        self.find_deadline(now);
    }

    /// Ends all channels because the socket is closed.
    pub fn end(&mut self, effects: &mut Vec<Effect>) {
        self.device = None;
        if std::mem::take(&mut self.is_user) {
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
            // Only this reply contains the `join_ref`, as in Supabase Realtime.
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
                // Strict, unlike other events: a late leave must not end a channel that was joined
                // since (protocol 2.5, 2.6).
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
            // No reply, as in Supabase Realtime. A heartbeat only counts on its own topic.
            ClientEvent::Heartbeat | ClientEvent::Other(_) => {
                self.shared
                    .hub
                    .metrics()
                    .dropped(DropReason::NotExpressible);
            }
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
            .is_some_and(|joining| joining.wait.is_some());
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
                // Sent once. The next notice reports success.
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

    /// Handles `access_token`, which is never answered (protocol 3.6).
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
        let current = match &channel.refreshing {
            Some(refreshing) => &refreshing.holder,
            None => &channel.holder,
        };
        if current.mark == mark {
            return;
        }
        match self.shared.verifier.verify_socket(&token) {
            Err(error) => self.close_channel(topic, token_text(&error), now, effects),
            Ok(claims) => {
                let holder = Holder { claims, mark };
                if let Some(error) = expiry(&holder.claims, now.seconds()) {
                    self.close_channel(topic, token_text(&error), now, effects);
                } else if channel.is_private {
                    effects.push(channel.ask_to_read(&holder, &self.headers, 0));
                    let refreshing = Refreshing {
                        holder,
                        failures: 0,
                    };
                    channel.refreshing = Some(Box::new(refreshing));
                } else {
                    channel.take_over(holder, effects);
                    let person = channel.holder.claims.person();
                    self.shared.hub.set_person(channel.id, person);
                    effects.extend(channel.subscribe());
                }
            }
        }
    }

    /// Closes a channel and sends the reason. The socket stays open.
    fn close_channel(
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
        // These messages are handled without the channel. One of them may join the topic again.
        for message in channel.waiting.unwrap_or_default().messages {
            self.receive(&message.borrow(), now, effects);
        }
    }

    fn tell(&self, topic: &str, notice: SystemNotice, effects: &mut Vec<Effect>) {
        if let Some(channel) = self.channels.get(topic) {
            effects.push(Effect::Send(channel.system(notice)));
        }
    }

    /// Returns when the socket is closed if it has no channel.
    fn expires_without_channel(&self) -> Option<UnixMillis> {
        let since = self.without_channel?;
        Some(since.after(self.shared.config.no_channel_timeout))
    }

    /// Updates the person whose device the socket counts as. The person stays the same while a
    /// joined channel acts for them.
    fn find_person(&mut self) {
        let current = self.device.as_ref().map(Device::person);
        let mut found = None;
        for channel in self.channels.values() {
            if channel.joining.is_some() {
                continue;
            }
            let person = channel.holder.claims.person();
            if person.is_some() && person == current {
                return;
            }
            found = found.or(person);
        }
        // The previous device ends before the new one begins, because it may be the last of its
        // person.
        self.device = None;
        self.device = found.map(|person| self.shared.hub.people().enter(person));
    }

    fn find_deadline(&mut self, now: UnixMillis) {
        if !self.channels.is_empty() {
            self.without_channel = None;
        } else if self.without_channel.is_none() {
            self.without_channel = Some(now);
        }
        self.find_person();
        self.count_held();
        let warn_before = self.shared.config.expiry_warning;
        self.deadline = self
            .channels
            .values()
            .filter_map(|channel| match &channel.joining {
                Some(joining) => joining.wait.map(|wait| wait.until),
                None if channel.is_warned => Some(channel.holder.expires_at()),
                None => Some(channel.holder.expires_at().before(warn_before)),
            })
            .chain(self.expires_without_channel())
            .min();
    }
}

impl ClientEvent<'_> {
    /// Whether the event can start or end a channel, or change its identity. The most frequent
    /// events cannot. A socket may have many channels, so their deadlines are not searched for
    /// those events.
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

impl Channel {
    fn is_joining_without_wait(&self) -> bool {
        self.joining
            .as_ref()
            .is_some_and(|joining| joining.wait.is_none())
    }

    /// Switches the channel to another identity.
    fn take_over(&mut self, holder: Holder, effects: &mut Vec<Effect>) {
        if self.is_managed && holder.claims.subject != self.holder.claims.subject {
            // The previous user is no longer present through this channel.
            self.untrack(effects);
            self.tracking.key = Tracking::key_of_subject(&holder);
        }
        self.holder = holder;
        self.is_warned = false;
        self.write = WritePermission::NotAsked;
    }

    /// Returns an effect that registers the bindings under the channel's current identity. Only one
    /// registration runs at a time. If one is running, the next starts when it is done.
    fn subscribe(&mut self) -> Option<Effect> {
        let until_live = self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.wait.is_some());
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

#[cfg(test)]
mod tests;
