//! If a service fails, the client receives an error, and no connection or task remains.

use std::sync::atomic::{AtomicUsize, Ordering};

use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::recorder::{EMPTY, Recorder};
use super::{Answer, Forwarder, PATIENCE};

const GET: &[u8] = b"GET /rest/v1/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A service whose connections the test accepts, reads and writes itself.
struct Manual(TcpListener);

impl Manual {
    async fn start(settings: &[(&str, &str)]) -> (Self, Forwarder) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Forwarder::before(listener.local_addr().unwrap(), settings).await;
        (Self(listener), server)
    }

    /// Accepts a connection and reads the head of a request.
    async fn accept(&self) -> TcpStream {
        let accepted = timeout(PATIENCE, self.0.accept()).await;
        let (mut stream, _) = accepted.expect("a connection arrives").unwrap();
        read_head(&mut stream).await;
        stream
    }
}

async fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        head.push(byte.expect("the head arrives").unwrap());
    }
}

/// Waits until the peer closes or resets a connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection ends");
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Forwarder::before(address, &[]).await;
    let answer = server.get("/rest/v1/x").await;
    assert_eq!(answer.code(), "upstream_unavailable");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.header("retry-after"), Some("2"));
    // The client does not learn where the service is.
    let port = address.port().to_string();
    assert!(!String::from_utf8(answer.body).unwrap().contains(&port));
}

#[tokio::test]
async fn the_refusal_for_a_service_without_a_url_names_the_settings() {
    let server = Forwarder::start(&[]).await;
    for (path, setting) in [
        ("/auth/v1/user", "upstream.auth_url"),
        ("/rest/v1/x", "upstream.rest_url"),
        ("/graphql/v1", "upstream.rest_url"),
        ("/storage/v1/x", "upstream.storage_url"),
        ("/functions/v1/x", "upstream.functions_url"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.code(), "upstream_not_configured");
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        assert!(
            hint.contains("supabase.url") && hint.contains(setting),
            "{hint}"
        );
    }
}

#[tokio::test]
async fn responses_that_are_not_http_are_a_bad_gateway() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
    for response in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        &many,
        &endless,
    ] {
        let recorder = Recorder::start(response).await;
        let server = Forwarder::before(recorder.address, &[]).await;
        let answer = server.get("/rest/v1/x").await;
        let shown = &response[..response.len().min(80)];
        assert_eq!(answer.status(), 502, "{shown}");
        assert_eq!(answer.code(), "upstream_unavailable", "{shown}");
        server.idle("rest").await;
    }
}

#[tokio::test]
async fn a_service_without_tls_is_a_bad_gateway() {
    let recorder = Recorder::start(EMPTY).await;
    let url = format!("https://{}", recorder.address);
    let authority = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/upstream/authority.pem"
    );
    let server = Forwarder::start(&[
        ("SUPABASE_URL", &url),
        ("RAPPORT_UPSTREAM_TLS_CA", authority),
        ("RAPPORT_UPSTREAM_CONNECT_MS", "1000"),
    ])
    .await;
    let answer = server.get("/rest/v1/x").await;
    assert_eq!(answer.code(), "upstream_unavailable");
}

#[tokio::test]
async fn a_service_that_does_not_respond_times_out() {
    let (service, server) = Manual::start(&[("RAPPORT_UPSTREAM_HEAD_MS", "100")]).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    let mut upstream = service.accept().await;
    let answer = Answer::read(&mut client).await;
    assert_eq!(
        (answer.status(), &*answer.code()),
        (504, "upstream_timeout")
    );
    closed(&mut upstream).await;
    server.idle("rest").await;
}

#[tokio::test]
async fn the_time_for_the_head_starts_when_the_request_has_been_sent() {
    let (service, server) = Manual::start(&[("RAPPORT_UPSTREAM_HEAD_MS", "1")]).await;
    let mut client = server.connect().await;
    let head = b"POST /storage/v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\na";
    client.write_all(head).await.unwrap();
    let mut upstream = service.accept().await;
    // The client takes much longer than the limit to send its body.
    assert_eq!(upstream.read_u8().await.unwrap(), b'a');
    let mut response = [0];
    let early = timeout(
        std::time::Duration::from_millis(100),
        client.read(&mut response),
    );
    assert!(early.await.is_err(), "the request is still being sent");
    client.write_all(b"b").await.unwrap();
    let answer = Answer::read(&mut client).await;
    assert_eq!(answer.code(), "upstream_timeout");
}

