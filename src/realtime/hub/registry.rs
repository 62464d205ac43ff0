//! The joined channels of this process, by id and by topic, and its open sockets.
//!
//! The maps are sharded, and none of their locks is held while a frame is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dashmap::DashMap;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::permissions::Permissions;
use super::super::protocol::Serializer;
use super::super::wire::close::CloseReason;
use super::super::wire::outbound::{Outbound, Sockets};
use super::super::wire::sockets::SocketId;
use super::member::{Member, MemberSpec};
use super::own_ids::OwnIds;
use super::presence_changes::PresenceChanges;
use super::rate::Rates;
use super::stream::StreamState;
use super::topic::Topic;
use super::topic_name::TopicKey;
use crate::bus::people::People;
use crate::bus::rechecks::{Members, Requested};
use crate::observability::metrics::RealtimeMetrics;
use crate::visibility::ChannelId;

/// A joined channel and its topic.
#[derive(Clone, Debug)]
pub(super) struct MemberEntry {
    pub(super) member: Arc<Member>,
    pub(super) topic: Arc<Topic>,
}

/// The open sockets and joined channels of this process.
#[derive(Debug)]
pub struct Hub {
    members: DashMap<ChannelId, MemberEntry>,
    /// Topics with members. A topic gains its first member, and is removed, under the lock of its
    /// entry in this map.
    topics: DashMap<TopicKey, Arc<Topic>>,
    sockets: Arc<Sockets>,
    presence: PresenceChanges,
    /// The next id of a channel or socket. Ids are never reused, so a late result cannot be applied
    /// to another channel.
    next_id: AtomicU64,
    stream: watch::Sender<StreamState>,
    is_stopping: AtomicBool,
    metrics: RealtimeMetrics,
    rates: Arc<Rates>,
    people: People,
    own_ids: OwnIds,
}

impl Hub {
    /// Creates an empty hub without limits on rates or memory.
    pub fn new(metrics: RealtimeMetrics) -> Self {
        Self {
            members: DashMap::new(),
            topics: DashMap::new(),
            sockets: Arc::new(Sockets::unlimited(&metrics)),
            presence: PresenceChanges::default(),
            next_id: AtomicU64::new(1),
            stream: watch::Sender::new(StreamState::NotYet),
            is_stopping: AtomicBool::new(false),
            metrics,
            rates: Arc::new(Rates::unlimited()),
            people: People::default(),
            own_ids: OwnIds::default(),
        }
    }

    /// Registers the devices of users in `people`.
    #[must_use]
    pub fn with_people(mut self, people: People) -> Self {
        self.people = people;
        self
    }

