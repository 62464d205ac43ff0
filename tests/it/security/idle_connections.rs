//! Connections that wait for their client are bounded, in total and per address. A shutdown does
//! not wait for clients that do not read or do not complete their request.

#![expect(
    clippy::disallowed_methods,
    reason = "test routes are not part of the API"
)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use rapport::config::Network;
use rapport::http::heads::{HEAD_DEADLINE, Heads};
use rapport::http::idle::Idle;
use rapport::http::peer::TrustedProxies;
use rapport::http::serve::{listen, serve};
use rapport::observability::metrics::HttpMetrics;
use rapport::shutdown::Tasks;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::chat_server::Person::{Ana, Ben};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;
use crate::support::whole_server::WholeServer;

/// Time limit for each step. It is far below [`HEAD_DEADLINE`].
const PATIENCE: Duration = Duration::from_secs(10);

/// Far more than the kernels hold for one connection.
const LARGE: usize = 8_000_000;

const SMALL: &[u8] = b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n";
const UNFINISHED: &[u8] = b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\na";
const BIG: &[u8] = b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n";

struct Server {
    address: SocketAddr,
    metrics: HttpMetrics,
    tasks: Tasks,
}

impl Server {
    async fn start(max_all: usize, max_per_address: usize, proxies: TrustedProxies) -> Self {
        let router = Router::new()
            .route("/small", get(async || "here"))
            .route("/big", get(async || "x".repeat(LARGE)))
            .route("/body", post(async |body: Bytes| body.len().to_string()));
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, metrics) = (Tasks::new(), HttpMetrics::default());
        let heads = Heads::new(HEAD_DEADLINE, usize::MAX, &metrics).with_idle(Idle::new(
            max_all,
            max_per_address,
            proxies,
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

    /// Connects from this address. The server accepts connections in the order in which clients
    /// open them.
    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(PATIENCE, stream.read(&mut byte)).await;
    matches!(read.unwrap(), Ok(0) | Err(_))
}

/// Sends a small request, and reads its response.
async fn is_served(stream: &mut TcpStream) -> bool {
    if stream.write_all(SMALL).await.is_err() {
        return false;
    }
    let mut bytes = vec![0; 4_096];
    let mut text = String::new();
    while !text.ends_with("here") {
        match timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap() {
            Ok(0) | Err(_) => return false,
            Ok(count) => text.push_str(std::str::from_utf8(&bytes[..count]).unwrap()),
        }
    }
    true
}

#[tokio::test]
async fn idle_connections_are_bounded() {
    let server = Server::start(4, 4, TrustedProxies::default()).await;
    let mut hostile = Vec::new();
    for number in 0..12 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET / HTTP/1.1\r\nx-half").await.unwrap(),
            // An idle connection between requests.
            _ => assert!(is_served(&mut stream).await),
        }
        hostile.push(stream);
        let mut honest = server.connect([127, 0, 0, 1]).await;
        assert!(is_served(&mut honest).await, "{number}");
        assert!(server.metrics.connections_idle.get() <= 4);
    }
    for stream in &mut hostile[..8] {
        assert!(is_closed(stream).await);
    }
    drop(hostile);
    eventually("nothing is held", async || {
        (server.metrics.connections_idle.get() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unread_responses_count_as_idle_connections() {
    let server = Server::start(3, 3, TrustedProxies::default()).await;
    let mut hostile = Vec::new();
    for _ in 0..8 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        // The requests are pipelined, so the second one arrives while the first response is not
        // read.
        stream.write_all(&BIG.repeat(20)).await.unwrap();
        eventually("the response waits", async || {
            (server.metrics.responses_bytes.get() > 0).then_some(())
        })
        .await;
        hostile.push(stream);
    }
    eventually("the oldest are closed", async || {
        (server.metrics.connections_closed.get() >= 5).then_some(())
    })
    .await;
    let mut honest = server.connect([127, 0, 0, 1]).await;
    assert!(is_served(&mut honest).await);
}

#[tokio::test]
async fn unfinished_bodies_count_as_idle_connections() {
    let server = Server::start(3, 3, TrustedProxies::default()).await;
    let mut hostile = Vec::new();
    for number in 0..8 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        stream.write_all(UNFINISHED).await.unwrap();
        let mut honest = server.connect([127, 0, 0, 1]).await;
        assert!(is_served(&mut honest).await, "{number}");
        hostile.push(stream);
    }
    for stream in &mut hostile[..5] {
        assert!(is_closed(stream).await);
    }
    // A body that ends is answered, whatever waited before.
    let mut stream = server.connect([127, 0, 0, 1]).await;
    stream.write_all(UNFINISHED).await.unwrap();
    stream.write_all(&[b'a'; 999]).await.unwrap();
    let mut bytes = vec![0; 4_096];
    let read = timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap();
    let text = String::from_utf8_lossy(&bytes[..read.unwrap()]).into_owned();
    assert!(text.ends_with("\r\n\r\n1000"), "{text}");
}

#[tokio::test]
async fn an_address_does_not_close_the_connections_of_others() {
    let network = Network::parse("127.0.0.3/32").unwrap();
    let proxies = TrustedProxies::new(&[network]);
    let server = Server::start(100, 3, proxies).await;
    let mut other = server.connect([127, 0, 0, 2]).await;
    let mut behind_proxy = Vec::new();
    for _ in 0..6 {
        behind_proxy.push(server.connect([127, 0, 0, 3]).await);
    }
    let mut hostile = Vec::new();
    for _ in 0..6 {
        hostile.push(server.connect([127, 0, 0, 1]).await);
    }
    for stream in &mut hostile[..3] {
        assert!(is_closed(stream).await);
    }
    assert!(is_served(&mut other).await);
    for stream in &mut behind_proxy {
        assert!(is_served(stream).await);
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_clients_that_do_not_read_or_finish() {
    let server = Server::start(100, 100, TrustedProxies::default()).await;
    let mut hostile = Vec::new();
    for begun in [&b""[..], b"GET / HTTP/1.1\r\nx-half", &BIG.repeat(20), BIG] {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        stream.write_all(begun).await.unwrap();
        hostile.push(stream);
    }
    eventually("two responses wait", async || {
        let held = usize::try_from(server.metrics.responses_bytes.get()).unwrap();
        (held >= 2 * LARGE).then_some(())
    })
    .await;
    server.tasks.stop();
    assert!(server.tasks.finished(PATIENCE).await);
}

/// The counterpart of the previous test: a client that reads receives its response during the
/// shutdown.
#[tokio::test]
async fn a_shutdown_waits_for_clients_that_read() {
    let server = Server::start(100, 100, TrustedProxies::default()).await;
    let mut stream = server.connect([127, 0, 0, 1]).await;
    stream.write_all(BIG).await.unwrap();
    eventually("the response waits", async || {
        (server.metrics.responses_bytes.get() > 0).then_some(())
    })
    .await;
    server.tasks.stop();
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert!(bytes.len() > LARGE);
    assert!(server.tasks.finished(PATIENCE).await);
}

#[tokio::test]
async fn requests_that_are_open_at_the_deadline_are_closed() {
    let database = TestDatabase::new().await;
    // The request waits for a lock for longer than the shutdown waits for the request.
    let server = WholeServer::start(
        database.url(),
        &[
            ("RAPPORT_SERVER_SHUTDOWN_DEADLINE_MS", "2000"),
            ("RAPPORT_DATABASE_POOL_WAIT_MS", "60000"),
            ("RAPPORT_DATABASE_STATEMENT_TIMEOUT_MS", "60000"),
        ],
    )
    .await
    .ready()
    .await;
    let body = json!({ "other_user_id": Ben.id(), "content": "hello" });
    let request = server.request(Ana, Method::POST, "/messages").json(&body);
    let sent: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    let holder = database.connect().await;
    let lock = "begin; select from public.user_conversations for update";
    holder.batch_execute(lock).await.unwrap();
    let path = format!("/messages/{}/pin", sent["id"].as_str().unwrap());
    let waiting = server.request(Ana, Method::PUT, &path).send();
    let stopped = async {
        let observer = database.connect().await;
        eventually("the request waits for the lock", async || {
            let query = "select pid from pg_stat_activity
                where application_name = 'rapport' and wait_event_type = 'Lock'
                  and datname = current_database()";
            let waiting = observer.query(query, &[]).await.unwrap();
            (!waiting.is_empty()).then_some(())
        })
        .await;
        server.stop().await
    };
    let (waiting, stopped) = tokio::join!(timeout(PATIENCE * 2, waiting), stopped);
    assert!(!stopped, "the request was aborted");
    assert!(waiting.unwrap().is_err(), "its connection is closed");
    holder.batch_execute("rollback").await.unwrap();
}
