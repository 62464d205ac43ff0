//! Tests of the presence set of a topic, with clients that follow it by the rules of phoenix.js.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::*;
use crate::realtime::protocol::PhxRefs;

/// A topic's presence with its generator of references.
#[derive(Default)]
struct Topic {
    set: PresenceSet,
    refs: PhxRefs,
}

impl Topic {
    fn track(&mut self, channel: u64, key: &str, payload: &Value) -> TrackResult {
        self.track_within(channel, key, payload, usize::MAX)
    }

    fn track_within(
        &mut self,
        channel: u64,
        key: &str,
        payload: &Value,
        max: usize,
    ) -> TrackResult {
        let raw = RawValue::from_string(payload.to_string()).unwrap();
        let payload = TrackPayload::parse(&raw).unwrap();
        let phx_ref = self.refs.next();
        self.set
            .track(ChannelId(channel), &key.into(), payload, phx_ref, max)
    }

    fn untrack(&mut self, channel: u64) -> bool {
        self.set.untrack(ChannelId(channel))
    }

    fn publish(&mut self) -> Option<Value> {
        let diff = self.set.publish()?;
        Some(serde_json::from_slice(&diff).unwrap())
    }

    fn state(&mut self) -> Value {
        let state = self.set.state();
        assert_eq!(state.rest, None);
        serde_json::from_slice(&state.state).unwrap()
    }
}

/// Returns the tracked payloads under a key, without references.
fn tracked(metas: &Value) -> Vec<Value> {
    let metas = metas["metas"].as_array().cloned().unwrap_or_default();
    metas
        .into_iter()
        .map(|mut meta| {
            let fields = meta.as_object_mut().unwrap();
            fields.remove("phx_ref").unwrap();
            fields.remove("phx_ref_prev");
            meta
        })
        .collect()
}

#[test]
fn channels_with_the_same_key_have_a_meta_each() {
    let mut topic = Topic::default();
    topic.track(1, "ann", &json!({"at": "desk"}));
    topic.track(2, "ann", &json!({"at": "phone"}));
    topic.track(3, "bob", &json!({}));
    let diff = topic.publish().unwrap();
    assert_eq!(diff["leaves"], json!({}));
    assert_eq!(
        tracked(&diff["joins"]["ann"]),
        [json!({"at": "desk"}), json!({"at": "phone"})]
    );
    assert_eq!(tracked(&diff["joins"]["bob"]), [json!({})]);
    assert_eq!(topic.state(), diff["joins"]);

    assert!(topic.untrack(1));
    let diff = topic.publish().unwrap();
    assert_eq!(diff["joins"], json!({}));
    assert_eq!(tracked(&diff["leaves"]["ann"]), [json!({"at": "desk"})]);
    assert_eq!(tracked(&topic.state()["ann"]), [json!({"at": "phone"})]);
}

#[test]
fn an_update_joins_and_leaves_and_refers_to_the_replaced_meta() {
    let mut topic = Topic::default();
    topic.track(1, "ann", &json!({"n": 1}));
    let first = topic.publish().unwrap()["joins"]["ann"]["metas"][0].clone();
    assert_eq!(first.get("phx_ref_prev"), None);
    topic.track(1, "ann", &json!({"n": 2}));
    topic.track(1, "ann", &json!({"n": 3}));
    let diff = topic.publish().unwrap();
    let second = &diff["joins"]["ann"]["metas"][0];
    assert_eq!(second["n"], 3, "the last payload of an interval wins");
    assert_eq!(
        second["phx_ref_prev"], first["phx_ref"],
        "the reference that clients know"
    );
    assert_ne!(second["phx_ref"], first["phx_ref"]);
    assert_eq!(diff["leaves"]["ann"]["metas"], json!([first]));
    assert_eq!(topic.state(), diff["joins"]);
}

#[test]
fn unchanged_presence_is_not_published() {
    let mut topic = Topic::default();
    assert!(!topic.untrack(1));
    topic.track(1, "ann", &json!({"a": 1, "b": 2}));
    topic.untrack(1);
    assert_eq!(topic.publish(), None, "tracked and untracked");
    assert!(!topic.untrack(1), "gone");
    topic.track(1, "ann", &json!({"a": 1, "b": 2}));
    topic.publish().unwrap();
    let version = topic.set.version();
    assert_eq!(
        topic.track(1, "ann", &json!({"b": 2, "a": 1})),
        TrackResult::Unchanged
    );
    assert!(!topic.set.has_pending());
    assert_eq!(topic.publish(), None);
    assert_eq!(topic.set.version(), version);
}

