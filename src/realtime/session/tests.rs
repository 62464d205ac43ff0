//! Tests of sessions: a script passes messages and results to a session, and compares the effects
//! in order.

mod persist;
mod presence;
mod recheck;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::channel::authorize::{AuthorizeError, CheckKind};
use super::super::channel::{Holder, MAX_WAITING, MAX_WAITING_BYTES, TokenMarks, postgres_changes};
use super::super::hub::{Hub, StreamState};
use super::super::permissions::Permissions;
use super::super::protocol::Serializer;
use super::state::NOTICE_BURST;
use super::subscribe::SUBSCRIBE_LATE;
use super::waiting::TOO_MANY_WAITING;
use super::*;
use crate::auth::{KeySet, Requirements, Verifier, mint};
use crate::config::RealtimeConfig;
use crate::limits::UnixMillis;
use crate::observability::metrics::{DropReason, RealtimeMetrics};
use crate::visibility::{ChannelId, SubscribeError};

const SECRET: &str = "a-secret-for-tests-that-is-long-enough-for-hs256";

/// A session and its clock.
struct Script {
    session: Session,
    now: UnixMillis,
}

fn config() -> RealtimeConfig {
    RealtimeConfig {
        max_sockets: 10,
        max_channels_per_socket: 5,
        max_concurrent_users: 100,
        max_events_per_second: 1_000_000,
        max_joins_per_second: 1_000_000,
        max_joins_per_second_per_socket: 10,
        connections_per_second_per_address: 1_000,
        max_sockets_per_address: 0,
        connection_burst_per_address: 1_000,
        max_request_bytes: 8_000_000,
        max_frame_bytes: 5_000_000,
        max_broadcast_bytes: 3_000_500,
        queue_max_frames: 100,
        max_frame_bytes_before_join: 300_000,
        frame_timeout: Duration::from_secs(60),
        all_frames_max_bytes: 64 << 20,
        all_queues_max_bytes: 64 << 20,
        all_channels_max_bytes: 256 << 20,
        all_requests_max_bytes: 64 << 20,
        queue_max_bytes: 1 << 20,
        idle_timeout: Duration::from_secs(60),
        drain_window: Duration::ZERO,
        no_channel_timeout: Duration::from_secs(600),
        expiry_warning: Duration::from_secs(60),
        private_only: false,
        max_presence_events_per_second: 1_000_000,
        max_presence_calls_per_window: 300,
        presence_window: Duration::from_secs(30),
        max_presence_state_bytes: 8 << 20,
        max_record_bytes: 1 << 20,
        replay_max_messages: 100,
        message_days_ahead: 1,
        message_days_kept: 1,
    }
}

fn token(seconds: i64, sub: &str) -> String {
    let expires_at = UnixMillis::now().seconds() + seconds;
    mint(
        SECRET,
        &json!({ "role": "authenticated", "sub": sub, "exp": expires_at }),
    )
    .unwrap()
}

impl Script {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: RealtimeConfig) -> Self {
        let keys = KeySet::new(Some(SECRET), None, None).unwrap();
        let shared = Arc::new(Shared {
            verifier: Verifier::new(keys, Requirements::default()),
            config,
            hub: Arc::new(Hub::new(RealtimeMetrics::default())),
            marks: TokenMarks::default(),
            is_managed: |name| name == "managed",
        });
        let key = token(100_000, "key");
        let connection = Holder {
            claims: shared.verifier.verify_socket(&key).unwrap(),
            mark: shared.marks.of(&key),
        };
        let now = UnixMillis::now();
        Self {
            session: Session::new(shared, connection, "{}".into(), now),
            now,
        }
    }

    /// Sends a message of protocol version 2. Returns the effects as text.
    fn push(&mut self, message: &Value) -> Vec<String> {
        let text = message.to_string();
        let message = Serializer::V2.decode_text(&text).unwrap();
        let mut effects = Vec::new();
        self.session.receive(&message, self.now, &mut effects);
        printed(effects)
    }

    fn join(&mut self, reference: &str, topic: &str, payload: &Value) -> Vec<String> {
        self.push(&json!([reference, reference, topic, "phx_join", payload]))
    }

    /// Completes background work of the channel with this number.
    fn complete(&mut self, channel: u64, topic: &str, result: WorkResult) -> Vec<String> {
        let mut effects = Vec::new();
        let outcome = Outcome {
            channel: ChannelId(channel),
            topic: topic.into(),
            result,
        };
        self.session.complete(outcome, self.now, &mut effects);
        printed(effects)
    }

    /// Completes a permission check of `token`, or of the connection's token if `token` is `None`.
    fn finish_check(
        &mut self,
        kind: CheckKind,
        result: Result<Permissions, AuthorizeError>,
        token: Option<&str>,
    ) -> Vec<String> {
        let mark = match token {
            Some(token) => self.session.shared.marks.of(token),
            None => self.session.opener.mark,
        };
        let result = WorkResult::Authorized {
            kind,
            mark,
            round: 0,
            result,
        };
        self.complete(1, "realtime:a", result)
    }

    /// Completes a permission check of reading without presence.
    fn read(
        &mut self,
        result: Result<Permissions, AuthorizeError>,
        token: Option<&str>,
    ) -> Vec<String> {
        self.finish_check(CheckKind::Read { presence: false }, result, token)
    }

    /// Creates a session with a private channel that may read broadcasts, without presence.
    fn private(ack: bool) -> Self {
        let mut script = Self::new();
        let payload = private(json!({ "broadcast": { "ack": ack } }));
        script.join("1", "realtime:a", &payload);
        script.read(Ok(BROADCAST), None);
        script
    }

    /// Advances the clock to the session's next deadline.
    fn wait(&mut self) -> Vec<String> {
        self.now = self.session.deadline().expect("something to wait for");
        let mut effects = Vec::new();
        self.session.tick(self.now, &mut effects);
        printed(effects)
    }
}

