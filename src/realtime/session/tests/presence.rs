//! Tests of presence pushes: the table of protocol 5.1, and the limits.

use super::*;
use crate::observability::metrics::DropLabels;

fn script(payload: &Value) -> Script {
    let mut script = Script::new();
    script.join("1", "realtime:a", payload);
    script
}

fn keyed(key: &Value) -> Value {
    json!({"config": {"presence": {"enabled": true, "key": key}}})
}

impl Script {
    fn presence(&mut self, push: &Value) -> Vec<String> {
        self.push(&json!(["1", "2", "realtime:a", "presence", push]))
    }

    fn track(&mut self, payload: &Value) -> Vec<String> {
        self.presence(&json!({"type": "presence", "event": "track", "payload": payload}))
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let metrics = self.session.shared.hub.metrics();
        let labels = DropLabels { reason };
        metrics.frames_dropped.get_or_create(&labels).get()
    }
}

fn error(reason: &str) -> String {
    format!(
        r#"["1","2","realtime:a","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#
    )
}

#[test]
fn pushes_receive_the_replies_in_the_table() {
    let track = || vec![format!("track 1 as ann, then {}", ok("1", "2", "a"))];
    let refused = r#"["1","2","realtime:a","phx_reply",{"status":"error","response":{}}]"#;
    let cases = [
        (json!({"event": "track", "payload": {"a": 1}}), track()),
        (json!({"event": "TrAcK", "payload": {}}), track()),
        (json!({"event": "track"}), track()),
        (
            json!({"event": "Untrack"}),
            vec!["untrack 1".to_owned(), ok("1", "2", "a")],
        ),
        (
            json!({"event": "track", "payload": [1]}),
            vec![error("Presence track payload must be a map")],
        ),
        (
            json!({"event": "track", "payload": null}),
            vec![error("Presence track payload must be a map")],
        ),
        (json!({"event": "join"}), vec![refused.to_owned()]),
        (json!({"type": "presence"}), vec![ok("1", "2", "a")]),
        (json!([]), vec![ok("1", "2", "a")]),
    ];
    for (push, expected) in cases {
        let mut script = script(&keyed(&json!("ann")));
        assert_eq!(script.presence(&push), expected, "{push}");
    }
}

#[test]
fn a_state_follows_the_reply_to_every_join_with_presence() {
    let mut script = Script::new();
    assert_eq!(
        script.join("1", "realtime:a", &keyed(&json!("ann"))),
        [
            "attach 1",
            &joined("1", "a", ""),
            "open 1",
            "presence state 1"
        ]
    );
    assert_eq!(
        script.join("2", "realtime:a", &keyed(&json!("ann"))),
        [
            "detach 1",
            "attach 2",
            &joined("2", "a", ""),
            &closed("1", "a"),
            "open 2",
            "presence state 2",
        ]
    );
    assert!(
        script
            .join("3", "realtime:a", &plain())
            .iter()
            .all(|effect| !effect.starts_with("presence")),
    );
}

#[test]
fn a_key_may_be_any_value_and_is_generated_if_missing() {
    for (key, expected) in [
        (json!("ann"), Some("ann")),
        (json!(7), Some("7")),
        (json!({"a": 1}), Some(r#"{"a":1}"#)),
        (json!("ids"), Some("ids")),
        (Value::Null, None),
        (json!(""), None),
    ] {
        let mut script = script(&keyed(&key));
        let tracked = script.track(&json!({})).remove(0);
        let name = tracked.strip_prefix("track 1 as ").unwrap();
        let name = name.split_once(", then").unwrap().0;
        match expected {
            Some(expected) => assert_eq!(name, expected),
            None => assert_eq!(uuid::Uuid::parse_str(name).unwrap().to_string(), name),
        }
        assert_eq!(script.track(&json!({"again": 1})).remove(0), tracked);
    }
    let mut script = script(&keyed(&json!("constructor")));
    assert_eq!(
        script.track(&json!({})),
        [error(
            "The presence key `constructor` is not allowed: it breaks some clients"
        )]
    );
}

#[test]
fn a_channel_joined_without_presence_may_track() {
    let mut script = script(&plain());
    assert!(script.track(&json!({}))[0].starts_with("track 1 as "));
}

#[test]
fn too_many_pushes_are_refused_until_the_window_ends_and_the_channel_stays() {
    let mut config = config();
    config.max_presence_calls_per_window = 2;
    config.presence_window = Duration::from_secs(10);
    let mut script = Script::with(config);
    script.join("1", "realtime:a", &keyed(&json!("ann")));
    script.join("8", "realtime:b", &keyed(&json!("ann")));
    script.track(&json!({"n": 1}));
    script.presence(&json!({"event": "nonsense"}));
    let too_many = [error("Client presence rate limit exceeded")];
    assert_eq!(script.track(&json!({"n": 2})), too_many);
    assert_eq!(script.presence(&json!({"event": "untrack"})), too_many);
    assert_eq!(
        script.presence(&json!({})),
        [ok("1", "2", "a")],
        "a push without effect is not counted"
    );
    let elsewhere = json!(["8", "9", "realtime:b", "presence", {"event": "track"}]);
    assert!(script.push(&elsewhere)[0].starts_with("track 2 as ann"));
    assert_eq!(script.dropped(DropReason::RateLimited), 2);
    script.now = UnixMillis(script.now.0 + 10_000);
    assert!(script.track(&json!({"n": 3}))[0].starts_with("track 1 as ann"));
}

#[test]
fn the_size_of_each_payload_and_of_all_payloads_of_a_socket_is_limited() {
    let mut config = config();
    config.max_broadcast_bytes = 3_000_000;
    let mut script = Script::with(config);
    let large = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
    for topic in ["a", "b", "c", "d"] {
        script.join("1", &format!("realtime:{topic}"), &keyed(&json!("k")));
    }
    let too_large = [error("Track message size exceeded")];
    assert_eq!(script.track(&large(3_000_001)), too_large);
    for topic in ["b", "c"] {
        let push = json!({"event": "track", "payload": large(3_000_000)});
        let topic = format!("realtime:{topic}");
        let effects = script.push(&json!(["1", "2", topic, "presence", push]));
        assert!(effects[0].starts_with("track "), "{effects:?}");
    }
    assert_eq!(
        script.track(&large(3_000_000)),
        too_large,
        "the total is too large"
    );
    for bytes in [2_000_000, 2_100_000] {
        assert!(script.track(&large(bytes))[0].starts_with("track 1 as k"));
    }
    assert_eq!(script.dropped(DropReason::TooLarge), 2);
}
