//! Accepts connections and serves their HTTP/1.1 requests.
//!
//! A connection on which no complete request head arrives in time is closed, whether it is new or
//! idle between requests. So is a connection whose client does not read its response. The memory of
//! incomplete heads and of unread responses is bounded, and so is the number of connections that
//! wait for their client. At a shutdown, requests in progress finish.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::heads::{Connection, Head, Heads, MAX_HEAD_BYTES};
use crate::observability::excerpt::Excerpt;

/// Pause after a failed accept. The usual cause is that no file descriptor is left, so an immediate
/// retry would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long a shutdown waits for a client that does not complete its head, accepts no byte of its
/// response, or sends less than [`STOP_BYTES`] of its body. A client that reads or writes does so
/// within a round trip, so one second suffices.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a body that a client must send within [`STOP_PATIENCE`]. Every network is faster, and
/// single bytes must not delay a shutdown.
const STOP_BYTES: usize = 1024;

/// Maximum number of connections that wait to be accepted. After a restart, all clients may
/// reconnect within the same second. If the queue is full, a connection is not refused, but the
/// client's kernel retries after one second, then after two, four and so on. The server's kernel
/// limits this value to `net.core.somaxconn` (listen(2)), which is 4,096 on Linux.
const ACCEPT_QUEUE: i32 = 4096;

/// Maximum bytes that the kernel holds for one connection before it transmits them. Without this
/// limit, it holds up to 4 MiB (`net.ipv4.tcp_wmem`) for each client that does not read, and no
/// budget of this server counts these bytes. A thousand such clients exhaust the memory for all TCP
/// connections (`net.ipv4.tcp_mem`). Every connection then loses packets, and each retransmission
/// takes 200 ms or more. Bytes in flight are not limited, so the limit does not slow clients that
/// read.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 128 * 1024;

/// Listens on `address`.
///
/// # Errors
/// If the address is not local, not permitted, or in use.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    // `bind` creates a queue of 128 entries. Calling `listen` again only changes its size.
    rustix::net::listen(&listener, ACCEPT_QUEUE)?;
    // Accepted connections inherit the options of the listener, which saves two system calls per
    // connection.
    let options = SockRef::from(&listener);
    // Nagle's algorithm would delay small frames until earlier ones are acknowledged.
    options.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    options.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
    Ok(listener)
}

/// Serves `router` until `stop` is cancelled, and returns once the last connection has ended.
/// Handlers find the peer address in [`ConnectInfo`].
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
                    () = sleep(ACCEPT_PAUSE) => {}
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
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(heads.deadline())
        .max_buf_size(MAX_HEAD_BYTES);
    let head = Head::new(&heads, peer.ip(), stop.clone());
    let state = Arc::clone(&head);
    let connection = TokioIo::new(Connection::new(stream, &head));
    let service = service_fn(move |request: Request<Incoming>| {
        head.end();
        let body = Arc::new(CurrentBody(Arc::clone(&head)));
        let mut request = request.map(|inner| {
            Body::new(RequestBody {
                inner,
                current: Arc::clone(&body),
            })
        });
        request.extensions_mut().insert(ConnectInfo(peer));
        let client = head.client_of(peer.ip(), &request);
        let answer = router.clone().call(request);
        let responding = Arc::clone(&head);
        async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                responding.respond(client, response);
            }
            drop(body);
            answer
        }
    });
    let serving = builder.serve_connection(connection, service);
    let mut serving = pin!(serving.with_upgrades());
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            if state.place().is_refused() && !state.is_busy() {
                return;
            }
            serving.as_mut().graceful_shutdown();
            loop {
                let before = (state.place().touched(), state.body_bytes());
                tokio::select! {
                    served = serving.as_mut() => break served,
                    () = sleep(STOP_PATIENCE) => {}
                }
                let is_still = state.place().touched() == before.0
                    && state.body_bytes() - before.1 < STOP_BYTES;
                if !state.is_busy() && is_still {
                    tracing::debug!("connection closed at the shutdown");
                    return;
                }
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = %Excerpt(&error), "connection ended with an error");
    }
}

/// The body that a connection is receiving. The bytes that arrive after it was dropped belong to
/// the next head.
struct CurrentBody(Arc<Head>);

impl Drop for CurrentBody {
    fn drop(&mut self) {
        self.0.begin();
    }
}

/// The body of a request. A response may begin while its request is still being received.
struct RequestBody {
    inner: Incoming,
    current: Arc<CurrentBody>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let head = &self.current.0;
        head.set_awaiting_body(polled.is_pending());
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            head.receive_body(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.current.0.set_awaiting_body(false);
    }
}

fn log_failure(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "connection task failed");
    }
}

/// Returns whether only this connection could not be accepted, because its peer is gone.
fn affects_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn the_kernel_holds_few_bytes_for_a_client_that_does_not_read() {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let unlimited = bytes_held_unread(TcpListener::bind(any_port).await.unwrap()).await;
        let limited = bytes_held_unread(listen(any_port).await.unwrap()).await;
        // The number includes bytes in flight, which fit into the client's receive buffer.
        assert!(limited < 512 * 1024, "{limited} bytes");
        assert!(limited < unlimited / 2, "{limited} of {unlimited} bytes");
    }

    #[tokio::test]
    async fn accepted_connections_send_small_frames_immediately() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(client, listener.accept());
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }

    /// Writes until the connection accepts no more bytes, and returns the number of accepted bytes.
    async fn bytes_held_unread(listener: TcpListener) -> usize {
        let client = TcpSocket::new_v4().unwrap();
        // The size is set before the connection is opened, so that the window stays small.
        client.set_recv_buffer_size(4096).unwrap();
        let client = client.connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (_client, (server, _)) = (client.unwrap(), accepted.unwrap());
        let mut held = 0;
        loop {
            match server.try_write(&[0; 16 * 1024]) {
                Ok(bytes) => held += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return held,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
