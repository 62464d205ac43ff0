//! Tests of the frames in the protocol's examples, in both versions, and of invalid input.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::wire::body::Body;
use super::super::wire::frame::Frame;
use super::*;
use crate::change::{Action, TableName, TimestampMicros};

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

fn reference(text: &str) -> Option<Ref> {
    let value = RawValue::from_string(text.to_owned()).unwrap();
    Ref::from_json(&value).unwrap()
}

/// Returns the payload of a text frame.
fn text_of(frame: &Frame) -> String {
    let bytes = frame.parts().concat();
    assert_eq!(bytes[0], 0x81, "a final text frame");
    let start = match bytes[1] {
        126 => 4,
        127 => 10,
        length => {
            assert_eq!(usize::from(length), bytes.len() - 2);
            2
        }
    };
    String::from_utf8(bytes[start..].to_vec()).unwrap()
}

#[test]
fn vsn_is_matched_as_a_semantic_version() {
    let cases = [
        (None, Some(Serializer::V1)),
        (Some("1.0.0"), Some(Serializer::V1)),
        (Some("1.0.7"), Some(Serializer::V1)),
        (Some("2.0.0"), Some(Serializer::V2)),
        (Some("2.0"), None),
        (Some("2.1.0"), None),
        (Some("3.0.0"), None),
        (Some("2.0.x"), None),
        (Some("2.0."), None),
        (Some(""), None),
    ];
    for (vsn, expected) in cases {
        assert_eq!(Serializer::negotiate(vsn), expected, "{vsn:?}");
    }
}

#[test]
fn client_messages_are_decoded_in_both_versions() {
    // (frame, version, join_ref, ref, topic, event)
    let cases = [
        (
            r#"["1","2","realtime:room","phx_join",{"config":{}}]"#,
            Serializer::V2,
            reference("\"1\""),
            reference("\"2\""),
            "realtime:room",
            r#"Join(RawValue({"config":{}}))"#,
        ),
        (
            r#"[null,"4","phoenix","heartbeat",{}]"#,
            Serializer::V2,
            None,
            reference("\"4\""),
            "phoenix",
            "Heartbeat",
        ),
        (
            r#"[7,8,"realtime:r\u00e4um","phx_leave",{},"extra",[1]]"#,
            Serializer::V2,
            reference("7"),
            reference("8"),
            "realtime:räum",
            "Leave",
        ),
        (
            r#"{"topic":"realtime:a","event":"broadcast","payload":{"x":1e2},"ref":"3","join_ref":"1"}"#,
            Serializer::V1,
            reference("\"1\""),
            reference("\"3\""),
            "realtime:a",
            r#"Broadcast(RawValue({"x":1e2}))"#,
        ),
        (
            r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":null}"#,
            Serializer::V1,
            None,
            None,
            "phoenix",
            "Heartbeat",
        ),
        (
            r#"{"topic":"t","event":"shout","payload":[],"ref":"1","more":true}"#,
            Serializer::V1,
            None,
            reference("\"1\""),
            "t",
            r#"Other("shout")"#,
        ),
    ];
    for (frame, version, join_ref, reference, topic, event) in cases {
        let message = version.decode_text(frame).unwrap();
        assert_eq!(message.join_ref, join_ref, "{frame}");
        assert_eq!(message.reference, reference, "{frame}");
        assert_eq!(message.topic, topic, "{frame}");
        assert_eq!(format!("{:?}", message.event), event, "{frame}");
    }
}

