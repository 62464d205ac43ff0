//! Fan-out: writes messages to the queues of the sockets that receive them.
//!
//! For each receiving channel, fan-out queues a frame for the channel's socket. It never waits for
//! a socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::super::protocol::{Broadcast, BroadcastError, Serializer, ServerMessage, SystemNotice};
use super::super::wire::body::Body;
use super::super::wire::frame::Frame;
use super::super::wire::outbound::{Fanout, Outbound, Queued};
use super::member::Member;
use super::rate::Rates;
use super::registry::{Hub, MemberEntry};
use super::replayed::{ReplayedMessage, push_frame};
use super::stream::{StreamState, TOO_MANY_CHANGES};
use super::topic::{Audience, Topic};
use super::topic_name::TopicKey;
use crate::change::Action;
use crate::observability::metrics::{DropReason, Limit};
use crate::visibility::ChannelId;

impl Hub {
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

    /// Sets the state of the change stream. Channels with registered bindings are notified if the
    /// state has changed, and whenever the stream becomes live.
    pub fn set_stream(&self, state: StreamState) {
        let before = self.replace_stream(state);
        if before != state || state == StreamState::Live {
            self.notify_subscribed(&state.notice());
        }
    }

    /// Sends `notice` to every channel with registered bindings.
    pub fn notify_subscribed(&self, notice: &SystemNotice) {
        // The members are collected first, so that no shard of the map is locked while frames are
        // written.
        let members = self.subscribed_members();
        let mut deliveries = self.deliveries();
        for member in members {
            deliveries.send_notice(&member, notice);
        }
    }
}

/// A batch that has reached this many bytes takes no further broadcast. Otherwise, the first
/// broadcast would wait too long for the last. One read of a socket rarely yields more.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Number of members that are read before the first of them is written to, so that the processor
/// fetches their memory in parallel. If each member were read and written in turn, the system call
/// would prevent this, and the processor would wait for the memory of each member.
const MEMBERS_AHEAD: usize = 16;

/// The deliveries of one turn, that is, of a task that does not await in between. Frames accumulate
/// and are written when this value is dropped. A batch of broadcasts that becomes too large is
/// handed over earlier.
#[derive(Debug)]
pub struct Deliveries<'a> {
    hub: &'a Hub,
    batch: Option<Batch>,
    /// Acknowledgements to send after the batch has been flushed.
    acknowledgements: Vec<(Arc<Outbound>, Frame)>,
    fanout: Fanout,
    /// Number of row changes that have not been added to the rate yet.
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
    /// Whether the broadcasts are rows of `realtime.messages`. Members that requested a replay
    /// receive each row separately.
    is_of_rows: bool,
    count: u64,
    v1: Vec<u8>,
    v2: Vec<u8>,
}

