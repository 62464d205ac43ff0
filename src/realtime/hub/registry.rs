//! The joined channels of this process, by id and by topic, and its open sockets.
//!
//! Fan-out looks up a channel and queues a frame for its socket. It never waits for a socket. The
//! maps are sharded, and none of their locks is held while a frame is written.

pub mod presence;
pub mod presence_feed;
pub mod rate;
pub mod topic;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use tokio::sync::watch;
use uuid::Uuid;

use self::presence_feed::PresenceFeed;
use self::rate::Rates;
use self::topic::{Audience, Seat, Topic, TopicKey};
use super::channel::authorize::Permissions;
use super::error::CloseReason;
use super::messages::own_ids::OwnIds;
use super::messages::replay::{ReplayedMessage, ReplayedPayload};
use super::protocol::{
    Broadcast, BroadcastError, Ref, Serializer, ServerMessage, SystemNotice, UserPayload,
    push_replayed,
};
use super::wire::body::Body;
use super::wire::frame::Frame;
use super::wire::outbound::{Fanout, Gate, Outbound, Queued};
pub use super::wire::sockets::SocketId;
use super::wire::sockets::Sockets;
use crate::bus::people::People;
use crate::bus::rechecks::{Members, Requested};
use crate::change::Action;
use crate::observability::metrics::{DropReason, Limit, RealtimeMetrics};
use crate::visibility::ChannelId;

/// Sent to a channel with bindings when changes are live.
pub const SUBSCRIBED: &str = "Subscribed to PostgreSQL";
/// Sent to a channel with bindings while the change stream is down.
pub const INTERRUPTED: &str = "Changes are interrupted: the connection to the database was lost. \
                               Nothing is lost, they will come later";
/// Sent to a channel with bindings before the change stream has started.
pub const NOT_LIVE_YET: &str = "Changes are not live yet: waiting for the database";
/// Sent to a channel with bindings when the log could not be read without a gap.
pub const GAP: &str = "Changes may have been missed: read again what you need";
/// Sent to a channel with bindings once per excess of changes over
/// `realtime.max_events_per_second`.
pub const TOO_MANY_CHANGES: &str =
    "Too many changes per second: some are left out, read again what you need";

/// The state of the change stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// The stream has not started.
    NotYet,
    /// Committed changes are delivered.
    Live,
    /// Committed changes will be delivered later.
    Interrupted,
}

impl StreamState {
    /// The message that reports this state to a channel with registered bindings.
    pub fn notice(self) -> SystemNotice {
        match self {
            Self::Live => SystemNotice::changes_ok(SUBSCRIBED),
            Self::Interrupted => SystemNotice::changes_error(INTERRUPTED),
            Self::NotYet => SystemNotice::changes_error(NOT_LIVE_YET),
        }
    }
}

/// A joined channel, with everything that fan-out needs.
#[derive(Debug)]
pub struct Member {
    id: ChannelId,
    topic: Arc<Topic>,
    seat: Seat,
    outbound: Arc<Outbound>,
    serializer: Serializer,
    join_ref: Option<Ref>,
    /// The channel was joined without a `config`, so its changes have another shape (protocol 3.1).
    is_legacy: bool,
    /// The join requested a replay. Replayed messages must not be delivered again as rows.
    is_replaying: bool,
    /// The user on whose behalf the channel was joined. A plain mutex, held only to copy the id.
    person: Mutex<Option<Uuid>>,
    gate: Gate,
    /// Whether the channel may read broadcasts. The policies decide for a private channel, and the
    /// decision may change with a new token.
    reads_broadcasts: AtomicBool,
    /// Whether the channel may read presence. It is decided like `reads_broadcasts`.
    reads_presence: AtomicBool,
    /// If the channel may read presence, it receives the diffs with a greater version than this.
    presence_version: AtomicU64,
    /// Its bindings are registered, so it receives the state of the change stream.
    is_subscribed: AtomicBool,
    /// The number of the last excess of changes that was reported to it.
    told_excess: AtomicU32,
    /// Its permissions must be rechecked.
    needs_recheck: AtomicBool,
}

