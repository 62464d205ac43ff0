//! The memory of unfinished requests is bounded across all connections, and small requests still
//! succeed.

#![expect(
    clippy::disallowed_methods,
    reason = "test routes are not part of the API"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::serve::serve;
use rapport::observability::metrics::{HttpMetrics, Limit};
use rapport::shutdown::Tasks;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::realtime::{Server, config};
use crate::support::eventually::eventually;
use crate::support::token::anon_key;

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads until the server closes or resets the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(PATIENCE, reading).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Sends a complete request and reads the response.
async fn whole(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    rest(&mut stream).await
}

#[tokio::test]
async fn heads_that_never_end_are_bounded_over_all_connections() {
    let router = Router::new().route("/", get(async || "here"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, metrics) = (Tasks::new(), HttpMetrics::default());
    let heads = Heads::new(HEAD_DEADLINE, 100_000, &metrics);
    tasks.spawn(
        "test server",
        serve(listener, router, heads, tasks.token().clone()),
    );
    let begun = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx-long: {}",
        "x".repeat(20_000)
    );
    let mut hostile = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may already have closed the connection.
        let _ = stream.write_all(begun.as_bytes()).await;
        hostile.push(stream);
        assert!(whole(address).await.ends_with("here"));
    }
    eventually("heads beyond the budget are refused", async || {
        (metrics.heads_refused.get() >= 15 && metrics.heads_bytes.get() <= 100_000).then_some(())
    })
    .await;
    assert!(rest(hostile.last_mut().unwrap()).await.is_empty());
    // A head within the budget can still be completed.
    hostile[0]
        .write_all(b"\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut hostile[0]).await.ends_with("here"));
    drop(hostile);
    eventually("nothing is held", async || {
        (metrics.heads_bytes.get() == 0).then_some(())
    })
    .await;
    tasks.stop();
}

#[tokio::test]
async fn heads_of_one_client_do_not_refuse_the_larger_heads_of_others() {
    const BUDGET: usize = 100_000;
    const HEAD: usize = 20_000;
    let router = Router::new().route("/", get(async || "here"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, metrics) = (Tasks::new(), HttpMetrics::default());
    let heads = Heads::new(HEAD_DEADLINE, BUDGET, &metrics);
    tasks.spawn(
        "test server",
        serve(listener, router, heads, tasks.token().clone()),
    );
    let begun = format!("GET / HTTP/1.1\r\nhost: a\r\nx-long: {}", "x".repeat(HEAD));
    let mut hostile = Vec::new();
    for number in 1..=20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(begun.as_bytes()).await;
        hostile.push(stream);
        // Each head is either held or refused.
        eventually("the head is counted", async || {
            let held = usize::try_from(metrics.heads_bytes.get()).unwrap() / HEAD;
            let refused = usize::try_from(metrics.heads_refused.get()).unwrap();
            (held + refused >= number).then_some(())
        })
        .await;
    }
    let refused_before = metrics.heads_refused.get();
    for (client, is_answered) in [([127, 0, 0, 2], true), ([127, 0, 0, 1], false)] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((client, 0))).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let whole = format!("{begun}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(whole.as_bytes()).await;
        assert_eq!(rest(&mut stream).await.ends_with("here"), is_answered);
    }
    assert_eq!(metrics.heads_refused.get(), refused_before + 1);
    tasks.stop();
}

#[tokio::test]
async fn a_head_has_a_maximum_size() {
    let router = Router::new().route("/", get(async || "here"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let heads = Heads::new(HEAD_DEADLINE, usize::MAX, &HttpMetrics::default());
    tasks.spawn(
        "test server",
        serve(listener, router, heads, tasks.token().clone()),
    );
    for (length, status) in [(60_000, "200"), (200_000, "431")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let long = "x".repeat(length);
        let head = format!("GET / HTTP/1.1\r\nx-long: {long}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line[9..], status.as_bytes(), "{length}");
    }
    tasks.stop();
}

#[tokio::test]
async fn bodies_that_never_end_are_bounded_over_all_requests() {
    const BUDGET: usize = 200_000;
    let mut config = config();
    config.all_requests_max_bytes = BUDGET;
    let server = Server::start(config).await;
    let mut hostile = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /api/broadcast HTTP/1.1\r\nhost: a\r\napikey: {}\r\nconnection: close\r\n\
             content-length: 90000\r\n\r\n",
            anon_key()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let _ = stream.write_all(&vec![b' '; 80_000]).await;
        hostile.push(stream);
    }
    eventually("bodies beyond the budget are refused", async || {
        let is_bounded = server.metrics.requests_bytes.get() <= i64::try_from(BUDGET).unwrap();
        (server.limited(Limit::AllRequests) >= 8 && is_bounded).then_some(())
    })
    .await;
    let refused = rest(hostile.last_mut().unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    let message = json!({"topic": "t", "event": "e", "payload": {"x": "y".repeat(10_000)}});
    let honest = reqwest::Client::new()
        .post(format!("http://{}/api/broadcast", server.address))
        .header("apikey", anon_key())
        .body(json!({ "messages": [message] }).to_string());
    assert_eq!(honest.send().await.unwrap().status(), 202);
    drop(hostile);
    eventually("nothing is held", async || {
        (server.metrics.requests_bytes.get() == 0).then_some(())
    })
    .await;
}