const BROADCAST: Permissions = Permissions {
    broadcast: true,
    presence: false,
};
const PRESENCE: Permissions = Permissions {
    broadcast: false,
    presence: true,
};
const NOTHING: Permissions = Permissions {
    broadcast: false,
    presence: false,
};

/// Returns the payload for joining a private channel without presence.
fn private(mut config: Value) -> Value {
    config["private"] = true.into();
    config["presence"] = json!({ "enabled": false });
    json!({ "config": config })
}

fn broadcast(reference: &str) -> Value {
    json!(["1", reference, "realtime:a", "broadcast", {"type": "broadcast", "event": "e", "payload": {}}])
}

fn failed(reference: &str, reason: &str) -> String {
    format!(
        r#"["1","{reference}","realtime:a","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#
    )
}

fn channel_error(text: &str) -> String {
    format!(
        r#"["1",null,"realtime:a","system",{{"extension":"system","status":"error","message":"{text}","channel":"a"}}]"#
    )
}

fn printed(effects: Vec<Effect>) -> Vec<String> {
    effects
        .into_iter()
        .map(|effect| match effect {
            Effect::Send(message) => {
                let frame = Serializer::V2.encode(&message).parts().concat();
                let start = frame.iter().position(|byte| *byte == b'[').unwrap();
                String::from_utf8(frame[start..].to_vec()).unwrap()
            }
            Effect::Broadcast(order) => {
                let reply = order.reply.map(|reply| printed(vec![Effect::Send(reply)]));
                format!(
                    "broadcast {:?} to {} except {:?}, then {reply:?}",
                    order.message,
                    order.topic.topic(),
                    order.except
                )
            }
            Effect::PresenceState(channel) => format!("presence state {}", channel.0),
            Effect::Track(order) => {
                let reply = printed(vec![Effect::Send(order.reply)]).concat();
                format!("track {} as {}, then {reply}", order.channel.0, order.key)
            }
            Effect::Untrack(channel) => format!("untrack {}", channel.0),
            Effect::Attach(channel, _) => format!("attach {}", channel.0),
            Effect::Open(channel) => format!("open {}", channel.0),
            Effect::Close(reason) => format!("close: {reason:?}"),
            Effect::Detach(channel) => format!("detach {}", channel.0),
            Effect::Subscribe(order) => {
                let subject: Value = serde_json::from_str(&order.identity.claims).unwrap();
                format!(
                    "subscribe {} as {} after {} failures{}",
                    order.channel.0,
                    subject["sub"].as_str().unwrap(),
                    order.failures,
                    if order.until_live { ", until live" } else { "" }
                )
            }
            Effect::ReadStored(order) => format!(
                "read stored of {} since {} limit {} bytes {}",
                order.topic, order.params.since_ms, order.params.limit, order.max_bytes
            ),
            Effect::Replay(channel, messages) => {
                format!("replay {} to {}", messages.len(), channel.0)
            }
            Effect::Persist(order) => format!(
                "store {} {:?} {:?} in {} as {} for {:?}, except {:?}",
                order.store.event,
                order.store.payload,
                order.reference,
                order.store.topic.topic(),
                order.store.claims.subject.as_deref().unwrap_or_default(),
                order.store.persist.ttl_seconds,
                order.store.except,
            ),
            Effect::AwaitMessages(channel, _) => format!("await messages for {}", channel.0),
            Effect::SetReadPermissions(channel, read) => format!(
                "may read {}: broadcast {}, presence {}",
                channel.0, read.broadcast, read.presence
            ),
            Effect::Authorize(order) => format!("ask {}", asked(&order)),
            Effect::Recheck(order) => {
                let write = if order.with_write {
                    ", and to write"
                } else {
                    ""
                };
                format!("recheck {}{write}", asked(&order.read))
            }
        })
        .collect()
}

fn asked(order: &AuthorizeOrder) -> String {
    let kind = match order.kind {
        CheckKind::Read { presence: false } => "read",
        CheckKind::Read { presence: true } => "read with presence",
        CheckKind::Write => "write",
    };
    format!(
        "{} to {kind} as {} after {} failures",
        order.channel.0,
        order.claims.subject.as_deref().unwrap_or_default(),
        order.failures
    )
}

fn system(join: &str, topic: &str, status: &str, text: &str) -> String {
    format!(
        r#"["{join}",null,"realtime:{topic}","system",{{"extension":"postgres_changes","status":"{status}","message":"{text}","channel":"{topic}"}}]"#
    )
}

