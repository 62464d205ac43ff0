//! Who is here: every joined channel of this process by its id, and every open socket.
//!
//! Fan-out looks a channel up, queues a frame for its socket and goes on; it waits for nobody.
//! The maps are sharded, and no lock of theirs is held while a frame is written.

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

/// What a channel with bindings hears when changes are live.
pub const SUBSCRIBED: &str = "Subscribed to PostgreSQL";
/// What it hears while the change stream is down.
pub const INTERRUPTED: &str = "Changes are interrupted: the connection to the database was lost. \
                               Nothing is lost, they will come later";
/// What it hears before the change stream has begun.
pub const NOT_LIVE_YET: &str = "Changes are not live yet: waiting for the database";
/// What it hears when the log could not be read without a gap.
pub const GAP: &str = "Changes may have been missed: read again what you need";
/// What it hears once while there are more changes than `realtime.max_events_per_second`.
pub const TOO_MANY_CHANGES: &str =
    "Too many changes per second: some are left out, read again what you need";

/// Where the change stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// It has not begun.
    NotYet,
    /// What is committed is delivered.
    Live,
    /// What is committed will be delivered later.
    Interrupted,
}

impl StreamState {
    /// What a channel is told whose bindings are registered.
    pub fn notice(self) -> SystemNotice {
        match self {
            Self::Live => SystemNotice::changes_ok(SUBSCRIBED),
            Self::Interrupted => SystemNotice::changes_error(INTERRUPTED),
            Self::NotYet => SystemNotice::changes_error(NOT_LIVE_YET),
        }
    }
}

/// A joined channel as fan-out knows it.
#[derive(Debug)]
pub struct Member {
    id: ChannelId,
    topic: Arc<Topic>,
    seat: Seat,
    outbound: Arc<Outbound>,
    serializer: Serializer,
    join_ref: Option<Ref>,
    /// Joined without a `config`: changes have another shape (protocol 3.1).
    is_legacy: bool,
    /// It asked for a replay: what was replayed to it must not come again.
    is_replaying: bool,
    /// Whom it acts for. A plain mutex: held to copy the id.
    person: Mutex<Option<Uuid>>,
    gate: Gate,
    /// Whether it reads broadcasts, and presence. Policies may say otherwise of a private channel, and
    /// say another thing under another token.
    reads_broadcasts: AtomicBool,
    reads_presence: AtomicBool,
    /// Which diffs of presence are for it, if it reads presence: those with a greater version.
    presence_version: AtomicU64,
    /// Its bindings are registered: it is told what becomes of the change stream.
    is_subscribed: AtomicBool,
    /// The last excess of changes that it was told of.
    told_excess: AtomicU32,
    /// Its permissions must be rechecked.
    needs_recheck: AtomicBool,
}

/// The presence version of a member that no diff is for.
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

    /// Diffs of presence are for it from the one after `version` on. Called with the presence of its
    /// topic locked.
    pub(super) fn follow_presence(&self, version: u64) {
        self.presence_version.store(version, Ordering::Relaxed);
    }

    /// Whether the diff that led to `version` is for it.
    pub(super) fn follows(&self, version: u64) -> bool {
        self.reads_presence.load(Ordering::Relaxed)
            && self.presence_version.load(Ordering::Relaxed) < version
    }

    /// The protocol version of its socket.
    pub(super) fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// Whether messages are replayed to it, or were.
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
        // In this order, because the socket's task reads the marks of its channels after it has
        // taken the request.
        self.needs_recheck.store(true, Ordering::SeqCst);
        self.outbound.request_recheck();
    }

    fn lock_person(&self) -> MutexGuard<'_, Option<Uuid>> {
        self.person.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What fan-out has to know of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// What it is joined to.
    pub topic: TopicKey,
    /// The join, as the client named it.
    pub join_ref: Option<Ref>,
    /// Joined without a `config`.
    pub is_legacy: bool,
    /// What it may read at first.
    pub read: Permissions,
    /// It is sent a state of presence before any diff: [`Deliveries::presence_state`].
    pub awaits_state: bool,
    /// It asked for a replay.
    pub is_replaying: bool,
    /// Whom it acts for, if that is a person.
    pub person: Option<Uuid>,
}

