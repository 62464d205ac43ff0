//! A topic and its members.
//!
//! Fan-out reads the members from an immutable list and holds no lock while it queues frames for
//! them. A join or a leave changes one slot of a dense list. The next fan-out then creates a new
//! shared copy of the list.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::protocol::Serializer;
use super::member::Member;
use super::presence::PresenceSet;
use super::topic_name::{TopicKey, TopicName};

/// A topic with members.
#[derive(Debug)]
pub struct Topic {
    name: Arc<TopicName>,
    /// A plain mutex. It is held to change one slot, or to copy the list for the first fan-out
    /// after a change. It is never held while frames are queued or written.
    members: Mutex<Members>,
    /// The presence of the topic. A plain mutex. It is held to change one entry, to create a diff,
    /// or to queue a state. Broadcasts never take it.
    presence: Mutex<PresenceSet>,
    /// Whether the topic is on the list of topics whose presence changed. Changed under the lock of
    /// `presence`.
    pub(super) presence_is_marked: AtomicBool,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// An immutable copy of `list`, shared with readers. Dropped when the list changes.
    shared: Option<Arc<Audience>>,
}

/// The members of a topic at one moment.
#[derive(Debug)]
pub struct Audience {
    members: Box<[Arc<Member>]>,
    has_v1: bool,
    has_v2: bool,
    /// Whether any member requested a replay.
    has_replaying: bool,
}

impl Audience {
    /// Returns the members, unordered.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Returns whether any member uses this protocol version.
    pub fn has_version(&self, serializer: Serializer) -> bool {
        match serializer {
            Serializer::V1 => self.has_v1,
            Serializer::V2 => self.has_v2,
        }
    }

    /// Returns the members whose joins requested a replay.
    pub(super) fn replaying(&self) -> impl Iterator<Item = &Arc<Member>> {
        let members = if self.has_replaying {
            &*self.members
        } else {
            &[]
        };
        members.iter().filter(|member| member.is_replaying)
    }
}

impl Topic {
    /// Creates a topic without members.
    pub fn new(key: TopicKey) -> Self {
        Self {
            name: Arc::new(TopicName::new(key)),
            members: Mutex::default(),
            presence: Mutex::default(),
            presence_is_marked: AtomicBool::new(false),
        }
    }

    /// Returns the name, which the topic shares with its members.
    pub fn name(&self) -> &Arc<TopicName> {
        &self.name
    }

    /// Returns the key.
    pub fn key(&self) -> &TopicKey {
        self.name.key()
    }

    /// Returns the full name as JSON text.
    pub fn json(&self) -> &str {
        self.name.json()
    }

    /// Adds a member.
    pub(super) fn enter(&self, member: Arc<Member>) {
        let mut members = self.lock();
        member.index.0.store(members.list.len(), Ordering::Relaxed);
        members.list.push(member);
        members.shared = None;
    }

    /// Removes a member. The last member in the list moves to the index that becomes free.
    pub(super) fn leave(&self, member: &Member) {
        let mut members = self.lock();
        let index = member.index.0.load(Ordering::Relaxed);
        members.list.swap_remove(index);
        if let Some(moved) = members.list.get(index) {
            moved.index.0.store(index, Ordering::Relaxed);
        }
        members.shared = None;
    }

    /// Returns whether the topic has no members.
    pub fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    /// Returns the current members.
    pub fn audience(&self) -> Arc<Audience> {
        let Members { list, shared } = &mut *self.lock();
        let audience = shared.get_or_insert_with(|| {
            let has_version =
                |serializer| list.iter().any(|member| member.serializer == serializer);
            Arc::new(Audience {
                members: list.as_slice().into(),
                has_v1: has_version(Serializer::V1),
                has_v2: has_version(Serializer::V2),
                has_replaying: list.iter().any(|member| member.is_replaying),
            })
        });
        Arc::clone(audience)
    }

    /// Locks the presence of the topic.
    pub(super) fn presence(&self) -> MutexGuard<'_, PresenceSet> {
        // At worst, a panic while the lock was held delays a change until the next diff.
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
