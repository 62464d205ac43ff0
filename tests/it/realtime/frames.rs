//! Tests that compare the frames of the protocol with snapshots, in both versions.

use insta::assert_snapshot;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::postgres_changes::{Stack, with_bindings};
use super::{Server, config, plain_join};
use crate::support::snapshot::redacted;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};

const TOPIC: &str = "realtime:room";

/// The parts of a frame that differ between runs: references of presences, ids of bindings, and
/// times.
const VOLATILE: &[(&str, &str)] = &[
    (r#""phx_ref":"[^"]+""#, r#""phx_ref":"…""#),
    (r#""phx_ref_prev":"[^"]+""#, r#""phx_ref_prev":"…""#),
    (r#""id":\d{4,}"#, r#""id":"…""#),
    (r#""ids":\[[\d,]+\]"#, r#""ids":["…"]"#),
    (
        r#""commit_timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z""#,
        r#""commit_timestamp":"…""#,
    ),
];

/// A client and its frames, one per line. `>` precedes a frame that it sent, `<` one that it
/// received.
struct Transcript {
    client: PhoenixSocket,
    version: Version,
    text: String,
}

impl Transcript {
    async fn start(server: &Server, version: Version) -> Self {
        Self {
            client: server.client(version).await,
            version,
            text: String::new(),
        }
    }

    fn title(&mut self, title: &str) {
        self.text.push_str(&format!("\n{title}\n"));
    }

    async fn push(&mut self, reference: &str, topic: &str, event: &str, payload: Value) {
        let join_ref = json!("1");
        let text = (self.version).push(&join_ref, reference, topic, event, &payload);
        self.text.push_str(&format!("> {text}\n"));
        self.client.send(Message::text(text)).await;
    }

    /// Receives this many frames. They may arrive in any order, so they are sorted by their text.
    async fn receive(&mut self, count: usize) {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(match self.client.frame().await {
                Message::Text(text) => format!("< {text}\n"),
                Message::Binary(bytes) => format!("< b\"{}\"\n", bytes.escape_ascii()),
                Message::Close(Some(frame)) => {
                    format!(
                        "< close {} {:?}\n",
                        u16::from(frame.code),
                        frame.reason.as_str()
                    )
                }
                other => panic!("unexpected frame {other:?}"),
            });
        }
        lines.sort();
        self.text.extend(lines);
    }

    async fn exchange(&mut self, title: &str, topic: &str, event: &str, payload: Value) {
        self.title(title);
        self.push("2", topic, event, payload).await;
        self.receive(1).await;
    }

    /// Checks that no frame is pending, and compares the transcript with the snapshot of this name
    /// and version.
    async fn finish(mut self, name: &str) {
        self.client.expect_quiet().await;
        let name = format!("{name}_{}", self.version.vsn());
        redacted(VOLATILE).bind(|| assert_snapshot!(name, self.text));
    }
}

#[tokio::test]
async fn the_frames_of_a_channel_are_the_same() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut client = Transcript::start(&server, version).await;
        client
            .exchange("a heartbeat", "phoenix", "heartbeat", json!({}))
            .await;
        client.title("a join, and the presence of the topic");
        let config = json!({
            "broadcast": { "self": true, "ack": true },
            "presence": { "enabled": true, "key": "ann" },
        });
        let join = json!({ "config": config });
        client.push("1", TOPIC, "phx_join", join).await;
        client.receive(1).await;
        client.receive(1).await;

        client.title("a broadcast, its reply, and its echo");
        let broadcast = json!({ "type": "broadcast", "event": "hi", "payload": { "n": 1 } });
        client.push("2", TOPIC, "broadcast", broadcast).await;
        client.receive(2).await;
        if version == Version::Two {
            client.title("a binary broadcast, its reply, and its echo");
            let frame = b"\x03\x01\x01\x0d\x02\x00\x0113realtime:roomhi{ \"n\":1.50}";
            let line = format!("> b\"{}\"\n", frame.escape_ascii());
            client.text.push_str(&line);
            client.client.send(Message::binary(frame.to_vec())).await;
            client.receive(2).await;
        }

        client.title("a presence, its reply, and its diff");
        let track = json!({ "type": "presence", "event": "track", "payload": { "at": "desk" } });
        client.push("4", TOPIC, "presence", track).await;
        client.receive(2).await;
        client.title("its end");
        let untrack = json!({ "type": "presence", "event": "untrack" });
        client.push("5", TOPIC, "presence", untrack).await;
        client.receive(2).await;

        client.title("a leave");
        client.push("6", TOPIC, "phx_leave", json!({})).await;
        client.receive(1).await;
        client.receive(1).await;
        client
            .exchange("a push without a channel", TOPIC, "broadcast", json!({}))
            .await;
        client
            .exchange("a leave without a channel", TOPIC, "phx_leave", json!({}))
            .await;
        client.finish("channel").await;
    }
}

#[tokio::test]
async fn the_frames_of_refusals_are_the_same() {
    let mut config = config();
    config.max_broadcast_bytes = 100;
    config.max_presence_state_bytes = 50;
    let server = Server::start(config).await;
    for version in VERSIONS {
        let mut client = Transcript::start(&server, version).await;
        let replay = json!({ "config": { "broadcast": { "replay": { "since": 0 } } } });
        let token = json!({ "config": {}, "access_token": "nonsense" });
        for (title, topic, payload) in [
            ("a topic of another service", "room", plain_join()),
            ("a topic without a name", "realtime:", plain_join()),
            ("a malformed token", TOPIC, token),
            ("a replay of a public channel", TOPIC, replay),
        ] {
            client.exchange(title, topic, "phx_join", payload).await;
        }
        client.title("a join");
        let config = json!({ "broadcast": { "ack": true }, "presence": { "enabled": false } });
        let join = json!({ "config": config });
        client.push("1", TOPIC, "phx_join", join).await;
        client.receive(1).await;
        let large = json!({ "payload": "x".repeat(100) });
        let track = json!({ "event": "track", "payload": { "a": "x".repeat(60) } });
        for (title, event, payload) in [
            ("a broadcast that is too large", "broadcast", large),
            ("a broadcast that is not an object", "broadcast", json!([1])),
            (
                "a presence that is not an object",
                "presence",
                json!({ "event": "track", "payload": 3 }),
            ),
            ("a presence that is too large", "presence", track),
            (
                "an unknown presence event",
                "presence",
                json!({ "event": "none of these" }),
            ),
        ] {
            client.exchange(title, TOPIC, event, payload).await;
        }
        client.finish("refusals").await;
    }
}

#[tokio::test]
async fn the_frames_of_row_changes_are_the_same() {
    let stack = Stack::start("alter table notes replica identity full;").await;
    for version in VERSIONS {
        let mut client = Transcript::start(&stack.server, version).await;
        client.title("a join with a binding, and the notice that it is live");
        let binding = json!([{ "event": "*", "schema": "public", "table": "notes" }]);
        let topic = "realtime:notes";
        client
            .push("1", topic, "phx_join", with_bindings(&binding))
            .await;
        client.receive(1).await;
        client.receive(1).await;
        for (title, sql) in [
            ("an insert", "insert into notes values (1, null, 'ä')"),
            ("an update", "update notes set text = 'b'"),
            ("a delete", "delete from notes"),
        ] {
            client.title(title);
            stack.run(sql).await;
            client.receive(1).await;
        }
        client.title("a binding for a table that is not published");
        let binding = json!([{ "event": "*", "schema": "public", "table": "other" }]);
        let topic = "realtime:other";
        client
            .push("1", topic, "phx_join", with_bindings(&binding))
            .await;
        client.receive(1).await;
        client.receive(1).await;
        client.finish("row_changes").await;
    }
}