/// The presence version of a member that receives no diffs.
const NO_PRESENCE: u64 = u64::MAX;

impl Member {
    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    pub(super) fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    pub(super) fn join_ref(&self) -> Option<&Ref> {
        self.join_ref.as_ref()
    }

    /// Makes the member receive presence diffs after `version`. Called with the presence of its
    /// topic locked.
    pub(super) fn follow_presence(&self, version: u64) {
        self.presence_version.store(version, Ordering::Relaxed);
    }

    /// Whether the member receives the diff that led to `version`.
    pub(super) fn follows(&self, version: u64) -> bool {
        self.reads_presence.load(Ordering::Relaxed)
            && self.presence_version.load(Ordering::Relaxed) < version
    }

    /// The protocol version of its socket.
    pub(super) fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// Whether messages are or were replayed to the member.
    pub(super) fn is_replaying(&self) -> bool {
        self.is_replaying
    }

    pub(super) fn seat(&self) -> &Seat {
        &self.seat
    }

    fn acts_for_any(&self, people: &HashSet<Uuid>) -> bool {
        self.lock_person()
            .is_some_and(|person| people.contains(&person))
    }

    fn request_recheck(&self) {
        // The mark is set first, because the socket's task reads the marks of its channels after
        // it has taken the request.
        self.needs_recheck.store(true, Ordering::SeqCst);
        self.outbound.request_recheck();
    }

    fn lock_person(&self) -> MutexGuard<'_, Option<Uuid>> {
        self.person.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The properties of a channel that fan-out needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The topic.
    pub topic: TopicKey,
    /// The client's reference of the join.
    pub join_ref: Option<Ref>,
    /// The channel was joined without a `config`.
    pub is_legacy: bool,
    /// The initial permissions to read.
    pub read: Permissions,
    /// The channel receives a presence state before any diff: [`Deliveries::presence_state`].
    pub awaits_state: bool,
    /// The join requested a replay.
    pub is_replaying: bool,
    /// The user on whose behalf the channel was joined, if the token belongs to one.
    pub person: Option<Uuid>,
}

/// The sockets and channels of this process.
#[derive(Debug)]
pub struct Hub {
    members: DashMap<ChannelId, Arc<Member>>,
    /// Topics with members. A topic gains its first member and is removed under the lock of its
    /// entry in this map.
    topics: DashMap<TopicKey, Arc<Topic>>,
    sockets: Arc<Sockets>,
    presence: PresenceFeed,
    /// Ids are never reused, so a late result cannot be applied to another channel.
    next_id: AtomicU64,
    stream: watch::Sender<StreamState>,
    is_stopping: AtomicBool,
    metrics: RealtimeMetrics,
    rates: Arc<Rates>,
    people: People,
    own_ids: OwnIds,
}

impl Hub {
    /// An empty hub without limits of rates or memory.
    pub fn new(metrics: RealtimeMetrics) -> Self {
        Self {
            members: DashMap::new(),
            topics: DashMap::new(),
            sockets: Arc::new(Sockets::unlimited(&metrics)),
            presence: PresenceFeed::default(),
            next_id: AtomicU64::new(1),
            stream: watch::Sender::new(StreamState::NotYet),
            is_stopping: AtomicBool::new(false),
            metrics,
            rates: Arc::new(Rates::unlimited()),
            people: People::default(),
            own_ids: OwnIds::default(),
        }
    }

    /// Uses `people` to record the users with sockets in this process.
    #[must_use]
    pub fn with_people(mut self, people: People) -> Self {
        self.people = people;
        self
    }

