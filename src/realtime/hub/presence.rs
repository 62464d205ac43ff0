//! Who is present on one topic, and what its members are told of it. Pure: no lock, no clock.
//!
//! There are two sets: what is tracked now, and what members have been told. A change goes into
//! the first at once and into the second when [`PresenceSet::publish`] is called, a moment later
//! and together with all other changes since. A newcomer gets the second, so that state and the
//! diffs that follow it never lack or repeat a meta. It is also why any number of changes of one
//! channel between two calls amounts to at most one meta that joins and one that leaves, and why
//! whoever came and went in between is never heard of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::protocol::{Meta, PhxRef, TrackPayload, presence_diff, presence_state};
use super::super::wire::body::Body;
use crate::visibility::ChannelId;

/// Metas by presence key, in the order in which they joined.
type Presences = BTreeMap<Arc<str>, Vec<Arc<Meta>>>;

/// The presence of one topic. A channel tracks one payload at most, under one key; several
/// channels may have the same key.
#[derive(Debug, Default)]
pub struct PresenceSet {
    slots: HashMap<ChannelId, Slot>,
    /// Channels with something pending, each once, in the order of their first change.
    pending: Vec<ChannelId>,
    /// What members have been told.
    published: Presences,
    /// Metas in it.
    metas: usize,
    /// Counts what was published.
    version: u64,
    /// The published set, encoded; `None` after it changed.
    state: Option<PresenceState>,
    /// Bytes that a state of everything tracked now would have, roughly.
    bytes: usize,
}

/// What one channel tracks.
#[derive(Debug)]
struct Slot {
    key: Arc<str>,
    published: Option<Arc<Meta>>,
    pending: Option<Pending>,
}

/// What is to become of a channel's meta.
#[derive(Debug)]
enum Pending {
    Track(PhxRef, TrackPayload),
    Untrack,
}

/// The published set, encoded and shared by all who are sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceState {
    /// The payload of the `presence_state`.
    pub state: Body,
    /// The payload of a `presence_diff` that belongs behind it, where it cannot say all.
    pub rest: Option<Body>,
}

/// What a track came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// Members will hear of it.
    Changed,
    /// The same is tracked already.
    Unchanged,
    /// The state of the topic would become too large; nothing was changed.
    Full,
}

impl PresenceSet {
    /// A channel tracks `payload` from now on, instead of what it tracked before. `phx_ref` names
    /// the meta, unless nothing changes by it. The state may have `max_bytes`, roughly.
    pub fn track(
        &mut self,
        channel: ChannelId,
        key: &Arc<str>,
        payload: TrackPayload,
        phx_ref: PhxRef,
        max_bytes: usize,
    ) -> Tracked {
        let slot = self.slots.get(&channel);
        let current = slot.and_then(Slot::payload);
        if current == Some(&payload) {
            return Tracked::Unchanged;
        }
        let before = slot.map_or(0, Slot::bytes);
        let bytes = self.bytes - before + entry_bytes(key, &payload);
        // Whoever takes up less than before is let, whatever the others do.
        if bytes > max_bytes && bytes > self.bytes {
            return Tracked::Full;
        }
        self.bytes = bytes;
        let slot = self.slots.entry(channel).or_insert_with(|| Slot {
            key: Arc::clone(key),
            published: None,
            pending: None,
        });
        let pending = Pending::Track(phx_ref, payload);
        if slot.pending.replace(pending).is_none() {
            self.pending.push(channel);
        }
        Tracked::Changed
    }

    /// A channel tracks nothing any more. Whether it did.
    pub fn untrack(&mut self, channel: ChannelId) -> bool {
        let Some(slot) = self.slots.get_mut(&channel) else {
            return false;
        };
        let bytes = slot.bytes();
        if bytes == 0 {
            return false;
        }
        self.bytes -= bytes;
        if slot.pending.replace(Pending::Untrack).is_none() {
            self.pending.push(channel);
        }
        true
    }

    /// Makes what is tracked now known: the payload of the `presence_diff` that takes members from
    /// what they knew to that, or `None` when it is the same.
    pub fn publish(&mut self) -> Option<Vec<u8>> {
        let mut joins = Presences::new();
        let mut leaves = Presences::new();
        for channel in std::mem::take(&mut self.pending) {
            let Some(slot) = self.slots.get_mut(&channel) else {
                continue;
            };
            let left = match slot.pending.take() {
                Some(Pending::Track(phx_ref, payload)) => {
                    let meta = Arc::new(Meta {
                        phx_ref,
                        replaces: slot.published.as_ref().map(|meta| meta.phx_ref),
                        payload,
                    });
                    add(&mut joins, &slot.key, &meta);
                    slot.published.replace(meta)
                }
                Some(Pending::Untrack) => slot.published.take(),
                None => continue,
            };
            if let Some(left) = left {
                add(&mut leaves, &slot.key, &left);
            }
            if slot.published.is_none() {
                self.slots.remove(&channel);
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

    /// Changes the published set as clients change theirs: what joins goes behind what is there,
    /// then what leaves is taken out.
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

    /// What a newcomer is sent: everything published. Encoded once until that changes.
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

    /// How many diffs were published: a diff is for those whose state is older than it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many metas members know of.
    pub fn len(&self) -> usize {
        self.metas
    }

    /// Whether members know of nobody.
    pub fn is_empty(&self) -> bool {
        self.metas == 0
    }

    /// Whether there is something to publish.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

impl Slot {
    /// What is tracked now.
    fn payload(&self) -> Option<&TrackPayload> {
        match &self.pending {
            Some(Pending::Track(_, payload)) => Some(payload),
            Some(Pending::Untrack) => None,
            None => self.published.as_ref().map(|meta| &meta.payload),
        }
    }

    /// Bytes of it in a state; zero when nothing is tracked.
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