/// The sockets and channels of this process.
#[derive(Debug)]
pub struct Hub {
    members: DashMap<ChannelId, Arc<Member>>,
    /// Topics with members. A topic is filled and removed under the lock of its place here.
    topics: DashMap<TopicKey, Arc<Topic>>,
    sockets: Arc<Sockets>,
    presence: PresenceFeed,
    /// Ids are never given twice, so a late answer cannot hit another channel.
    next_id: AtomicU64,
    stream: watch::Sender<StreamState>,
    is_stopping: AtomicBool,
    metrics: RealtimeMetrics,
    rates: Arc<Rates>,
    people: People,
    own_ids: OwnIds,
}

impl Hub {
    /// An empty hub, in which no rate is too high and nothing takes too much memory.
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

    /// Notes in `people` who has a socket here.
    #[must_use]
    pub fn with_people(mut self, people: People) -> Self {
        self.people = people;
        self
    }

    /// Where is noted who has a socket here.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// Bounds what all sockets hold together.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = Arc::new(sockets);
        self
    }

    /// The open sockets.
    pub fn sockets(&self) -> &Arc<Sockets> {
        &self.sockets
    }

    /// Counts what is sent and delivered in `rates`.
    #[must_use]
    pub fn with_rates(mut self, rates: Arc<Rates>) -> Self {
        self.rates = rates;
        self
    }

    /// How much is going on.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The counters.
    pub fn metrics(&self) -> &RealtimeMetrics {
        &self.metrics
    }

    /// A channel id that nobody had.
    pub fn next_channel(&self) -> ChannelId {
        ChannelId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers an open socket.
    pub fn add_socket(&self, outbound: &Arc<Outbound>) -> SocketId {
        let id = SocketId(self.next_id.fetch_add(1, Ordering::Relaxed));
        self.sockets.insert(id, outbound);
        self.metrics.sockets.inc();
        // Whoever comes while everybody is told to go is told so as well.
        if self.is_stopping() {
            outbound.close(CloseReason::Restarting);
        }
        id
    }

    /// Forgets a socket.
    pub fn remove_socket(&self, id: SocketId) {
        if self.sockets.remove(id) {
            self.metrics.sockets.dec();
        }
    }

    /// How many sockets are open.
    pub fn socket_count(&self) -> usize {
        usize::try_from(self.metrics.sockets.get()).unwrap_or(0)
    }

    /// A socket has joined its first channel.
    pub fn add_user(&self) {
        self.metrics.sockets_joined.inc();
    }

    /// A socket that had joined a channel is gone.
    pub fn remove_user(&self) {
        self.metrics.sockets_joined.dec();
    }

    /// How many sockets have joined a channel: users, as the original counts them.
    pub fn user_count(&self) -> usize {
        usize::try_from(self.metrics.sockets_joined.get()).unwrap_or(0)
    }

    /// Makes a channel known. Its deliveries are held until [`Hub::open`].
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

    /// The channel may read this much from now on.
    pub fn permit(&self, channel: ChannelId, read: Permissions) {
        if let Some(member) = self.member(channel) {
            member
                .reads_broadcasts
                .store(read.broadcast, Ordering::SeqCst);
            member.reads_presence.store(read.presence, Ordering::SeqCst);
        }
    }

    /// The channel acts for somebody else from now on.
    pub fn set_person(&self, channel: ChannelId, person: Option<Uuid>) {
        if let Some(member) = self.member(channel) {
            *member.lock_person() = person;
        }
    }

    /// The person whom a channel acts for.
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

    /// The reply to the channel's join is queued: deliveries go through.
    pub fn open(&self, channel: ChannelId) {
        if let Some(member) = self.member(channel) {
            member.outbound.open(&member.gate);
        }
    }

    /// Forgets a channel. Nothing is delivered to it after this returned.
    pub fn detach(&self, channel: ChannelId) {
        if let Some((_, member)) = self.members.remove(&channel) {
            member.outbound.shut(&member.gate);
            self.untrack_member(&member);
            member.topic.leave(&member);
            self.topics
                .remove_if(member.topic.key(), |_, topic| topic.is_empty());
            self.metrics.channels.dec();
        }
    }

    /// The channel's bindings are registered: from here on it hears of the change stream. Where
    /// the stream stands is read after that, so that no change of it falls in between.
    pub fn mark_subscribed(&self, channel: ChannelId) -> StreamState {
        if let Some(member) = self.member(channel) {
            member.is_subscribed.store(true, Ordering::SeqCst);
        }
        *self.stream.borrow()
    }

    /// The channel has no registered bindings: it does not receive the state of the change stream.
    pub fn unmark_subscribed(&self, channel: ChannelId) {
        if let Some(member) = self.member(channel) {
            member.is_subscribed.store(false, Ordering::SeqCst);
        }
    }

    /// Where the change stream stands, and when that changes.
    pub fn watch_stream(&self) -> watch::Receiver<StreamState> {
        self.stream.subscribe()
    }

    /// The change stream is in another state: every channel with bindings is told.
    pub fn set_stream(&self, state: StreamState) {
        let before = self.stream.send_replace(state);
        if before != state || state == StreamState::Live {
            self.tell_subscribed(&state.notice());
        }
    }

    /// Tells every channel with bindings.
    pub fn tell_subscribed(&self, notice: &SystemNotice) {
        // Gathered first, so that no shard stays locked while frames are written.
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

    /// The ids of messages that this process stores and sends itself.
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

    /// Whether joins are refused because the server stops.
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

    /// A topic that somebody has joined.
    pub fn topic(&self, key: &TopicKey) -> Option<Arc<Topic>> {
        self.topics.get(key).map(|topic| Arc::clone(&topic))
    }

    /// The names of the private topics with members that begin so, without `realtime:`. Looks at all
    /// topics.
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

/// Bytes of broadcasts that are handed over together at most. More would make the first wait for
/// the last, and one read brings hardly more.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Members that are looked at before the first of them is written to. Their memory is fetched at
/// once; one after the other, a system call between them, each would be waited for.
const MEMBERS_AHEAD: usize = 16;

/// Deliveries of one turn. What gathers for a socket is written when this is dropped, or earlier
/// where it is much.
#[derive(Debug)]
pub struct Deliveries<'a> {
    hub: &'a Hub,
    batch: Option<Batch>,
    /// What is sent once the batch has been handed over.
    acknowledgements: Vec<(Arc<Outbound>, Frame)>,
    fanout: Fanout,
    /// Row changes that are not counted yet.
    changes: u64,
    /// Frames that were queued or written.
    frames: u64,
}

/// Broadcasts in a row to the same members: each gets all of them in one write.
#[derive(Debug)]
struct Batch {
    topic: Arc<Topic>,
    audience: Arc<Audience>,
    except: Option<ChannelId>,
    /// Rows of `realtime.messages`: members with a replay get each by itself.
    is_of_rows: bool,
    count: u64,
    v1: Vec<u8>,
    v2: Vec<u8>,
}

impl Deliveries<'_> {
    /// Sends a broadcast to every member of the topic that reads broadcasts, but `except`. Encoded
    /// once per protocol version that a member speaks. Returns how many members the topic has.
    ///
    /// # Errors
    /// When it cannot be sent, to whomever: [`Broadcast::check`].
    pub fn broadcast(
        &mut self,
        key: &TopicKey,
        broadcast: &Broadcast<'_>,
        except: Option<ChannelId>,
    ) -> Result<usize, BroadcastError> {
        self.gather(key, broadcast, except, false)
    }

    /// Sends a row of `realtime.messages`, whose id is in the metadata, to every member of its topic
    /// that reads broadcasts and to whom it was not replayed (protocol 4.7), but `except`. Returns how
    /// many members the topic has.
    ///
    /// # Errors
    /// As [`Deliveries::broadcast`].
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
                if matches!(queued, Queued::ToFlush | Queued::Waits) {
                    self.hub.rates.events.add(1);
                }
                self.note(queued, 1);
            }
        }
        Ok(members)
    }

    /// Sends messages that are stored to a channel whose join is answered and whose gate is not
    /// open yet. None of them comes to it again as a row.
    pub fn replay(&mut self, channel: ChannelId, messages: &[ReplayedMessage]) {
        let Some(member) = self.hub.member(channel) else {
            return;
        };
        self.settle();
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
            self.settle();
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
            if batch.audience.speaks(serializer) {
                broadcast.push_frame(serializer, key.topic(), batch.topic.json(), frames);
            }
        }
        Ok(batch.audience.members().len())
    }

    /// Sends a row change; `data` is shared by all who receive it. Tells whether it was handed to the
    /// channel's socket.
    pub fn change(&mut self, channel: ChannelId, ids: &[u32], action: Action, data: &Body) -> bool {
        // A channel that left while its change was being looked at is no fault.
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

    /// Leaves out a change of an excess, which its channel hears of once (protocol 4.4).
    fn skip_change(&mut self, member: &Member, excess: u32) {
        self.hub.metrics.limited(Limit::Events);
        self.hub.metrics.dropped(DropReason::RateLimited);
        if member.told_excess.swap(excess, Ordering::Relaxed) != excess {
            self.tell(member, &SystemNotice::changes_error(TOO_MANY_CHANGES));
        }
    }

    /// Sends a `system` message.
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

    /// Sends a message to a socket, as soon as the broadcasts before it have been handed over.
    pub fn acknowledge(&mut self, outbound: &Arc<Outbound>, frame: Frame) {
        self.acknowledgements.push((Arc::clone(outbound), frame));
    }

    /// Writes what has gathered.
    pub fn flush(&mut self) {
        self.count_changes();
        self.settle();
        self.fanout.flush();
    }

    /// How many frames were handed to sockets so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Hands gathered broadcasts over, so that what comes next comes after them.
    pub fn settle(&mut self) {
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
                    Queued::Written | Queued::ToFlush | Queued::Waits => sent += batch.count,
                    queued => self.note(queued, batch.count),
                }
            }
        }
        self.frames += sent;
        self.hub.metrics.frames_sent.inc_by(sent);
        // A message is an event when it is sent and when it is delivered (protocol 4.4).
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

    /// Sends a whole frame that many share.
    pub(super) fn share(&mut self, member: &Member, frame: &Body) {
        let queued = self.fanout.write(&member.outbound, &member.gate, frame);
        self.note(queued, 1);
    }

    pub(super) fn deliver(&mut self, member: &Member, frame: Frame) -> bool {
        self.settle();
        let queued = self.fanout.deliver(&member.outbound, &member.gate, frame);
        self.note(queued, 1);
        matches!(queued, Queued::Written | Queued::ToFlush | Queued::Waits)
    }

    fn note(&mut self, queued: Queued, frames: u64) {
        let metrics = &self.hub.metrics;
        match queued {
            Queued::Written | Queued::ToFlush | Queued::Waits => {
                self.frames += frames;
                metrics.frames_sent.inc_by(frames);
            }
            Queued::Overflowed => {
                metrics.dropped(DropReason::QueueFull);
            }
            // The socket is closing, or the channel has left: nobody is there to miss it. Or the
            // channel has it already.
            Queued::Refused | Queued::Repeated => {}
        }
    }
}

/// Appends the frame of a stored message: JSON as a text push of the channel, anything else as a
/// broadcast, which version 1 has no frame for (protocol 4.7).
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
            // A name too long for the frame was refused when the row was live, too.
            if broadcast.check(topic.key().topic()).is_ok() {
                broadcast.push_frame(serializer, topic.key().topic(), topic.json(), frames);
            }
        }
    }
}

impl Drop for Deliveries<'_> {
    fn drop(&mut self) {
        self.count_changes();
        self.settle();
    }
}

#[cfg(test)]
mod tests;
