//! The `postgres_changes` bindings of a channel: their ids, how the reply to the join lists them,
//! and the state of their registration.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::protocol::BindingParams;
use crate::visibility::{Binding, SubscribeError, SubscribeOptions, SubscriptionRequest};

/// Number of bits of an id. As in Supabase Realtime, ids are smaller than 2^27, so JavaScript
/// represents them exactly.
const ID_BITS: u32 = 27;

/// The bindings of a channel and the state of their registration.
#[derive(Debug)]
pub struct Subscription {
    /// The bindings, or the reason why they cannot be used.
    pub bindings: Result<Vec<Binding>, SubscribeError>,
    /// The options that the client chose.
    pub options: SubscribeOptions,
    /// Whether the bindings are being registered.
    pub registration: Registration,
    /// Number of consecutive attempts that failed because the database was unavailable.
    pub failures: u32,
}

/// Whether bindings are being registered. Only one registration runs at a time.
///
/// ```text
///  Idle ──begin──► Running ──begin──► Outdated
///   ▲                 │                  │
///   └──────end────────┴───────end────────┘ then it begins again
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// No registration is running.
    Idle,
    /// A registration is running.
    Running,
    /// A registration is running, but under an identity that has been replaced. The bindings are
    /// registered again afterwards.
    Outdated,
}

impl Registration {
    /// Requests a registration. Returns whether to start it now.
    pub fn begin(&mut self) -> bool {
        let is_idle = *self == Self::Idle;
        *self = if is_idle {
            Self::Running
        } else {
            Self::Outdated
        };
        is_idle
    }

    /// Records that the running registration has ended. Returns whether to start another one.
    pub fn end(&mut self) -> bool {
        std::mem::replace(self, Self::Idle) == Self::Outdated
    }
}

/// Assigns an id to each binding, in order. Bindings with equal parameters have the same id, and
/// others never do (protocol 3.3).
pub fn assign_ids(bindings: &[BindingParams]) -> Vec<u32> {
    let mut given: HashMap<u32, &Value> = HashMap::with_capacity(bindings.len());
    let mut ids = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let params = &binding.params;
        let mut id = hash(params);
        // Two different bindings of one channel must not share an id. Otherwise the client would
        // pass the changes of one binding to the other.
        while given.get(&id).is_some_and(|other| *other != params) {
            id = id % ((1 << ID_BITS) - 1) + 1;
        }
        given.insert(id, params);
        ids.push(id);
    }
    ids
}

/// Returns a number from 1 to 2^27 − 1 that depends only on the parameters, so that a client gets
/// the same id when it reconnects. Uses FNV-1a over the JSON text with sorted keys.
fn hash(params: &Value) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in params.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let folded = (hash ^ (hash >> 32)) % ((1 << ID_BITS) - 1);
    // Never 0, because clients treat 0 like a missing id.
    u32::try_from(folded).unwrap_or(0) + 1
}

/// Returns the array of bindings for the reply: each as the client wrote it, with its id (protocol
/// 3.3).
pub fn echo(bindings: &[BindingParams], ids: &[u32]) -> String {
    let mut out = String::from("[");
    for (at, (binding, id)) in bindings.iter().zip(ids).enumerate() {
        if at > 0 {
            out.push(',');
        }
        binding.push_echo(*id, &mut out);
    }
    out.push(']');
    out
}

/// Parses the bindings for `visibility`. One invalid binding invalidates all of them (protocol
/// 6.3).
///
/// # Errors
/// Returns the reason why the first invalid binding cannot be parsed.
pub fn parse(bindings: &[BindingParams], ids: &[u32]) -> Result<Vec<Binding>, SubscribeError> {
    bindings
        .iter()
        .zip(ids)
        .map(|(binding, id)| {
            SubscriptionRequest::parse(&binding.params).map(|request| Binding { id: *id, request })
        })
        .collect()
}

/// Returns the binding of a join without `config`. The sub-topic is `schema[:table[:filter]]`
/// (protocol 3.1).
pub fn from_sub_topic(sub_topic: &str) -> BindingParams {
    let mut parts = sub_topic.splitn(3, ':');
    let mut params = json!({ "event": "*" });
    for key in ["schema", "table", "filter"] {
        if let Some(part) = parts.next() {
            params[key] = part.into();
        }
    }
    BindingParams::derived(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(params: &[Value]) -> Vec<BindingParams> {
        params.iter().cloned().map(BindingParams::derived).collect()
    }

    #[test]
    fn a_registration_requested_again_while_one_runs_starts_once_afterwards() {
        let mut registration = Registration::Idle;
        assert!(registration.begin());
        assert!(!registration.end());
        assert!(registration.begin());
        assert!(!registration.begin() && !registration.begin());
        assert!(registration.end());
        assert_eq!(registration, Registration::Idle);
    }

    #[test]
    fn ids_depend_only_on_the_parameters() {
        let list = bindings(&[
            json!({"event": "*", "schema": "public"}),
            json!({"event": "INSERT", "schema": "public"}),
            json!({"schema": "public", "event": "*"}),
        ]);
        let ids = assign_ids(&list);
        assert_eq!(ids[0], ids[2], "equal parameters");
        assert_ne!(ids[0], ids[1]);
        assert_eq!(
            ids[1..],
            assign_ids(&list[1..]),
            "regardless of other bindings"
        );
        assert!(ids.iter().all(|id| (1..1 << ID_BITS).contains(id)));
    }

    #[test]
    fn a_collision_is_resolved_within_the_channel() {
        // By the birthday bound, this many bindings contain two with the same hash.
        let mut seen = HashMap::new();
        let (first, second) = (0..200_000)
            .find_map(|number: u32| {
                let params = json!({ "table": number.to_string() });
                let other = seen.insert(hash(&params), params.clone())?;
                Some((
                    BindingParams::derived(other),
                    BindingParams::derived(params),
                ))
            })
            .unwrap();
        let ids = assign_ids(&[first, second]);
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn a_legacy_topic_is_a_binding() {
        let cases = [
            ("public", json!({"event": "*", "schema": "public"})),
            (
                "public:t",
                json!({"event": "*", "schema": "public", "table": "t"}),
            ),
            (
                "public:t:id=eq.1:2",
                json!({"event": "*", "schema": "public", "table": "t", "filter": "id=eq.1:2"}),
            ),
        ];
        for (topic, params) in cases {
            assert_eq!(from_sub_topic(topic).params, params);
        }
    }
}
