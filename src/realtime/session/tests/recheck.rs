//! Tests of rechecks, and of the presence key on managed topics.

use super::*;
use crate::visibility::ChannelId;

const TOPIC: &str = "realtime:managed";

const BOTH: Permissions = Permissions::ALL;

const READING: CheckKind = CheckKind::Read { presence: true };

/// The order after a change, for a channel that does not track presence.
const RECHECK: &str = "recheck 1 to read with presence as ann after 0 failures";
/// The order after a change, for a channel that tracks presence.
const RECHECK_ALL: &str = "recheck 1 to read with presence as ann after 0 failures, and to write";

impl Script {
    /// Creates a session with a managed channel that requests presence, and whose join is being
    /// checked. Also returns the channel's token.
    fn managed() -> (Self, String) {
        let mut script = Self::new();
        let token = token(500, "ann");
        let config = json!({"private": true, "presence": {"enabled": true, "key": "bob"}});
        let payload = json!({"config": config, "access_token": token});
        let asked = script.join("1", TOPIC, &payload);
        let ask = "ask 1 to read with presence as ann after 0 failures";
        assert_eq!(asked, ["attach 1", ask]);
        (script, token)
    }

    /// Returns the same as [`Script::managed`], after the join has been allowed.
    fn joined() -> (Self, String) {
        let (mut script, token) = Self::managed();
        let effects = script.authorized(&token, READING, 0, Ok(BOTH));
        assert!(effects.contains(&"open 1".to_owned()), "{effects:?}");
        (script, token)
    }

    /// Returns the same as [`Script::joined`], after the channel has tracked presence.
    fn listed() -> (Self, String) {
        let (mut script, token) = Self::joined();
        let asked = script.track_managed();
        assert_eq!(asked, ["ask 1 to write as ann after 0 failures"]);
        let effects = script.authorized(&token, CheckKind::Write, 0, Ok(BOTH));
        assert!(effects[0].starts_with("track 1 as ann, "), "{effects:?}");
        (script, token)
    }

    fn track_managed(&mut self) -> Vec<String> {
        let push = json!({"type": "presence", "event": "track", "payload": {}});
        self.push(&json!(["1", "2", TOPIC, "presence", push]))
    }

    fn authorized(
        &mut self,
        token: &str,
        kind: CheckKind,
        round: u32,
        result: Result<Permissions, AuthorizeError>,
    ) -> Vec<String> {
        let result = WorkResult::Authorized {
            kind,
            mark: self.session.shared.marks.of(token),
            round,
            result,
        };
        self.complete(1, TOPIC, result)
    }

    /// Simulates a change that may affect the channel with this number.
    fn change(&mut self, number: u64) -> Vec<String> {
        let mut effects = Vec::new();
        let is_meant = |channel| channel == ChannelId(number);
        self.session.recheck(is_meant, &mut effects);
        printed(effects)
    }

    fn rechecked(
        &mut self,
        token: &str,
        round: u32,
        read: Result<Permissions, AuthorizeError>,
        write: Option<Result<Permissions, AuthorizeError>>,
    ) -> Vec<String> {
        let result = WorkResult::Rechecked(RecheckOutcome {
            kind: READING,
            mark: self.session.shared.marks.of(token),
            round,
            failures: 0,
            read,
            write,
        });
        self.complete(1, TOPIC, result)
    }
}

fn closed_with(text: &str) -> [String; 3] {
    [
        format!(
            r#"["1",null,"{TOPIC}","system",{{"extension":"system","status":"error","message":"{text}","channel":"managed"}}]"#
        ),
        closed("1", "managed"),
        "detach 1".to_owned(),
    ]
}

const CANNOT_READ: &str = "You do not have permissions to read from this Channel topic: managed";
const READS_LESS: &str = "You no longer have permission to read from this Channel topic: managed";

