//! Tests of accepted and refused handshakes.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Server, config, plain_join};
use crate::support::eventually::eventually;
use crate::support::socket::{PhoenixSocket, Version, refused_handshake, url};
use crate::support::token::{anon_key, mint, mint_with, now_s};

#[tokio::test]
async fn refusals_have_the_status_and_body_of_the_protocol() {
    let server = Server::start(config()).await;
    let now = now_s();
    let good = anon_key();
    let expired = mint(&json!({ "role": "anon", "exp": now - 100 }));
    let without_role = mint(&json!({ "exp": now + 100 }));
    let forged = mint_with(
        &json!({ "role": "anon", "exp": now + 100 }),
        "another-secret-that-is-just-as-long-as-ours",
    );
    let json_type = "application/json; charset=utf-8";
    let error = |text: &str| json!({ "error": text }).to_string();
    let cases = [
        (
            url(server.address, &good, Some("3.0.0")),
            403,
            "",
            String::new(),
        ),
        (
            url(server.address, &good, Some("two")),
            403,
            "",
            String::new(),
        ),
        (
            url(server.address, "", Some("2.0.0")),
            401,
            json_type,
            error("API key is missing"),
        ),
        (
            format!("ws://{}/socket/websocket?vsn=2.0.0", server.address),
            401,
            json_type,
            error("API key is missing"),
        ),
        (
            url(server.address, "nonsense", None),
            401,
            json_type,
            error("The token provided is not a valid JWT"),
        ),
        (
            url(server.address, &expired, None),
            401,
            json_type,
            error("Token has expired"),
        ),
        (
            url(server.address, &without_role, None),
            401,
            json_type,
            error("Fields `role` and `exp` are required in JWT"),
        ),
        (
            url(server.address, &forged, None),
            401,
            json_type,
            error("Failed to validate JWT signature"),
        ),
    ];
    for (url, status, kind, body) in cases {
        let (got_status, got_kind, got_body) = refused_handshake(&url).await;
        assert_eq!(
            (got_status, got_kind.as_str(), &got_body),
            (status, kind, &body),
            "{url}"
        );
    }
}

#[tokio::test]
async fn both_paths_and_the_header_are_accepted() {
    let server = Server::start(config()).await;
    let path = format!(
        "ws://{}/socket/websocket?vsn=2.0.0&eventsPerSecond=10",
        server.address
    );
    // The header takes precedence over the parameter. This parameter alone would be refused.
    let request = {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
        let mut request = format!("{path}&apikey=nonsense")
            .into_client_request()
            .unwrap();
        let key = anon_key().parse().unwrap();
        request.headers_mut().insert("x-api-key", key);
        request
    };
    tokio_tungstenite::connect_async(request).await.unwrap();
    tokio_tungstenite::connect_async(format!("{path}&apikey={}", anon_key()))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_last_of_two_equal_parameters_wins() {
    let server = Server::start(config()).await;
    let url = format!(
        "ws://{}/realtime/v1/websocket?apikey=nonsense&vsn=9.9.9&apikey={}&vsn=2.0.0",
        server.address,
        anon_key()
    );
    tokio_tungstenite::connect_async(url).await.unwrap();
}

#[tokio::test]
async fn version_1_is_the_default() {
    let server = Server::start(config()).await;
    let (stream, _) = tokio_tungstenite::connect_async(url(server.address, &anon_key(), None))
        .await
        .unwrap();
    drop(stream);
    let mut client = PhoenixSocket::connect(server.address, &anon_key(), Version::One).await;
    client.join("1", "realtime:room", plain_join()).await;
    client.expect_reply("1", "ok").await;
}

#[tokio::test]
async fn requests_without_a_handshake_are_refused() {
    let server = Server::start(config()).await;
    let key = anon_key();
    for head in [
        format!("POST /socket/websocket?apikey={key}"),
        format!("GET /socket/websocket?apikey={key}"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request =
            format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn the_number_of_sockets_is_limited() {
    let mut config = config();
    config.max_sockets = 1;
    let server = Server::start(config).await;
    let mut first = server.client(Version::Two).await;
    first.heartbeat("1").await;
    let (status, _, body) =
        refused_handshake(&url(server.address, &anon_key(), Some("2.0.0"))).await;
    assert_eq!(status, 429);
    assert_eq!(body, r#"{"error":"Too many connected users"}"#);
    assert_eq!(server.metrics.sockets_refused.get(), 1);
}

#[tokio::test]
async fn the_number_of_sockets_of_an_address_is_limited() {
    let mut config = config();
    config.max_sockets_per_address = 2;
    let server = Server::start(config).await;
    let mut first = server.client(Version::Two).await;
    let second = server.client(Version::Two).await;
    let (status, _, body) =
        refused_handshake(&url(server.address, &anon_key(), Some("2.0.0"))).await;
    assert_eq!(status, 429);
    assert_eq!(
        body,
        r#"{"error":"Too many connections from this address"}"#
    );
    // The refused handshake holds nothing, and the end of a socket makes room for another one.
    drop(second);
    eventually("a socket has ended", async || {
        (server.metrics.sockets.get() == 1).then_some(())
    })
    .await;
    first.heartbeat("1").await;
    server.client(Version::Two).await.heartbeat("1").await;
}

#[tokio::test]
async fn a_frame_sent_with_the_handshake_is_not_lost() {
    let server = Server::start(config()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let heartbeat = br#"[null,"1","phoenix","heartbeat",{}]"#;
    let mut bytes = format!(
        "GET /socket/websocket?vsn=2.0.0&apikey={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        anon_key()
    )
    .into_bytes();
    // Masked with zeros, which leaves the payload readable.
    bytes.extend([
        0x81,
        0x80 | u8::try_from(heartbeat.len()).unwrap(),
        0,
        0,
        0,
        0,
    ]);
    bytes.extend(heartbeat);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let expected = br#"[null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
    while !answer.ends_with(expected) {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    let head = String::from_utf8_lossy(&answer);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
}
