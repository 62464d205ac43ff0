//! Sends presence to the members of a topic: a state once, then diffs.
//!
//! Lifecycle: one task per process, which sleeps until the presence of a topic changes.
//!
//! Guarantees: for a member that awaits a state, the state is queued before any diff. After the
//! state, every newer diff is queued, in order, and no older one. The topic's presence lock ensures
//! this. Under the lock, the state is read, its version is recorded at the member, and its frame is
//! queued. Diffs are created under the same lock, and each is delivered only to members with a
//! lower version. So a diff created before the state is not delivered to that member, and a diff
//! created after it is queued after it. One task delivers all diffs, one after another.
//!
//! The lock protects only the presence of one topic. A broadcast never takes it, and it is not held
//! while a diff is delivered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::protocol::{Serializer, TrackPayload};
use super::super::wire::body::Body;
use super::super::wire::frame::Frame;
use super::deliveries::Deliveries;
use super::presence::TrackResult;
use super::registry::{Hub, MemberEntry};
use super::topic::Topic;
use crate::visibility::ChannelId;

/// How long changes accumulate after a diff. A single change is sent immediately. If many changes
/// occur at once, the first is sent immediately, and the others follow together in one diff. Users
/// cannot notice this delay, because it is little more than one frame of a screen. Supabase
/// Realtime sends every change separately.
const TICK: Duration = Duration::from_millis(20);

/// Number of members that receive a diff before other tasks of the thread run.
const MEMBERS_PER_TURN: usize = 256;

impl Hub {
    /// Adds a channel, with its payload, to the presence of its topic under `key`. `max_bytes`
    /// limits the approximate size of the topic's state.
    pub fn track(
        &self,
        channel: ChannelId,
        key: &Arc<str>,
        payload: TrackPayload,
        max_bytes: usize,
    ) -> TrackResult {
        // A channel that has left tracks nothing.
        let Some(MemberEntry { topic, .. }) = self.entry_of(channel) else {
            return TrackResult::Unchanged;
        };
        self.presence()
            .track(&topic, channel, key, payload, max_bytes)
    }

    /// Removes a channel from the presence of its topic.
    pub fn untrack(&self, channel: ChannelId) {
        if let Some(MemberEntry { topic, .. }) = self.entry_of(channel) {
            self.presence().untrack(&topic, channel);
        }
    }
}

impl Deliveries<'_> {
    /// Sends a channel the presence state of its topic. The channel receives diffs from now on.
    pub fn presence_state(&mut self, channel: ChannelId) {
        // Accumulated broadcasts are older than the state, so they are flushed first. They are
        // flushed before the lock is taken, so that nothing else is written under it.
        self.flush_batch();
        let Some(MemberEntry { member, topic }) = self.entry_of(channel) else {
            return;
        };
        let mut set = topic.presence();
        let state = set.state();
        member.follow_presence(set.version());
        let serializer = member.serializer;
        let frame =
            serializer.encode_presence_state(member.join_ref.as_ref(), topic.json(), state.state);
        self.deliver(&member, frame);
        if let Some(rest) = state.rest {
            let frames = diff_frame(serializer, &topic, &rest);
            self.deliver(&member, Frame::shared(frames));
        }
        drop(set);
        self.rates().presence.add(1);
    }
}

/// Sends diffs to members until `stop`.
pub async fn run(hub: Arc<Hub>, stop: CancellationToken) {
    let stopped = stop.cancelled();
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let topics = hub.presence().take();
        if topics.is_empty() {
            tokio::select! {
                () = &mut stopped => return,
                () = hub.presence().changed() => continue,
            }
        }
        let started = Instant::now();
        for topic in topics {
            publish(&hub, &topic).await;
        }
        // After a long round, the pause is as long as the round. Presence therefore uses at most
        // half of a processor, and the changes that accumulate during a pause are sent together.
        let pause = TICK.max(started.elapsed());
        tokio::select! {
            () = &mut stopped => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sends a diff to the members of one topic.
async fn publish(hub: &Hub, topic: &Topic) {
    let metrics = hub.metrics();
    let (diff, version) = {
        let mut set = topic.presence();
        // The mark is cleared under the lock, so any later change of the set marks the topic again.
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
    let frames = |serializer| match audience.has_version(serializer) {
        true => diff_frame(serializer, topic, &diff),
        false => Body::default(),
    };
    let (v1, v2) = (frames(Serializer::V1), frames(Serializer::V2));
    for members in audience.members().chunks(MEMBERS_PER_TURN) {
        let mut deliveries = hub.deliveries();
        let mut receivers = 0;
        for member in members.iter().filter(|member| member.follows(version)) {
            match member.serializer {
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

/// Encodes the whole frame of a diff.
fn diff_frame(serializer: Serializer, topic: &Topic, diff: &[u8]) -> Body {
    let mut frame = Vec::new();
    serializer.push_presence_diff(topic.json(), diff, &mut frame);
    frame.into()
}
