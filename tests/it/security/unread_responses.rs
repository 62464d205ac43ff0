//! A client that does not read its response is disconnected, and the memory of all such responses
//! is bounded. Other clients are not affected.

#![expect(
    clippy::disallowed_methods,
    reason = "test routes are not part of the API"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::routing::get;
use axum::{Extension, Router};
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::peer::TrustedProxies;
use rapport::http::responses::{READ_DEADLINE, Responses, SharedBody};
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

/// A response that the kernels cannot hold either, but several times smaller.
const SMALLER: usize = 2_000_000;

const SMALLER_REQUEST: &[u8] = b"GET /smaller HTTP/1.1\r\nhost: a\r\n\r\n";

/// A body that all clients share.
const SHARED: usize = 3_000_000;

const SHARED_REQUEST: &[u8] = b"GET /shared HTTP/1.1\r\nhost: a\r\n\r\n";

/// Addresses of different clients on the loopback network.
const CLIENT: [u8; 4] = [127, 0, 0, 1];
const OTHER_CLIENT: [u8; 4] = [127, 0, 0, 2];

struct Server {
    address: SocketAddr,
    metrics: HttpMetrics,
    tasks: Tasks,
}

impl Server {
    async fn start(deadline: Duration, max_bytes: usize) -> Self {
        let shared = Bytes::from("x".repeat(SHARED));
        let router = Router::new()
            .route("/", get(async || "x".repeat(LARGE)))
            .route("/smaller", get(async || "x".repeat(SMALLER)))
            .route("/shared", get(async || (Extension(SharedBody), shared)));
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, metrics) = (Tasks::new(), HttpMetrics::default());
        let heads = Heads::new(HEAD_DEADLINE, usize::MAX, &metrics).with_responses(Responses::new(
            deadline,
            max_bytes,
            TrustedProxies::default(),
            &metrics,
        ));
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
        self.ask_from(CLIENT, requests).await
    }

    /// Like [`Server::ask`], from the address of one of several clients.
    async fn ask_from(&self, client: [u8; 4], requests: &[u8]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((client, 0))).unwrap();
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

/// Reads `length` bytes of a response.
async fn read_whole(stream: &mut TcpStream, length: usize) {
    let mut bytes = vec![0; length];
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
    for requests in [
        REQUEST.to_vec(),
        REQUEST.repeat(100),
        SHARED_REQUEST.repeat(10),
    ] {
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
        read_whole(&mut slow, LARGE).await;
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
    read_whole(&mut honest, LARGE).await;
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

#[tokio::test]
async fn many_unread_responses_of_one_client_do_not_cut_off_the_larger_one_of_another() {
    const BUDGET: usize = LARGE + 4 * SMALLER + SMALLER / 2;
    let server = Server::start(READ_DEADLINE, BUDGET).await;
    let mut hostile = Vec::new();
    for number in 1..=4 {
        hostile.push(server.ask(SMALLER_REQUEST).await);
        server.eventually_held(SMALLER * number).await;
    }
    let mut victim = server.ask_from(OTHER_CLIENT, REQUEST).await;
    server.eventually_held(LARGE + 4 * SMALLER).await;
    for closed in 1..=10 {
        hostile.push(server.ask(SMALLER_REQUEST).await);
        eventually("a response is closed", async || {
            (server.metrics.responses_closed.get() >= closed).then_some(())
        })
        .await;
        assert!(server.held() <= BUDGET);
    }
    read_whole(&mut victim, LARGE).await;
    for closed in &mut hostile[..10] {
        assert!(rest(closed).await < SMALLER, "the oldest are closed");
    }
}

#[tokio::test]
async fn unread_responses_with_a_shared_body_use_no_memory() {
    let server = Server::start(READ_DEADLINE, LARGE + LARGE / 2).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = server.ask(SHARED_REQUEST).await;
        // The server writes until the kernel accepts no more bytes.
        read_whole(&mut reader, 1).await;
        readers.push(reader);
    }
    // A response that is built for its client counts.
    let mut victim = server.ask(REQUEST).await;
    server.eventually_held(LARGE).await;
    assert!(server.held() < LARGE + SHARED);
    read_whole(&mut victim, LARGE).await;
    for reader in &mut readers {
        read_whole(reader, SHARED).await;
    }
    assert_eq!(server.metrics.responses_closed.get(), 0);
}
