//! Permission checks of a private channel: at its join, after a new token, and at its first write
//! (protocol 3.4, 3.6, 4.3).
//!
//! A refused write is never silent. The client receives a reply if it requested one. Otherwise it
//! receives a `system` message, at a limited rate.

use std::sync::Arc;

use super::super::channel::authorize::{AuthorizeError, Question};
use super::super::channel::{Channel, Holder, OwnedMessage, TokenMark, WritePermission};
use super::super::error::{JoinRefusal, no_longer_permitted, no_permission, write_refusal};
use super::super::permissions::Permissions;
use super::super::protocol::{ClientMessage, Reply, Status, SystemNotice};
use super::effect::{AuthorizeOrder, Effect};
use super::state::Session;
use crate::limits::UnixMillis;
use crate::observability::metrics::DropReason;

/// Maximum bytes of payloads that wait in all channels of a socket. It is at least the size of the
/// largest client frame, because the first message of a channel usually waits.
const MAX_WAITING_BYTES_OF_SESSION: usize = 8 << 20;

/// Notice for a channel whose new token cannot be checked at present.
const REFRESH_WAITS: &str = "Realtime was unable to connect to the project database: the previous \
                             token stays in force until it expires, trying again";
/// The same notice if the policies took too long.
const REFRESH_CANCELED: &str = "Query was cancelled: the previous token stays in force until it \
                                expires, trying again";

/// Replies to pushes that arrive while too many messages wait.
const TOO_MANY_BEFORE_JOIN: &str = "Too many messages before the join was answered";
pub(super) const TOO_MANY_WAITING: &str = "Too many messages before the permissions are known";
/// What a message writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// A broadcast.
    Broadcast,
    /// The presence of the client.
    Presence,
}

impl Writing {
    fn is_allowed_by(self, permissions: Permissions) -> bool {
        match self {
            Self::Broadcast => permissions.broadcast,
            Self::Presence => permissions.presence,
        }
    }
}

impl Session {
    /// Whether the channel of `message` may write now. If not, this handles the message: either the
    /// message is held until the policies are checked, or it is refused and the client receives the
    /// reason.
    pub(super) fn may_write(
        &mut self,
        message: &ClientMessage<'_>,
        writing: Writing,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(&*message.topic) else {
            return false;
        };
        if !channel.is_private {
            return true;
        }
        // A client that tracks presence also receives presence updates, if the policies allow it.
        let reads_first = writing == Writing::Presence && !channel.is_presence_asked;
        let question = match &channel.write {
            WritePermission::Unknown(_) => None,
            WritePermission::Known(_) | WritePermission::NotAsked if reads_first => {
                Some(Question::Read { presence: true })
            }
            WritePermission::Known(permissions) if writing.is_allowed_by(*permissions) => {
                return true;
            }
            WritePermission::NotAsked => Some(Question::Write),
            WritePermission::Known(_) | WritePermission::Asking => None,
        };
        if let Some(question) = question {
            channel.write = WritePermission::Asking;
            effects.push(channel.ask(question, &channel.holder, &self.headers, 0));
        }
        if channel.write == WritePermission::Asking {
            self.hold(message, effects);
        } else {
            self.refuse_write(message, writing, now, effects);
        }
        false
    }

    /// Holds a message until the current work of its channel is done.
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
        let is_joining = channel.joining.is_some();
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

    /// Handles the waiting messages in order. If one of them starts new work, the remaining ones
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

    /// Whether an answer is older than a change that may have affected the permissions. If so, the
    /// question is asked again. Errors are never outdated, because they carry no permissions.
    pub(super) fn is_outdated(
        &self,
        topic: &Arc<str>,
        (question, mark, round): (Question, TokenMark, u32),
        answer: &Result<Permissions, AuthorizeError>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(channel) = self.channels.get(topic) else {
            return false;
        };
        if answer.is_err() || round == channel.recheck.round {
            return false;
        }
        let refreshing = channel
            .refreshing
            .as_ref()
            .map(|refreshing| &refreshing.holder)
            .filter(|holder| holder.mark == mark && question != Question::Write);
        let holder = refreshing.unwrap_or(&channel.holder);
        // An answer about a replaced token is no longer needed.
        if holder.mark == mark {
            effects.push(channel.ask(question, holder, &self.headers, 0));
        }
        true
    }

    /// Handles the answer to a permission check.
    pub(super) fn authorized(
        &mut self,
        topic: &Arc<str>,
        question: Question,
        mark: TokenMark,
        answer: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let is_about_refresh = channel
            .refreshing
            .as_ref()
            .is_some_and(|refreshing| refreshing.holder.mark == mark);
        if channel.joining.is_some() {
            self.join_authorized(topic, answer, now, effects);
        } else if is_about_refresh && question != Question::Write {
            self.refresh_authorized(topic, answer, now, effects);
        } else if channel.write == WritePermission::Asking && channel.holder.mark == mark {
            channel.write_authorized(question, answer, effects);
            self.receive_waiting(topic, now, effects);
            if let Some(channel) = self.channels.get_mut(topic)
                && matches!(channel.write, WritePermission::Unknown(_))
            {
                channel.write = WritePermission::NotAsked;
            }
        }
        // Otherwise the answer is about a token that has been replaced since.
    }

    fn join_authorized(
        &mut self,
        topic: &Arc<str>,
        answer: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let name = channel.sub_topic().to_owned();
        match answer {
            Ok(read) if read.any() => {
                channel.permit(read, effects);
                channel.recheck.known = channel.recheck.round;
                self.read_stored(topic, now, effects);
            }
            Ok(_) => self.refuse_joining(topic, &JoinRefusal::Unauthorized(name), now, effects),
            Err(error) => {
                let refusal = JoinRefusal::from_check_error(error, name);
                self.refuse_joining(topic, &refusal, now, effects);
            }
        }
    }