    /// The users with sockets in this process.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// Uses `sockets`, which limits the memory of all sockets together.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = Arc::new(sockets);
        self
    }

    /// The open sockets.
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Counts sent and delivered messages in `rates`.
    #[must_use]
    pub fn with_rates(mut self, rates: Arc<Rates>) -> Self {
        self.rates = rates;
        self
    }

    /// The rates of the whole server.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The metrics.
    pub fn metrics(&self) -> &RealtimeMetrics {
        &self.metrics
    }

    /// A new, unique channel id.
    pub fn next_channel(&self) -> ChannelId {
        ChannelId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers an open socket.
    pub fn add_socket(&self, outbound: &Arc<Outbound>) -> SocketId {
        let id = SocketId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.sockets.insert(id, outbound);
        self.metrics.sockets.inc();
        // A socket that opens while all sockets are being closed is closed too.
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

    /// Number of open sockets.
    pub fn socket_count(&self) -> usize {
        usize::try_from(self.metrics.sockets.get()).unwrap_or(0)
    }

    /// Counts a socket that has joined its first channel.
    pub fn add_user(&self) {
        self.metrics.sockets_joined.inc();
    }

    /// Removes a socket that had joined a channel from the count.
    pub fn remove_user(&self) {
        self.metrics.sockets_joined.dec();
    }

    /// Number of sockets that have joined a channel. Supabase Realtime counts users in this way.
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
        let key = spec.topic;
        let entry = self
            .topics
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Topic::new(key)));
        let member = Arc::new(Member {
            id: channel,
            topic: Arc::clone(&entry),
            seat: Seat::default(),
            outbound: Arc::clone(outbound),
            serializer,
            join_ref: spec.join_ref,
            is_legacy: spec.is_legacy,
            is_replaying: spec.is_replaying,
            person: Mutex::new(spec.person),
            gate: Gate::default(),
            reads_broadcasts: AtomicBool::new(spec.read.broadcast),
            reads_presence: AtomicBool::new(spec.read.presence),
            presence_version: AtomicU64::new(match spec.awaits_state {
                true => NO_PRESENCE,
                false => 0,
            }),
            is_subscribed: AtomicBool::new(false),
            told_excess: AtomicU32::new(0),
            needs_recheck: AtomicBool::new(false),
        });
        entry.enter(Arc::clone(&member));
        drop(entry);
        self.members.insert(channel, member);
        self.metrics.channels.inc();
    }

    /// Sets what the channel may read from now on.
    pub fn permit(&self, channel: ChannelId, read: Permissions) {
        if let Some(member) = self.member(channel) {
            member
                .reads_broadcasts
                .store(read.broadcast, Ordering::SeqCst);
            member.reads_presence.store(read.presence, Ordering::SeqCst);
        }
    }

    /// Changes the user on whose behalf the channel is joined.
    pub fn set_person(&self, channel: ChannelId, person: Option<Uuid>) {
        if let Some(member) = self.member(channel) {
            *member.lock_person() = person;
        }
    }

    /// The user on whose behalf a channel is joined.
    pub fn person(&self, channel: ChannelId) -> Option<Uuid> {
        *self.member(channel)?.lock_person()
    }

    /// Makes the sockets of these channels recheck their permissions.
    pub fn request_rechecks(&self, requested: &Requested) {
        for (name, people) in &requested.topics {
            let Some(topic) = self.topic(&TopicKey::new(name, true)) else {
                continue;
            };
            for member in topic.audience().members() {
                let is_meant = match people {
                    Members::All => true,
                    Members::Of(people) => member.acts_for_any(people),
                };
                if is_meant {
                    member.request_recheck();
                }
            }
        }
        if !requested.everything && requested.people.is_empty() {
            return;
        }
        for member in &self.members {
            let is_meant = requested.everything || member.acts_for_any(&requested.people);
            if is_meant && member.topic.key().is_private() {
                member.request_recheck();
            }
        }
    }

    /// Whether the channel's permissions must be rechecked. Clears the mark.
    pub fn take_recheck(&self, channel: ChannelId) -> bool {
        self.member(channel)
            .is_some_and(|member| member.needs_recheck.swap(false, Ordering::SeqCst))
    }

    /// Lets deliveries to the channel through. Called once the reply to its join is queued.
    pub fn open(&self, channel: ChannelId) {
        if let Some(member) = self.member(channel) {
            member.outbound.open_gate(&member.gate);
        }
    }

    /// Removes a channel. Nothing is delivered to it after this method has returned.
    pub fn detach(&self, channel: ChannelId) {
        if let Some((_, member)) = self.members.remove(&channel) {
            member.outbound.close_gate(&member.gate);
            self.untrack_member(&member);
            member.topic.leave(&member);
            self.topics
                .remove_if(member.topic.key(), |_, topic| topic.is_empty());
            self.metrics.channels.dec();
        }
    }

    /// Marks the channel's bindings as registered, so that it receives the state of the change
    /// stream from now on. Returns the current state, which is read after marking, so that no
    /// transition is missed in between.
    pub fn mark_subscribed(&self, channel: ChannelId) -> StreamState {
        if let Some(member) = self.member(channel) {
            member.is_subscribed.store(true, Ordering::SeqCst);
        }
        *self.stream.borrow()
    }

    /// Marks the channel as without registered bindings, so that it does not receive the state of
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

    /// Sets the state of the change stream. Channels with registered bindings are notified if it
    /// changed, and each time the stream becomes live.
    pub fn set_stream(&self, state: StreamState) {
        let before = self.stream.send_replace(state);
        if before != state || state == StreamState::Live {
            self.notify_subscribed(&state.notice());
        }
    }

    /// Sends `notice` to every channel with registered bindings.
    pub fn notify_subscribed(&self, notice: &SystemNotice) {
        // Collected first, so that no shard stays locked while frames are written.
        let members: Vec<_> = self
            .members
            .iter()
            .filter(|member| member.is_subscribed.load(Ordering::SeqCst))
            .map(|member| Arc::clone(&member))
            .collect();
        let mut deliveries = self.deliveries();
        for member in members {
            deliveries.tell(&member, notice);
        }
    }

    /// Generates and recognizes the ids of messages that this process stores and sends itself.
    pub fn own_ids(&self) -> &OwnIds {
        &self.own_ids
    }

    /// Starts a turn of deliveries.
    pub fn deliveries(&self) -> Deliveries<'_> {
        Deliveries {
            hub: self,
            batch: None,
            acknowledgements: Vec::new(),
            fanout: Fanout::default(),
            frames: 0,
            changes: 0,
        }
    }

    /// Whether joins are refused because the server is stopping.
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

    /// A topic, if it has members.
    pub fn topic(&self, key: &TopicKey) -> Option<Arc<Topic>> {
        self.topics.get(key).map(|topic| Arc::clone(&topic))
    }

    /// The private topics with members whose names, without `realtime:`, start with `prefix`. Scans
    /// all topics.
    pub fn private_topics(&self, prefix: &str) -> Vec<String> {
        self.topics
            .iter()
            .map(|topic| topic.key().clone())
            .filter(|key| key.is_private() && key.sub_topic().starts_with(prefix))
            .map(|key| key.sub_topic().to_owned())
            .collect()
    }

    pub(super) fn presence(&self) -> &PresenceFeed {
        &self.presence
    }

    pub(super) fn member(&self, channel: ChannelId) -> Option<Arc<Member>> {
        self.members.get(&channel).map(|member| Arc::clone(&member))
    }
}

