//! Who is here: every joined channel of this process by its id, and every open socket.
//!
//! Fan-out looks a channel up, queues a frame for its socket and goes on; it waits for nobody.
//! The maps are sharded, and no lock of theirs is held while a frame is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::watch;

use super::error::CloseReason;
use super::frame::Frame;
use super::outbound::{Fanout, Gate, Outbound, Queued};
use super::protocol::{Ref, Serializer, ServerMessage, SystemNotice, json_string};
use crate::change::Action;
use crate::observability::metrics::{DropReason, RealtimeMetrics};
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

/// Names an open socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(u64);

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
    outbound: Arc<Outbound>,
    serializer: Serializer,
    topic: Arc<str>,
    /// The topic as JSON text, ready to be copied into every change.
    topic_json: Box<str>,
    join_ref: Option<Ref>,
    /// Joined without a `config`: changes have another shape (protocol 3.1).
    is_legacy: bool,
    gate: Gate,
    /// Its bindings are registered: it is told what becomes of the change stream.
    is_subscribed: AtomicBool,
}

/// What fan-out has to know of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The full topic.
    pub topic: Arc<str>,
    /// The join, as the client named it.
    pub join_ref: Option<Ref>,
    /// Joined without a `config`.
    pub is_legacy: bool,
}

/// The sockets and channels of this process.
#[derive(Debug)]
pub struct Hub {
    members: DashMap<ChannelId, Arc<Member>>,
    sockets: DashMap<SocketId, Arc<Outbound>>,
    /// Ids are never given twice, so a late answer cannot hit another channel.
    next_id: AtomicU64,
    stream: watch::Sender<StreamState>,
    is_stopping: AtomicBool,
    metrics: RealtimeMetrics,
}

impl Hub {
    /// An empty hub.
    pub fn new(metrics: RealtimeMetrics) -> Self {
        Self {
            members: DashMap::new(),
            sockets: DashMap::new(),
            next_id: AtomicU64::new(1),
            stream: watch::Sender::new(StreamState::NotYet),
            is_stopping: AtomicBool::new(false),
            metrics,
        }
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
        self.sockets.insert(id, Arc::clone(outbound));
        self.metrics.sockets.inc();
        // Whoever comes while everybody is told to go is told so as well.
        if self.is_stopping() {
            outbound.close(CloseReason::Restarting);
        }
        id
    }

    /// Forgets a socket.
    pub fn remove_socket(&self, id: SocketId) {
        if self.sockets.remove(&id).is_some() {
            self.metrics.sockets.dec();
        }
    }

    /// How many sockets are open.
    pub fn socket_count(&self) -> usize {
        usize::try_from(self.metrics.sockets.get()).unwrap_or(0)
    }

    /// Makes a channel known. Its deliveries are held until [`Hub::open`].
    pub fn attach(
        &self,
        channel: ChannelId,
        spec: MemberSpec,
        serializer: Serializer,
        outbound: &Arc<Outbound>,
    ) {
        let member = Member {
            outbound: Arc::clone(outbound),
            serializer,
            topic_json: json_string(&spec.topic),
            topic: spec.topic,
            join_ref: spec.join_ref,
            is_legacy: spec.is_legacy,
            gate: Gate::default(),
            is_subscribed: AtomicBool::new(false),
        };
        self.members.insert(channel, Arc::new(member));
        self.metrics.channels.inc();
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

    /// Starts a turn of deliveries.
    pub fn deliveries(&self) -> Deliveries<'_> {
        Deliveries {
            hub: self,
            fanout: Fanout::default(),
        }
    }

    /// Whether joins are refused because the server stops.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Refuses joins from now on and closes every socket.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        for socket in &self.sockets {
            socket.close(CloseReason::Restarting);
        }
    }

    fn member(&self, channel: ChannelId) -> Option<Arc<Member>> {
        self.members.get(&channel).map(|member| Arc::clone(&member))
    }
}

/// Deliveries to channels by id. What gathers for a socket is written when this is dropped, or
/// earlier where it is much.
#[derive(Debug)]
pub struct Deliveries<'a> {
    hub: &'a Hub,
    fanout: Fanout,
}

impl Deliveries<'_> {
    /// Sends a row change; `data` is shared by all who receive it.
    pub fn change(&mut self, channel: ChannelId, ids: &[u32], action: Action, data: &Bytes) {
        // A channel that left while its change was being looked at is no fault.
        let Some(member) = self.hub.member(channel) else {
            return;
        };
        let (serializer, topic) = (member.serializer, &*member.topic_json);
        let frame = if member.is_legacy {
            serializer.encode_legacy_change(topic, action.as_str(), data.clone())
        } else {
            serializer.encode_change(topic, ids, data.clone())
        };
        self.deliver(&member, frame);
    }

    /// Writes what has gathered.
    pub fn flush(&mut self) {
        self.fanout.flush();
    }

    /// Sends a `system` message.
    pub fn system(&mut self, channel: ChannelId, notice: &SystemNotice) {
        if let Some(member) = self.hub.member(channel) {
            self.tell(&member, notice);
        }
    }

    fn tell(&mut self, member: &Member, notice: &SystemNotice) {
        let frame = member.serializer.encode(&ServerMessage::System {
            join_ref: member.join_ref.clone(),
            topic: Arc::clone(&member.topic),
            notice: notice.clone(),
        });
        self.deliver(member, frame);
    }

    fn deliver(&mut self, member: &Member, frame: Frame) {
        let metrics = &self.hub.metrics;
        match self.fanout.deliver(&member.outbound, &member.gate, frame) {
            Queued::Overflowed => {
                metrics.slow_consumers_closed.inc();
                metrics.dropped(DropReason::QueueFull);
            }
            // The socket is closing, or the channel has left: nobody is there to miss it.
            Queued::Refused => {}
            Queued::ToFlush | Queued::Waits => {
                metrics.frames_sent.inc();
            }
        }
    }
}