#[test]
fn malformed_frames_are_refused() {
    let cases = [
        (Serializer::V2, ""),
        (Serializer::V2, "[]"),
        (Serializer::V2, r#"["1","2","t","e"]"#),
        (Serializer::V2, r#"["1","2",3,"e",{}]"#),
        (Serializer::V2, r#"[["1"],"2","t","e",{}]"#),
        (
            Serializer::V2,
            r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#,
        ),
        (Serializer::V2, r#"["1","2","t","e",{}"#),
        (Serializer::V1, r#"["1","2","t","e",{}]"#),
        (Serializer::V1, r#"{"topic":"t","event":"e","payload":{}}"#),
        (Serializer::V1, r#"{"topic":"t","event":"e","ref":"1"}"#),
        (
            Serializer::V1,
            r#"{"topic":null,"event":"e","payload":{},"ref":"1"}"#,
        ),
    ];
    for (version, frame) in cases {
        assert!(version.decode_text(frame).is_err(), "{frame}");
    }
    let long = format!(r#"[null,"{}","t","e",{{}}]"#, "9".repeat(300));
    assert!(Serializer::V2.decode_text(&long).is_err());
}

#[test]
fn the_binary_push_in_the_examples_is_decoded() {
    let frame = b"\x03\x01\x01\x0d\x02\x00\x0113realtime:roomhi{\"a\":1}";
    let message = Serializer::V2.decode_binary(frame).unwrap();
    assert_eq!(message.join_ref, reference("\"1\""));
    assert_eq!(message.reference, reference("\"3\""));
    assert_eq!(message.topic, "realtime:room");
    let ClientEvent::UserBroadcast {
        event,
        metadata,
        encoding,
        payload,
    } = message.event
    else {
        panic!("{:?}", message.event);
    };
    assert_eq!(
        (event, metadata, encoding, payload),
        ("hi", "", PayloadEncoding::Json, b"{\"a\":1}".as_slice())
    );
    assert!(
        Serializer::V1.decode_binary(frame).is_err(),
        "1.0.0 has no binary frames"
    );
    assert!(Serializer::V2.decode_binary(&frame[..12]).is_err(), "cut");
    assert!(
        Serializer::V2
            .decode_binary(b"\x04\x00\x00\x00\x00")
            .is_err(),
        "not a push"
    );
}

#[test]
fn server_messages_are_encoded_in_both_versions() {
    let topic: Arc<str> = "realtime:room".into();
    let join = reference("\"1\"");
    let cases = [
        (
            ServerMessage::Heartbeat {
                reference: reference("\"4\""),
            },
            r#"[null,"4","phoenix","phx_reply",{"status":"ok","response":{}}]"#,
            r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"4"}"#,
        ),
        (
            ServerMessage::Reply {
                join_ref: join.clone(),
                reference: join.clone(),
                topic: Arc::clone(&topic),
                reply: Reply::Joined("[]".to_owned()),
            },
            r#"["1","1","realtime:room","phx_reply",{"status":"ok","response":{"postgres_changes":[]}}]"#,
            r#"{"topic":"realtime:room","event":"phx_reply","payload":{"status":"ok","response":{"postgres_changes":[]}},"ref":"1"}"#,
        ),
        (
            ServerMessage::Reply {
                join_ref: None,
                reference: reference("\"9\""),
                topic: "x\"y".into(),
                reply: Reply::Error("unmatched topic".into()),
            },
            r#"[null,"9","x\"y","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
            r#"{"topic":"x\"y","event":"phx_reply","payload":{"status":"error","response":{"reason":"unmatched topic"}},"ref":"9"}"#,
        ),
        (
            ServerMessage::Close {
                join_ref: join.clone(),
                topic: Arc::clone(&topic),
            },
            r#"["1","1","realtime:room","phx_close",{}]"#,
            r#"{"topic":"realtime:room","event":"phx_close","payload":{},"ref":"1"}"#,
        ),
        (
            ServerMessage::System {
                join_ref: join,
                topic,
                notice: SystemNotice::changes_ok("Subscribed to PostgreSQL"),
            },
            r#"["1",null,"realtime:room","system",{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL","channel":"room"}]"#,
            r#"{"topic":"realtime:room","event":"system","payload":{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL","channel":"room"},"ref":null}"#,
        ),
    ];
    for (message, second, first) in cases {
        assert_eq!(text_of(&Serializer::V2.encode(&message)), second);
        assert_eq!(text_of(&Serializer::V1.encode(&message)), first);
    }
}

#[test]
fn the_row_change_in_the_examples_is_encoded() {
    let table = TableName::new("public", "todos");
    let mut data = Vec::new();
    ChangeData {
        table: &table,
        action: Action::Insert,
        row: RowData::Visible {
            committed_at: TimestampMicros(1_767_323_045_678_901),
            columns: br#"[{"name":"id","type":"int8"},{"name":"title","type":"text"}]"#,
            error: None,
        },
    }
    .write(
        &mut data,
        |out| out.extend_from_slice(br#"{"id":6,"title":"x"}"#),
        |_| panic!("an INSERT has no old record"),
    );
    let data = Body::from(data);
    let topic = json_string("realtime:room");
    let expected_data = r#"{"schema":"public","table":"todos","commit_timestamp":"2026-01-02T03:04:05.678Z","type":"INSERT","columns":[{"name":"id","type":"int8"},{"name":"title","type":"text"}],"record":{"id":6,"title":"x"},"errors":null}"#;
    assert_eq!(
        text_of(&Serializer::V2.encode_change(&topic, &[104_868_189], data.clone())),
        format!(
            r#"[null,null,"realtime:room","postgres_changes",{{"ids":[104868189],"data":{expected_data}}}]"#
        )
    );
    assert_eq!(
        text_of(&Serializer::V1.encode_change(&topic, &[1, 2], data.clone())),
        format!(
            r#"{{"topic":"realtime:room","event":"postgres_changes","payload":{{"ids":[1,2],"data":{expected_data}}},"ref":null}}"#
        )
    );
    assert_eq!(
        text_of(&Serializer::V2.encode_legacy_change(&topic, "INSERT", data.clone())),
        format!(r#"[null,null,"realtime:room","INSERT",{expected_data}]"#)
    );
    assert_eq!(
        text_of(&Serializer::V1.encode_legacy_change(&topic, "INSERT", data)),
        format!(
            r#"{{"topic":"realtime:room","event":"INSERT","payload":{expected_data},"ref":null}}"#
        )
    );
}

#[test]
fn a_withheld_change_has_the_same_shape() {
    let table = TableName::new("public", "t");
    let mut data = Vec::new();
    ChangeData {
        table: &table,
        action: Action::Update,
        row: RowData::Refused("Error 401: Unauthorized"),
    }
    .write(&mut data, |_| panic!("asked"), |_| panic!("asked"));
    assert_eq!(
        String::from_utf8(data).unwrap(),
        r#"{"schema":"public","table":"t","commit_timestamp":null,"type":"UPDATE","columns":[],"record":{},"old_record":{},"errors":["Error 401: Unauthorized"]}"#
    );
}

#[test]
fn join_payloads_are_read_leniently() {
    let full = JoinPayload::parse(&raw(&json!({
        "config": {
            "broadcast": {"ack": "TRUE", "self": true, "replication_ready": "false"},
            "presence": {"key": 7, "enabled": "false"},
            "postgres_changes": [{"event": "*"}, null, 3],
            "postgres_changes_options": {"wait": true, "timeout": 15000, "bigint": "string"},
            "private": true
        },
        "access_token": "a", "user_token": "u"
    })))
    .unwrap();
    assert_eq!(
        full.access_token.as_deref(),
        Some("u"),
        "the older name wins"
    );
    let config = full.config.unwrap();
    assert!(config.broadcast.ack && config.broadcast.echo && config.private);
    assert!(config.broadcast.replication_ready, "any truthy value");
    assert_eq!(config.broadcast.replay, ReplayConfig::Absent);
    assert_eq!(config.presence.key.as_deref(), Some("7"));
    assert!(!config.presence.enabled);
    assert_eq!(config.postgres_changes.len(), 1);
    assert_eq!(
        config.postgres_changes_options,
        PostgresChangesOptions {
            wait: true,
            timeout_ms: Some(15_000),
            bigint_as_string: true
        }
    );

    let bare = JoinPayload::parse(&raw(
        &json!({"config": {}, "access_token": "sb_publishable_x"}),
    ))
    .unwrap();
    assert_eq!(
        bare.access_token, None,
        "an opaque key stands for the connection's token"
    );
    let config = bare.config.unwrap();
    assert!(config.presence.enabled, "true by default");
    assert!(!config.private && config.postgres_changes.is_empty());

    for (payload, has_config) in [
        (json!({}), false),
        (json!([]), false),
        (json!({"config": null}), true),
        (
            json!({"config": {"postgres_changes": null, "broadcast": 3}}),
            true,
        ),
        (json!({"config": {"broadcast": {"replay": null}}}), true),
    ] {
        let parsed = JoinPayload::parse(&raw(&payload)).unwrap();
        assert_eq!(parsed.config.is_some(), has_config, "{payload}");
    }
}

#[test]
fn invalid_replay_options_are_distinguished_from_absent_ones() {
    let since = |since_ms, limit| ReplayConfig::Since { since_ms, limit };
    let cases = [
        (json!({"since": 5}), since(5, None)),
        (json!({"since": 5, "limit": 3}), since(5, Some(3))),
        (json!({"since": -5, "limit": null, "x": 1}), since(-5, None)),
        (json!({"limit": 3}), ReplayConfig::Invalid),
        (json!({"since": "5"}), ReplayConfig::Invalid),
        (json!({"since": 5.5}), ReplayConfig::Invalid),
        (json!({"since": 5, "limit": "3"}), ReplayConfig::Invalid),
        (json!(null), ReplayConfig::NotAnObject),
        (json!(5), ReplayConfig::NotAnObject),
    ];
    for (replay, expected) in cases {
        let payload = json!({"config": {"broadcast": {"replay": replay}}});
        let parsed = JoinPayload::parse(&raw(&payload)).unwrap();
        assert_eq!(
            parsed.config.unwrap().broadcast.replay,
            expected,
            "{payload}"
        );
    }
}

#[test]
fn bindings_are_echoed_as_written() {
    let cases = [
        (
            r#"{"event":"*","n":1.0}"#,
            r#"{"event":"*","n":1.0,"id":5}"#,
        ),
        (
            r#"{ "b" : 1, "a" : "}" }"#,
            r#"{ "b" : 1, "a" : "}" ,"id":5}"#,
        ),
        ("{}", r#"{"id":5}"#),
        ("{ }", r#"{ "id":5}"#),
        (r#"{"id":3,"event":"*"}"#, r#"{"event":"*","id":5}"#),
    ];
    for (binding, echo) in cases {
        let payload = format!(r#"{{"config":{{"postgres_changes":[{binding}]}}}}"#);
        let parsed = JoinPayload::parse(&RawValue::from_string(payload).unwrap()).unwrap();
        let mut out = String::new();
        parsed.config.unwrap().postgres_changes[0].push_echo(5, &mut out);
        assert_eq!(out, echo);
    }
}

#[test]
fn access_token_ignores_everything_but_user_tokens() {
    let cases = [
        (
            json!({"access_token": "t"}),
            AccessToken::Token("t".to_owned()),
        ),
        (
            json!({"access_token": ""}),
            AccessToken::Token(String::new()),
        ),
        (json!({"access_token": null}), AccessToken::Ignored),
        (json!({"access_token": 3}), AccessToken::Ignored),
        (
            json!({"access_token": "sb_publishable_x"}),
            AccessToken::Ignored,
        ),
        (json!({}), AccessToken::Ignored),
        (json!("t"), AccessToken::Ignored),
    ];
    for (payload, expected) in cases {
        assert_eq!(AccessToken::parse(&raw(&payload)), expected, "{payload}");
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for version in [Serializer::V1, Serializer::V2] {
            let _ = version.decode_text(&text);
            let _ = version.decode_binary(&bytes);
        }
    }

    #[test]
    fn parsing_payloads_never_panics(payload in json_value()) {
        let _ = JoinPayload::parse(&raw(&json!({"config": payload})));
        let _ = JoinPayload::parse(&raw(&payload));
        let _ = AccessToken::parse(&raw(&payload));
    }

    #[test]
    fn any_topic_can_be_decoded(topic in ".{0,40}", event in "[a-z]{1,8}", join in ".{0,20}") {
        let text = json!([join, null, topic, event, {}]).to_string();
        let message = Serializer::V2.decode_text(&text).unwrap();
        prop_assert_eq!(&message.topic, &topic);
        prop_assert_eq!(message.reference, None);
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        Just("config".to_owned()),
        Just("postgres_changes".to_owned()),
        Just("broadcast".to_owned()),
        Just("presence".to_owned()),
        Just("key".to_owned()),
        Just("id".to_owned()),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys.clone(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

#[test]
fn a_join_with_invalid_json_is_dropped() {
    for config in [
        r#"{"private":true,"presence":{"key":"\ud800"}}"#,
        r#"{"private":true,"broadcast":{"replay":{"since":1e999}}}"#,
    ] {
        let payload = RawValue::from_string(format!(r#"{{"config":{config}}}"#)).unwrap();
        assert_eq!(
            JoinPayload::parse(&payload),
            Err(MalformedMessage),
            "{config}"
        );
    }
}
