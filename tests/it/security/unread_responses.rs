//! A client that does not read its response is disconnected, and the memory of all such responses
//! is bounded. Clients that read are not affected.

#![expect(
    clippy::disallowed_methods,
    reason = "test routes are not part of the API"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::responses::{READ_DEADLINE, Responses};
use rapport::http::serve::{listen, serve};
use rapport::observability::metrics::HttpMetrics;
use rapport::shutdown::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::eventually::eventually;

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Far more than the kernels hold for one connection.
const LARGE: usize = 8_000_000;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

struct Server {
    address: SocketAddr,
    metrics: HttpMetrics,
    tasks: Tasks,
}

impl Server {
    async fn start(deadline: Duration, max_bytes: usize) -> Self {
        let router = Router::new().route("/", get(async || "x".repeat(LARGE)));
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, metrics) = (Tasks::new(), HttpMetrics::default());
        let heads = Heads::new(HEAD_DEADLINE, usize::MAX, &metrics)
            .with_responses(Responses::new(deadline, max_bytes, &metrics));
        let serving = serve(listener, router, heads, tasks.token().clone());
        tasks.spawn("test server", serving);
        Self {
            address,
            metrics,
            tasks,
        }
    }

    /// Sends `requests`, whose responses are not read yet. The client's kernel holds few bytes.
    async fn ask(&self, requests: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        stream.write_all(requests).await.unwrap();
        stream
    }

    async fn eventually_held(&self, least: usize) {
        eventually("responses are held", async || {
            (self.held() >= least).then_some(())
        })
        .await;
    }

    fn held(&self) -> usize {
        usize::try_from(self.metrics.responses_bytes.get()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Reads until the server closes the connection. Returns the number of bytes.
async fn rest(stream: &mut TcpStream) -> usize {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    // A connection that is cut off may end with a reset.
    let _ = tokio::time::timeout(PATIENCE, reading).await.unwrap();
    bytes.len()
}

/// Reads a complete response.
async fn read_whole(stream: &mut TcpStream) {
    let mut bytes = vec![0; LARGE];
    let reading = stream.read_exact(&mut bytes);
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the response arrives")
        .unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let server = Server::start(Duration::from_millis(300), usize::MAX).await;
    // Pipelined requests are not carried out before the first response is written.
    for requests in [REQUEST.to_vec(), REQUEST.repeat(100)] {
        let closed = server.metrics.responses_closed.get();
        let mut hostile = server.ask(&requests).await;
        eventually("the connection is closed", async || {
            (server.metrics.responses_closed.get() > closed).then_some(())
        })
        .await;
        assert_eq!(server.held(), 0);
        assert!(rest(&mut hostile).await < LARGE);
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_receives_its_response() {
    let server = Server::start(READ_DEADLINE, usize::MAX).await;
    let mut slow = server.ask(&REQUEST.repeat(3)).await;
    for _ in 0..3 {
        server.eventually_held(LARGE).await;
        assert!(server.held() < 2 * LARGE, "one response at a time");
        read_whole(&mut slow).await;
    }
    assert_eq!(server.metrics.responses_closed.get(), 0);
}

#[tokio::test]
async fn responses_that_are_not_read_are_bounded_over_all_connections() {
    const BUDGET: usize = 3 * LARGE + LARGE / 2;
    let server = Server::start(READ_DEADLINE, BUDGET).await;
    let mut hostile = Vec::new();
    for number in 1..=10 {
        hostile.push(server.ask(REQUEST).await);
        server.eventually_held(LARGE * number.min(3)).await;
        assert!(server.held() <= BUDGET);
    }
    let mut honest = server.ask(REQUEST).await;
    read_whole(&mut honest).await;
    eventually("the others are closed", async || {
        (server.metrics.responses_closed.get() >= 7).then_some(())
    })
    .await;
    assert!(rest(&mut hostile[0]).await < LARGE, "the oldest is closed");
    drop(hostile);
    eventually("nothing is held", async || {
        (server.held() == 0).then_some(())
    })
    .await;
}
