//! Checks the permissions of a channel again after a change that may have revoked a right.
//!
//! Each change starts a new *round*. Permissions from a check that started in an earlier round are
//! discarded, whatever the check was for. Received messages do not wait for a recheck: the first
//! write after the change is checked like the first write of a new channel.

use std::sync::Arc;

use super::super::channel::authorize::AuthorizeError;
use super::super::channel::{Channel, Recheck, WriteState};
use super::super::error::{no_permission, write_refusal};
use super::super::permissions::Permissions;
use super::effect::{Effect, RecheckOrder, RecheckOutcome};
use super::state::Session;
use crate::limits::UnixMillis;
use crate::visibility::ChannelId;

impl Session {
    /// Starts a recheck of the channels that `is_meant` accepts and whose topic is managed (see
    /// `Rights::is_managed`).
    pub fn recheck(&mut self, is_meant: impl Fn(ChannelId) -> bool, effects: &mut Vec<Effect>) {
        for channel in self.channels.values_mut() {
            let (id, access) = (channel.id, &mut channel.access);
            if let Some(rights) = access.rights_mut().filter(|rights| rights.is_managed)
                && is_meant(id)
            {
                rights.note_change();
                channel.start_due_recheck(&self.headers, effects);
            }
        }
    }

    /// Applies the result of a recheck.
    pub(super) fn rechecked(
        &mut self,
        topic: &Arc<str>,
        result: RecheckOutcome,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        if let Some(rights) = channel.access.rights_mut() {
            rights.recheck = Recheck::Due;
        }
        let metrics = self.shared.hub.metrics();
        if !channel.is_current(&result) {
            channel.start_due_recheck(&self.headers, effects);
            return;
        }
        metrics.rechecks.inc();
        let closed = match result.read {
            Ok(read) => channel.apply_new_read(read, effects),
            Err(error) if error.is_refusal() => Err(no_permission(channel.sub_topic())),
            Err(_) => {
                channel.retry_recheck(&self.headers, result.failures, effects);
                return;
            }
        };
        if let Err(why) = closed {
            metrics.channels_revoked.inc();
            self.close_channel(topic, why, now, effects);
            return;
        }
        match result.write {
            Some(Err(error)) if !error.is_refusal() => {
                channel.retry_recheck(&self.headers, result.failures, effects);
                return;
            }
            Some(write) => self.write_rechecked(topic, write, now, effects),
            None => {}
        }
        let channel = self.channels.get_mut(topic);
        if let Some(rights) = channel.and_then(|channel| channel.access.rights_mut()) {
            rights.recheck = Recheck::Current;
        }
    }

    /// Applies the rechecked permissions to write. Removes the presence of a channel that may no
    /// longer show it.
    fn write_rechecked(
        &mut self,
        topic: &Arc<str>,
        write: Result<Permissions, AuthorizeError>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        let Some(channel) = self.channels.get_mut(topic) else {
            return;
        };
        let permissions = write.unwrap_or_default();
        if let Some(rights) = channel.access.rights_mut()
            && rights.write == WriteState::Unchecked
        {
            rights.write = WriteState::Known(permissions);
        }
        if !permissions.presence && channel.tracking.is_tracking() {
            channel.untrack(effects);
            let why = write_refusal(None, channel.sub_topic());
            self.send_limited_notice(topic, why, now, effects);
        }
    }
}

impl Channel {
    /// Starts a recheck if one is due and none is running. Does nothing before the join has been
    /// answered, because the join has its own check.
    pub(super) fn start_due_recheck(&mut self, headers: &Arc<str>, effects: &mut Vec<Effect>) {
        let rights = self.access.rights();
        let is_due = rights.is_some_and(|rights| rights.recheck == Recheck::Due);
        if is_due && self.joining().is_none() {
            self.begin_recheck(headers, 0, effects);
        }
    }

    /// Repeats a recheck that failed without a refusal, usually because the database was
    /// unavailable. The channel keeps its permissions until there is a result. As with a new token,
    /// an outage does not close the channel.
    fn retry_recheck(&mut self, headers: &Arc<str>, failures: u32, effects: &mut Vec<Effect>) {
        self.begin_recheck(headers, failures.saturating_add(1), effects);
    }

    fn begin_recheck(&mut self, headers: &Arc<str>, failures: u32, effects: &mut Vec<Effect>) {
        let Some(rights) = self.access.rights_mut() else {
            return;
        };
        rights.recheck = Recheck::Running;
        let kind = rights.read.check_kind();
        let order = self.order(kind, &self.holder, headers, failures);
        effects.extend(order.map(|read| {
            Effect::Recheck(RecheckOrder {
                read,
                with_write: self.tracking.is_tracking(),
            })
        }));
    }

    /// Returns whether a result is that of the check that would start now.
    fn is_current(&self, result: &RecheckOutcome) -> bool {
        self.access.rights().is_some_and(|rights| {
            result.round == rights.round && result.kind == rights.read.check_kind()
        }) && result.mark == self.holder.mark
            && (result.write.is_some() || !self.tracking.is_tracking())
    }
}
