//! Sockets of functions: after the handshake, the bytes of both sides are copied.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::body::Activity;
use super::in_flight::InFlight;
use crate::http::heads::Connection;
use crate::observability::excerpt::Excerpt;

/// Time without a byte in either direction after which a socket is closed. Clients that keep a
/// socket open send a ping every 30 seconds or more often.
const IDLE: Duration = Duration::from_secs(60);

/// Size in bytes of the buffer of one direction. It holds several frames of usual size.
const BUFFER_BYTES: usize = 16 * 1024;

/// Copies bytes between a client and a service until both sides have closed, no byte was
/// transferred for [`IDLE`], a connection breaks, or the server stops.
pub(super) async fn run(
    client: OnUpgrade,
    service: OnUpgrade,
    in_flight: InFlight,
    stop: CancellationToken,
) {
    let Ok((client, service)) = tokio::try_join!(client, service) else {
        // A connection broke before the handshake was complete.
        return;
    };
    let Some((client, received)) = into_stream(client) else {
        tracing::error!("a socket of a function is of an unknown kind");
        return;
    };
    let activity = Activity::new(false);
    let service = TokioIo::new(service);
    tokio::select! {
        result = exchange(client, &received, service, &activity) => {
            if let Err(error) = result {
                tracing::debug!(error = %Excerpt(&error), "socket of a function ended with an error");
            }
        }
        () = idle(&activity) => tracing::debug!("socket of a function is idle; closing it"),
        () = stop.cancelled() => {}
    }
    drop(in_flight);
}

/// Returns the TCP stream of the client and the bytes that were already read from it. Further bytes
/// of the stream no longer count as a request head.
fn into_stream(upgraded: Upgraded) -> Option<(TcpStream, axum::body::Bytes)> {
    let parts = upgraded.downcast::<TokioIo<Connection>>().ok()?;
    Some((parts.io.into_inner().into_stream(), parts.read_buf))
}

async fn exchange(
    client: TcpStream,
    received: &[u8],
    service: impl AsyncRead + AsyncWrite,
    activity: &Arc<Activity>,
) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_service, mut to_service) = tokio::io::split(service);
    to_service.write_all(received).await?;
    tokio::try_join!(
        copy(from_client, to_service, activity),
        copy(from_service, to_client, activity),
    )?;
    Ok(())
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        activity.touch();
        to.write_all(&buffer[..count]).await?;
        // A TLS stream may buffer the bytes until it is flushed.
        to.flush().await?;
    }
}

async fn idle(activity: &Activity) {
    loop {
        let deadline = activity.last_plus(IDLE);
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}
