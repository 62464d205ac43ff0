//! A member of a topic: a joined channel, as fan-out sees it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::super::permissions::Permissions;
use super::super::protocol::{Ref, Serializer};
use super::super::wire::outbound::{Gate, Outbound};
use super::topic_name::{TopicKey, TopicName};
use crate::visibility::ChannelId;

/// The properties of a channel that fan-out needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The topic.
    pub topic: TopicKey,
    /// The `join_ref` of the join.
    pub join_ref: Option<Ref>,
    /// Whether the channel was joined without a `config`.
    pub is_legacy: bool,
    /// The initial permissions to read.
    pub read: Permissions,
    /// Whether the channel receives a presence state
    /// ([`Deliveries::presence_state`](super::Deliveries::presence_state)) before any diff.
    pub awaits_state: bool,
    /// Whether the join requested a replay.
    pub is_replaying: bool,
    /// The user that the channel acts for, if the token belongs to a user.
    pub user_id: Option<Uuid>,
}

/// A joined channel, with everything that fan-out needs.
#[derive(Debug)]
pub struct Member {
    pub(super) id: ChannelId,
    pub(super) topic: Arc<TopicName>,
    pub(super) index: MemberIndex,
    pub(super) outbound: Arc<Outbound>,
    /// The protocol version of the member's socket.
    pub(super) serializer: Serializer,
    pub(super) join_ref: Option<Ref>,
    /// Whether the channel was joined without a `config`. Its row changes then have another shape
    /// (protocol 3.1).
    pub(super) is_legacy: bool,
    /// Whether the join requested a replay. Replayed messages must not be delivered again as rows.
    pub(super) is_replaying: bool,
    /// The user that the channel acts for. A plain mutex, held only to read or replace the id.
    user_id: Mutex<Option<Uuid>>,
    pub(super) gate: Gate,
    /// Whether the channel may read broadcasts. On a private channel the policies decide, and the
    /// decision may change with a new token or a recheck.
    reads_broadcasts: AtomicBool,
    /// Whether the channel may read presence. Decided in the same way as `reads_broadcasts`.
    reads_presence: AtomicBool,
    /// The presence version of the channel's state. If the channel may read presence, it receives
    /// the diffs with a greater version.
    presence_version: AtomicU64,
    /// Whether the channel's bindings are registered, so that it receives the state of the change
    /// stream.
    pub(super) is_subscribed: AtomicBool,
    /// The number of the last excess of changes that was reported to the channel: see
    /// [`Rate::excess`](super::rate::Rate::excess).
    pub(super) reported_excess: AtomicU32,
    /// Whether the channel's permissions must be rechecked.
    needs_recheck: AtomicBool,
}

/// The index of a member in the list of its topic. Read and written only under the topic's lock.
#[derive(Debug, Default)]
pub(super) struct MemberIndex(pub(super) AtomicUsize);

/// The presence version of a member that receives no diffs.
const NO_PRESENCE: u64 = u64::MAX;

impl Member {
    /// Creates a member whose deliveries are held back until its gate is opened.
    pub(super) fn new(
        id: ChannelId,
        topic: Arc<TopicName>,
        spec: MemberSpec,
        serializer: Serializer,
        outbound: Arc<Outbound>,
    ) -> Self {
        Self {
            id,
            topic,
            index: MemberIndex::default(),
            outbound,
            serializer,
            join_ref: spec.join_ref,
            is_legacy: spec.is_legacy,
            is_replaying: spec.is_replaying,
            user_id: Mutex::new(spec.user_id),
            gate: Gate::default(),
            reads_broadcasts: AtomicBool::new(spec.read.broadcast),
            reads_presence: AtomicBool::new(spec.read.presence),
            presence_version: AtomicU64::new(match spec.awaits_state {
                true => NO_PRESENCE,
                false => 0,
            }),
            is_subscribed: AtomicBool::new(false),
            reported_excess: AtomicU32::new(0),
            needs_recheck: AtomicBool::new(false),
        }
    }

    /// Sets what the channel may read from now on.
    pub(super) fn set_read_permissions(&self, read: Permissions) {
        self.reads_broadcasts
            .store(read.broadcast, Ordering::SeqCst);
        self.reads_presence.store(read.presence, Ordering::SeqCst);
    }

    /// Returns whether the channel may read broadcasts.
    pub(super) fn reads_broadcasts(&self) -> bool {
        self.reads_broadcasts.load(Ordering::Relaxed)
    }

    /// Makes the member receive presence diffs after `version`. Called while the presence of its
    /// topic is locked.
    pub(super) fn follow_presence(&self, version: u64) {
        self.presence_version.store(version, Ordering::Relaxed);
    }

    /// Returns whether the member receives the diff that leads to `version`.
    pub(super) fn follows(&self, version: u64) -> bool {
        self.reads_presence.load(Ordering::Relaxed)
            && self.presence_version.load(Ordering::Relaxed) < version
    }

    /// Returns whether the channel acts for one of these users.
    pub(super) fn acts_for_any(&self, user_ids: &HashSet<Uuid>) -> bool {
        self.lock_user_id()
            .is_some_and(|user_id| user_ids.contains(&user_id))
    }

    /// Makes the task of the socket recheck the permissions of the channel.
    pub(super) fn request_recheck(&self) {
        // The mark is set before the request, because the socket's task reads the marks of its
        // channels after it has taken the request.
        self.needs_recheck.store(true, Ordering::SeqCst);
        self.outbound.request_recheck();
    }

    /// Returns the user that the channel acts for.
    pub(super) fn user_id(&self) -> Option<Uuid> {
        *self.lock_user_id()
    }

    /// Changes the user that the channel acts for.
    pub(super) fn set_user_id(&self, user_id: Option<Uuid>) {
        *self.lock_user_id() = user_id;
    }

    /// Returns whether the permissions must be rechecked. Clears the mark.
    pub(super) fn take_recheck(&self) -> bool {
        self.needs_recheck.swap(false, Ordering::SeqCst)
    }

    fn lock_user_id(&self) -> MutexGuard<'_, Option<Uuid>> {
        self.user_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
