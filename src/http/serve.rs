//! Accepts connections and serves the requests on them, which use HTTP/1.1.
//!
//! Guarantees: a connection without a complete request head in time is closed, whether it is new or
//! idle between requests. The memory of incomplete heads is bounded. A shutdown lets requests in
//! progress finish.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::heads::{Connection, Head, Heads, MAX_HEAD_BYTES};

/// Pause after a failed accept. The usual cause is that no file descriptor is left, and then an
/// immediate retry fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Maximum connections waiting to be accepted. After a restart all clients may reconnect within the
/// same second. If the queue is full, a connection is not refused: the client's kernel retries
/// after one second, then after two, four, …. The kernel caps the value at `net.core.somaxconn`
/// (listen(2)), 4,096 on Linux.
const ACCEPT_QUEUE: i32 = 4096;

/// Listens on `address`.
///
/// # Errors
/// Fails if the address is not local, not permitted, or in use.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    // `bind` creates a queue of 128 entries. Calling `listen` again only changes its size.
    rustix::net::listen(&listener, ACCEPT_QUEUE)?;
    Ok(listener)
}

/// Serves `router` until `stop`, and returns once the last connection has ended. Handlers find the
/// peer address as [`ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, heads: Heads, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                log_failure(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(
                    stream,
                    peer,
                    router.clone(),
                    heads.clone(),
                    stop.child_token(),
                );
                connections.spawn(connection);
            }
            Err(error) if affects_one_connection(&error) => {
                tracing::debug!(%error, "connection closed before it was accepted");
            }
            Err(error) => {
                tracing::error!(%error, "accepting connections failed; retrying after a pause");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        log_failure(ended);
    }
}

/// Serves the requests of one connection.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    heads: Heads,
    stop: CancellationToken,
) {
    // Nagle's algorithm would delay small frames until earlier ones are acknowledged.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(heads.deadline())
        .max_buf_size(MAX_HEAD_BYTES);
    let head = Head::new(&heads);
    let connection = TokioIo::new(Connection::new(stream, &head));
    let service = service_fn(move |request: Request<Incoming>| {
        head.end();
        let head = Arc::clone(&head);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().call(request);
        async move {
            let answer = answer.await;
            head.begin();
            answer
        }
    });
    let serving = builder.serve_connection(connection, service);
    let mut serving = pin!(serving.with_upgrades());
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended with an error");
    }
}

fn log_failure(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "connection task failed");
    }
}

/// Whether accepting failed only for this connection, because its peer is gone.
fn affects_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
