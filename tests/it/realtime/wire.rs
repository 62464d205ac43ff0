//! Tests of WebSocket frames from clients: fragments, limits, protocol errors and closes.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::{Server, config, plain_join};
use crate::support::socket::{VERSIONS, Version};

fn fragment(data: &'static str, opcode: Data, is_last: bool) -> Message {
    let header = FrameHeader {
        is_final: is_last,
        opcode: OpCode::Data(opcode),
        mask: Some([1, 2, 3, 4]),
        ..FrameHeader::default()
    };
    Message::Frame(Frame::from_payload(header, data.as_bytes().into()))
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_a_ping_between() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    client
        .send(fragment(r#"[null,"1","pho"#, Data::Text, false))
        .await;
    client.send(Message::Ping("between".into())).await;
    client
        .send(fragment(r#"enix","heart"#, Data::Continue, false))
        .await;
    client
        .send(fragment(r#"beat",{}]"#, Data::Continue, true))
        .await;
    assert_eq!(client.frame().await, Message::Pong("between".into()));
    assert_eq!(client.expect_reply("1", "ok").await, json!({}));
}

#[tokio::test]
async fn malformed_messages_are_dropped_and_counted() {
    let server = Server::start(config()).await;
    for version in VERSIONS {
        let mut client = server.client(version).await;
        for frame in [
            Message::text("nonsense"),
            Message::text("[]"),
            Message::text(""),
            Message::binary(vec![9, 9, 9]),
            Message::Pong("unasked".into()),
        ] {
            client.send(frame).await;
        }
        client.expect_quiet().await;
    }
}

#[tokio::test]
async fn many_messages_in_one_segment_are_answered_in_order() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    let mut bytes = Vec::new();
    for number in 0..500 {
        let text = format!(r#"[null,"{number}","phoenix","heartbeat",{{}}]"#);
        bytes.extend([0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0]);
        bytes.extend(text.as_bytes());
    }
    client.tcp().write_all(&bytes).await.unwrap();
    for number in 0..500 {
        client.expect_reply(&number.to_string(), "ok").await;
    }
}

#[tokio::test]
async fn only_messages_up_to_the_limit_are_accepted() {
    let mut config = config();
    config.max_frame_bytes = 200_000;
    let server = Server::start(config).await;
    let mut client = server.client(Version::Two).await;
    let text = |length: usize| {
        let padding = length - r#"[null,"1","phoenix","heartbeat",""]"#.len();
        format!(
            r#"[null,"1","phoenix","heartbeat","{}"]"#,
            "x".repeat(padding)
        )
    };
    client.send(Message::text(text(200_000))).await;
    client.expect_reply("1", "ok").await;
    client.send(Message::text(text(200_001))).await;
    assert_eq!(client.expect_close().await.0, 1009);
}

#[tokio::test]
async fn protocol_errors_close_with_the_right_code() {
    let server = Server::start(config()).await;
    // Bytes and code: a frame without a mask, text that is not UTF-8, and a reserved opcode.
    let cases: [(&[u8], u16); 3] = [
        (&[0x81, 0x01, b'x'], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
    ];
    for (bytes, code) in cases {
        let mut client = server.client(Version::Two).await;
        client.tcp().write_all(bytes).await.unwrap();
        assert_eq!(client.expect_close().await.0, code, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_close_is_answered_and_ends_the_channels() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    client.join("1", "realtime:room", plain_join()).await;
    client.expect_reply("1", "ok").await;
    assert_eq!(server.metrics.channels.get(), 1);
    client
        .tcp()
        .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])
        .await
        .unwrap();
    assert_eq!(client.expect_close().await.0, 1000);
    crate::support::eventually::eventually("the socket is gone", async || {
        (server.metrics.sockets.get() == 0 && server.metrics.channels.get() == 0).then_some(())
    })
    .await;
}
