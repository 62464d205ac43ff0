//! The state of one connection.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::super::channel::{Channel, Holder, JoinState, TokenMarks};
use super::super::hub::Hub;
use super::super::protocol::{Status, SystemNotice};
use super::effect::Effect;
use crate::auth::Verifier;
use crate::bus::people::Device;
use crate::config::RealtimeConfig;
use crate::limits::{Bucket, UnixMillis};

/// Number of notices about refused pushes that a socket may receive in a burst. All refusals are
/// counted in the metrics. A client that sends a thousand refused pushes does not need a thousand
/// notices.
pub(super) const NOTICE_BURST: u32 = 5;
/// Number of notices about refused pushes per second after the burst.
const NOTICES_PER_SECOND: u32 = 1;

/// Data that all sessions share.
#[derive(Clone)]
pub struct Shared {
    /// Verifies tokens.
    pub verifier: Verifier,
    /// The settings.
    pub config: RealtimeConfig,
    /// The sockets and channels of this process.
    pub hub: Arc<Hub>,
    /// Recognizes tokens that were seen before.
    pub marks: TokenMarks,
    /// Returns whether a private topic, whose name is given without `realtime:`, is managed: see
    /// [`Rights::is_managed`](super::super::channel::Rights::is_managed).
    pub is_managed: fn(&str) -> bool,
}

/// The protocol state of one connection.
pub struct Session {
    pub(super) shared: Arc<Shared>,
    /// The identity that opened the connection.
    pub(super) opener: Holder,
    /// The text of a JSON object that policies read as `request.headers`.
    pub(super) headers: Arc<str>,
    pub(super) channels: HashMap<Arc<str>, Box<Channel>>,
    /// The budget for joins.
    pub(super) joins: Bucket,
    /// Whether the connection has joined a channel. From then until its end, it counts as a user
    /// (protocol 1.3).
    pub(super) counts_as_user: bool,
    /// The budget for notices about refused pushes that receive no reply.
    pub(super) notices: Bucket,
    /// The time since which the connection has had no channels. `None` if it has channels.
    pub(super) without_channel: Option<UnixMillis>,
    /// The time before which no timed event is due.
    pub(super) deadline: Option<UnixMillis>,
    /// The connection's device, which counts for the user that a joined channel acts for.
    pub(super) device: Option<Device>,
    /// Approximate memory, in bytes, that the server needs for the channels and the headers.
    pub(super) held_bytes: usize,
}

impl Session {
    /// Creates a session for a connection that was opened with these verified claims and headers.
    pub fn new(shared: Arc<Shared>, opener: Holder, headers: Arc<str>, now: UnixMillis) -> Self {
        let joins = Bucket::full(join_burst(&shared.config), now);
        let mut session = Self {
            shared,
            opener,
            headers,
            channels: HashMap::new(),
            joins,
            counts_as_user: false,
            without_channel: Some(now),
            notices: Bucket::full(NOTICE_BURST, now),
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

    /// Returns the approximate memory, in bytes, that the server needs for the session: its
    /// headers, its channels, and the messages that wait for them.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Returns whether the connection has joined a channel since it was opened.
    pub fn has_joined(&self) -> bool {
        self.counts_as_user
    }

    pub(super) fn count_held(&mut self) {
        let channels = self.channels.values().map(|channel| channel.held_bytes());
        self.held_bytes = self.headers.len() + channels.sum::<usize>();
    }

    pub(super) fn send_notice(&self, topic: &str, notice: SystemNotice, effects: &mut Vec<Effect>) {
        if let Some(channel) = self.channels.get(topic) {
            effects.push(Effect::Send(channel.system(notice)));
        }
    }

    /// Notifies a channel why a push that receives no reply was refused, unless the socket has
    /// recently received too many such notices.
    pub(super) fn send_limited_notice(
        &mut self,
        topic: &str,
        text: Cow<'static, str>,
        now: UnixMillis,
        effects: &mut Vec<Effect>,
    ) {
        if self.notices.take(NOTICE_BURST, NOTICES_PER_SECOND, now) {
            self.send_notice(topic, SystemNotice::channel(Status::Error, text), effects);
        }
    }

    /// Returns the time at which the socket is closed if it still has no channel.
    pub(super) fn expires_without_channel(&self) -> Option<UnixMillis> {
        let since = self.without_channel?;
        Some(since.after(self.shared.config.no_channel_timeout))
    }

    /// Updates the user whose device the socket counts as. The user stays the same as long as a
    /// joined channel acts for that user.
    fn find_user(&mut self) {
        let current = self.device.as_ref().map(Device::user_id);
        let mut found = None;
        for channel in self.channels.values() {
            if channel.joining().is_some() {
                continue;
            }
            let user_id = channel.holder.claims.user_id();
            if user_id.is_some() && user_id == current {
                return;
            }
            found = found.or(user_id);
        }
        // The previous device is removed before the new one is added, because it may be the last
        // device of its user.
        self.device = None;
        self.device = found.map(|user_id| self.shared.hub.people().enter(user_id));
    }

    pub(super) fn find_deadline(&mut self, now: UnixMillis) {
        if !self.channels.is_empty() {
            self.without_channel = None;
        } else if self.without_channel.is_none() {
            self.without_channel = Some(now);
        }
        self.find_user();
        self.count_held();
        let warn_before = self.shared.config.expiry_warning;
        self.deadline = self
            .channels
            .values()
            .filter_map(|channel| match &channel.join_state {
                JoinState::Joining(joining) => joining.wait.map(|wait| wait.until),
                JoinState::Joined { is_warned: true } => Some(channel.holder.expires_at()),
                JoinState::Joined { is_warned: false } => {
                    Some(channel.holder.expires_at().before(warn_before))
                }
            })
            .chain(self.expires_without_channel())
            .min();
    }
}

/// Returns the number of joins that are allowed in a burst. A client that reconnects joins all its
/// channels at once.
pub(super) fn join_burst(config: &RealtimeConfig) -> u32 {
    let channels = u32::try_from(config.max_channels_per_socket).unwrap_or(u32::MAX);
    config.max_joins_per_second_per_socket.max(channels)
}
