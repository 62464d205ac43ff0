//! Tests of presence, as clients of both versions see it over real sockets.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Server, config, plain_join};
use crate::support::chaos::ChaosProxy;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};
use crate::support::token::{anon_key, mint, now_s};

const ROOM: &str = "realtime:room";

/// A client that follows the presence of [`ROOM`] like phoenix.js. It fails if phoenix.js would
/// report a change to the application twice.
struct Person {
    socket: PhoenixSocket,
    /// For each key: the references and their payloads.
    known: HashMap<String, HashMap<String, Value>>,
    reference: u32,
}

fn keyed(key: &str) -> Value {
    json!({"config": {"presence": {"enabled": true, "key": key}}})
}

fn metas(presence: &Value) -> Vec<(String, Value)> {
    let metas = presence["metas"].as_array().unwrap();
    metas
        .iter()
        .map(|meta| {
            let mut meta = meta.as_object().unwrap().clone();
            let name = meta.remove("phx_ref").unwrap();
            meta.remove("phx_ref_prev");
            (name.as_str().unwrap().to_owned(), Value::Object(meta))
        })
        .collect()
}

impl Person {
    /// Joins and reads the initial state.
    async fn join(socket: PhoenixSocket, key: &str) -> Self {
        let mut person = Self {
            socket,
            known: HashMap::new(),
            reference: 1,
        };
        person.socket.join("1", ROOM, keyed(key)).await;
        person.socket.expect_reply("1", "ok").await;
        let state = person.socket.expect(ROOM, "presence_state").await;
        for (key, presence) in state.payload.as_object().unwrap() {
            let presence = metas(presence).into_iter().collect();
            person.known.insert(key.clone(), presence);
        }
        person
    }

    async fn push(&mut self, push: Value) -> String {
        self.reference += 1;
        let reference = self.reference.to_string();
        self.socket
            .push(json!("1"), &reference, ROOM, "presence", push)
            .await;
        reference
    }

    /// Tracks a payload and waits for the reply.
    async fn track(&mut self, payload: Value) {
        let push = json!({"type": "presence", "event": "track", "payload": payload});
        let reference = self.push(push).await;
        self.read_until_reply(&reference).await;
    }

    async fn untrack(&mut self) {
        let reference = self.push(json!({"event": "untrack"})).await;
        self.read_until_reply(&reference).await;
    }

    /// Reads up to the reply. Diffs, which may arrive before or after it, are applied.
    async fn read_until_reply(&mut self, reference: &str) {
        loop {
            let message = self.socket.receive().await;
            if message.event == "phx_reply" {
                assert_eq!(message.reference, json!(reference));
                assert_eq!(message.payload, json!({"status": "ok", "response": {}}));
                return;
            }
            self.apply(&message.event, &message.payload);
        }
    }

    fn apply(&mut self, event: &str, diff: &Value) {
        assert_eq!(event, "presence_diff");
        for (key, presence) in diff["joins"].as_object().unwrap() {
            for (name, meta) in metas(presence) {
                let known = self.known.entry(key.clone()).or_default();
                assert!(known.insert(name, meta).is_none(), "joins twice: {diff}");
            }
        }
        for (key, presence) in diff["leaves"].as_object().unwrap() {
            let known = self.known.get_mut(key).expect("leaves twice");
            for (name, _) in metas(presence) {
                known.remove(&name).expect("leaves twice");
            }
            if known.is_empty() {
                self.known.remove(key);
            }
        }
    }

    /// Reads diffs until the known state equals `expected`.
    async fn until(&mut self, expected: &Value) {
        while self.listed() != *expected {
            let message = self.socket.receive().await;
            self.apply(&message.event, &message.payload);
        }
    }

    /// Returns the known state as sorted lists of payloads.
    fn listed(&self) -> Value {
        let list = |presence: &HashMap<String, Value>| {
            let mut metas: Vec<_> = presence.values().cloned().collect();
            metas.sort_by_key(Value::to_string);
            Value::Array(metas)
        };
        let entries = self.known.iter();
        Value::Object(entries.map(|(key, it)| (key.clone(), list(it))).collect())
    }
}