fn ok(join: &str, reference: &str, topic: &str) -> String {
    format!(
        r#"["{join}","{reference}","realtime:{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
    )
}

fn joined(join: &str, topic: &str, bindings: &str) -> String {
    format!(
        r#"["{join}","{join}","realtime:{topic}","phx_reply",{{"status":"ok","response":{{"postgres_changes":[{bindings}]}}}}]"#
    )
}

fn refused(join: &str, topic: &str, reason: &str) -> String {
    format!(
        r#"["{join}","{join}","realtime:{topic}","phx_reply",{{"status":"error","response":{{"reason":"{reason}"}}}}]"#
    )
}

fn closed(join: &str, topic: &str) -> String {
    format!(r#"["{join}","{join}","realtime:{topic}","phx_close",{{}}]"#)
}

/// Returns the payload of a join with one binding, and the binding as the reply repeats it.
fn with_binding() -> (Value, String) {
    let params = json!({"event": "*", "schema": "public", "table": "t"});
    let bindings = [super::super::protocol::BindingParams::derived(
        params.clone(),
    )];
    let ids = postgres_changes::assign_ids(&bindings);
    let echo = postgres_changes::echo(&bindings, &ids);
    (
        json!({"config": {"presence": {"enabled": false}, "postgres_changes": [params]}}),
        echo.trim_matches(['[', ']']).to_owned(),
    )
}

#[test]
fn a_socket_has_a_limited_number_of_bindings() {
    let mut script = Script::new();
    let with = |count: usize| {
        let params = json!({"event": "*", "schema": "public", "table": "t"});
        let bindings = vec![params; count];
        json!({"config": {"presence": {"enabled": false}, "postgres_changes": bindings}})
    };
    let per_channel = "Too many postgres_changes bindings: at most 1000";
    let refusal = refused("1", "a", per_channel);
    assert_eq!(script.join("1", "realtime:a", &with(1_001)), [refusal]);
    for topic in ["a", "b"] {
        let effects = script.join("1", &format!("realtime:{topic}"), &with(1_000));
        assert!(effects[0].starts_with("attach"), "{effects:?}");
    }
    let per_socket = "Too many postgres_changes bindings of one connection: at most 2000";
    let refusal = refused("1", "c", per_socket);
    assert_eq!(script.join("1", "realtime:c", &with(1)), [refusal]);
    // A channel that is joined again replaces its bindings.
    let subscribed = WorkResult::Subscribed(Ok(StreamState::Live));
    script.complete(2, "realtime:b", subscribed);
    let effects = script.join("2", "realtime:b", &with(999));
    assert!(
        effects.iter().any(|effect| effect.starts_with("attach")),
        "{effects:?}"
    );
    let effects = script.join("1", "realtime:c", &with(1));
    assert!(effects[0].starts_with("attach"), "{effects:?}");
}

fn plain() -> Value {
    json!({"config": {"presence": {"enabled": false}}})
}

const NOT_NOW: &str =
    "Unable to subscribe to changes: the database cannot be reached at present, trying again";

#[test]
fn a_join_with_bindings_is_answered_when_they_are_registered() {
    let mut script = Script::new();
    let (payload, echo) = with_binding();
    assert_eq!(
        script.join("1", "realtime:a", &payload),
        ["attach 1", "subscribe 1 as key after 0 failures"]
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [
            joined("1", "a", &echo),
            "open 1".to_owned(),
            system("1", "a", "ok", "Subscribed to PostgreSQL"),
        ]
    );
}

#[test]
fn an_unanswered_join_delays_only_its_own_topic() {
    let mut script = Script::new();
    let (payload, echo) = with_binding();
    script.join("1", "realtime:a", &payload);
    assert!(
        script
            .push(&json!(["1", "2", "realtime:a", "presence", {}]))
            .is_empty()
    );
    assert!(
        script
            .push(&json!(["1", "3", "realtime:a", "phx_leave", {}]))
            .is_empty()
    );
    assert!(script.join("4", "realtime:a", &plain()).is_empty());
    assert!(
        script
            .push(&json!(["4", "5", "realtime:a", "phx_leave", {}]))
            .is_empty()
    );
    assert_eq!(
        script.join("6", "realtime:b", &plain()),
        ["attach 2", &joined("6", "b", ""), "open 2"]
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [
            joined("1", "a", &echo),
            "open 1".to_owned(),
            system("1", "a", "ok", "Subscribed to PostgreSQL"),
            ok("1", "2", "a"),
            ok("1", "3", "a"),
            closed("1", "a"),
            "detach 1".to_owned(),
            "attach 3".to_owned(),
            joined("4", "a", ""),
            "open 3".to_owned(),
            ok("4", "5", "a"),
            closed("4", "a"),
            "detach 3".to_owned(),
        ]
    );
}

#[test]
fn messages_waiting_for_a_join_are_limited() {
    let mut script = Script::new();
    script.join("1", "realtime:a", &with_binding().0);
    for _ in 0..MAX_WAITING {
        assert!(
            script
                .push(&json!(["1", "2", "realtime:a", "x", {}]))
                .is_empty()
        );
    }
    assert_eq!(
        script.push(&json!(["1", "3", "realtime:a", "x", {}])),
        [
            r#"["1","3","realtime:a","phx_reply",{"status":"error","response":{"reason":"Too many messages before the join was answered"}}]"#
        ]
    );
    let mut script = Script::new();
    script.join("1", "realtime:a", &with_binding().0);
    let large = "x".repeat(MAX_WAITING_BYTES);
    let effects = script.push(&json!(["1", "2", "realtime:a", "presence", large]));
    assert_eq!(effects.len(), 1, "too large to wait");
}

#[test]
fn a_join_while_the_database_is_down_is_answered_and_registered_later() {
    let mut script = Script::new();
    let (payload, echo) = with_binding();
    script.join("1", "realtime:a", &payload);
    let down = || WorkResult::Subscribed(Err(SubscribeError::Unavailable));
    assert_eq!(
        script.complete(1, "realtime:a", down()),
        [
            "subscribe 1 as key after 1 failures".to_owned(),
            joined("1", "a", &echo),
            "open 1".to_owned(),
            system("1", "a", "error", NOT_NOW),
        ]
    );
    // The error is sent once. The next notice reports success.
    assert_eq!(
        script.complete(1, "realtime:a", down()),
        ["subscribe 1 as key after 2 failures"]
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [system("1", "a", "ok", "Subscribed to PostgreSQL")]
    );
}

#[test]
fn a_channel_is_closed_if_messages_are_not_live_in_time() {
    let config = json!({"broadcast": {"replication_ready": true}, "presence": {"enabled": false}});
    let mut script = Script::new();
    let effects = script.join("1", "realtime:a", &json!({ "config": config }));
    assert!(
        effects.contains(&"await messages for 1".to_owned()),
        "{effects:?}"
    );
    assert_eq!(
        script.complete(1, "realtime:a", WorkResult::MessagesLive(false)),
        [
            channel_error("Replication connection was not established in time"),
            closed("1", "a"),
            "detach 1".to_owned(),
        ]
    );
}

#[test]
fn a_slow_database_delays_the_reply_only_for_a_limited_time() {
    let mut script = Script::new();
    let (payload, echo) = with_binding();
    script.join("1", "realtime:a", &payload);
    assert_eq!(
        script.complete(1, "realtime:a", WorkResult::SubscribeLate),
        [
            joined("1", "a", &echo),
            "open 1".to_owned(),
            system("1", "a", "error", SUBSCRIBE_LATE),
        ]
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [system("1", "a", "ok", "Subscribed to PostgreSQL")]
    );
}

#[test]
fn a_waiting_join_is_answered_when_changes_are_live_or_refused_at_its_timeout() {
    let (mut payload, echo) = with_binding();
    payload["config"]["postgres_changes_options"] = json!({"wait": true, "timeout": 5_000});
    let mut script = Script::new();
    assert_eq!(
        script.join("1", "realtime:a", &payload),
        [
            "attach 1",
            "subscribe 1 as key after 0 failures, until live"
        ]
    );
    assert!(
        script
            .complete(1, "realtime:a", WorkResult::SubscribeLate)
            .is_empty()
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Err(SubscribeError::Unavailable))
        ),
        ["subscribe 1 as key after 1 failures, until live"]
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [
            joined("1", "a", &echo),
            "open 1".to_owned(),
            system("1", "a", "ok", "Subscribed to PostgreSQL"),
        ]
    );

    let mut script = Script::new();
    script.join("1", "realtime:a", &payload);
    let begin = script.now;
    let reason = "PostgresChangesSubscribeTimeout: Timed out after 5000ms waiting for the postgres_changes subscription";
    assert_eq!(
        script.wait(),
        ["detach 1".to_owned(), refused("1", "a", reason)]
    );
    assert_eq!(script.now.since(begin), Duration::from_secs(5));
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        ["detach 1"],
        "a late registration is removed"
    );

    let mut script = Script::new();
    script.join("1", "realtime:a", &payload);
    let effects = script.complete(
        1,
        "realtime:a",
        WorkResult::Subscribed(Err(SubscribeError::SelectWithWildcard)),
    );
    assert_eq!(effects[0], "detach 1");
    assert!(
        effects[1].contains("RealtimeDisabledForConfiguration: Column selection is not supported"),
        "{effects:?}"
    );
}