    /// Returns the users with sockets in this process.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// Uses `sockets`, which limits the memory of all sockets together.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = Arc::new(sockets);
        self
    }

    /// Returns the open sockets.
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Counts sent and delivered messages in `rates`.
    #[must_use]
    pub fn with_rates(mut self, rates: Arc<Rates>) -> Self {
        self.rates = rates;
        self
    }

    /// Returns the rates of the whole server.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &RealtimeMetrics {
        &self.metrics
    }

    /// Returns a new, unique channel id.
    pub fn next_channel(&self) -> ChannelId {
        ChannelId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers an open socket.
    pub fn add_socket(&self, outbound: &Arc<Outbound>) -> SocketId {
        let id = SocketId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.sockets.insert(id, outbound);
        self.metrics.sockets.inc();
        // A socket that opens while all sockets are being closed must be closed as well.
        if self.is_stopping() {
            outbound.close(CloseReason::Restarting);
        }
        id
    }

    /// Removes a socket.
    pub fn remove_socket(&self, id: SocketId) {
        if self.sockets.remove(id) {
            self.metrics.sockets.dec();
        }
    }

    /// Returns the number of open sockets.
    pub fn socket_count(&self) -> usize {
        usize::try_from(self.metrics.sockets.get()).unwrap_or(0)
    }

    /// Counts a socket as a user when it joins its first channel. See [`Hub::user_count`].
    pub fn add_user(&self) {
        self.metrics.sockets_joined.inc();
    }

    /// Reverts one call of [`Hub::add_user`].
    pub fn remove_user(&self) {
        self.metrics.sockets_joined.dec();
    }

    /// Returns the number of sockets that have joined a channel. Supabase Realtime counts users in
    /// this way.
    pub fn user_count(&self) -> usize {
        usize::try_from(self.metrics.sockets_joined.get()).unwrap_or(0)
    }

    /// Adds a channel. Its deliveries are held back until [`Hub::open`].
    pub fn attach(
        &self,
        channel: ChannelId,
        spec: MemberSpec,
        serializer: Serializer,
        outbound: &Arc<Outbound>,
    ) {
        let key = spec.topic.clone();
        let entry = self
            .topics
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Topic::new(key)));
        let topic = Arc::clone(&entry);
        let name = Arc::clone(topic.name());
        let member = Member::new(channel, name, spec, serializer, Arc::clone(outbound));
        let member = Arc::new(member);
        entry.enter(Arc::clone(&member));
        drop(entry);
        self.members.insert(channel, MemberEntry { member, topic });
        self.metrics.channels.inc();
    }

    /// Sets what the channel may read from now on.
    pub fn set_read_permissions(&self, channel: ChannelId, read: Permissions) {
        if let Some(member) = self.member(channel) {
            member.set_read_permissions(read);
        }
    }

    /// Changes the user that a channel acts for.
    pub fn set_user_id(&self, channel: ChannelId, user_id: Option<Uuid>) {
        if let Some(member) = self.member(channel) {
            member.set_user_id(user_id);
        }
    }

    /// Returns the user that a channel acts for.
    pub fn user_id(&self, channel: ChannelId) -> Option<Uuid> {
        self.member(channel)?.user_id()
    }

    /// Makes sockets recheck the permissions of the private channels that `requested` describes.
    pub fn request_rechecks(&self, requested: &Requested) {
        for (name, user_ids) in &requested.topics {
            let Some(topic) = self.topic(&TopicKey::new(name, true)) else {
                continue;
            };
            for member in topic.audience().members() {
                let is_meant = match user_ids {
                    Members::All => true,
                    Members::Of(user_ids) => member.acts_for_any(user_ids),
                };
                if is_meant {
                    member.request_recheck();
                }
            }
        }
        if !requested.everything && requested.user_ids.is_empty() {
            return;
        }
        for entry in &self.members {
            let member = &entry.member;
            let is_meant = requested.everything || member.acts_for_any(&requested.user_ids);
            if is_meant && member.topic.key().is_private() {
                member.request_recheck();
            }
        }
    }

    /// Makes all sockets check the keys of their tokens.
    pub fn request_key_checks(&self) {
        for socket in self.sockets.all() {
            socket.request_key_check();
        }
    }

    /// Returns whether the channel's permissions must be rechecked. Clears the mark.
    pub fn take_recheck(&self, channel: ChannelId) -> bool {
        self.member(channel)
            .is_some_and(|member| member.take_recheck())
    }

    /// Lets deliveries to the channel through. Called after the reply to its join has been queued.
    pub fn open(&self, channel: ChannelId) {
        if let Some(member) = self.member(channel) {
            member.outbound.open_gate(&member.gate);
        }
    }

    /// Removes a channel. Nothing is delivered to it after this method has returned.
    pub fn detach(&self, channel: ChannelId) {
        if let Some((_, MemberEntry { member, topic })) = self.members.remove(&channel) {
            member.outbound.close_gate(&member.gate);
            self.presence.untrack(&topic, channel);
            topic.leave(&member);
            self.topics
                .remove_if(topic.key(), |_, topic| topic.is_empty());
            self.metrics.channels.dec();
        }
    }

    /// Marks the channel's bindings as registered, so that it receives the state of the change
    /// stream from now on. Returns the current state. The state is read after marking, so that no
    /// transition is missed.
    pub fn mark_subscribed(&self, channel: ChannelId) -> StreamState {
        if let Some(member) = self.member(channel) {
            member.is_subscribed.store(true, Ordering::SeqCst);
        }
        *self.stream.borrow()
    }

    /// Marks the channel's bindings as not registered, so that it no longer receives the state of
    /// the change stream.
    pub fn unmark_subscribed(&self, channel: ChannelId) {
        if let Some(member) = self.member(channel) {
            member.is_subscribed.store(false, Ordering::SeqCst);
        }
    }

    /// Watches the state of the change stream.
    pub fn watch_stream(&self) -> watch::Receiver<StreamState> {
        self.stream.subscribe()
    }

    /// Returns the generator of ids for messages that this process stores and sends itself. It also
    /// recognizes these ids.
    pub fn own_ids(&self) -> &OwnIds {
        &self.own_ids
    }

    /// Returns whether joins are refused because the server is stopping.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Refuses joins and handshakes from now on.
    pub fn refuse_joins(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Closes every socket.
    pub fn close_all(&self) {
        for socket in self.sockets.all() {
            socket.close(CloseReason::Restarting);
        }
    }

    /// Returns a topic, if it has members.
    pub fn topic(&self, key: &TopicKey) -> Option<Arc<Topic>> {
        self.topics.get(key).map(|topic| Arc::clone(&topic))
    }

    /// Returns the names, without `realtime:`, of the private topics that have members and start
    /// with `prefix`. Scans all topics.
    pub fn private_topics(&self, prefix: &str) -> Vec<String> {
        self.topics
            .iter()
            .map(|topic| topic.key().clone())
            .filter(|key| key.is_private() && key.sub_topic().starts_with(prefix))
            .map(|key| key.sub_topic().to_owned())
            .collect()
    }

    /// Changes the state of the change stream. Returns the previous state.
    pub(super) fn replace_stream(&self, state: StreamState) -> StreamState {
        self.stream.send_replace(state)
    }

    /// Returns the members with registered bindings.
    pub(super) fn subscribed_members(&self) -> Vec<Arc<Member>> {
        self.members
            .iter()
            .filter(|entry| entry.member.is_subscribed.load(Ordering::SeqCst))
            .map(|entry| Arc::clone(&entry.member))
            .collect()
    }

    /// Returns the list of topics whose presence has changed.
    pub(super) fn presence(&self) -> &PresenceChanges {
        &self.presence
    }

    /// Returns whether the channel is joined.
    pub fn has_member(&self, channel: ChannelId) -> bool {
        self.members.contains_key(&channel)
    }

    pub(super) fn member(&self, channel: ChannelId) -> Option<Arc<Member>> {
        let entry = self.members.get(&channel)?;
        Some(Arc::clone(&entry.member))
    }

    pub(super) fn entry_of(&self, channel: ChannelId) -> Option<MemberEntry> {
        let entry = self.members.get(&channel)?;
        Some(entry.clone())
    }
}
