//! Connections outside of a request: slow heads, idle connections, and stopping the server.

#![expect(
    clippy::disallowed_methods,
    reason = "test routes are not part of the API"
)]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::serve::serve;
use rapport::observability::metrics::HttpMetrics;
use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(10);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

async fn start(router: Router, head_deadline: Duration) -> (Tasks, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let heads = Heads::new(head_deadline, usize::MAX, &HttpMetrics::default());
    let serving = serve(listener, router, heads, tasks.token().clone());
    tasks.spawn("test server", serving);
    (tasks, TcpStream::connect(address).await.unwrap())
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text))
        .await
        .expect("the server closes the connection")
        .unwrap();
    text
}

#[tokio::test]
async fn a_connection_without_a_complete_head_is_closed() {
    for (sent, answered) in [
        (&b""[..], false),
        (b"P", false),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx-half", false),
        // An idle connection also waits for a head.
        (REQUEST, true),
    ] {
        let router = Router::new().route("/", get(async || "here"));
        let (_tasks, mut stream) = start(router, Duration::from_millis(50)).await;
        stream.write_all(sent).await.unwrap();
        let text = rest(&mut stream).await;
        assert_eq!(text.contains("here"), answered, "{text}");
    }
}

#[tokio::test]
async fn a_stop_waits_for_the_running_request() {
    let (entered, mut at_work) = mpsc::channel(1);
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let router = Router::new().route(
        "/",
        get(async move || {
            entered.send(()).await.unwrap();
            gate.clone().wait_for(|open| *open).await.unwrap();
            "finished"
        }),
    );
    let (tasks, mut stream) = start(router, HEAD_DEADLINE).await;
    stream.write_all(REQUEST).await.unwrap();
    at_work.recv().await.unwrap();
    tasks.stop();
    assert!(!tasks.finished(Duration::from_millis(50)).await, "it waits");
    go_on.send(true).unwrap();
    assert!(rest(&mut stream).await.contains("finished"));
    assert!(tasks.finished(PATIENCE).await);
}

/// A response that never ends.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = axum::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        let data = axum::body::Bytes::from_static(&[b'x'; 16 * 1024]);
        Poll::Ready(Some(Ok(hyper::body::Frame::data(data))))
    }
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_keep_its_response() {
    let router = Router::new().route("/", get(async || axum::body::Body::new(Endless)));
    let (tasks, mut stream) = start(router, Duration::from_millis(100)).await;
    stream.write_all(REQUEST).await.unwrap();
    // While the client reads, the response continues for longer than the limit.
    let mut some = vec![0; 1 << 20];
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(300) {
        stream.read_exact(&mut some).await.unwrap();
    }
    tasks.stop();
    assert!(tasks.finished(PATIENCE).await, "the connection ends");
}
