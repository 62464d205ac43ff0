//! The presence of one topic, both tracked and published, without a lock or a clock.
//!
//! There are two sets: the metas that are tracked now, and the metas that have been published to
//! members. A change enters the first set immediately. Shortly afterwards [`PresenceSet::publish`]
//! is called, and the change enters the second set together with all other changes since the last
//! call. A new member receives the second set, so that its state and the following diffs never omit
//! or repeat a meta. For the same reason, all changes of a channel between two calls result in at
//! most one meta that joins and one that leaves. A channel that joins and leaves between two calls
//! is never published.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::protocol::{Meta, PhxRef, TrackPayload, presence_diff, presence_state};
use super::super::wire::body::Body;
use crate::visibility::ChannelId;

/// Metas by presence key. The metas of a key are in the order in which they joined.
type Presences = BTreeMap<Arc<str>, Vec<Arc<Meta>>>;

/// The presence of one topic. A channel tracks at most one payload, under one key. Several channels
/// may have the same key.
#[derive(Debug, Default)]
pub struct PresenceSet {
    channels: HashMap<ChannelId, ChannelPresence>,
    /// Channels with a pending change, each once, in the order of their first change.
    pending: Vec<ChannelId>,
    /// The metas that have been published to members.
    published: Presences,
    /// Number of metas in `published`.
    metas: usize,
    /// Number of published diffs.
    version: u64,
    /// The encoded published set. `None` after a change, until the set is encoded again.
    state: Option<PresenceState>,
    /// Approximate size in bytes of a state that contains everything tracked now.
    bytes: usize,
}

/// The presence of one channel.
#[derive(Debug)]
struct ChannelPresence {
    key: Arc<str>,
    published: Option<Arc<Meta>>,
    pending: Option<Pending>,
}

/// The pending change of a channel's meta.
#[derive(Debug)]
enum Pending {
    Track(PhxRef, TrackPayload),
    Untrack,
}

/// The encoded published set, shared by all receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceState {
    /// The payload of the `presence_state`.
    pub state: Body,
    /// The payload of a `presence_diff` to send directly after the state, if some key can only be
    /// sent in a diff.
    pub rest: Option<Body>,
}

/// The result of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackResult {
    /// The change will be published.
    Changed,
    /// The channel already tracks the same payload.
    Unchanged,
    /// The state of the topic would become too large. Nothing was changed.
    Full,
}

impl PresenceSet {
    /// Replaces the payload that a channel tracks. `phx_ref` becomes the reference of the meta,
    /// unless the payload is unchanged. `max_bytes` limits the approximate size of the state.
    pub fn track(
        &mut self,
        channel: ChannelId,
        key: &Arc<str>,
        payload: TrackPayload,
        phx_ref: PhxRef,
        max_bytes: usize,
    ) -> TrackResult {
        let presence = self.channels.get(&channel);
        let current = presence.and_then(ChannelPresence::payload);
        if current == Some(&payload) {
            return TrackResult::Unchanged;
        }
        let before = presence.map_or(0, ChannelPresence::bytes);
        let bytes = self.bytes - before + entry_bytes(key, &payload);
        // A payload that is not larger than the previous one is always accepted, even if the topic
        // is full.
        if bytes > max_bytes && bytes > self.bytes {
            return TrackResult::Full;
        }
        self.bytes = bytes;
        let presence = self
            .channels
            .entry(channel)
            .or_insert_with(|| ChannelPresence {
                key: Arc::clone(key),
                published: None,
                pending: None,
            });
        let pending = Pending::Track(phx_ref, payload);
        if presence.pending.replace(pending).is_none() {
            self.pending.push(channel);
        }
        TrackResult::Changed
    }

    /// Removes the payload of a channel. Returns whether the channel tracked one.
    pub fn untrack(&mut self, channel: ChannelId) -> bool {
        let Some(presence) = self.channels.get_mut(&channel) else {
            return false;
        };
        let bytes = presence.bytes();
        if bytes == 0 {
            return false;
        }
        self.bytes -= bytes;
        if presence.pending.replace(Pending::Untrack).is_none() {
            self.pending.push(channel);
        }
        true
    }