/// Maximum bytes of broadcasts that are queued together. With more, the first broadcast would wait
/// too long for the last. One read rarely yields more.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Members that are read before the first of them is written to, so that the processor fetches
/// their memory in parallel. With a system call between any two members, it would wait for the
/// memory of each.
const MEMBERS_AHEAD: usize = 16;

/// The deliveries of one turn. Frames accumulate and are written when this value is dropped. A
/// batch of broadcasts that becomes too large is written earlier.
#[derive(Debug)]
pub struct Deliveries<'a> {
    hub: &'a Hub,
    batch: Option<Batch>,
    /// Frames to send after the batch has been flushed.
    acknowledgements: Vec<(Arc<Outbound>, Frame)>,
    fanout: Fanout,
    /// Row changes that have not been added to the rate yet.
    changes: u64,
    /// Number of frames that were queued or written.
    frames: u64,
}

/// Consecutive broadcasts to the same members. Each member receives all of them in one write.
#[derive(Debug)]
struct Batch {
    topic: Arc<Topic>,
    audience: Arc<Audience>,
    except: Option<ChannelId>,
    /// The broadcasts are rows of `realtime.messages`. Members with a replay receive each row
    /// separately.
    is_of_rows: bool,
    count: u64,
    v1: Vec<u8>,
    v2: Vec<u8>,
}