#[test]
fn invalid_bindings_are_reported_after_a_successful_reply() {
    let mut script = Script::new();
    let payload =
        json!({"config": {"presence": {"enabled": false}, "postgres_changes": [{"event": "*"}]}});
    let effects = script.join("1", "realtime:a", &payload);
    assert_eq!(effects[0], "attach 1");
    assert!(effects[1].contains(r#""status":"ok""#), "{effects:?}");
    assert_eq!(effects[2], "open 1");
    assert!(
        effects[3].contains("No subscription params provided"),
        "{effects:?}"
    );
    assert_eq!(effects.len(), 4, "nothing is retried");
}

#[test]
fn a_join_without_config_registers_its_topic_as_a_binding() {
    let mut script = Script::new();
    let effects = script.join("1", "realtime:public:t", &json!({}));
    assert_eq!(effects, ["attach 1", "subscribe 1 as key after 0 failures"]);
    let effects = script.complete(
        1,
        "realtime:public:t",
        WorkResult::Subscribed(Ok(StreamState::Live)),
    );
    assert!(
        effects[0].contains(r#"{"event":"*","schema":"public","table":"t","id":"#),
        "{effects:?}"
    );
}

#[test]
fn a_refreshed_token_registers_bindings_again_under_the_new_identity() {
    let mut script = Script::new();
    script.join("1", "realtime:a", &with_binding().0);
    script.complete(
        1,
        "realtime:a",
        WorkResult::Subscribed(Ok(StreamState::Live)),
    );
    let (ann, bob) = (token(500, "ann"), token(500, "bob"));
    let refresh =
        |token: &str| json!(["1", "2", "realtime:a", "access_token", {"access_token": token}]);
    assert_eq!(
        script.push(&refresh(&ann)),
        ["subscribe 1 as ann after 0 failures"]
    );
    assert!(
        script.push(&refresh(&ann)).is_empty(),
        "the same token again"
    );
    // If a token arrives during a registration, the bindings are registered under it afterwards.
    assert!(script.push(&refresh(&bob)).is_empty());
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [
            "subscribe 1 as bob after 0 failures".to_owned(),
            system("1", "a", "ok", "Subscribed to PostgreSQL"),
        ]
    );
    assert_eq!(
        script.complete(
            1,
            "realtime:a",
            WorkResult::Subscribed(Ok(StreamState::Live))
        ),
        [system("1", "a", "ok", "Subscribed to PostgreSQL")]
    );
}

#[test]
fn a_socket_without_channels_is_closed_after_the_timeout() {
    let mut script = Script::new();
    let begin = script.now;
    script.now = begin.after(Duration::from_secs(500));
    script.join("1", "realtime:a", &plain());
    assert!(script.session.deadline() > Some(begin.after(Duration::from_secs(600))));
    script.push(&json!(["1", "2", "realtime:a", "phx_leave", {}]));
    assert_eq!(script.wait(), ["close: NoChannel"]);
    assert_eq!(script.now, begin.after(Duration::from_secs(1_100)));
    let mut script = Script::new();
    assert_eq!(script.wait(), ["close: NoChannel"]);
    assert!(script.now.since(begin) >= Duration::from_secs(600));
}

#[test]
fn a_channel_receives_one_expiry_warning_and_ends_with_its_token() {
    let mut script = Script::new();
    let mut payload = plain();
    payload["access_token"] = token(100, "ann").into();
    script.join("1", "realtime:a", &payload);
    let begin = script.now;
    let notice = |status: &str, text: &str| {
        format!(
            r#"["1",null,"realtime:a","system",{{"extension":"system","status":"{status}","message":"{text}","channel":"a"}}]"#
        )
    };
    assert_eq!(script.wait(), [notice("ok", "Token expires in 60 seconds")]);
    assert!(script.now.since(begin) <= Duration::from_secs(40));
    assert_eq!(
        script.wait(),
        [
            notice("error", "Token has expired 0 seconds ago"),
            closed("1", "a"),
            "detach 1".to_owned(),
        ]
    );
    assert_eq!(script.wait(), ["close: NoChannel"]);
    // The connection's own token expires too. Later joins without another token are refused.
    script.now = UnixMillis(script.now.0 + 200_000_000);
    let effects = script.join("2", "realtime:a", &plain());
    assert!(
        effects[0].contains("InvalidJWTToken: Token has expired 1"),
        "{effects:?}"
    );
}

#[test]
fn a_refused_second_join_still_ends_the_first() {
    let mut script = Script::new();
    script.join("1", "realtime:a", &plain());
    assert_eq!(
        script.join(
            "2",
            "realtime:a",
            &json!({"config": {}, "access_token": "nonsense"})
        ),
        [
            "detach 1".to_owned(),
            refused(
                "2",
                "a",
                "MalformedJWT: The token provided is not a valid JWT"
            ),
            closed("1", "a"),
        ]
    );
}

#[test]
fn a_private_join_checks_permissions_first() {
    let mut payload = with_binding().0;
    payload["config"]["private"] = true.into();
    let mut script = Script::new();
    assert_eq!(
        script.join("1", "realtime:a", &payload),
        ["attach 1", "ask 1 to read as key after 0 failures"]
    );
    assert_eq!(
        script.read(Ok(BROADCAST), None),
        [
            "may read 1: broadcast true, presence false",
            "subscribe 1 as key after 0 failures"
        ]
    );
    let unauthorized =
        "Unauthorized: You do not have permissions to read from this Channel topic: a";
    for (result, reason) in [
        (Ok(NOTHING), unauthorized),
        (Err(policy_error()), unauthorized),
        (
            Err(AuthorizeError::Unavailable),
            "UnableToConnectToProject: Realtime was unable to connect to the project database",
        ),
        (
            Err(AuthorizeError::MissingPartition),
            "MissingPartition: Realtime was unable to find the expected messages partition",
        ),
    ] {
        let mut script = Script::new();
        script.join("1", "realtime:a", &payload);
        assert_eq!(
            script.read(result, None),
            ["detach 1".to_owned(), refused("1", "a", reason)]
        );
    }
}

fn policy_error() -> AuthorizeError {
    AuthorizeError::Policy {
        sqlstate: "22P02".to_owned(),
    }
}

#[test]
fn a_presence_state_requires_permission_to_read_presence() {
    let payload = json!({"config": {"private": true, "presence": {"enabled": true}}});
    let state = "presence state 1".to_owned();
    for (read, shown) in [(BROADCAST, None), (PRESENCE, Some(state))] {
        let mut script = Script::new();
        assert_eq!(
            script.join("1", "realtime:a", &payload)[1],
            "ask 1 to read with presence as key after 0 failures"
        );
        let effects = script.finish_check(CheckKind::Read { presence: true }, Ok(read), None);
        assert_eq!(effects[1], joined("1", "a", ""));
        assert_eq!(effects[2], "open 1");
        assert_eq!(effects.get(3).cloned(), shown);
    }
}

#[test]
fn a_new_token_is_accepted_if_it_permits_reading_as_much_as_before() {
    let ann = token(500, "ann");
    let refresh =
        |token: &str| json!(["1", "2", "realtime:a", "access_token", {"access_token": token}]);
    let lost = "You no longer have permission to read from this Channel topic: a";
    let none = "You do not have permissions to read from this Channel topic: a";
    let waits = "Realtime was unable to connect to the project database: the previous token stays in force until it expires, trying again";
    // (permissions before, result of the check of the new token, effects)
    let cases = [
        (
            BROADCAST,
            Ok(Permissions::ALL),
            vec![
                "may read 1: broadcast true, presence true".to_owned(),
                "presence state 1".to_owned(),
            ],
        ),
        (
            Permissions::ALL,
            Ok(BROADCAST),
            vec![channel_error(lost), closed("1", "a"), "detach 1".to_owned()],
        ),
        (
            Permissions::ALL,
            Ok(NOTHING),
            vec![channel_error(none), closed("1", "a"), "detach 1".to_owned()],
        ),
        (
            PRESENCE,
            Ok(BROADCAST),
            vec![channel_error(lost), closed("1", "a"), "detach 1".to_owned()],
        ),
        (
            BROADCAST,
            Err(policy_error()),
            vec![channel_error(none), closed("1", "a"), "detach 1".to_owned()],
        ),
        (
            BROADCAST,
            Err(AuthorizeError::Unavailable),
            vec![
                channel_error(waits),
                "ask 1 to read with presence as ann after 1 failures".to_owned(),
            ],
        ),
    ];
    let payload = json!({"config": {"private": true, "presence": {"enabled": true}}});
    for (before, under, heard) in cases {
        let mut script = Script::new();
        script.join("1", "realtime:a", &payload);
        script.finish_check(CheckKind::Read { presence: true }, Ok(before), None);
        assert_eq!(
            script.push(&refresh(&ann)),
            ["ask 1 to read with presence as ann after 0 failures"]
        );
        let effects = script.finish_check(CheckKind::Read { presence: true }, under, Some(&ann));
        assert_eq!(effects, heard);
    }

    // Messages sent after a new token are handled when its check is done.
    let mut script = Script::private(false);
    script.push(&refresh(&ann));
    assert!(script.push(&broadcast("3")).is_empty());
    let bob = token(500, "bob");
    assert!(script.push(&refresh(&bob)).is_empty());
    assert_eq!(
        script.read(Ok(BROADCAST), Some(&ann)),
        [
            "may read 1: broadcast true, presence false",
            "ask 1 to write as ann after 0 failures"
        ]
    );
    // The result for Ann's token arrives before Bob's token is checked, and must not apply to
    // Bob's token.
    let effects = script.finish_check(CheckKind::Write, Ok(NOTHING), Some(&ann));
    assert_eq!(effects.len(), 2, "{effects:?}");
    assert_eq!(effects[1], "ask 1 to read as bob after 0 failures");
    assert!(script.read(Ok(NOTHING), Some(&ann)).is_empty());
}

#[test]
fn a_new_token_is_checked_again_if_presence_was_needed_in_the_meantime() {
    let ann = token(500, "ann");
    let mut script = Script::private(false);
    let refresh = json!(["1", "2", "realtime:a", "access_token", {"access_token": ann}]);
    script.push(&refresh);
    let effects = script.read(Err(AuthorizeError::Unavailable), Some(&ann));
    assert_eq!(effects[1], "ask 1 to read as ann after 1 failures");
    // The first track makes presence readable, still under the previous token.
    let track = json!(["1", "3", "realtime:a", "presence", {"type": "presence", "event": "track", "payload": {}}]);
    script.push(&track);
    let reading = CheckKind::Read { presence: true };
    script.finish_check(reading, Ok(Permissions::ALL), None);
    // This result covers only broadcasts, so the check is repeated, with presence.
    assert_eq!(
        script.read(Ok(BROADCAST), Some(&ann)),
        ["ask 1 to read with presence as ann after 0 failures"]
    );
    let effects = script.finish_check(reading, Ok(Permissions::ALL), Some(&ann));
    assert_eq!(effects[0], "may read 1: broadcast true, presence true");
}

#[test]
fn the_first_write_on_a_private_channel_is_checked_and_messages_keep_their_order() {
    let mut script = Script::private(true);
    let asked = "ask 1 to write as key after 0 failures";
    assert_eq!(script.push(&broadcast("2")), [asked]);
    assert!(script.push(&broadcast("3")).is_empty());
    // Other topics continue.
    assert!(!script.join("9", "realtime:b", &plain()).is_empty());
    let unauthorized = "You do not have permissions to write to this Channel topic: a";
    assert_eq!(
        script.finish_check(CheckKind::Write, Ok(NOTHING), None),
        [failed("2", unauthorized), failed("3", unauthorized)]
    );
    // The refusal is remembered, so there is no further check.
    assert_eq!(script.push(&broadcast("4")), [failed("4", unauthorized)]);

    // If the check failed, the next message checks again.
    let mut script = Script::private(true);
    script.push(&broadcast("2"));
    script.push(&broadcast("3"));
    let away = "UnableToConnectToProject: Realtime was unable to connect to the project database";
    assert_eq!(
        script.finish_check(CheckKind::Write, Err(AuthorizeError::Unavailable), None),
        [failed("2", away), failed("3", away)]
    );
    assert_eq!(script.push(&broadcast("4")), [asked]);
    // A policy that fails counts as a refusal, which is remembered.
    assert_eq!(
        script.finish_check(CheckKind::Write, Err(policy_error()), None),
        [failed("4", unauthorized)]
    );
    assert_eq!(script.push(&broadcast("5")), [failed("5", unauthorized)]);

    // If too many messages wait, further ones are refused immediately.
    let mut script = Script::private(true);
    for _ in 0..MAX_WAITING {
        script.push(&broadcast("2"));
    }
    assert_eq!(
        script.push(&broadcast("3")),
        [failed("3", TOO_MANY_WAITING)]
    );
}

#[test]
fn notices_about_refused_writes_without_reply_are_limited() {
    let mut script = Script::private(false);
    script.push(&broadcast("2"));
    let unauthorized = "You do not have permissions to write to this Channel topic: a";
    let mut heard = script.finish_check(CheckKind::Write, Ok(NOTHING), None);
    for _ in 0..10 {
        heard.extend(script.push(&broadcast("3")));
    }
    assert_eq!(heard.len(), NOTICE_BURST as usize);
    assert!(
        heard
            .iter()
            .all(|heard| *heard == channel_error(unauthorized))
    );
}

#[test]
fn a_large_first_message_waits_and_the_total_is_limited() {
    let large = "x".repeat(MAX_WAITING_BYTES * 3);
    let push = |topic: &str| json!(["1", "2", format!("realtime:{topic}"), "broadcast", {"payload": large}]);
    let mut script = Script::with(RealtimeConfig {
        max_broadcast_bytes: 5_000_000,
        ..config()
    });
    for (number, topic) in ["a", "b", "c"].into_iter().enumerate() {
        let number = u64::try_from(number).unwrap() + 1;
        let full = format!("realtime:{topic}");
        script.join("1", &full, &private(json!({"broadcast": {"ack": true}})));
        let result = WorkResult::Authorized {
            kind: CheckKind::Read { presence: false },
            mark: script.session.opener.mark,
            round: 0,
            result: Ok(BROADCAST),
        };
        script.complete(number, &full, result);
    }
    for topic in ["a", "b"] {
        let effects = script.push(&push(topic));
        assert!(effects[0].starts_with("ask"), "{effects:?}");
        assert_eq!(effects.len(), 1);
    }
    let effects = script.push(&push("c"));
    assert!(effects.last().unwrap().contains(TOO_MANY_WAITING));
    // The large message leaves no room for another one.
    assert_eq!(
        script.push(&broadcast("3")),
        [failed("3", TOO_MANY_WAITING)]
    );
}

#[test]
fn the_first_track_checks_the_permission_to_read_presence() {
    let mut script = Script::private(false);
    let track = json!(["1", "2", "realtime:a", "presence", {"type": "presence", "event": "track", "payload": {}}]);
    assert_eq!(
        script.push(&track),
        ["ask 1 to read with presence as key after 0 failures"]
    );
    assert_eq!(
        script.finish_check(CheckKind::Read { presence: true }, Ok(PRESENCE), None),
        [
            "may read 1: broadcast true, presence true",
            "ask 1 to write as key after 0 failures"
        ]
    );
    assert_eq!(
        script.finish_check(CheckKind::Write, Ok(BROADCAST), None),
        [failed(
            "2",
            "You do not have permissions to write to this Channel topic: a"
        )]
    );

    let mut script = Script::private(false);
    script.push(&track);
    script.finish_check(CheckKind::Read { presence: true }, Ok(NOTHING), None);
    let effects = script.finish_check(CheckKind::Write, Ok(PRESENCE), None);
    assert!(effects[0].starts_with("track 1 as "), "{effects:?}");
    // Untracking needs no permission.
    let untrack = json!(["1", "3", "realtime:a", "presence", {"event": "untrack"}]);
    assert_eq!(
        script.push(&untrack),
        ["untrack 1".to_owned(), ok("1", "3", "a")]
    );
}

#[test]
fn settings_can_refuse_public_channels() {
    let mut config = config();
    config.private_only = true;
    let mut script = Script::with(config);
    assert_eq!(
        script.join("1", "realtime:a", &plain()),
        [refused(
            "1",
            "a",
            "PrivateOnly: This project only allows private channels"
        )]
    );
}

#[test]
fn a_stopping_server_refuses_joins() {
    let mut script = Script::new();
    script.session.shared.hub.refuse_joins();
    assert_eq!(
        script.join("1", "realtime:a", &plain()),
        [refused(
            "1",
            "a",
            "RealtimeRestarting: Realtime is restarting, please standby"
        )]
    );
}

#[test]
fn ending_a_session_ends_its_channels() {
    let mut script = Script::new();
    script.join("1", "realtime:a", &plain());
    script.join("2", "realtime:b", &with_binding().0);
    let mut effects = Vec::new();
    script.session.end(&mut effects);
    let mut effects = printed(effects);
    effects.sort();
    assert_eq!(effects, ["detach 1", "detach 2"]);
}

/// Sends a binary push with JSON on the topic `realtime:a`. Returns the effects as text.
fn push_binary(script: &mut Script, event: &str, payload: &[u8]) -> Vec<String> {
    let mut bytes = vec![3, 1, 1, 10, u8::try_from(event.len()).unwrap(), 14, 1];
    bytes.extend(format!("12realtime:a{event}{{\"other\":true}}").as_bytes());
    bytes.extend(payload);
    let message = Serializer::V2.decode_binary(&bytes).unwrap();
    let mut effects = Vec::new();
    script.session.receive(&message, script.now, &mut effects);
    printed(effects)
}

fn broadcasting(echo: bool, ack: bool) -> Value {
    json!({"config": {
        "presence": {"enabled": false}, "broadcast": {"self": echo, "ack": ack},
    }})
}

#[test]
fn a_broadcast_is_sent_and_acknowledged_as_the_join_requested() {
    let message = r#"Json { event: "hi", payload: "{\"n\":1}" } to realtime:a"#;
    let cases = [
        (false, false, "except Some(ChannelId(1)), then None"),
        (true, false, "except None, then None"),
        (
            true,
            true,
            r#"except None, then Some(["[\"1\",\"2\",\"realtime:a\",\"phx_reply\",{\"status\":\"ok\",\"response\":{}}]"])"#,
        ),
    ];
    for (echo, ack, rest) in cases {
        let mut script = Script::new();
        script.join("1", "realtime:a", &broadcasting(echo, ack));
        assert_eq!(
            push_binary(&mut script, "hi", b"{\"n\":1}"),
            [format!("broadcast {message} {rest}")]
        );
    }
    // A text push is forwarded unchanged, even if its `join_ref` is of another join.
    let mut script = Script::new();
    script.join("1", "realtime:a", &broadcasting(true, false));
    assert_eq!(
        script.push(&json!(["7", "2", "realtime:a", "broadcast", {"x": 1}])),
        [r#"broadcast Text(RawValue({"x":1})) to realtime:a except None, then None"#]
    );
}

#[test]
fn notices_about_refused_broadcasts_are_limited() {
    let mut config = config();
    config.max_broadcast_bytes = 10;
    let mut script = Script::with(config);
    script.join("1", "realtime:a", &broadcasting(true, false));
    let notice = r#"["1",null,"realtime:a","system",{"extension":"system","status":"error","message":"The payload of a broadcast is too large: at most 10 bytes","channel":"a"}]"#;
    let large = b"{\"x\":12345}";
    for _ in 0..NOTICE_BURST {
        assert_eq!(push_binary(&mut script, "hi", large), [notice]);
    }
    assert!(push_binary(&mut script, "hi", large).is_empty());
    script.now = UnixMillis(script.now.0 + 1_000);
    assert_eq!(push_binary(&mut script, "hi", large), [notice]);
    assert_eq!(
        push_binary(&mut script, "hi", b"{\"x\":1234}").len(),
        1,
        "a payload that fits is sent"
    );
    let metrics = script.session.shared.hub.metrics();
    let labels = crate::observability::metrics::DropLabels {
        reason: DropReason::TooLarge,
    };
    assert_eq!(metrics.frames_dropped.get_or_create(&labels).get(), 7);
}

#[test]
fn a_broadcast_waits_for_the_join_of_its_channel() {
    let mut script = Script::new();
    let mut payload = with_binding().0;
    payload["config"]["broadcast"] = json!({"self": true});
    script.join("1", "realtime:a", &payload);
    assert!(push_binary(&mut script, "hi", b"{}").is_empty());
    let effects = script.complete(1, "realtime:a", WorkResult::SubscribeLate);
    assert_eq!(
        effects.last().unwrap(),
        r#"broadcast Json { event: "hi", payload: "{}" } to realtime:a except None, then None"#
    );
}

#[test]
fn a_long_topic_accepts_text_broadcasts() {
    let topic = format!("realtime:{}", "x".repeat(250));
    let mut script = Script::new();
    script.join("1", &topic, &broadcasting(true, true));
    let effects = script.push(&json!(["1", "2", topic, "broadcast", {}]));
    assert!(effects[0].starts_with("broadcast"), "{effects:?}");
}