    /// Publishes what is tracked now. Returns the payload of the `presence_diff` for members, or
    /// `None` if nothing changed.
    pub fn publish(&mut self) -> Option<Vec<u8>> {
        let mut joins = Presences::new();
        let mut leaves = Presences::new();
        for channel in std::mem::take(&mut self.pending) {
            let Some(presence) = self.channels.get_mut(&channel) else {
                continue;
            };
            let left = match presence.pending.take() {
                Some(Pending::Track(phx_ref, payload)) => {
                    let meta = Arc::new(Meta {
                        phx_ref,
                        replaces: presence.published.as_ref().map(|meta| meta.phx_ref),
                        payload,
                    });
                    add(&mut joins, &presence.key, &meta);
                    presence.published.replace(meta)
                }
                Some(Pending::Untrack) => presence.published.take(),
                None => continue,
            };
            if let Some(left) = left {
                add(&mut leaves, &presence.key, &left);
            }
            if presence.published.is_none() {
                self.channels.remove(&channel);
            }
        }
        if joins.is_empty() && leaves.is_empty() {
            return None;
        }
        self.apply(&joins, &leaves);
        self.version += 1;
        self.state = None;
        Some(presence_diff(entries(&joins), entries(&leaves)))
    }

    /// Updates the published set in the same order as clients do: joining metas are appended first,
    /// and leaving metas are then removed.
    fn apply(&mut self, joins: &Presences, leaves: &Presences) {
        for (key, metas) in joins {
            let present = self.published.entry(Arc::clone(key)).or_default();
            present.extend(metas.iter().map(Arc::clone));
            self.metas += metas.len();
        }
        for (key, metas) in leaves {
            let Some(present) = self.published.get_mut(key) else {
                continue;
            };
            let left: HashSet<PhxRef> = metas.iter().map(|meta| meta.phx_ref).collect();
            let before = present.len();
            present.retain(|meta| !left.contains(&meta.phx_ref));
            self.metas -= before - present.len();
            if present.is_empty() {
                self.published.remove(key);
            }
        }
    }

    /// Returns the state for a new member, which contains everything published. The state is
    /// encoded only once per change.
    pub fn state(&mut self) -> PresenceState {
        let published = &self.published;
        self.state
            .get_or_insert_with(|| {
                let (state, rest) = presence_state(entries(published));
                PresenceState {
                    state: state.into(),
                    rest: rest.map(Body::from),
                }
            })
            .clone()
    }

    /// Returns the number of published diffs. A diff is sent to members whose state has a lower
    /// version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the number of published metas.
    pub fn len(&self) -> usize {
        self.metas
    }

    /// Returns whether no meta is published.
    pub fn is_empty(&self) -> bool {
        self.metas == 0
    }

    /// Returns whether there are unpublished changes.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl ChannelPresence {
    /// Returns the payload that is tracked now.
    fn payload(&self) -> Option<&TrackPayload> {
        match &self.pending {
            Some(Pending::Track(_, payload)) => Some(payload),
            Some(Pending::Untrack) => None,
            None => self.published.as_ref().map(|meta| &meta.payload),
        }
    }

    /// Returns the approximate size of the channel's meta in a state, in bytes. Zero if nothing is
    /// tracked.
    fn bytes(&self) -> usize {
        self.payload()
            .map_or(0, |payload| entry_bytes(&self.key, payload))
    }
}

fn entry_bytes(key: &str, payload: &TrackPayload) -> usize {
    key.len() + payload.meta_bytes()
}

fn add(presences: &mut Presences, key: &Arc<str>, meta: &Arc<Meta>) {
    presences
        .entry(Arc::clone(key))
        .or_default()
        .push(Arc::clone(meta));
}

fn entries(
    presences: &Presences,
) -> impl Iterator<Item = (&str, impl Iterator<Item = &Meta>)> + Clone {
    presences
        .iter()
        .map(|(key, metas)| (&**key, metas.iter().map(|meta| &**meta)))
}

#[cfg(test)]
#[path = "presence_tests.rs"]
mod tests;
