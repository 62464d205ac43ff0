//! Tests of parsing bodies, and of the error texts.

use super::*;

#[test]
fn a_valid_batch_becomes_text_broadcasts() {
    let body = r#" {"messages": [
        {"topic": "room", "event": "hi \"x\"", "payload": {"n": 12345678901234567890.10}},
        {"topic": " a:b ", "event": "e", "payload": {}, "private": true, "id": "7", "more": 1},
        {"topic": "t", "event": "e", "payload": {"a": 1}, "private": null, "id": null},
        {"topic": "t", "event": "x", "event": "y", "payload": {}, "private": "true"}
    ], "other": [1]} "#;
    let messages = batch(body.as_bytes(), 100).unwrap();
    let read: Vec<_> = messages
        .iter()
        .map(|message| (&*message.topic, message.is_private, message.payload.get()))
        .collect();
    assert_eq!(
        read,
        [
            (
                "room",
                false,
                r#"{"event":"hi \"x\"","payload":{"n": 12345678901234567890.10},"type":"broadcast"}"#
            ),
            (
                " a:b ",
                true,
                r#"{"event":"e","payload":{},"type":"broadcast","meta":{"id":"7"}}"#
            ),
            (
                "t",
                false,
                r#"{"event":"e","payload":{"a": 1},"type":"broadcast"}"#
            ),
            (
                "t",
                true,
                r#"{"event":"y","payload":{},"type":"broadcast"}"#
            ),
        ]
    );
}

#[test]
fn the_mistakes_of_every_message_are_reported() {
    let blank = json!({"messages": ["can't be blank"]});
    let invalid = json!({"messages": ["is invalid"]});
    let cases = [
        ("", blank.clone()),
        ("{}", blank.clone()),
        ("[]", blank.clone()),
        ("3", blank.clone()),
        (r#"{"messages": null}"#, blank.clone()),
        (r#"{"messages": []}"#, blank),
        (r#"{"messages": {}}"#, invalid.clone()),
        (r#"{"messages": "x"}"#, invalid.clone()),
        (r#"{"messages": [1]}"#, invalid),
        (
            r#"{"messages": [{"topic": "t"}, {"topic": "t", "event": "e", "payload": {}}]}"#,
            json!({"messages": [
                {"event": ["can't be blank"], "payload": ["can't be blank"]}, {}
            ]}),
        ),
        (
            r#"{"messages": [{}]}"#,
            json!({"messages": [{
                "topic": ["can't be blank"], "event": ["can't be blank"], "payload": ["can't be blank"]
            }]}),
        ),
        (
            r#"{"messages": [{"topic": " ", "event": "", "payload": null}]}"#,
            json!({"messages": [{
                "topic": ["can't be blank"], "event": ["can't be blank"], "payload": ["can't be blank"]
            }]}),
        ),
        (
            r#"{"messages": [{"topic": 1, "event": {}, "payload": [1], "private": 2, "id": 3}]}"#,
            json!({"messages": [{
                "topic": ["is invalid"], "event": ["is invalid"], "payload": ["is invalid"],
                "private": ["is invalid"], "id": ["is invalid"]
            }]}),
        ),
        (
            r#"{"messages": [{"topic": "t", "event": "e", "payload": {"a": "0123456789"}}]}"#,
            json!({"messages": [{"payload": ["Payload size exceeds tenant limit"]}]}),
        ),
    ];
    for (body, errors) in cases {
        assert_eq!(
            batch(body.as_bytes(), 16).unwrap_err(),
            Unreadable::Fields(errors),
            "{body}"
        );
    }
    for body in ["{", "nonsense", r#"{"messages": [}"#, "{} {}"] {
        assert_eq!(batch(body.as_bytes(), 16).unwrap_err(), Unreadable::NotJson);
    }
    assert_eq!(batch(b"\xff", 16).unwrap_err(), Unreadable::NotJson);
}

#[test]
fn the_number_of_messages_is_limited() {
    let of = |count: usize| format!(r#"{{"messages":[{}]}}"#, vec!["{}"; count].join(","));
    let errors = batch(of(MAX_MESSAGES).as_bytes(), 16).unwrap_err();
    assert!(
        matches!(errors, Unreadable::Fields(_)),
        "mistakes of each message"
    );
    let errors = batch(of(MAX_MESSAGES + 1).as_bytes(), 16).unwrap_err();
    assert_eq!(errors, Unreadable::TooManyMessages);
}

#[test]
fn the_payload_of_a_single_message_is_its_whole_body() {
    for (body, expected) in [
        ("", "{}"),
        (" {\"a\" : 1.50 }\n", "{\"a\" : 1.50 }"),
        ("[1, 2]", "{\"_json\":[1, 2]}"),
        ("\"x\"", "{\"_json\":\"x\"}"),
        ("null", "{\"_json\":null}"),
    ] {
        assert_eq!(json_payload(body.as_bytes()).unwrap(), expected);
    }
    for body in ["{", "x", "1 2", " "] {
        assert_eq!(json_payload(body.as_bytes()), Err(Unreadable::NotJson));
    }
}

#[test]
fn content_types_are_compared_without_case_and_parameters() {
    let (json, binary) = (Some(PayloadKind::Json), Some(PayloadKind::Binary));
    for (header, expected) in [
        (None, json),
        (Some("application/json"), json),
        (Some("Application/JSON; charset=utf-8"), json),
        (Some("application/octet-stream"), binary),
        (Some("application/octet-stream ;x=y"), binary),
        (Some("text/plain"), None),
        (Some("application/jsonx"), None),
        (Some(""), None),
    ] {
        assert_eq!(
            PayloadKind::of(header.map(str::as_bytes)),
            expected,
            "{header:?}"
        );
    }
}