#[tokio::test]
async fn clients_of_both_versions_see_joins_changes_and_leaves() {
    let server = Server::start(config()).await;
    let mut ann = Person::join(server.client(Version::One).await, "ann").await;
    ann.track(json!({"at": "desk", "phx_ref": "mine"})).await;
    ann.until(&json!({"ann": [{"at": "desk"}]})).await;
    let mut bob = Person::join(server.client(Version::Two).await, "bob").await;
    assert_eq!(bob.listed(), json!({"ann": [{"at": "desk"}]}));
    bob.track(json!({})).await;
    let mut phone = Person::join(server.client(Version::Two).await, "ann").await;
    phone.track(json!({"at": "phone"})).await;
    let all = json!({"ann": [{"at": "desk"}, {"at": "phone"}], "bob": [{}]});
    for person in [&mut ann, &mut bob, &mut phone] {
        person.until(&all).await;
    }

    ann.track(json!({"at": "door"})).await;
    bob.untrack().await;
    let all = json!({"ann": [{"at": "door"}, {"at": "phone"}]});
    for person in [&mut ann, &mut bob, &mut phone] {
        person.until(&all).await;
    }

    // Tracking the same payload again causes no diff.
    ann.track(json!({"at": "door"})).await;
    let leave = json!({});
    ann.socket
        .push(json!("1"), "99", ROOM, "phx_leave", leave)
        .await;
    for person in [&mut bob, &mut phone] {
        let message = person.socket.expect(ROOM, "presence_diff").await;
        assert_eq!(message.join_ref, Value::Null);
        assert_eq!(message.payload["joins"], json!({}));
        person.apply(&message.event, &message.payload);
        assert_eq!(person.listed(), json!({"ann": [{"at": "phone"}]}));
    }
    eventually("the gauge is updated", async || {
        (server.metrics.presences.get() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_rejoins_is_listed_once() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut ann = Person::join(server.client(version).await, "ann").await;
        ann.track(json!({"n": 1})).await;
        let mut bob = Person::join(server.client(version).await, "bob").await;
        bob.until(&json!({"ann": [{"n": 1}]})).await;

        // The presence of the old channel ends with that channel. The new channel has tracked
        // nothing.
        ann.socket.join("7", ROOM, keyed("ann")).await;
        bob.until(&json!({})).await;
        let push = json!({"event": "track", "payload": {"n": 2}});
        ann.socket
            .push(json!("7"), "8", ROOM, "presence", push)
            .await;
        bob.until(&json!({"ann": [{"n": 2}]})).await;
    }
}

#[tokio::test]
async fn a_client_that_loses_the_connection_is_no_longer_listed() {
    let server = Server::start(config()).await;
    let mut bob = Person::join(server.client(Version::Two).await, "bob").await;
    let proxy = ChaosProxy::start(server.address).await;
    let socket = PhoenixSocket::connect(proxy.address(), &anon_key(), Version::Two).await;
    let mut ann = Person::join(socket, "ann").await;
    ann.track(json!({})).await;
    bob.until(&json!({"ann": [{}]})).await;
    proxy.cut();
    bob.until(&json!({})).await;
    eventually("no presence is left", async || {
        (server.metrics.presences.get() == 0).then_some(())
    })
    .await;
}

/// Cancels the tasks of the sockets, as a panic or the end of the process would.
#[test]
fn a_socket_whose_task_is_cancelled_leaves_no_state() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (server, people) = runtime.block_on(async {
        let server = Server::start(config()).await;
        let mut people = Vec::new();
        for name in ["ann", "bob"] {
            let mut person = Person::join(server.client(Version::Two).await, name).await;
            person.track(json!({})).await;
            people.push(person);
        }
        (server, people)
    });
    assert_eq!(server.metrics.sockets.get(), 2);
    runtime.shutdown_background();
    let begin = Instant::now();
    while server.metrics.sockets.get() + server.metrics.channels.get() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "still known");
        std::thread::yield_now();
    }
    drop(people);
}

#[tokio::test]
async fn presence_above_the_rate_of_the_server_is_refused() {
    let mut config = config();
    config.max_presence_events_per_second = 1;
    let server = Server::start(config).await;
    let mut ann = Person::join(server.client(Version::Two).await, "ann").await;
    let mut number = 0;
    let reason = eventually("a refusal", async || {
        number += 1;
        let push = json!({"event": "track", "payload": {"n": number}});
        let reference = ann.push(push).await;
        loop {
            let message = ann.socket.receive().await;
            if message.event == "presence_diff" {
                continue;
            }
            assert_eq!(message.reference, json!(reference));
            let reason = message.payload["response"]["reason"].clone();
            return reason.is_string().then_some(reason);
        }
    })
    .await;
    assert_eq!(reason, "Too many presence messages per second");
    // The channel stays open.
    let reference = ann.push(json!({})).await;
    ann.read_until_reply(&reference).await;
}

#[tokio::test]
async fn an_expired_token_ends_a_presence() {
    let server = Server::start(config()).await;
    let mut bob = Person::join(server.client(Version::Two).await, "bob").await;
    let mut ann = server.client(Version::Two).await;
    let claims = json!({"role": "authenticated", "sub": "ann", "exp": now_s() + 2});
    let mut payload = keyed("ann");
    payload["access_token"] = mint(&claims).into();
    ann.join("1", ROOM, payload).await;
    ann.expect_reply("1", "ok").await;
    let push = json!({"event": "track"});
    ann.push(json!("1"), "2", ROOM, "presence", push).await;
    bob.until(&json!({"ann": [{}]})).await;
    bob.until(&json!({})).await;
}

