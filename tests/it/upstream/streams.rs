//! Bodies and sockets pass through as they arrive, and nothing is collected.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Forwarder, PATIENCE};

struct Pair {
    client: TcpStream,
    service: TcpStream,
    server: Forwarder,
}

impl Pair {
    /// Sends a head and returns both ends of the forwarded request, after the service has read the
    /// head.
    async fn open(request: &str, settings: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Forwarder::before(listener.local_addr().unwrap(), settings).await;
        let mut client = server.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut service, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        read_until(&mut service, b"\r\n\r\n").await;
        Self {
            client,
            service,
            server,
        }
    }
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        bytes.push(byte.expect("more bytes arrive").unwrap());
    }
    bytes
}

async fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let request =
        "GET /functions/v1/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n";
    let mut pair = Pair::open(request, &[]).await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    write(&mut pair.service, head).await;
    read_until(&mut pair.client, b"\r\n\r\n").await;
    for event in ["data: 1\n\n", "data: 22\n\n", "data: 333\n\n"] {
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        write(&mut pair.service, &chunk).await;
        let received = read_until(&mut pair.client, b"\n\n\r\n").await;
        assert!(received.ends_with(format!("{event}\r\n").as_bytes()));
    }
}

#[tokio::test]
async fn a_function_responds_while_it_still_receives() {
    let request =
        "POST /functions/v1/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    // The budget of heads is small: the body of this request must not count as the next head.
    let settings = [("RAPPORT_SERVER_ALL_HEADS_MAX_BYTES", "0")];
    let mut pair = Pair::open(request, &settings).await;
    write(
        &mut pair.service,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    read_until(&mut pair.client, b"\r\n\r\n").await;
    for _ in 0..10 {
        let chunk = format!("1000\r\n{}\n\r\n", "x".repeat(0xfff));
        write(&mut pair.client, &chunk).await;
        let received = read_until(&mut pair.service, b"\n\r\n").await;
        assert!(received.len() >= 0x1000);
        write(&mut pair.service, "2\r\nok\r\n").await;
        read_until(&mut pair.client, b"ok\r\n").await;
    }
    write(&mut pair.client, "0\r\n\r\n").await;
    read_until(&mut pair.service, b"0\r\n\r\n").await;
    write(&mut pair.service, "0\r\n\r\n").await;
    read_until(&mut pair.client, b"0\r\n\r\n").await;
    pair.server.idle("functions").await;
}

#[tokio::test]
async fn an_event_stream_does_not_delay_a_stop() {
    let request = "GET /functions/v1/events HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut pair = Pair::open(request, &[]).await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    write(&mut pair.service, head).await;
    read_until(&mut pair.client, b"\r\n\r\n").await;
    pair.server.front.stop();
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, pair.client.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection ends");
    pair.server.idle("functions").await;
}

/// Maximum bytes on the way in one direction: the buffers of the kernel for two connections, and
/// those of the server.
const HELD_BYTES: usize = 24 << 20;

/// Writes until the receiver's side accepts no more, and returns the number of bytes.
async fn fill(stream: &mut TcpStream) -> usize {
    let (chunk, mut held) = (vec![b'x'; 1 << 16], 0);
    let pause = std::time::Duration::from_millis(500);
    while let Ok(written) = timeout(pause, stream.write(&chunk)).await {
        held += written.unwrap();
        assert!(held < HELD_BYTES, "{held} bytes are held");
    }
    held
}

#[tokio::test]
async fn a_sender_must_wait_while_the_receiver_does_not_read() {
    let length = 1_u64 << 40;
    let request =
        format!("PUT /storage/v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let mut pair = Pair::open(&request, &[]).await;
    let held = fill(&mut pair.client).await;
    // The held bytes arrive once the service reads.
    let mut received = vec![0; held];
    timeout(PATIENCE, pair.service.read_exact(&mut received))
        .await
        .unwrap()
        .unwrap();

    let request = "GET /storage/v1/x HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut pair = Pair::open(request, &[]).await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    write(&mut pair.service, &head).await;
    read_until(&mut pair.client, b"\r\n\r\n").await;
    let held = fill(&mut pair.service).await;
    let mut received = vec![0; held];
    timeout(PATIENCE, pair.client.read_exact(&mut received))
        .await
        .unwrap()
        .unwrap();
}

const HANDSHAKE: &str = "GET /functions/v1/ws?apikey=k HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_socket_of_a_function_is_copied_in_both_directions() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Forwarder::before(listener.local_addr().unwrap(), &[]).await;
    let mut client = server.connect().await;
    client.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    let (mut service, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let head = read_until(&mut service, b"\r\n\r\n").await;
    let head = String::from_utf8(head).unwrap();
    for line in [
        "GET /functions/v1/ws?apikey=k HTTP/1.1\r\n",
        "connection: Upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        assert!(head.contains(line), "{line} {head}");
    }
    // The first frame of the service arrives with the head.
    let accept = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
    write(&mut service, accept).await;
    let head = read_until(&mut client, b"\r\n\r\n").await;
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{head}"
    );
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    read_until(&mut client, b"hello").await;
    let large = "x".repeat(100_000);
    for (text, end) in [("ping!", "ping!"), (&*large, "x"), ("\u{0}end", "\u{0}end")] {
        write(&mut client, text).await;
        let mut received = vec![0; text.len()];
        service.read_exact(&mut received).await.unwrap();
        assert!(received.ends_with(end.as_bytes()));
        write(&mut service, text).await;
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, text.as_bytes());
    }
    drop(client);
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, service.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the service learns that the client is gone");
    drop(service);
    server.idle("functions").await;
}

#[tokio::test]
async fn a_refused_socket_is_a_plain_response() {
    let mut pair = Pair::open(HANDSHAKE, &[]).await;
    let refusal = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno";
    write(&mut pair.service, refusal).await;
    let head = read_until(&mut pair.client, b"no").await;
    assert!(head.starts_with(b"HTTP/1.1 401 "));
    pair.server.idle("functions").await;
}

#[tokio::test]
async fn other_services_have_no_sockets() {
    let request = HANDSHAKE.replace("/functions/v1/ws", "/rest/v1/ws");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Forwarder::before(listener.local_addr().unwrap(), &[]).await;
    let mut client = server.connect().await;
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut service, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let head = read_until(&mut service, b"\r\n\r\n").await;
    let head = String::from_utf8(head).unwrap();
    assert!(!head.contains("upgrade"), "{head}");
}
