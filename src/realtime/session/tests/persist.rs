//! Tests of broadcasts to be stored: one at a time, in order, and with the right reply.

use uuid::Uuid;

use super::super::super::messages::store::StoreError;
use super::*;

const ID: Uuid = Uuid::from_u128(7);

/// Creates a session with a private channel that may write.
fn writer(ack: bool) -> Script {
    let mut script = Script::private(ack);
    assert_eq!(
        push(&mut script, "first", ""),
        ["ask 1 to write as key after 0 failures"]
    );
    let sent = script.finish_check(CheckKind::Write, Ok(BROADCAST), None);
    assert!(sent[0].starts_with("broadcast"), "{sent:?}");
    script
}

/// Sends a binary push with this metadata. Returns the effects as text.
fn push(script: &mut Script, event: &str, metadata: &str) -> Vec<String> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut bytes = vec![3, 1, 1, 10, length(event), length(metadata), 1];
    bytes.extend(format!("12realtime:a{event}{metadata}{{\"n\":1}}").as_bytes());
    let message = Serializer::V2.decode_binary(&bytes).unwrap();
    let mut effects = Vec::new();
    script.session.receive(&message, script.now, &mut effects);
    printed(effects)
}

fn done(script: &mut Script, result: Result<Uuid, StoreError>) -> Vec<String> {
    let text = json!(["1", "2", "realtime:a", "broadcast", {}]).to_string();
    let reference = Serializer::V2.decode_text(&text).unwrap().reference;
    script.complete(1, "realtime:a", WorkResult::Stored { reference, result })
}

fn reply(status: &str, response: &Value) -> String {
    format!(r#"["1","2","realtime:a","phx_reply",{{"status":"{status}","response":{response}}}]"#)
}

#[test]
fn messages_behind_a_broadcast_wait_until_it_is_stored() {
    let mut script = writer(true);
    let stored = push(&mut script, "a", r#"{"persist":{"ttl":60}}"#);
    assert_eq!(
        stored,
        [
            r#"store a Json("{\"n\":1}") Some(Ref("\"2\"")) in realtime:a as key for Some(60), except Some(ChannelId(1))"#
        ]
    );
    for (event, metadata) in [("b", ""), ("c", r#"{"persist":true}"#), ("d", "")] {
        assert!(push(&mut script, event, metadata).is_empty(), "{event}");
    }
    let effects = done(&mut script, Ok(ID));
    assert_eq!(effects[0], reply("ok", &json!({ "id": ID })));
    assert!(
        effects[1].starts_with(r#"broadcast Json { event: "b""#),
        "{effects:?}"
    );
    assert!(effects[2].starts_with("store c"), "{effects:?}");
    assert_eq!(effects.len(), 3);
    // A refused broadcast is reported, and does not block later ones.
    let effects = done(&mut script, Err(StoreError::Forbidden));
    let error = "You do not have permissions to store messages of this Channel topic: a";
    assert_eq!(effects[0], reply("error", &json!({ "error": error })));
    assert!(
        effects[1].starts_with(r#"broadcast Json { event: "d""#),
        "{effects:?}"
    );
    assert!(push(&mut script, "e", "")[0].starts_with("broadcast"));
}

#[test]
fn a_broadcast_counts_as_held_while_it_is_stored() {
    for result in [Ok(ID), Err(StoreError::Forbidden)] {
        let mut script = writer(true);
        let before = script.session.held_bytes();
        push(&mut script, "event", r#"{"persist":true}"#);
        let payload = r#"{"n":1}"#;
        let storing = before + "event".len() + payload.len();
        assert_eq!(script.session.held_bytes(), storing);
        push(&mut script, "waiting", "");
        assert!(
            script.session.held_bytes() > storing,
            "messages that wait behind it"
        );
        done(&mut script, result);
        assert_eq!(script.session.held_bytes(), before);
    }
}

#[test]
fn a_channel_without_acknowledgements_receives_only_failures() {
    let mut script = writer(false);
    push(&mut script, "a", r#"{"persist":true}"#);
    assert!(done(&mut script, Ok(ID)).is_empty());
    push(&mut script, "a", r#"{"persist":true}"#);
    let error = StoreError::CheckFailed(AuthorizeError::Unavailable);
    let text = "UnableToConnectToProject: Realtime was unable to connect to the project database";
    assert_eq!(done(&mut script, Err(error)), [channel_error(text)]);
}

#[test]
fn a_channel_that_left_receives_no_result() {
    let mut script = writer(true);
    push(&mut script, "a", r#"{"persist":true}"#);
    let mut effects = Vec::new();
    script.session.end(&mut effects);
    assert_eq!(done(&mut script, Ok(ID)), ["detach 1"]);
}

#[test]
fn an_invalid_request_to_store_is_refused_and_not_sent() {
    let mut script = writer(true);
    for (metadata, error) in [
        (
            r#"{"persist":1}"#,
            "`persist` must be true, or an object whose ttl is a whole number of seconds",
        ),
        (
            r#"{"persist":{"ttl":86401}}"#,
            "`persist` must have a ttl from 1 to 86400 seconds",
        ),
    ] {
        let effects = push(&mut script, "a", metadata);
        assert_eq!(effects, [reply("error", &json!({ "error": error }))]);
    }
    let mut script = Script::new();
    script.join("1", "realtime:a", &broadcasting(true, true));
    let error = "`persist` can only be used on private channels";
    assert_eq!(
        push(&mut script, "a", r#"{"persist":true}"#),
        [reply("error", &json!({ "error": error }))]
    );
    assert!(push(&mut script, "a", r#"{"persist":false}"#)[0].starts_with("broadcast"));
}
