//! Accepts connections and answers the requests on them.
//!
//! Guarantees: a connection on which no whole request head arrives in time is closed, whether it
//! is new or waits for its next request; a stop lets requests that are under way be answered.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// How long a request's head may take, counted from the end of the request before. Longer than
/// balancers keep an idle connection (60 seconds at nginx and at AWS): the side that sends must
/// be the one that closes, or a request meets a closed connection.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(90);

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
pub async fn serve(
    listener: TcpListener,
    router: Router,
    head_deadline: Duration,
    stop: CancellationToken,
) {
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
                    head_deadline,
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

/// The requests of one connection. hyper keeps the deadline of every head but the first: before
/// that it waits, without one, to tell the versions of HTTP apart.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    head_deadline: Duration,
    stop: CancellationToken,
) {
    // Small frames must not wait for an acknowledgement of the ones before (Nagle's algorithm).
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a socket without TCP_NODELAY");
    }
    let first_head = CancellationToken::new();
    let arrived = first_head.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        arrived.cancel();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_deadline);
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let silence = async {
        if tokio::time::timeout(head_deadline, first_head.cancelled())
            .await
            .is_ok()
        {
            std::future::pending::<()>().await;
        }
    };
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = silence => {
            tracing::debug!("a connection brought no request");
            return;
        }
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "a connection ended early");
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