    fn refresh_authorized(
        &mut self,
        topic: &Arc<str>,
        answer: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let Some(mut refreshing) = channel.refreshing.take() else {
            return;
        };
        match answer {
            Ok(read) => {
                if let Err(why) = channel.permit_again(read, effects) {
                    self.close_channel(topic, why, now, effects);
                    return;
                }
                channel.take_over(refreshing.holder, effects);
                let person = channel.holder.claims.person();
                self.shared.hub.set_person(channel.id, person);
                effects.extend(channel.subscribe());
                self.receive_waiting(topic, now, effects);
            }
            Err(error) if error.is_refusal() => {
                let why = no_permission(channel.sub_topic());
                self.close_channel(topic, why, now, effects);
            }
            // Clients never rejoin a closed channel, so an outage does not close it. The previous
            // token remains in force until it expires.
            Err(error) => {
                if refreshing.failures == 0 {
                    let text = match error {
                        AuthorizeError::Canceled(_) => REFRESH_CANCELED,
                        _ => REFRESH_WAITS,
                    };
                    let notice = SystemNotice::channel(Status::Error, text);
                    effects.push(Effect::Send(channel.system(notice)));
                }
                refreshing.failures = refreshing.failures.saturating_add(1);
                effects.push(channel.ask_to_read(
                    &refreshing.holder,
                    &self.headers,
                    refreshing.failures,
                ));
                channel.refreshing = Some(refreshing);
                self.receive_waiting(topic, now, effects);
            }
        }
    }

    fn refuse_write(
        &mut self,
        message: &ClientMessage<'_>,
        writing: Writing,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        self.shared.hub.metrics().dropped(DropReason::Forbidden);
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        let error = match &channel.write {
            WritePermission::Unknown(error) => Some(error),
            _ => None,
        };
        let reason = write_refusal(error, channel.sub_topic());
        // Presence pushes always receive a reply (protocol 5.1).
        let wants_answer = channel.ack || writing == Writing::Presence;
        if wants_answer && message.reference.is_some() {
            let reply = channel.reply(message.reference.clone(), Reply::Error(reason));
            effects.push(Effect::Send(reply));
            return;
        }
        self.notice(&message.topic, reason, now, effects);
    }
}

impl Channel {
    /// Whether messages of the topic wait. They wait for the answer to the join, for the permission
    /// to write, for a broadcast that is being stored, or for the first check of a new token.
    /// Messages that were sent after a new token must be checked under it.
    pub(super) fn is_holding(&self) -> bool {
        self.joining.is_some()
            || self.write == WritePermission::Asking
            || self.storing.is_some()
            || self
                .refreshing
                .as_ref()
                .is_some_and(|refreshing| refreshing.failures == 0)
    }

    /// Returns an effect that checks what `holder` may read of the topic.
    pub(super) fn ask_to_read(&self, holder: &Holder, headers: &Arc<str>, failures: u32) -> Effect {
        self.ask(self.read_question(), holder, headers, failures)
    }

    fn ask(
        &self,
        question: Question,
        holder: &Holder,
        headers: &Arc<str>,
        failures: u32,
    ) -> Effect {
        Effect::Authorize(self.order(question, holder, headers, failures))
    }

    pub(super) fn order(
        &self,
        question: Question,
        holder: &Holder,
        headers: &Arc<str>,
        failures: u32,
    ) -> AuthorizeOrder {
        AuthorizeOrder {
            channel: self.id,
            topic: Arc::clone(&self.topic),
            question,
            claims: Arc::clone(&holder.claims),
            mark: holder.mark,
            headers: Arc::clone(headers),
            failures,
            round: self.recheck.round,
        }
    }

    fn permit(&mut self, read: Permissions, effects: &mut Vec<Effect>) {
        self.read = read;
        effects.push(Effect::Permit(self.id, read));
    }

    /// Applies new permissions to read to a joined channel.
    ///
    /// # Errors
    /// Returns the reason to close the channel if it may read less than before.
    pub(super) fn permit_again(
        &mut self,
        read: Permissions,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let had = self.read;
        if !read.any() {
            return Err(no_permission(self.sub_topic()));
        }
        if (had.broadcast && !read.broadcast) || (had.presence && !read.presence) {
            return Err(no_longer_permitted(self.sub_topic()));
        }
        self.permit(read, effects);
        if self.presence && read.presence && !had.presence {
            // The channel was joined without this permission.
            effects.push(Effect::PresenceState(self.id));
        }
        Ok(())
    }

    fn write_authorized(
        &mut self,
        question: Question,
        answer: Result<Permissions, AuthorizeError>,
        effects: &mut Vec<Effect>,
    ) {
        self.write = match (question, answer) {
            (Question::Write, Ok(permissions)) => WritePermission::Known(permissions),
            (Question::Read { .. }, Ok(read)) => {
                self.is_presence_asked = true;
                let read = Permissions {
                    presence: read.presence,
                    ..self.read
                };
                self.permit(read, effects);
                WritePermission::NotAsked
            }
            // A policy that fails would fail again.
            (_, Err(error)) if error.is_refusal() => {
                self.is_presence_asked = true;
                WritePermission::Known(Permissions::default())
            }
            (_, Err(error)) => WritePermission::Unknown(error),
        };
    }
}
