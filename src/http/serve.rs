//! Accepts connections and answers the requests on them, which speak HTTP/1.1.
//!
//! Guarantees: a connection on which no whole request head arrives in time is closed, whether it
//! is new or waits for its next request; what all of these take is bounded; a stop lets requests that are under way be
//! answered.

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

/// The pause after a failed accept. What fails is most likely that no file descriptor is left,
/// and then the next attempt fails at once, too.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connections that may wait to be accepted. When everybody comes back in the same second after a
/// restart, those that find no place are not refused: their kernel tries again a second later, then
/// after two, four, …. The kernel bounds this by `net.core.somaxconn` (listen(2)), 4,096 on Linux.
const ACCEPT_QUEUE: i32 = 4096;

/// Listens on `address`.
///
/// # Errors
/// When the address is not this machine's, not permitted, or taken.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    // The queue of `bind` has 128 places. Listening again only changes its size.
    rustix::net::listen(&listener, ACCEPT_QUEUE)?;
    Ok(listener)
}

/// Serves `router` until `stop`, and returns when the last connection has ended. Handlers find
/// the peer's address as [`ConnectInfo`].
pub async fn serve(listener: TcpListener, router: Router, heads: Heads, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note(ended);
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
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// The requests of one connection.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    heads: Heads,
    stop: CancellationToken,
) {
    // Small frames must not wait for an acknowledgement of the ones before (Nagle's algorithm).
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a socket without TCP_NODELAY");
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
        tracing::debug!(%error, "a connection ended early");
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task has failed");
    }
}

/// Whether accepting failed for a peer that is gone, which says nothing of the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