impl Deliveries<'_> {
    /// Sends a broadcast to every member of the topic that may read broadcasts, except `except`.
    /// The broadcast is encoded once per protocol version of the members. Returns the number of
    /// members of the topic.
    ///
    /// # Errors
    /// Those of [`Broadcast::check`], regardless of the members.
    pub fn broadcast(
        &mut self,
        key: &TopicKey,
        broadcast: &Broadcast<'_>,
        except: Option<ChannelId>,
    ) -> Result<usize, BroadcastError> {
        self.gather(key, broadcast, except, false)
    }

    /// Sends a row of `realtime.messages` to the members of its topic. The metadata contains the id
    /// of the row. Skipped are `except`, members that may not read broadcasts, and members that
    /// received the row by replay (protocol 4.7). Returns the number of members of the topic.
    ///
    /// # Errors
    /// Same as [`Deliveries::broadcast`].
    pub fn row(
        &mut self,
        key: &TopicKey,
        broadcast: &Broadcast<'_>,
        id: Uuid,
        except: Option<ChannelId>,
    ) -> Result<usize, BroadcastError> {
        let members = self.gather(key, broadcast, except, true)?;
        let Some(batch) = &self.batch else {
            return Ok(members);
        };
        let (topic, audience) = (Arc::clone(&batch.topic), Arc::clone(&batch.audience));
        for member in audience.replaying() {
            if !member.reads_broadcasts.load(Ordering::Relaxed) || except == Some(member.id) {
                continue;
            }
            let mut frame = Vec::new();
            broadcast.push_frame(member.serializer, key.topic(), topic.json(), &mut frame);
            if !frame.is_empty() {
                let frame = Frame::shared(frame.into());
                let queued = self
                    .fanout
                    .deliver_once(&member.outbound, &member.gate, id, frame);
                if matches!(queued, Queued::ToFlush | Queued::Pending) {
                    self.hub.rates.events.add(1);
                }
                self.note(queued, 1);
            }
        }
        Ok(members)
    }

    /// Sends stored messages to a channel whose join is answered and whose gate is not open yet.
    /// The channel does not receive them again as rows.
    pub fn replay(&mut self, channel: ChannelId, messages: &[ReplayedMessage]) {
        let Some(member) = self.hub.member(channel) else {
            return;
        };
        self.flush_batch();
        let mut frames = Vec::new();
        for message in messages {
            replayed_frame(
                member.serializer,
                &member.topic,
                member.join_ref.as_ref(),
                message,
                &mut frames,
            );
        }
        let ids = messages.iter().map(|message| message.id).collect();
        member.outbound.note_replayed(&member.gate, ids);
        if !frames.is_empty() {
            let queued = self
                .fanout
                .send(&member.outbound, Frame::shared(frames.into()));
            self.note(queued, messages.len() as u64);
        }
    }

    fn gather(
        &mut self,
        key: &TopicKey,
        broadcast: &Broadcast<'_>,
        except: Option<ChannelId>,
        is_of_rows: bool,
    ) -> Result<usize, BroadcastError> {
        broadcast.check(key.topic())?;
        let continues = self.batch.as_ref().is_some_and(|batch| {
            batch.topic.key() == key
                && batch.except == except
                && batch.is_of_rows == is_of_rows
                && batch.v1.len().max(batch.v2.len()) < MAX_BATCH_BYTES
        });
        if !continues {
            self.flush_batch();
            let Some(topic) = self.hub.topic(key) else {
                self.hub.rates.events.add(1);
                return Ok(0);
            };
            self.batch = Some(Batch {
                audience: topic.audience(),
                topic,
                except,
                is_of_rows,
                count: 0,
                v1: Vec::new(),
                v2: Vec::new(),
            });
        }
        let Some(batch) = &mut self.batch else {
            return Ok(0);
        };
        batch.count += 1;
        for (serializer, frames) in [
            (Serializer::V1, &mut batch.v1),
            (Serializer::V2, &mut batch.v2),
        ] {
            if batch.audience.has_version(serializer) {
                broadcast.push_frame(serializer, key.topic(), batch.topic.json(), frames);
            }
        }
        Ok(batch.audience.members().len())
    }

    /// Sends a row change. All recipients share `data`. Returns whether the change was queued for
    /// the channel's socket or written to it.
    pub fn change(&mut self, channel: ChannelId, ids: &[u32], action: Action, data: &Body) -> bool {
        // A channel may leave while the recipients of a change are determined.
        let Some(member) = self.hub.member(channel) else {
            return false;
        };
        let rate = &self.hub.rates.changes;
        if rate.is_over() {
            self.skip_change(&member, rate.excess());
            return false;
        }
        self.changes += 1;
        let (serializer, topic) = (member.serializer, member.topic.json());
        let frame = if member.is_legacy {
            serializer.encode_legacy_change(topic, action.as_str(), data.clone())
        } else {
            serializer.encode_change(topic, ids, data.clone())
        };
        self.deliver(&member, frame)
    }

    fn count_changes(&mut self) {
        self.hub
            .rates
            .changes
            .add(std::mem::take(&mut self.changes));
    }

    /// Drops a change because the rate is over its limit. The channel receives one notice per
    /// excess (protocol 4.4).
    fn skip_change(&mut self, member: &Member, excess: u32) {
        self.hub.metrics.limited(Limit::Events);
        self.hub.metrics.dropped(DropReason::RateLimited);
        if member.told_excess.swap(excess, Ordering::Relaxed) != excess {
            self.tell(member, &SystemNotice::changes_error(TOO_MANY_CHANGES));
        }
    }

    /// Sends a `system` message to a channel.
    pub fn system(&mut self, channel: ChannelId, notice: &SystemNotice) {
        if let Some(member) = self.hub.member(channel) {
            self.tell(&member, notice);
        }
    }

    /// Sends a message to a socket.
    pub fn send(&mut self, outbound: &Arc<Outbound>, frame: Frame) {
        let queued = self.fanout.send(outbound, frame);
        self.note(queued, 1);
    }

    /// Sends a message to a socket after the broadcasts before it have been flushed.
    pub fn acknowledge(&mut self, outbound: &Arc<Outbound>, frame: Frame) {
        self.acknowledgements.push((Arc::clone(outbound), frame));
    }

    /// Writes everything that has accumulated.
    pub fn flush(&mut self) {
        self.count_changes();
        self.flush_batch();
        self.fanout.flush();
    }

    /// Number of frames that were queued or written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Queues the accumulated broadcasts, so that later frames follow them.
    pub fn flush_batch(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.hand_over(batch);
        }
        for (outbound, frame) in std::mem::take(&mut self.acknowledgements) {
            self.send(&outbound, frame);
        }
    }

    fn hand_over(&mut self, batch: Batch) {
        let (v1, v2) = (Body::from(batch.v1), Body::from(batch.v2));
        let frames = |member: &Member| match member.serializer {
            Serializer::V1 => &v1,
            Serializer::V2 => &v2,
        };
        let mut sent = 0;
        let mut receivers = Vec::with_capacity(MEMBERS_AHEAD);
        for members in batch.audience.members().chunks(MEMBERS_AHEAD) {
            receivers.clear();
            receivers.extend(members.iter().filter(|member| {
                !frames(member).is_empty()
                    && batch.except != Some(member.id)
                    && !(batch.is_of_rows && member.is_replaying)
                    && member.reads_broadcasts.load(Ordering::Relaxed)
            }));
            for member in &receivers {
                match self
                    .fanout
                    .write(&member.outbound, &member.gate, frames(member))
                {
                    Queued::Written | Queued::ToFlush | Queued::Pending => sent += batch.count,
                    queued => self.note(queued, batch.count),
                }
            }
        }
        self.frames += sent;
        self.hub.metrics.frames_sent.inc_by(sent);
        // Sending a message is one event, and each delivery is one (protocol 4.4).
        self.hub.rates.events.add(batch.count + sent);
    }

    fn tell(&mut self, member: &Member, notice: &SystemNotice) {
        let frame = member.serializer.encode(&ServerMessage::System {
            join_ref: member.join_ref.clone(),
            topic: Arc::clone(member.topic.key().topic()),
            notice: notice.clone(),
        });
        self.deliver(member, frame);
    }

    pub(super) fn member(&self, channel: ChannelId) -> Option<Arc<Member>> {
        self.hub.member(channel)
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.hub.rates
    }

    /// Sends a complete frame that many members share.
    pub(super) fn share(&mut self, member: &Member, frame: &Body) {
        let queued = self.fanout.write(&member.outbound, &member.gate, frame);
        self.note(queued, 1);
    }

    pub(super) fn deliver(&mut self, member: &Member, frame: Frame) -> bool {
        self.flush_batch();
        let queued = self.fanout.deliver(&member.outbound, &member.gate, frame);
        self.note(queued, 1);
        matches!(queued, Queued::Written | Queued::ToFlush | Queued::Pending)
    }

    fn note(&mut self, queued: Queued, frames: u64) {
        let metrics = &self.hub.metrics;
        match queued {
            Queued::Written | Queued::ToFlush | Queued::Pending => {
                self.frames += frames;
                metrics.frames_sent.inc_by(frames);
            }
            Queued::Overflowed => {
                metrics.dropped(DropReason::QueueFull);
            }
            // The socket is closing, the channel has left, or the channel already has the message.
            // None of these is a loss.
            Queued::Refused | Queued::AlreadyReplayed => {}
        }
    }
}

/// Appends the frame of a stored message. A JSON payload becomes a text push of the channel. A
/// binary payload becomes a broadcast; version 1 has no frame for it (protocol 4.7).
fn replayed_frame(
    serializer: Serializer,
    topic: &Topic,
    join_ref: Option<&Ref>,
    message: &ReplayedMessage,
    frames: &mut Vec<u8>,
) {
    let metadata = format!("{{\"replayed\":true,\"id\":\"{}\"}}", message.id);
    match &message.payload {
        ReplayedPayload::Json(payload) => push_replayed(
            serializer,
            (topic.json(), join_ref),
            (&message.event, payload, &metadata),
            frames,
        ),
        ReplayedPayload::Binary(payload) => {
            let broadcast = Broadcast::User {
                event: &message.event,
                metadata: &metadata,
                payload: UserPayload::Binary(payload),
            };
            // A row whose names are too long for a frame was refused as a live broadcast too.
            if broadcast.check(topic.key().topic()).is_ok() {
                broadcast.push_frame(serializer, topic.key().topic(), topic.json(), frames);
            }
        }
    }
}

impl Drop for Deliveries<'_> {
    fn drop(&mut self) {
        self.count_changes();
        self.flush_batch();
    }
}

#[cfg(test)]
mod tests;