#[test]
fn a_channel_that_leaves_and_returns_gets_a_new_meta() {
    let mut topic = Topic::default();
    topic.track(1, "ann", &json!({}));
    topic.publish();
    topic.untrack(1);
    topic.track(1, "ann", &json!({}));
    let diff = topic.publish().unwrap();
    assert_eq!(tracked(&diff["joins"]["ann"]).len(), 1);
    assert_eq!(tracked(&diff["leaves"]["ann"]).len(), 1);
    topic.track(1, "ann", &json!({"n": 1}));
    topic.untrack(1);
    let diff = topic.publish().unwrap();
    assert_eq!(diff["joins"], json!({}), "the channel was untracked again");
    assert_eq!(topic.state(), json!({}));
}

#[test]
fn a_new_member_receives_the_published_state() {
    let mut topic = Topic::default();
    topic.track(1, "ann", &json!({}));
    assert_eq!(topic.state(), json!({}), "nothing is published yet");
    topic.publish();
    let first = topic.set.state().state;
    topic.track(2, "bob", &json!({}));
    let second = topic.set.state().state;
    assert_eq!(first.as_ptr(), second.as_ptr(), "encoded once");
    topic.publish();
    assert_ne!(topic.set.state().state, first);
}

#[test]
fn the_size_of_a_state_is_limited() {
    let mut topic = Topic::default();
    let (small, large) = (json!({"a": 1}), json!({"a": "x".repeat(500)}));
    let limit = 1_000;
    assert_eq!(
        topic.track_within(1, "a", &large, limit),
        TrackResult::Changed
    );
    assert_eq!(topic.track_within(2, "b", &large, limit), TrackResult::Full);
    assert_eq!(
        topic.track_within(2, "b", &small, limit),
        TrackResult::Changed
    );
    assert_eq!(topic.track_within(2, "b", &large, limit), TrackResult::Full);
    topic.publish();
    assert_eq!(
        tracked(&topic.state()["b"]),
        std::slice::from_ref(&small),
        "as before"
    );
    topic.untrack(1);
    assert_eq!(
        topic.track_within(2, "b", &large, limit),
        TrackResult::Changed
    );
    assert_eq!(
        topic.track_within(2, "b", &small, 0),
        TrackResult::Changed,
        "a smaller payload is always allowed"
    );
    topic.untrack(2);
    assert_eq!(topic.set.bytes, 0);
}

/// A client that follows a topic like the official client. It panics on diffs that it must not
/// receive.
struct Follower {
    state: Map<String, Value>,
    /// References that have joined. None may join twice.
    joined: HashSet<String>,
    /// References that have left. None may leave twice.
    left: HashSet<String>,
}

fn refs(presence: &Value) -> Vec<String> {
    let metas = presence["metas"].as_array().unwrap();
    let name = |meta: &Value| meta["phx_ref"].as_str().unwrap().to_owned();
    metas.iter().map(name).collect()
}

impl Follower {
    fn new(state: &Value) -> Self {
        let mut follower = Self {
            state: Map::new(),
            joined: HashSet::new(),
            left: HashSet::new(),
        };
        follower.sync_state(state);
        follower
    }

    /// Does the same as `syncState` of phoenix.js: computes a diff from the known state and applies
    /// it.
    fn sync_state(&mut self, new: &Value) {
        let new = new.as_object().unwrap();
        let (mut joins, mut leaves) = (Map::new(), Map::new());
        for (key, presence) in &self.state {
            if !new.contains_key(key) {
                leaves.insert(key.clone(), presence.clone());
            }
        }
        for (key, presence) in new {
            let Some(current) = self.state.get(key) else {
                joins.insert(key.clone(), presence.clone());
                continue;
            };
            let without = |presence: &Value, others: &[String]| {
                let mut metas = presence["metas"].as_array().unwrap().clone();
                metas.retain(|meta| !others.contains(&meta["phx_ref"].as_str().unwrap().into()));
                metas
            };
            for (map, metas) in [
                (&mut joins, without(presence, &refs(current))),
                (&mut leaves, without(current, &refs(presence))),
            ] {
                if !metas.is_empty() {
                    map.insert(key.clone(), json!({ "metas": metas }));
                }
            }
        }
        self.sync_diff(&json!({"joins": joins, "leaves": leaves}));
    }

