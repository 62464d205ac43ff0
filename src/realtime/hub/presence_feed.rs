//! What members of a topic are told of its presence: a state once, then diffs.
//!
//! Lifecycle: one task per process, which sleeps until a topic's presence changes.
//!
//! Guarantees: a member is queued a state before any diff, then every diff that is newer than the
//! state and none that is older, in order. This is how: the state is taken, its version noted at
//! the member and the frame queued under the topic's presence lock, and diffs are made under the
//! same lock; a diff is delivered to members whose version is older than it. So a diff that was made
//! before the state is not for that member, and one that was made after it is queued after it. All
//! diffs are delivered by the one task, one after the other.
//!
//! The lock is the topic's own and for presence alone: a broadcast never takes it, and it is not
//! held while a diff is handed to members.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::protocol::{PhxRefs, Serializer, TrackPayload};
use super::super::wire::body::Body;
use super::super::wire::frame::Frame;
use super::presence::Tracked;
use super::topic::Topic;
use super::{Deliveries, Hub, Member};
use crate::visibility::ChannelId;

/// How long changes gather after a diff. A change that comes alone is told at once; of many that
/// come together the first is, and the others a moment later with one diff instead of a diff
/// each. A person cannot see this pause: it is little more than one picture of a screen. The
/// original tells every change by itself.
const TICK: Duration = Duration::from_millis(20);

/// Members a diff is handed to before other tasks of the thread get their turn.
const MEMBERS_PER_TURN: usize = 256;

/// The topics whose presence changed, and what their metas are named by.
#[derive(Debug, Default)]
pub struct PresenceFeed {
    refs: PhxRefs,
    /// Each topic once. A plain mutex: held for a push or a take.
    changed: Mutex<Vec<Arc<Topic>>>,
    wake: Notify,
}

impl PresenceFeed {
    /// The topic has something to tell. Called with the topic's presence locked, so that what is
    /// told includes what was changed.
    fn mark(&self, topic: &Arc<Topic>) {
        if !topic.presence_is_marked.swap(true, Ordering::Relaxed) {
            self.lock().push(Arc::clone(topic));
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Vec<Arc<Topic>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Topic>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// A channel is listed in its topic under `key`, with `payload`. The state of the topic may
    /// have `max_bytes`, roughly.
    pub fn track(
        &self,
        channel: ChannelId,
        key: &Arc<str>,
        payload: TrackPayload,
        max_bytes: usize,
    ) -> Tracked {
        // A channel that has left tracks nothing.
        let Some(member) = self.member(channel) else {
            return Tracked::Unchanged;
        };
        let topic = member.topic();
        let phx_ref = self.presence().refs.next();
        let mut set = topic.presence();
        let tracked = set.track(channel, key, payload, phx_ref, max_bytes);
        if tracked == Tracked::Changed {
            self.presence().mark(topic);
        }
        tracked
    }

    /// A channel is listed no more.
    pub fn untrack(&self, channel: ChannelId) {
        if let Some(member) = self.member(channel) {
            self.untrack_member(&member);
        }
    }

    /// The same for a channel that leaves.
    pub(super) fn untrack_member(&self, member: &Member) {
        let topic = member.topic();
        let mut set = topic.presence();
        if set.untrack(member.id()) {
            self.presence().mark(topic);
        }
    }
}

impl Deliveries<'_> {
    /// Sends a channel the presence of its topic. Diffs are for it from here on.
    pub fn presence_state(&mut self, channel: ChannelId) {
        // Broadcasts that have gathered are older; nothing is written under the lock but this.
        self.settle();
        let Some(member) = self.member(channel) else {
            return;
        };
        let topic = member.topic();
        let mut set = topic.presence();
        let state = set.state();
        member.follow_presence(set.version());
        let serializer = member.serializer();
        let frame = serializer.encode_presence_state(member.join_ref(), topic.json(), state.state);
        self.deliver(&member, frame);
        if let Some(rest) = state.rest {
            let frames = diff_frame(serializer, topic, &rest);
            self.deliver(&member, Frame::shared(frames));
        }
        drop(set);
        self.rates().presence.add(1);
    }
}

/// Tells members what changed, until `stop`.
pub async fn run(hub: Arc<Hub>, stop: CancellationToken) {
    let stopped = stop.cancelled();
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let topics = hub.presence().take();
        if topics.is_empty() {
            tokio::select! {
                () = &mut stopped => return,
                () = hub.presence().wake.notified() => continue,
            }
        }
        let begin = Instant::now();
        for topic in topics {
            publish(&hub, &topic).await;
        }
        // A turn that took long is followed by a pause as long: whatever happens, presence leaves
        // half of a processor to others, and what comes meanwhile is told together.
        let pause = TICK.max(begin.elapsed());
        tokio::select! {
            () = &mut stopped => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Tells the members of one topic.
async fn publish(hub: &Hub, topic: &Topic) {
    let metrics = hub.metrics();
    let (diff, version) = {
        let mut set = topic.presence();
        // Under the lock: whoever changes the set from here on marks the topic again.
        topic.presence_is_marked.store(false, Ordering::Relaxed);
        let before = set.len();
        let diff = set.publish();
        let change = set.len() as i64 - before as i64;
        metrics.presences.inc_by(change);
        (diff, set.version())
    };
    let Some(diff) = diff else {
        return;
    };
    metrics.presence_diffs.inc();
    let audience = topic.audience();
    let frames = |serializer| match audience.speaks(serializer) {
        true => diff_frame(serializer, topic, &diff),
        false => Body::default(),
    };
    let (v1, v2) = (frames(Serializer::V1), frames(Serializer::V2));
    for members in audience.members().chunks(MEMBERS_PER_TURN) {
        let mut deliveries = hub.deliveries();
        let mut receivers = 0;
        for member in members.iter().filter(|member| member.follows(version)) {
            match member.serializer() {
                Serializer::V1 => deliveries.share(member, &v1),
                Serializer::V2 => deliveries.share(member, &v2),
            }
            receivers += 1;
        }
        hub.rates().presence.add(receivers);
        drop(deliveries);
        tokio::task::yield_now().await;
    }
}

/// The whole frame of a diff.
fn diff_frame(serializer: Serializer, topic: &Topic, diff: &[u8]) -> Body {
    let mut frame = Vec::new();
    serializer.push_presence_diff(topic.json(), diff, &mut frame);
    frame.into()
}