#[tokio::test]
async fn many_changes_at_once_cause_few_frames_and_lose_none() {
    const PEOPLE: usize = 300;
    let server = Server::start(config()).await;
    let join = async |number: usize| {
        let version = VERSIONS[number % 2];
        Person::join(server.client(version).await, &number.to_string()).await
    };
    let mut people = join_all((0..PEOPLE).map(join)).await;
    let before = server.metrics.presence_diffs.get();
    let expected: Value = (0..PEOPLE)
        .map(|number| (number.to_string(), json!([{ "n": number }])))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let track = async |(number, person): (usize, &mut Person)| {
        person.track(json!({ "n": number })).await;
        person.until(&expected).await;
    };
    join_all(people.iter_mut().enumerate().map(track)).await;
    let diffs = server.metrics.presence_diffs.get() - before;
    assert!(diffs < PEOPLE as u64 / 2, "{diffs} diffs");

    // All clients but one leave at once, because their connections break.
    let mut last = people.pop().unwrap();
    drop(people);
    let name = (PEOPLE - 1).to_string();
    let alone = json!({ &*name: [{"n": PEOPLE - 1}] });
    last.until(&alone).await;
}

#[tokio::test]
async fn members_receive_diffs_without_asking_but_a_state_only_on_request() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut silent = server.client(version).await;
        silent.join("1", ROOM, plain_join()).await;
        silent.expect_reply("1", "ok").await;
        let mut ann = Person::join(server.client(version).await, "ann").await;
        ann.track(json!({"a": 1})).await;
        let diff = silent.expect(ROOM, "presence_diff").await;
        assert_eq!(metas(&diff.payload["joins"]["ann"])[0].1, json!({"a": 1}));
        assert_eq!(diff.payload["leaves"], json!({}));
        // A client that only tracks receives diffs, but no state.
        let push = json!({"event": "TRACK", "payload": {"b": 2}});
        silent.push(json!("1"), "2", ROOM, "presence", push).await;
        let mut events = HashSet::new();
        for _ in 0..2 {
            events.insert(silent.receive().await.event);
        }
        assert_eq!(
            events,
            HashSet::from(["phx_reply".to_owned(), "presence_diff".to_owned()])
        );
        silent
            .push(json!("1"), "3", ROOM, "phx_leave", json!({}))
            .await;
        silent.expect_reply("3", "ok").await;
        ann.until(&json!({"ann": [{"a": 1}]})).await;
    }
}

#[tokio::test]
async fn the_key_of_row_changes_is_sent_in_a_diff() {
    let server = Server::start(config()).await;
    let mut ids = Person::join(server.client(Version::Two).await, "ids").await;
    ids.track(json!({"n": 1})).await;
    ids.until(&json!({"ids": [{"n": 1}]})).await;
    for version in VERSIONS {
        let mut late = Person::join(server.client(version).await, "late").await;
        assert_eq!(late.listed(), json!({}));
        late.until(&json!({"ids": [{"n": 1}]})).await;
    }
    ids.track(json!({"n": 2})).await;
    ids.until(&json!({"ids": [{"n": 2}]})).await;
}

#[tokio::test]
async fn refused_pushes_get_a_reason_and_the_channel_stays_open() {
    let mut config = config();
    config.max_presence_calls_per_window = 4;
    config.max_presence_state_bytes = 2_000;
    config.max_broadcast_bytes = 5_000;
    let server = Server::start(config).await;
    let mut ann = server.client(Version::Two).await;
    ann.join("1", ROOM, keyed("ann")).await;
    ann.expect_reply("1", "ok").await;
    ann.expect(ROOM, "presence_state").await;
    let large = |bytes: usize| json!({"event": "track", "payload": {"a": "x".repeat(bytes)}});
    let cases = [
        (large(6_000), "Track message size exceeded"),
        (
            large(3_000),
            "The presence state of this topic is full (limit: 2000 bytes)",
        ),
        (
            json!({"event": "track", "payload": 3}),
            "Presence track payload must be a map",
        ),
    ];
    for (push, reason) in cases {
        ann.push(json!("1"), "2", ROOM, "presence", push).await;
        let response = ann.expect_reply("2", "error").await;
        assert_eq!(response, json!({ "reason": reason }));
    }
    let push = json!({"event": "none of these"});
    ann.push(json!("1"), "3", ROOM, "presence", push).await;
    assert_eq!(ann.expect_reply("3", "error").await, json!({}));
    ann.push(json!("1"), "4", ROOM, "presence", large(1)).await;
    let response = ann.expect_reply("4", "error").await;
    let reason = "Client presence rate limit exceeded";
    assert_eq!(response, json!({ "reason": reason }));
    ann.expect_quiet().await;
}
