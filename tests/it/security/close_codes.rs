//! Frames that RFC 6455 forbids close the socket with the code for the violation. Similar frames
//! that are allowed do not close it.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::realtime::{Server, config, plain_join};
use crate::support::socket::Version;

/// Returns a frame of a client, masked with zeros. The payload has at most 125 bytes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

/// Sends these bytes, and returns the code with which the server closes the socket.
async fn answer(server: &Server, bytes: &[u8]) -> u16 {
    let mut client = server.client(Version::Two).await;
    client.tcp().write_all(bytes).await.unwrap();
    client.expect_close().await.0
}

#[tokio::test]
async fn a_close_frame_with_an_invalid_code_is_a_protocol_error() {
    let server = Server::start(config()).await;
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        assert_eq!(answer(&server, &close(code, b"")).await, 1002, "{code}");
    }
    for code in [1000, 1001, 1003, 1007, 1011, 1012, 3000, 3999, 4000, 4999] {
        assert_eq!(answer(&server, &close(code, b"why")).await, code);
    }
}

#[tokio::test]
async fn a_close_frame_without_a_code_is_answered_without_one() {
    let server = Server::start(config()).await;
    let mut client = server.client(Version::Two).await;
    client.tcp().write_all(&frame(0x88, b"")).await.unwrap();
    assert_eq!(client.frame().await, Message::Close(None));
}

#[tokio::test]
async fn forbidden_frames_close_the_socket() {
    let server = Server::start(config()).await;
    let mut long_ping = vec![0x89, 0xfe, 0, 126, 0, 0, 0, 0];
    long_ping.extend([b'x'; 126]);
    let cases = [
        ("half of a code", frame(0x88, b"\x03"), 1002),
        ("a reason that is not UTF-8", close(1000, b"\xff"), 1007),
        ("a fragmented close frame", frame(0x08, b"\x03\xe8"), 1002),
        ("a fragmented ping", frame(0x09, b"ping"), 1002),
        ("a ping of 126 bytes", long_ping, 1002),
        ("the bit of compression", frame(0xc1, b"[]"), 1002),
        ("the second reserved bit", frame(0xa1, b"[]"), 1002),
        ("the third reserved bit", frame(0x91, b"[]"), 1002),
        ("a reserved data frame", frame(0x83, b"[]"), 1002),
        ("a reserved control frame", frame(0x8b, b"[]"), 1002),
        ("no mask", vec![0x81, 2, b'[', b']'], 1002),
        ("a continuation of nothing", frame(0x80, b"[]"), 1002),
        (
            "a message within a message",
            [frame(0x01, b"["), frame(0x81, b"]")].concat(),
            1002,
        ),
        ("text that is not UTF-8", frame(0x81, b"\xff"), 1007),
        (
            "fragments that are not UTF-8 together",
            [frame(0x01, b"\xc3"), frame(0x80, b"\x28")].concat(),
            1007,
        ),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(answer(&server, &bytes).await, code, "{what}");
    }
    // These frames have similar shapes and are allowed.
    let mut client = server.client(Version::Two).await;
    let bytes = [
        frame(0x89, &[b'x'; 125]),
        frame(0x01, br#"[null,"1","pho"#),
        frame(0x8a, b"unasked"),
        frame(0x00, b""),
        frame(0x80, br#"enix","heartbeat",{}]"#),
    ];
    client.tcp().write_all(&bytes.concat()).await.unwrap();
    assert_eq!(client.frame().await, Message::Pong(vec![b'x'; 125].into()));
    assert_eq!(client.expect_reply("1", "ok").await, json!({}));
}

#[tokio::test]
async fn frames_after_a_close_frame_are_ignored() {
    let server = Server::start(config()).await;
    let mut listener = server.client(Version::Two).await;
    listener.join("1", "realtime:room", plain_join()).await;
    listener.expect_reply("1", "ok").await;
    let mut sender = server.client(Version::Two).await;
    sender.join("1", "realtime:room", plain_join()).await;
    sender.expect_reply("1", "ok").await;
    let broadcast = |word: &str| {
        let payload = format!(r#"{{"type":"broadcast","event":"e","payload":{{"say":"{word}"}}}}"#);
        let text = format!(r#"["1","2","realtime:room","broadcast",{payload}]"#);
        frame(0x81, text.as_bytes())
    };
    let bytes = [broadcast("before"), close(1000, b""), broadcast("behind")];
    sender.tcp().write_all(&bytes.concat()).await.unwrap();
    assert_eq!(sender.expect_close().await.0, 1000);
    let heard = listener.expect("realtime:room", "broadcast").await;
    assert_eq!(heard.payload["payload"]["say"], "before");
    listener.expect_quiet().await;
}