#[test]
fn a_channel_that_may_read_less_is_closed_as_after_a_new_token() {
    let denied = || {
        Err(AuthorizeError::Policy {
            sqlstate: "42501".to_owned(),
        })
    };
    let cases = [
        (Ok(Permissions::default()), CANNOT_READ),
        (denied(), CANNOT_READ),
        (Ok(BROADCAST), READS_LESS),
        (Ok(PRESENCE), READS_LESS),
    ];
    for (result, text) in cases {
        let (mut script, token) = Script::joined();
        assert_eq!(script.change(1), [RECHECK]);
        assert_eq!(script.rechecked(&token, 1, result, None), closed_with(text));
        let metrics = script.session.shared.hub.metrics();
        assert_eq!(
            (metrics.rechecks.get(), metrics.channels_revoked.get()),
            (1, 1)
        );
    }
    let (mut script, token) = Script::joined();
    script.change(1);
    let unchanged = script.rechecked(&token, 1, Ok(BOTH), None);
    assert_eq!(unchanged, ["may read 1: broadcast true, presence true"]);
    // Unlike the acceptance of a new token, this sends no notice and registers nothing. The next
    // change is checked again.
    assert_eq!(script.change(1), [RECHECK]);
}

#[test]
fn only_requested_managed_channels_are_rechecked() {
    let (mut script, _) = Script::joined();
    assert!(script.change(2).is_empty());
    script.join("2", "realtime:a", &private(json!({})));
    let result = WorkResult::Authorized {
        kind: CheckKind::Read { presence: false },
        mark: script.session.opener.mark,
        round: 0,
        result: Ok(BROADCAST),
    };
    script.complete(2, "realtime:a", result);
    assert!(script.change(2).is_empty(), "unmanaged channel");
    script.join("3", TOPIC, &plain());
    assert!(script.change(3).is_empty(), "public");
}

#[test]
fn a_presence_that_may_no_longer_be_shown_is_removed() {
    let (mut script, token) = Script::listed();
    assert_eq!(script.change(1), [RECHECK_ALL]);
    let effects = script.rechecked(&token, 1, Ok(BOTH), Some(Ok(BROADCAST)));
    assert_eq!(effects[0], "may read 1: broadcast true, presence true");
    assert_eq!(effects[1], "untrack 1");
    let text = "You do not have permissions to write to this Channel topic: managed";
    assert!(effects[2].contains(text), "{effects:?}");
    assert_eq!(effects.len(), 3);
    // The result of the check to write is kept.
    let refused = script.track_managed();
    assert!(refused[0].contains(text), "{refused:?}");
    // A later check may allow it again.
    assert_eq!(script.change(1), [RECHECK]);
    script.rechecked(&token, 2, Ok(BOTH), None);
    let asked = script.track_managed();
    assert_eq!(asked, ["ask 1 to write as ann after 0 failures"]);

    let (mut script, token) = Script::listed();
    script.change(1);
    let effects = script.rechecked(&token, 1, Ok(BOTH), Some(Ok(BOTH)));
    assert_eq!(effects.len(), 1, "{effects:?}");
}

#[test]
fn the_first_write_after_a_change_is_checked() {
    let (mut script, _) = Script::listed();
    assert!(script.track_managed()[0].starts_with("track"));
    script.change(1);
    let asked = script.track_managed();
    assert_eq!(asked, ["ask 1 to write as ann after 0 failures"]);
}

#[test]
fn answers_older_than_a_change_are_discarded() {
    // The result of the check of a join.
    let (mut script, token) = Script::managed();
    assert!(script.change(1).is_empty(), "the join has its own check");
    let ask = "ask 1 to read with presence as ann after 0 failures";
    assert_eq!(script.authorized(&token, READING, 0, Ok(BOTH)), [ask]);
    let refused = script.authorized(&token, READING, 1, Ok(Permissions::default()));
    assert_eq!(refused[0], "detach 1");

    // The result of the check of a new token.
    let (mut script, _) = Script::joined();
    let other = token_of("ann", 600);
    let payload = json!({"access_token": other});
    let refresh = script.push(&json!(["1", "2", TOPIC, "access_token", payload]));
    assert_eq!(refresh, [ask]);
    assert_eq!(script.change(1), [RECHECK]);
    assert_eq!(script.authorized(&other, READING, 0, Ok(BOTH)), [ask]);
    assert_eq!(
        script.authorized(&other, READING, 1, Ok(BROADCAST)),
        closed_with(READS_LESS)
    );

    // The result of the check of a first write.
    let (mut script, token) = Script::joined();
    script.track_managed();
    script.change(1);
    let write = "ask 1 to write as ann after 0 failures";
    let effects = script.authorized(&token, CheckKind::Write, 0, Ok(BOTH));
    assert_eq!(effects, [write]);

    // The result of a recheck. The recheck then starts again; only one runs at a time.
    let (mut script, token) = Script::joined();
    assert_eq!(script.change(1), [RECHECK]);
    assert!(script.change(1).is_empty());
    assert_eq!(script.rechecked(&token, 1, Ok(BOTH), None), [RECHECK]);
    let effects = script.rechecked(&token, 2, Ok(Permissions::default()), None);
    assert_eq!(effects, closed_with(CANNOT_READ));
}

