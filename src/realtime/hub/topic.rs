//! A topic and who is in it.
//!
//! Fan-out takes the members as a list that never changes and holds no lock while it hands frames
//! to them. Joining and leaving change one place of a dense list; the shared copy is made by the
//! next fan-out after that.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::protocol::{Serializer, TOPIC_PREFIX, json_string, sub_topic};
use super::Member;
use super::presence::PresenceSet;

/// Names a topic. The public and the private topic of one name are different topics (protocol 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    topic: Arc<str>,
    /// Policies decide who may take part.
    is_private: bool,
}

impl TopicKey {
    /// The topic that REST and SQL know by its name alone, without `realtime:`.
    pub fn new(sub_topic: &str, is_private: bool) -> Self {
        Self::of_channel(format!("{TOPIC_PREFIX}{sub_topic}").into(), is_private)
    }

    /// The topic that a channel is joined to by its full name.
    pub fn of_channel(topic: Arc<str>, is_private: bool) -> Self {
        Self { topic, is_private }
    }

    /// The full name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The name without `realtime:`.
    pub fn sub_topic(&self) -> &str {
        sub_topic(&self.topic)
    }

    /// Whether policies decide who may take part.
    pub fn is_private(&self) -> bool {
        self.is_private
    }
}

/// A topic with members.
#[derive(Debug)]
pub struct Topic {
    key: TopicKey,
    /// The full name as JSON text, ready to be copied into every message.
    json: Box<str>,
    /// A plain mutex: it is held for a change of one place, or for the copy that a fan-out after
    /// such a change makes; never while frames are queued or written.
    members: Mutex<Members>,
    /// Who is present. A plain mutex: it is held to change one entry, to make a diff of what changed
    /// since the last one, or to queue a state; never by a broadcast.
    presence: Mutex<PresenceSet>,
    /// The presence feed has the topic on its list; changed under the lock of `presence`.
    pub(super) presence_is_marked: AtomicBool,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// The same, shared with those who read it. Dropped when the list changes.
    shared: Option<Arc<Audience>>,
}

/// Where a member stands in the list of its topic; read and written under the topic's lock only.
#[derive(Debug, Default)]
pub struct Seat(AtomicUsize);

/// The members of a topic at one moment.
#[derive(Debug)]
pub struct Audience {
    members: Box<[Arc<Member>]>,
    has_v1: bool,
    has_v2: bool,
    /// Some of them had messages replayed to them.
    has_replaying: bool,
}

impl Audience {
    /// The members, in no order.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether any of them speaks this version.
    pub fn speaks(&self, serializer: Serializer) -> bool {
        match serializer {
            Serializer::V1 => self.has_v1,
            Serializer::V2 => self.has_v2,
        }
    }

    /// Those to whom messages are replayed, or were.
    pub(super) fn replaying(&self) -> impl Iterator<Item = &Arc<Member>> {
        let members = if self.has_replaying {
            &*self.members
        } else {
            &[]
        };
        members.iter().filter(|member| member.is_replaying())
    }
}

impl Topic {
    /// A topic without members.
    pub fn new(key: TopicKey) -> Self {
        Self {
            json: json_string(key.topic()),
            key,
            members: Mutex::default(),
            presence: Mutex::default(),
            presence_is_marked: AtomicBool::new(false),
        }
    }

    /// Its name.
    pub fn key(&self) -> &TopicKey {
        &self.key
    }

    /// The full name as JSON text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Takes a member in.
    pub(super) fn enter(&self, member: Arc<Member>) {
        let mut members = self.lock();
        member.seat().0.store(members.list.len(), Ordering::Relaxed);
        members.list.push(member);
        members.shared = None;
    }

    /// Lets a member go that was taken in. The last one takes its place in the list.
    pub(super) fn leave(&self, member: &Member) {
        let mut members = self.lock();
        let seat = member.seat().0.load(Ordering::Relaxed);
        members.list.swap_remove(seat);
        if let Some(moved) = members.list.get(seat) {
            moved.seat().0.store(seat, Ordering::Relaxed);
        }
        members.shared = None;
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    /// Everybody who is in it now.
    pub fn audience(&self) -> Arc<Audience> {
        let Members { list, shared } = &mut *self.lock();
        let audience = shared.get_or_insert_with(|| {
            let speaks = |serializer| list.iter().any(|member| member.serializer() == serializer);
            Arc::new(Audience {
                members: list.as_slice().into(),
                has_v1: speaks(Serializer::V1),
                has_v2: speaks(Serializer::V2),
                has_replaying: list.iter().any(|member| member.is_replaying()),
            })
        });
        Arc::clone(audience)
    }

    /// Who is present, locked.
    pub(super) fn presence(&self) -> MutexGuard<'_, PresenceSet> {
        // A panic while it was held leaves at worst a change that is told with the next.
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
