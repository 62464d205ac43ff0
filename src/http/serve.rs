//! Accepts connections and serves the requests on them.
//!
//! Guarantees: a connection without a complete request head in time is closed, whether it is new or
//! idle between requests. A shutdown lets requests in progress finish.

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

/// Timeout for a request head, counted from the end of the previous request. It exceeds the time
/// for which load balancers keep an idle connection (60 seconds at nginx and AWS). The balancer
/// must be the side that closes, otherwise it may send a request on a connection that was just
/// closed.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(90);

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
                    head_deadline,
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

/// Serves the requests of one connection. hyper applies the head timeout only after it has detected
/// the HTTP version, for which it waits without a timeout. The timeout for the first head is
/// therefore enforced here.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    head_deadline: Duration,
    stop: CancellationToken,
) {
    // Nagle's algorithm would delay small frames until earlier ones are acknowledged.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
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
            tracing::debug!("connection sent no request in time; closing it");
            return;
        }
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "connection ended with an error");
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