#[test]
fn a_change_between_the_check_of_a_join_and_its_reply_is_checked() {
    let mut script = Script::new();
    let token = token(500, "ann");
    let (mut payload, _) = with_binding();
    payload["config"]["private"] = true.into();
    payload["config"]["presence"] = json!({"enabled": true});
    payload["access_token"] = token.clone().into();
    script.join("1", TOPIC, &payload);
    let result = WorkResult::Authorized {
        kind: READING,
        mark: script.session.shared.marks.of(&token),
        round: 0,
        result: Ok(BOTH),
    };
    let effects = script.complete(1, TOPIC, result);
    let subscribe = "subscribe 1 as ann after 0 failures".to_owned();
    assert_eq!(effects.last(), Some(&subscribe), "{effects:?}");
    assert!(script.change(1).is_empty());
    let done = WorkResult::Subscribed(Ok(StreamState::Live));
    let effects = script.complete(1, TOPIC, done);
    let recheck = "recheck 1 to read with presence as ann after 0 failures".to_owned();
    assert_eq!(effects.last(), Some(&recheck), "{effects:?}");
}

#[test]
fn a_recheck_during_an_outage_is_repeated_and_closes_no_channel() {
    let (mut script, token) = Script::listed();
    script.change(1);
    let unavailable = || Err(AuthorizeError::Unavailable);
    let again = RECHECK_ALL.replace("after 0", "after 1");
    assert_eq!(
        script.rechecked(&token, 1, unavailable(), None),
        [RECHECK_ALL]
    );
    let effects = script.rechecked(&token, 1, unavailable(), Some(unavailable()));
    assert_eq!(effects, std::slice::from_ref(&again));
    let effects = script.rechecked(&token, 1, Ok(BOTH), Some(unavailable()));
    assert_eq!(effects.last(), Some(&again), "{effects:?}");
}

#[test]
fn on_a_managed_topic_the_key_is_the_subject() {
    let (mut script, _) = Script::listed();
    // A token of another user ends the presence of the first.
    let bob = token_of("bob", 600);
    let payload = json!({"access_token": bob});
    script.push(&json!(["1", "2", TOPIC, "access_token", payload]));
    let effects = script.authorized(&bob, READING, 0, Ok(BOTH));
    assert!(effects.contains(&"untrack 1".to_owned()), "{effects:?}");
    script.track_managed();
    let effects = script.authorized(&bob, CheckKind::Write, 0, Ok(BOTH));
    assert!(effects[0].starts_with("track 1 as bob, "), "{effects:?}");
    // Another token of the same user changes nothing.
    let next = token_of("bob", 700);
    let payload = json!({"access_token": next});
    script.push(&json!(["1", "3", TOPIC, "access_token", payload]));
    let effects = script.authorized(&next, READING, 0, Ok(BOTH));
    assert!(!effects.contains(&"untrack 1".to_owned()), "{effects:?}");
}

#[test]
fn clients_choose_their_keys_on_unmanaged_topics() {
    for (topic, private) in [("realtime:a", true), (TOPIC, false)] {
        let mut script = Script::new();
        let config = json!({"private": private, "presence": {"enabled": true, "key": "bob"}});
        let token = token(500, "ann");
        script.join(
            "1",
            topic,
            &json!({"config": config, "access_token": token}),
        );
        let mark = script.session.shared.marks.of(&token);
        for kind in [READING, CheckKind::Write] {
            if private {
                let result = WorkResult::Authorized {
                    kind,
                    mark,
                    round: 0,
                    result: Ok(BOTH),
                };
                script.complete(1, topic, result);
            }
            let push = json!({"type": "presence", "event": "track", "payload": {}});
            let effects = script.push(&json!(["1", "2", topic, "presence", push]));
            if !private || kind == CheckKind::Write {
                assert!(effects[0].starts_with("track 1 as bob, "), "{effects:?}");
            }
        }
    }
}

fn token_of(subject: &str, seconds: i64) -> String {
    token(seconds, subject)
}