#[tokio::test]
async fn an_upload_that_stops_times_out() {
    let (service, server) = Manual::start(&[("RAPPORT_UPSTREAM_STALL_MS", "100")]).await;
    let mut client = server.connect().await;
    let head = b"POST /storage/v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\na";
    client.write_all(head).await.unwrap();
    let mut upstream = service.accept().await;
    let answer = Answer::read(&mut client).await;
    assert_eq!(answer.code(), "upstream_timeout");
    closed(&mut upstream).await;
    server.idle("storage").await;
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_an_error_at_the_client() {
    let started = "HTTP/1.1 200 OK\r\n";
    for (rest, settings, closes) in [
        ("content-length: 9\r\n\r\nabc", &[][..], true),
        ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", &[], true),
        (
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
            &[],
            false,
        ),
        (
            "content-length: 9\r\n\r\nabc",
            &[("RAPPORT_UPSTREAM_STALL_MS", "100")],
            false,
        ),
    ] {
        let (service, server) = Manual::start(settings).await;
        let mut client = server.connect().await;
        client.write_all(GET).await.unwrap();
        let mut upstream = service.accept().await;
        upstream
            .write_all(format!("{started}{rest}").as_bytes())
            .await
            .unwrap();
        if closes {
            upstream.shutdown().await.unwrap();
        }
        let answer = Answer::read(&mut client).await;
        assert_eq!(answer.status(), 200);
        assert!(!answer.is_whole, "{rest}: {answer:?}");
        server.idle("rest").await;
        let cut = "rapport_upstream_errors_total{service=\"rest\",code=\"cut_off\"}";
        assert_eq!(server.metric(cut), Some(1.0), "{rest}");
    }
}

#[tokio::test]
async fn an_event_stream_may_pause() {
    let (service, server) = Manual::start(&[("RAPPORT_UPSTREAM_STALL_MS", "20")]).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    let mut upstream = service.accept().await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 3\r\n\r\na";
    upstream.write_all(head).await.unwrap();
    read_head(&mut client).await;
    assert_eq!(client.read_u8().await.unwrap(), b'a');
    let pause = timeout(std::time::Duration::from_millis(200), client.read_u8());
    assert!(pause.await.is_err());
    upstream.write_all(b"bc").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bc");
}

#[tokio::test]
async fn a_request_to_a_service_ends_if_the_client_disconnects() {
    let (service, server) = Manual::start(&[]).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    // The first client disconnects before the head of the response, the second during the body.
    let mut upstream = service.accept().await;
    drop(client);
    closed(&mut upstream).await;

    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    let mut upstream = service.accept().await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    upstream.write_all(head).await.unwrap();
    read_head(&mut client).await;
    drop(client);
    closed(&mut upstream).await;
    server.idle("rest").await;
}

#[tokio::test]
async fn a_lost_idle_connection_is_replaced() {
    let served = AtomicUsize::new(0);
    // The service closes each connection when its second request arrives.
    let mut recorder = Recorder::responding(move |request| {
        let is_first = request.connection >= served.load(Ordering::SeqCst);
        served.store(request.connection + 1, Ordering::SeqCst);
        is_first.then(|| EMPTY.as_bytes().to_vec())
    })
    .await;
    let server = Forwarder::before(recorder.address, &[]).await;
    for _ in 0..3 {
        assert_eq!(server.get("/rest/v1/x").await.status(), 200);
    }
    let connections = [(); 5].map(|()| recorder.arrived().map(|request| request.connection));
    assert_eq!(connections, [Some(0), Some(0), Some(1), Some(1), Some(2)]);
    let retries = "rapport_upstream_retries_total{service=\"rest\"}";
    assert_eq!(server.metric(retries), Some(2.0));

    // A write may have been carried out, so it is not sent again.
    let post = "POST /rest/v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(server.send(post).await.status(), 502);
    assert_eq!(recorder.next().await.connection, 2);
    assert!(recorder.arrived().is_none());
}

#[tokio::test]
async fn a_request_is_sent_at_most_twice() {
    let mut recorder = Recorder::responding(|_| None).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    assert_eq!(server.get("/rest/v1/x").await.status(), 502);
    assert_eq!(recorder.next().await.connection, 0);
    assert_eq!(recorder.next().await.connection, 1);
    assert!(recorder.arrived().is_none());
}

#[tokio::test]
async fn one_address_does_not_occupy_a_service() {
    let (service, server) = Manual::start(&[
        ("RAPPORT_UPSTREAM_MAX_IN_FLIGHT_PER_ADDRESS", "1"),
        ("RAPPORT_SERVER_TRUSTED_PROXIES", "127.0.0.1"),
    ])
    .await;
    let from = |address: &str, rest: &str| {
        format!("POST /rest/v1/x HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {address}\r\n{rest}")
    };
    // The body never ends, so the request stays in progress.
    let mut client = server.connect().await;
    let unfinished = from("192.0.2.1", "content-length: 1000\r\n\r\na");
    client.write_all(unfinished.as_bytes()).await.unwrap();
    let mut upstream = service.accept().await;
    let complete = "content-length: 0\r\nconnection: close\r\n\r\n";
    let answer = server.send(&from("192.0.2.1", complete)).await;
    assert_eq!((answer.status(), &*answer.code()), (503, "upstream_busy"));
    // Another address has its own share, unless it has the same position by chance.
    let mut is_served = false;
    for last in 2..5 {
        let mut other = server.connect().await;
        let request = from(&format!("192.0.2.{last}"), complete);
        other.write_all(request.as_bytes()).await.unwrap();
        tokio::select! {
            answer = Answer::read(&mut other) => assert_eq!(answer.code(), "upstream_busy"),
            mut upstream = service.accept() => {
                upstream.write_all(EMPTY.as_bytes()).await.unwrap();
                is_served = Answer::read(&mut other).await.status() == 200;
                break;
            }
        }
    }
    assert!(is_served);
    // The request ends when its client disconnects.
    drop(client);
    closed(&mut upstream).await;
    server.idle("rest").await;
}

#[tokio::test]
async fn requests_in_progress_are_limited_per_service() {
    let (service, server) = Manual::start(&[("RAPPORT_UPSTREAM_MAX_IN_FLIGHT", "1")]).await;
    let mut client = server.connect().await;
    client.write_all(GET).await.unwrap();
    let mut upstream = service.accept().await;
    let answer = server.get("/rest/v1/y").await;
    assert_eq!((answer.status(), &*answer.code()), (503, "upstream_busy"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    upstream.write_all(EMPTY.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut client).await.status(), 200);
    server.idle("rest").await;
    // Another service is not affected, and this one is free again.
    for path in ["/storage/v1/x", "/rest/v1/x"] {
        let mut client = server.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        read_head(&mut upstream).await;
        upstream.write_all(EMPTY.as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut client).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let mut recorder = Recorder::start(EMPTY).await;
    let settings = [("RAPPORT_UPSTREAM_MAX_BODY_BYTES", "3")];
    let server = Forwarder::before(recorder.address, &settings).await;
    let post = "POST /storage/v1/x HTTP/1.1\r\nhost: x\r\n";
    for (rest, status) in [
        ("content-length: 3\r\n\r\nabc", 200),
        ("content-length: 4\r\n\r\nabcd", 413),
        (
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            200,
        ),
        (
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            413,
        ),
    ] {
        let answer = server.send(&format!("{post}{rest}")).await;
        assert_eq!(answer.status(), status, "{rest}");
        if status == 200 {
            assert_eq!(recorder.next().await.body, b"abc");
        } else {
            assert_eq!(answer.code(), "payload_too_large");
        }
    }
    assert!(recorder.arrived().is_none());
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_an_error_of_the_client() {
    let recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    let post = "POST /storage/v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    // A size that is no number, an invalid extension, and a chunk that is longer than its size.
    for chunks in ["zz\r\n", "1;\n\r\na\r\n0\r\n\r\n", "1\r\nabc\r\n0\r\n\r\n"] {
        let answer = server.send(&format!("{post}{chunks}")).await;
        let found = (answer.status(), &*answer.code());
        assert_eq!(found, (400, "malformed_request"), "{chunks:?}");
        server.idle("storage").await;
    }
    let failed = "rapport_upstream_errors_total{service=\"storage\",code=\"upstream_unavailable\"}";
    assert_eq!(server.metric(failed), None);
    let answer = server.send(&format!("{post}1\r\na\r\n0\r\n\r\n")).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn connections_to_services_end_with_the_server() {
    let recorder = Recorder::start(EMPTY).await;
    let server = Forwarder::before(recorder.address, &[]).await;
    assert_eq!(server.get("/rest/v1/x").await.status(), 200);
    let tasks: Tasks = server.tasks.clone();
    tasks.stop();
    assert!(tasks.finished(PATIENCE).await);
}