impl Deliveries<'_> {
    /// Sends a broadcast to every member of the topic that may read broadcasts, except `except`.
    /// The broadcast is encoded once for each protocol version of the members. Returns the number
    /// of members of the topic.
    ///
    /// # Errors
    /// The errors of [`Broadcast::check`], regardless of the members.
    pub fn broadcast(
        &mut self,
        key: &TopicKey,
        broadcast: &Broadcast<'_>,
        except: Option<ChannelId>,
    ) -> Result<usize, BroadcastError> {
        self.gather(key, broadcast, except, false)
    }

    /// Sends a row of `realtime.messages` to the members of its topic. The metadata contains the id
    /// of the row. Skips `except`, members that may not read broadcasts, and members that received
    /// the row by replay (protocol 4.7). Returns the number of members of the topic.
    ///
    /// # Errors
    /// The same as for [`Deliveries::broadcast`].
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
            if !member.reads_broadcasts() || except == Some(member.id) {
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
                    self.hub.rates().events.add(1);
                }
                self.note(queued, 1);
            }
        }
        Ok(members)
    }

    /// Sends stored messages to a channel whose join has been answered and whose gate is not open
    /// yet. The channel will not receive the same messages again as rows.
    pub fn replay(&mut self, channel: ChannelId, messages: &[ReplayedMessage]) {
        let Some(member) = self.hub.member(channel) else {
            return;
        };
        self.flush_batch();
        let mut frames = Vec::new();
        for message in messages {
            push_frame(
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
                self.hub.rates().events.add(1);
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

    /// Sends a row change to a channel. `ids` are the ids of the channel's matching bindings, and
    /// all recipients share `data`. Returns whether the change was written to the channel's socket,
    /// queued or held back.
    pub fn change(&mut self, channel: ChannelId, ids: &[u32], action: Action, data: &Body) -> bool {
        // A channel may leave while the recipients of a change are determined.
        let Some(member) = self.hub.member(channel) else {
            return false;
        };
        let rate = &self.hub.rates().changes;
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
            .rates()
            .changes
            .add(std::mem::take(&mut self.changes));
    }

    /// Drops a change because the rate is over its limit. The channel receives one notice for each
    /// period in which the rate is over its limit (protocol 4.4). `excess` is the number of the
    /// current period.
    fn skip_change(&mut self, member: &Member, excess: u32) {
        self.hub.metrics().limited(Limit::Events);
        self.hub.metrics().dropped(DropReason::RateLimited);
        if member.reported_excess.swap(excess, Ordering::Relaxed) != excess {
            self.send_notice(member, &SystemNotice::changes_error(TOO_MANY_CHANGES));
        }
    }

    /// Sends a `system` message to a channel.
    pub fn system(&mut self, channel: ChannelId, notice: &SystemNotice) {
        if let Some(member) = self.hub.member(channel) {
            self.send_notice(&member, notice);
        }
    }

    /// Sends a message to a socket.
    pub fn send(&mut self, outbound: &Arc<Outbound>, frame: Frame) {
        let queued = self.fanout.send(outbound, frame);
        self.note(queued, 1);
    }

    /// Sends a reply to a socket after the broadcasts that precede it have been flushed.
    pub fn acknowledge(&mut self, outbound: &Arc<Outbound>, frame: Frame) {
        self.acknowledgements.push((Arc::clone(outbound), frame));
    }

    /// Writes everything that has accumulated.
    pub fn flush(&mut self) {
        self.count_changes();
        self.flush_batch();
        self.fanout.flush();
    }

    /// Returns the number of frames that have been queued or written so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes or queues the accumulated broadcasts and then their acknowledgements, so that later
    /// frames follow them.
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
                    && member.reads_broadcasts()
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
        self.hub.metrics().frames_sent.inc_by(sent);
        // Sending a message counts as one event, and so does each delivery (protocol 4.4).
        self.hub.rates().events.add(batch.count + sent);
    }

    fn send_notice(&mut self, member: &Member, notice: &SystemNotice) {
        let frame = member.serializer.encode(&ServerMessage::System {
            join_ref: member.join_ref.clone(),
            topic: Arc::clone(member.topic.key().topic()),
            notice: notice.clone(),
        });
        self.deliver(member, frame);
    }

    pub(super) fn entry_of(&self, channel: ChannelId) -> Option<MemberEntry> {
        self.hub.entry_of(channel)
    }

    pub(super) fn rates(&self) -> &Rates {
        self.hub.rates()
    }

    /// Sends a complete frame that several members share.
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
        let metrics = self.hub.metrics();
        match queued {
            Queued::Written | Queued::ToFlush | Queued::Pending => {
                self.frames += frames;
                metrics.frames_sent.inc_by(frames);
            }
            Queued::Overflowed => {
                metrics.dropped(DropReason::QueueFull);
            }
            // The socket is closing, the channel has left, or the channel has already received the
            // message. None of these counts as a lost message.
            Queued::Refused | Queued::AlreadyReplayed => {}
        }
    }
}

impl Drop for Deliveries<'_> {
    fn drop(&mut self) {
        self.count_changes();
        self.flush_batch();
    }
}
