//! Permission checks of a private channel: at its join, after a new token, and at its first write
//! (protocol 3.4, 3.6, 4.3).
//!
//! A write is never refused silently. The client receives a reply if it requested one. Otherwise it
//! receives a `system` message, at a limited rate.

use std::sync::Arc;

use super::super::channel::authorize::{AuthorizeError, CheckKind};
use super::super::channel::{
    Channel, Holder, NewToken, ReadsLess, TokenMark, WriteDecision, WriteState, Writing,
};
use super::super::error::{JoinRefusal, no_longer_permitted, no_permission, write_refusal};
use super::super::permissions::Permissions;
use super::super::protocol::{ClientMessage, Reply, Status, SystemNotice, sub_topic};
use super::effect::{AuthorizeOrder, Effect};
use super::state::Session;
use crate::limits::UnixMillis;
use crate::observability::metrics::DropReason;

/// The notice for a channel whose new token cannot be checked at present.
const REFRESH_WAITS: &str = "Realtime was unable to connect to the project database: the previous \
                             token stays in force until it expires, trying again";
/// The notice for a channel whose new token could not be checked because the policies took too
/// long.
const REFRESH_CANCELED: &str = "Query was cancelled: the previous token stays in force until it \
                                expires, trying again";

impl Session {
    /// Returns whether the channel of `message` may write now. If not, this method handles the
    /// message. It either holds the message until the policies have been checked, or refuses it
    /// with a reason.
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
        let Some(rights) = channel.access.rights_mut() else {
            return true;
        };
        match rights.decide(writing) {
            WriteDecision::Allowed => return true,
            WriteDecision::Wait => self.hold(message, effects),
            WriteDecision::Check(kind) => {
                rights.write = WriteState::Checking;
                effects.extend(channel.check(kind, &channel.holder, &self.headers, 0));
                self.hold(message, effects);
            }
            WriteDecision::Refused(error) => {
                self.refuse_write(message, writing, error.as_ref(), now, effects);
            }
        }
        false
    }

    /// Returns whether a result is outdated. If so, and if its token is still in use, starts the
    /// check that is now needed. A result is outdated if it is older than a change that may have
    /// affected the permissions, or if it does not cover presence although presence is now needed.
    /// Errors are never outdated, because they contain no permissions.
    pub(super) fn is_outdated(
        &self,
        topic: &Arc<str>,
        (kind, mark, round): (CheckKind, TokenMark, u32),
        result: &Result<Permissions, AuthorizeError>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(channel) = self.channels.get(topic) else {
            return false;
        };
        let Some(rights) = channel.access.rights() else {
            return false;
        };
        let newer = rights
            .new_token
            .holder()
            .filter(|holder| holder.mark == mark && kind != CheckKind::Write);
        let (holder, wanted) = match newer {
            Some(holder) => (holder, rights.read.check_kind()),
            None => (&channel.holder, kind),
        };
        if result.is_err() || (round == rights.round && kind == wanted) {
            return false;
        }
        // If the token has been replaced, the result is no longer needed.
        if holder.mark == mark {
            effects.extend(channel.check(wanted, holder, &self.headers, 0));
        }
        true
    }

    /// Handles the result of a permission check.
    pub(super) fn authorized(
        &mut self,
        topic: &Arc<str>,
        kind: CheckKind,
        mark: TokenMark,
        result: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let (id, is_joining) = (channel.id, channel.joining().is_some());
        let is_about_current = channel.holder.mark == mark;
        let Some(rights) = channel.access.rights_mut() else {
            return;
        };
        let newer = rights.new_token.holder();
        let is_about_newer = newer.is_some_and(|holder| holder.mark == mark);
        if is_joining {
            self.join_authorized(topic, result, now, effects);
        } else if is_about_newer && kind != CheckKind::Write {
            self.refresh_authorized(topic, result, now, effects);
        } else if rights.write == WriteState::Checking && is_about_current {
            if rights.apply_write(kind, result) {
                effects.push(Effect::SetReadPermissions(id, rights.read.permissions()));
            }
            self.receive_waiting(topic, now, effects);
            let channel = self.channels.get_mut(topic);
            if let Some(rights) = channel.and_then(|channel| channel.access.rights_mut()) {
                rights.forget_failure();
            }
        }
        // In any other case, the result is for a token that has been replaced in the meantime.
    }

    fn join_authorized(
        &mut self,
        topic: &Arc<str>,
        result: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let name = channel.sub_topic().to_owned();
        match result {
            Ok(read) if read.any() => {
                if let Some(rights) = channel.access.rights_mut() {
                    rights.apply_join(read);
                }
                effects.push(Effect::SetReadPermissions(
                    channel.id,
                    channel.access.read(),
                ));
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
        result: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let Some(rights) = channel.access.rights_mut() else {
            return;
        };
        let (holder, failures) = match std::mem::replace(&mut rights.new_token, NewToken::None) {
            NewToken::None => return,
            NewToken::Checking(holder) => (holder, 0),
            NewToken::Retrying { holder, failures } => (holder, failures),
        };
        match result {
            Ok(read) => {
                if let Err(why) = channel.apply_new_read(read, effects) {
                    self.close_channel(topic, why, now, effects);
                    return;
                }
                channel.take_over(holder, effects);
                let user_id = channel.holder.claims.user_id();
                self.shared.hub.set_user_id(channel.id, user_id);
                effects.extend(channel.subscribe());
                self.receive_waiting(topic, now, effects);
            }
            Err(error) if error.is_refusal() => {
                let why = no_permission(channel.sub_topic());
                self.close_channel(topic, why, now, effects);
            }
            // Clients never rejoin a closed channel, so an outage must not close it. The previous
            // token stays in force until it expires.
            Err(error) => {
                if failures == 0 {
                    let text = match error {
                        AuthorizeError::Canceled(_) => REFRESH_CANCELED,
                        _ => REFRESH_WAITS,
                    };
                    let notice = SystemNotice::channel(Status::Error, text);
                    effects.push(Effect::Send(channel.system(notice)));
                }
                let failures = failures.saturating_add(1);
                effects.extend(channel.check_read(&holder, &self.headers, failures));
                if let Some(rights) = channel.access.rights_mut() {
                    rights.new_token = NewToken::Retrying { holder, failures };
                }
                self.receive_waiting(topic, now, effects);
            }
        }
    }

    fn refuse_write(
        &mut self,
        message: &ClientMessage<'_>,
        writing: Writing,
        error: Option<&AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        self.shared.hub.metrics().dropped(DropReason::Forbidden);
        let Some(channel) = self.channels.get(&*message.topic) else {
            return;
        };
        let reason = write_refusal(error, channel.sub_topic());
        // Presence pushes always receive a reply (protocol 5.1).
        let wants_reply = channel.ack || writing == Writing::Presence;
        if wants_reply && message.reference.is_some() {
            let reply = channel.reply(message.reference.clone(), Reply::Error(reason));
            effects.push(Effect::Send(reply));
            return;
        }
        self.send_limited_notice(&message.topic, reason, now, effects);
    }
}

impl Channel {
    /// Returns an effect that checks what `holder` may read on the topic. Returns `None` for a
    /// public topic, which every client may read.
    pub(super) fn check_read(
        &self,
        holder: &Holder,
        headers: &Arc<str>,
        failures: u32,
    ) -> Option<Effect> {
        let kind = self.access.rights()?.read.check_kind();
        self.check(kind, holder, headers, failures)
    }

    fn check(
        &self,
        kind: CheckKind,
        holder: &Holder,
        headers: &Arc<str>,
        failures: u32,
    ) -> Option<Effect> {
        let order = self.order(kind, holder, headers, failures)?;
        Some(Effect::Authorize(order))
    }

    pub(super) fn order(
        &self,
        kind: CheckKind,
        holder: &Holder,
        headers: &Arc<str>,
        failures: u32,
    ) -> Option<AuthorizeOrder> {
        Some(AuthorizeOrder {
            channel: self.id,
            topic: Arc::clone(&self.topic),
            kind,
            claims: Arc::clone(&holder.claims),
            mark: holder.mark,
            headers: Arc::clone(headers),
            failures,
            round: self.access.rights()?.round,
        })
    }

    /// Applies new permissions to read to a joined channel.
    ///
    /// # Errors
    /// If the channel may read less than before, returns the reason why it must be closed.
    pub(super) fn apply_new_read(
        &mut self,
        read: Permissions,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(rights) = self.access.rights_mut() else {
            return Ok(());
        };
        let had = rights.read.permissions();
        rights.apply_read(read).map_err(|less| match less {
            ReadsLess::Nothing => no_permission(sub_topic(&self.topic)),
            ReadsLess::Part => no_longer_permitted(sub_topic(&self.topic)),
        })?;
        let read = rights.read.permissions();
        effects.push(Effect::SetReadPermissions(self.id, read));
        if self.wants_presence && read.presence && !had.presence {
            // The channel could not read presence before, so it has not received a state.
            effects.push(Effect::PresenceState(self.id));
        }
        Ok(())
    }
}