    /// Does the same as `syncDiff` of phoenix.js: first applies joins, then removes leaving metas
    /// by their references.
    fn sync_diff(&mut self, diff: &Value) {
        for (key, presence) in diff["joins"].as_object().unwrap() {
            let mut metas = Vec::new();
            if let Some(current) = self.state.get(key) {
                let known = refs(current);
                for name in refs(presence) {
                    assert!(!known.contains(&name), "joins while it is present");
                }
                metas = current["metas"].as_array().unwrap().clone();
            }
            metas.extend(presence["metas"].as_array().unwrap().iter().cloned());
            for name in refs(presence) {
                assert!(self.joined.insert(name), "joins twice");
            }
            self.state.insert(key.clone(), json!({ "metas": metas }));
        }
        for (key, presence) in diff["leaves"].as_object().unwrap() {
            let current = self.state.get_mut(key).expect("leaves while it is absent");
            for name in refs(presence) {
                assert!(refs(current).contains(&name), "leaves while it is absent");
                assert!(self.left.insert(name), "leaves twice");
            }
            let gone = refs(presence);
            let metas = current["metas"].as_array_mut().unwrap();
            metas.retain(|meta| !gone.contains(&meta["phx_ref"].as_str().unwrap().into()));
            if metas.is_empty() {
                self.state.remove(key);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Track(u64, u8),
    Untrack(u64),
    Publish,
    /// A new client starts to follow the topic.
    Join,
    /// A following client receives the state again.
    Rejoin(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u64, 0..3u8).prop_map(|(channel, payload)| Step::Track(channel, payload)),
        2 => (0..6u64).prop_map(Step::Untrack),
        2 => Just(Step::Publish),
        1 => Just(Step::Join),
        1 => (0..4usize).prop_map(Step::Rejoin),
    ]
}

proptest! {
    /// After every diff, each following client knows the current set, and has received no meta
    /// twice.
    #[test]
    fn following_clients_know_the_current_set(steps in proptest::collection::vec(step(), 0..60)) {
        let mut topic = Topic::default();
        let mut followers = Vec::new();
        // The payload of each channel. Two channels share a key.
        let mut model: HashMap<u64, u8> = HashMap::new();
        for step in steps.into_iter().chain([Step::Publish]) {
            match step {
                Step::Track(channel, payload) => {
                    let key = (channel / 2).to_string();
                    let tracked = topic.track(channel, &key, &json!({"p": payload, "c": channel}));
                    let is_same = model.insert(channel, payload) == Some(payload);
                    prop_assert_eq!(tracked == TrackResult::Unchanged, is_same);
                }
                Step::Untrack(channel) => {
                    prop_assert_eq!(topic.untrack(channel), model.remove(&channel).is_some());
                }
                Step::Publish => {
                    let diff = topic.publish();
                    for follower in &mut followers {
                        let follower: &mut Follower = follower;
                        if let Some(diff) = &diff {
                            follower.sync_diff(diff);
                        }
                    }
                    let state = topic.state();
                    for follower in &followers {
                        prop_assert_eq!(&Value::Object(follower.state.clone()), &state);
                    }
                    let mut told: Vec<_> = state.as_object().unwrap().iter().flat_map(|(key, metas)| {
                        tracked(metas).into_iter().map(move |meta| (key.clone(), meta.to_string()))
                    }).collect();
                    told.sort();
                    let mut expected: Vec<_> = model.iter().map(|(channel, payload)| {
                        ((channel / 2).to_string(), json!({"p": payload, "c": channel}).to_string())
                    }).collect();
                    expected.sort();
                    prop_assert_eq!(told, expected);
                }
                Step::Join => followers.push(Follower::new(&topic.state())),
                Step::Rejoin(at) => {
                    let state = topic.state();
                    if let Some(follower) = followers.get_mut(at) {
                        follower.sync_state(&state);
                    }
                }
            }
        }
        prop_assert_eq!(topic.set.channels.len(), model.len(), "channels that left are removed");
        prop_assert_eq!(topic.set.len(), model.len());
        prop_assert_eq!(topic.set.bytes == 0, model.is_empty());
    }
}
