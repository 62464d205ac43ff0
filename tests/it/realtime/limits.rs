//! Tests of the limits on clients.

use std::time::{Duration, Instant};

use rapport::observability::metrics::{CloseLabel, Limit, LimitLabels};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Error;

use super::{Server, config, plain_join};
use crate::support::chaos::ChaosProxy;
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, VERSIONS, Version, refused_handshake, url};
use crate::support::token::anon_key;

impl Server {
    /// Returns the number of refusals because of a limit.
    pub(crate) fn limited(&self, limit: Limit) -> u64 {
        let labels = LimitLabels { limit };
        self.metrics.limits_reached.get_or_create(&labels).get()
    }
}

#[tokio::test]
async fn only_silent_sockets_are_closed() {
    let mut config = config();
    config.idle_timeout = Duration::from_millis(400);
    let server = Server::start(config).await;
    let mut silent = server.client(Version::Two).await;
    let mut lively = server.client(Version::Two).await;
    let begin = Instant::now();
    let mut reference = 0;
    // The client sends at a fixed interval because its timing is part of the test.
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while begin.elapsed() < Duration::from_secs(1) {
        ticks.tick().await;
        reference += 1;
        lively.heartbeat(&reference.to_string()).await;
    }
    let (code, reason) = silent.expect_close().await;
    assert_eq!(code, 1000);
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn joins_beyond_the_rate_are_refused() {
    let mut config = config();
    config.max_joins_per_second_per_socket = 1;
    config.max_channels_per_socket = 3;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    for number in 1..=3 {
        let reference = number.to_string();
        client.join(&reference, "realtime:room", plain_join()).await;
        client.expect_reply(&reference, "ok").await;
        if number > 1 {
            client.expect("realtime:room", "phx_close").await;
        }
    }
    client.join("4", "realtime:room", plain_join()).await;
    let response = client.expect_reply("4", "error").await;
    assert_eq!(
        response,
        json!({"reason": "ClientJoinRateLimitReached: Too many joins per second"})
    );
    client.expect("realtime:room", "phx_close").await;
    assert_eq!(server.limited(Limit::SocketJoins), 1);
}

#[tokio::test]
async fn the_channels_of_a_socket_are_limited() {
    let mut config = config();
    config.max_channels_per_socket = 2;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    for (reference, status) in [("1", "ok"), ("2", "ok"), ("3", "error"), ("4", "error")] {
        client
            .join(reference, &format!("realtime:{reference}"), plain_join())
            .await;
        let response = client.expect_reply(reference, status).await;
        if status == "error" {
            assert_eq!(
                response,
                json!({"reason": "ChannelRateLimitReached: Too many channels"})
            );
        }
    }
    assert_eq!(server.limited(Limit::Channels), 2);
    // A channel that was left no longer counts.
    client
        .push(json!("1"), "5", "realtime:1", "phx_leave", json!({}))
        .await;
    client.expect_reply("5", "ok").await;
    client.expect("realtime:1", "phx_close").await;
    client.join("6", "realtime:6", plain_join()).await;
    client.expect_reply("6", "ok").await;
}

#[tokio::test]
async fn the_number_of_sockets_with_channels_is_limited() {
    let mut config = config();
    config.max_concurrent_users = 1;
    let server = Server::start(config).await;
    // This socket is opened before the limit is reached, so only its join can be refused.
    let mut late = server.client(Version::Two).await;
    late.heartbeat("1").await;
    let mut first = server.client(Version::Two).await;
    for reference in ["1", "2"] {
        let topic = format!("realtime:{reference}");
        first.join(reference, &topic, plain_join()).await;
        first.expect_reply(reference, "ok").await;
    }
    late.join("2", "realtime:1", plain_join()).await;
    let response = late.expect_reply("2", "error").await;
    assert_eq!(
        response,
        json!({"reason": "ConnectionRateLimitReached: Too many connected users"})
    );
    let (status, _, body) =
        refused_handshake(&url(server.address, &anon_key(), Some("2.0.0"))).await;
    assert_eq!(
        (status, &*body),
        (429, r#"{"error":"Too many connected users"}"#)
    );
    assert_eq!(server.limited(Limit::Users), 2);
    drop(first);
    eventually("the first socket has left", async || {
        (server.metrics.sockets_joined.get() == 0).then_some(())
    })
    .await;
    late.join("3", "realtime:1", plain_join()).await;
    late.expect_reply("3", "ok").await;
}

#[tokio::test]
async fn joins_of_the_whole_server_are_limited() {
    let mut config = config();
    config.max_joins_per_second = 2;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    // The limit is two per second over at least five seconds.
    let mut reference = 0;
    let response = eventually("a join is refused", async || {
        reference += 1;
        let (reference, topic) = (reference.to_string(), format!("realtime:{reference}"));
        client.join(&reference, &topic, plain_join()).await;
        let message = client.receive().await;
        (message.payload["status"] == "error").then(|| message.payload["response"].clone())
    })
    .await;
    assert!(reference > 10, "{reference}");
    assert_eq!(
        response,
        json!({"reason": "ClientJoinRateLimitReached: Too many joins per second"})
    );
    // The socket stays open. Further sockets are refused at the handshake.
    client.expect_quiet().await;
    let (status, _, body) =
        refused_handshake(&url(server.address, &anon_key(), Some("2.0.0"))).await;
    assert_eq!(
        (status, &*body),
        (429, r#"{"error":"Too many joins per second"}"#)
    );
    assert!(server.limited(Limit::Joins) >= 2);
}

#[tokio::test]
async fn a_channel_that_sends_above_the_event_rate_is_closed() {
    let mut config = config();
    config.max_events_per_second = 2;
    let server = Server::start(config).await;
    for version in VERSIONS {
        let mut listener = server.client(version).await;
        listener.join("1", "realtime:room", plain_join()).await;
        listener.expect_reply("1", "ok").await;
        let mut sender = server.client(version).await;
        let mut join = plain_join();
        join["config"]["broadcast"] = json!({"ack": true});
        sender.join("1", "realtime:room", join).await;
        sender.expect_reply("1", "ok").await;
        let payload = json!({"type": "broadcast", "event": "e", "payload": {}});
        let mut sent = 0;
        let response = eventually("a broadcast is refused", async || {
            sender
                .push(
                    json!("1"),
                    "2",
                    "realtime:room",
                    "broadcast",
                    payload.clone(),
                )
                .await;
            let answer = sender.receive().await.payload;
            let is_refused = answer["status"] == "error";
            sent += usize::from(!is_refused);
            is_refused.then(|| answer["response"].clone())
        })
        .await;
        assert_eq!(response, json!({"reason": "Too many messages per second"}));
        let (status, text) = sender.expect_system("realtime:room").await;
        assert_eq!(
            (&*status, &*text),
            ("error", "Too many messages per second")
        );
        sender.expect("realtime:room", "phx_close").await;
        // The socket stays open, and so do channels that only receive. Those channels miss no
        // accepted message.
        sender.expect_quiet().await;
        for _ in 0..sent {
            listener.expect("realtime:room", "broadcast").await;
        }
        listener.expect_quiet().await;
    }
    assert_eq!(server.limited(Limit::Events), 2);
}

#[tokio::test]
async fn the_rate_of_connections_per_address_is_limited() {
    let mut config = config();
    config.connection_burst_per_address = 2;
    config.connections_per_second_per_address = 1;
    let server = Server::start(config).await;
    let address = url(server.address, &anon_key(), Some("2.0.0"));
    let mut refused = None;
    for _ in 0..10 {
        match tokio_tungstenite::connect_async(&address).await {
            Ok(_) => {}
            Err(Error::Http(response)) => {
                refused = Some((response.status(), response.into_body().unwrap()));
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let (status, body) = refused.unwrap();
    assert_eq!(status, 429);
    assert_eq!(
        String::from_utf8(body).unwrap(),
        r#"{"error":"Too many connections from this address"}"#
    );
    assert_eq!(server.limited(Limit::Address), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_with_1013() {
    let mut config = config();
    config.queue_max_frames = 50;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    // Each reply repeats a long topic. The client reads nothing until the server closes the socket.
    let topic = "x".repeat(60_000);
    let text = json!([null, "1", topic, "nothing", {}]).to_string();
    let mut frame = vec![0x81, 0xff];
    frame.extend((text.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    while server.metrics.closed(CloseLabel::SlowConsumer).get() == 0 {
        client.tcp().write_all(&frame).await.unwrap();
    }
    let (code, reason) = client.read_until_close().await;
    assert_eq!(code, 1013);
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn a_client_that_vanished_is_removed_after_the_idle_timeout() {
    let mut config = config();
    config.idle_timeout = Duration::from_millis(300);
    let server = Server::start(config).await;
    let proxy = ChaosProxy::start(server.address).await;
    let mut client = PhoenixSocket::connect(proxy.address(), &anon_key(), Version::Two).await;
    client.join("1", "realtime:room", plain_join()).await;
    client.expect_reply("1", "ok").await;
    // The network goes down: no more bytes pass, and neither side is notified.
    proxy.pause();
    client.try_join("2", "realtime:never arrives").await;
    eventually("the socket and its channels are gone", async || {
        let metrics = &server.metrics;
        (metrics.sockets.get() == 0 && metrics.channels.get() == 0).then_some(())
    })
    .await;
    assert_eq!(server.metrics.closed(CloseLabel::Idle).get(), 1);
    proxy.resume();
    let (code, reason) = client.read_until_close().await;
    assert_eq!(
        (code, &*reason),
        (1000, "Nothing was received for too long")
    );
}

#[tokio::test]
async fn a_socket_without_a_channel_is_closed() {
    let mut config = config();
    config.no_channel_timeout = Duration::from_millis(100);
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    client.heartbeat("1").await;
    let (code, reason) = client.expect_close().await;
    assert_eq!(
        (code, &*reason),
        (1000, "No channel was joined for too long")
    );
    assert_eq!(server.metrics.closed(CloseLabel::NoChannel).get(), 1);
}

#[tokio::test]
async fn refusals_for_size_are_counted() {
    let mut config = config();
    config.max_frame_bytes = 1_000;
    config.max_broadcast_bytes = 100;
    config.max_request_bytes = 500;
    let server = Server::start(config).await;
    let client = reqwest::Client::new();
    let large = json!({"x": "y".repeat(100)});
    let message = json!({"topic": "t", "event": "e", "payload": large});
    for (path, body, status) in [
        ("broadcast/t/events/e", large.to_string(), 422),
        ("broadcast", json!({"messages": [message]}).to_string(), 422),
        ("broadcast", "x".repeat(501), 413),
    ] {
        let request = client
            .post(format!("http://{}/api/{path}", server.address))
            .header("apikey", anon_key())
            .body(body);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let mut client = server.client(Version::Two).await;
    client.join("1", "realtime:t", plain_join()).await;
    client.expect_reply("1", "ok").await;
    client
        .push(json!("1"), "2", "realtime:t", "broadcast", large)
        .await;
    client.expect_system("realtime:t").await;
    let too_big = json!({"x": "y".repeat(1_000)});
    client
        .push(json!("1"), "3", "realtime:t", "broadcast", too_big)
        .await;
    assert_eq!(client.expect_close().await.0, 1009);
    for (limit, times) in [
        (Limit::Broadcast, 3),
        (Limit::Request, 1),
        (Limit::Frame, 1),
    ] {
        assert_eq!(server.limited(limit), times, "{limit:?}");
    }
}
