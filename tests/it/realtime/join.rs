//! Tests of joining, leaving and rejoining.

use serde_json::{Value, json};

use super::{Server, config, plain_join};
use crate::support::socket::{PhoenixSocket, VERSIONS, Version};

#[tokio::test]
async fn an_empty_presence_state_follows_the_reply() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        // Clients before 2.12 do not mention presence. They show no presence unless they receive a
        // state.
        for payload in [
            json!({"config": {}}),
            json!({"config": {"presence": {"enabled": true}}}),
        ] {
            let mut client = server.client(version).await;
            client.join("1", "realtime:room", payload).await;
            client.expect_reply("1", "ok").await;
            let state = client.expect("realtime:room", "presence_state").await;
            assert_eq!(state.payload, json!({}));
        }
    }
}

#[tokio::test]
async fn a_second_join_replaces_the_first() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        client.join("1", "realtime:room", plain_join()).await;
        client.expect_reply("1", "ok").await;
        client.join("2", "realtime:room", plain_join()).await;
        client.expect_reply("2", "ok").await;
        let close = client.expect("realtime:room", "phx_close").await;
        assert_eq!(close.reference, json!("1"), "the close of the first join");
        // The leave of the first join arrives late and must not end the second join.
        client
            .push(json!("1"), "3", "realtime:room", "phx_leave", json!({}))
            .await;
        client.expect_quiet().await;
        client
            .push(json!("2"), "4", "realtime:room", "phx_leave", json!({}))
            .await;
        client.expect_reply("4", "ok").await;
        client.expect("realtime:room", "phx_close").await;
        assert_eq!(server.metrics.channels.get(), 0);
    }
}

#[tokio::test]
async fn a_join_without_a_join_reference_can_be_left_with_any() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::One).await;
    client
        .push(Value::Null, "1", "realtime:room", "phx_join", plain_join())
        .await;
    client.expect_reply("1", "ok").await;
    client
        .push(json!("7"), "2", "realtime:room", "phx_leave", json!({}))
        .await;
    client.expect_reply("2", "ok").await;
    let close = client.expect("realtime:room", "phx_close").await;
    assert_eq!(close.reference, Value::Null);
}

#[tokio::test]
async fn pushes_need_no_join_reference() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    client
        .join(
            "1",
            "realtime:room",
            json!({"config": {"presence": {"enabled": false}, "broadcast": {"ack": true}}}),
        )
        .await;
    client.expect_reply("1", "ok").await;
    for join_ref in [Value::Null, json!("99")] {
        client
            .push(
                join_ref,
                "2",
                "realtime:room",
                "broadcast",
                json!({"event": "x"}),
            )
            .await;
        assert_eq!(client.expect_reply("2", "ok").await, json!({}));
    }
}

#[tokio::test]
async fn a_broadcast_without_ack_and_an_unknown_event_receive_no_reply() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        client.join("1", "realtime:room", plain_join()).await;
        client.expect_reply("1", "ok").await;
        // Without `ack`, the client expects no reply. It does not expect a reply to an unknown
        // event either.
        client
            .push(json!("1"), "3", "realtime:room", "broadcast", json!({}))
            .await;
        client
            .push(json!("1"), "4", "realtime:room", "shout", json!({}))
            .await;
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn refused_joins_are_answered_immediately_with_the_reason() {
    let mut config = config();
    config.max_channels_per_socket = 1;
    let server = Server::start(config).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        let large = format!("realtime:{}", "x".repeat(256 << 10));
        client.join("1", &large, plain_join()).await;
        let response = client.expect_reply("1", "error").await;
        let reason = "The join is too large: at most 262144 bytes of topic and payload";
        assert_eq!(response, json!({ "reason": reason }));
        client.join("2", "realtime:first", plain_join()).await;
        client.expect_reply("2", "ok").await;
        client.join("3", "realtime:second", plain_join()).await;
        let response = client.expect_reply("3", "error").await;
        assert_eq!(
            response,
            json!({"reason": "ChannelRateLimitReached: Too many channels"})
        );
        // A rejoin does not count as a second channel.
        client.join("4", "realtime:first", plain_join()).await;
        client.expect_reply("4", "ok").await;
        client.expect("realtime:first", "phx_close").await;
    }
}

#[tokio::test]
async fn leaving_a_topic_that_was_never_joined_is_harmless() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        client
            .push(Value::Null, "1", "realtime:room", "phx_leave", json!({}))
            .await;
        assert_eq!(client.expect_reply("1", "ok").await, json!({}));
        // The client may still hold the reference of a channel that the server has closed.
        client
            .push(json!("7"), "8", "realtime:room", "phx_leave", json!({}))
            .await;
        let reply = client.expect("realtime:room", "phx_reply").await;
        let echoed = match version {
            Version::One => Value::Null,
            Version::Two => json!("7"),
        };
        assert_eq!(reply.join_ref, echoed);
        assert_eq!(reply.payload, json!({"status": "ok", "response": {}}));
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn a_stopping_server_refuses_joins_and_closes_sockets() {
    let server = Server::start(config()).await;
    let mut client: PhoenixSocket = server.client(Version::Two).await;
    client.join("1", "realtime:room", plain_join()).await;
    client.expect_reply("1", "ok").await;
    server.tasks.stop();
    let (code, _) = client.expect_close().await;
    assert_eq!(code, 1012);
    drop(client);
    assert!(
        server
            .tasks
            .finished(std::time::Duration::from_secs(10))
            .await
    );
    assert_eq!(server.metrics.sockets.get(), 0);
    assert_eq!(server.metrics.channels.get(), 0);
}
