//! What a client cannot exceed.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::{Server, config, plain_join};
use crate::support::socket::Version;

#[tokio::test]
async fn a_silent_socket_is_closed_and_one_that_is_not_stays() {
    let mut config = config();
    config.idle_timeout = Duration::from_millis(400);
    let server = Server::start(config).await;
    let mut silent = server.client(Version::Two).await;
    let mut lively = server.client(Version::Two).await;
    let begin = Instant::now();
    let mut reference = 0;
    // Pinging every so often is what is tested here: it is the client's clock.
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
    config.joins_per_second = 1;
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
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_with_1013() {
    let mut config = config();
    config.queue_max_frames = 50;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    // Each answer repeats a long topic; nothing is read until the server has had enough.
    let topic = "x".repeat(60_000);
    let text = json!([null, "1", topic, "nothing", {}]).to_string();
    let mut frame = vec![0x81, 0xff];
    frame.extend((text.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    while server.metrics.slow_consumers_closed.get() == 0 {
        client.tcp().write_all(&frame).await.unwrap();
    }
    let (code, reason) = client.read_until_close().await;
    assert_eq!(code, 1013);
    assert!(!reason.is_empty());
}
