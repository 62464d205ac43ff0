//! What a channel asked of `postgres_changes`: ids, the echo in the reply, and where the
//! subscription stands.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::protocol::BindingParams;
use crate::visibility::{Binding, SubscribeError, SubscribeOptions, SubscriptionRequest};

/// Ids stay below this, as the original's do; every integer of this size is exact in JavaScript.
const ID_BITS: u32 = 27;

/// The bindings of a channel and where their registration stands.
#[derive(Debug)]
pub struct Subscription {
    /// The bindings, or why they cannot be used at all.
    pub bindings: Result<Vec<Binding>, SubscribeError>,
    /// What the channel wants differently.
    pub options: SubscribeOptions,
    /// A registration is under way.
    pub is_running: bool,
    /// The identity changed meanwhile: it is to be done again.
    pub is_stale: bool,
    /// Attempts in a row that met no database.
    pub failures: u32,
}

/// Gives every binding its id, in order: equal parameters have equal ids, others never (3.3).
pub fn assign_ids(bindings: &[BindingParams]) -> Vec<u32> {
    let mut given: HashMap<u32, &Value> = HashMap::with_capacity(bindings.len());
    let mut ids = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let params = &binding.params;
        let mut id = hash(params);
        // Two different bindings of one channel may not share an id: the client would hand
        // the changes of one to the other.
        while given.get(&id).is_some_and(|other| *other != params) {
            id = id % ((1 << ID_BITS) - 1) + 1;
        }
        given.insert(id, params);
        ids.push(id);
    }
    ids
}

/// A number from 1 to 2^27 − 1 that depends on nothing but the parameters, so that a client
/// that comes back finds the id it knew. FNV-1a over the JSON text with sorted keys.
fn hash(params: &Value) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in params.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let folded = (hash ^ (hash >> 32)) % ((1 << ID_BITS) - 1);
    // Never 0: clients take a missing id for none.
    u32::try_from(folded).unwrap_or(0) + 1
}

/// The array of the reply: every binding as the client wrote it, with its id (3.3).
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

/// The bindings as visibility takes them; the first that cannot be read fails them all (6.3).
///
/// # Errors
/// Why it cannot be read.
pub fn parse(bindings: &[BindingParams], ids: &[u32]) -> Result<Vec<Binding>, SubscribeError> {
    bindings
        .iter()
        .zip(ids)
        .map(|(binding, id)| {
            SubscriptionRequest::parse(&binding.params).map(|request| Binding { id: *id, request })
        })
        .collect()
}

/// The binding of a join without `config`: its sub-topic is `schema[:table[:filter]]` (3.1).
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
    fn ids_depend_on_the_parameters_alone() {
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
            "whatever else is asked for"
        );
        assert!(ids.iter().all(|id| (1..1 << ID_BITS).contains(id)));
    }

    #[test]
    fn a_collision_is_resolved_within_the_channel() {
        // Enough bindings that two hashes meet, by the birthday bound.
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
