//! `rapport health`: asks a running server for its state, for container and service managers.
//!
//! The command needs no shell and no other program, so it also works in a minimal container image.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use clap::Args;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::listen::ListenArguments;
use super::{CliError, print, runtime};
use crate::config::{Flag, Inputs, load_server};

/// Time limit for a response. Docker and Kubernetes kill a probe that takes longer than their own
/// limit, and then report no reason.
const PATIENCE: Duration = Duration::from_secs(2);

/// Maximum size of a response, in bytes. The report of `/ready` has a few hundred.
const MAX_BODY_BYTES: usize = 16 * 1024;

#[derive(Debug, Args)]
pub(super) struct HealthArguments {
    #[command(flatten)]
    listen: ListenArguments,
    /// Ask whether the server accepts new work (`/ready`), not only whether it runs (`/health`)
    #[arg(long)]
    ready: bool,
}

/// Why a server counts as unhealthy.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    #[error("`server.port` is 0, so the port of the server is unknown. Name it with --port.")]
    NoPort,
    #[error("No connection to {0}: {1}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("{0} does not speak HTTP: {1}")]
    Http(SocketAddr, #[source] hyper::Error),
    #[error("{0} did not respond within {limit} s", limit = PATIENCE.as_secs())]
    Late(SocketAddr),
    #[error("{address} responded with {status}: {body}")]
    Status {
        address: SocketAddr,
        status: StatusCode,
        body: String,
    },
}

/// Asks the configured server, and prints its response.
pub(super) fn run<'a>(
    arguments: &HealthArguments,
    inputs: impl Fn(Vec<Flag>) -> Inputs<'a>,
) -> Result<(), CliError> {
    let server = load_server(&inputs(arguments.listen.flags()))?;
    if server.listen.port() == 0 {
        return Err(HealthError::NoPort.into());
    }
    let path = if arguments.ready { "/ready" } else { "/health" };
    let body = runtime()?.block_on(ask(server.listen, path))?;
    print(&format!("{body}\n"))
}

/// Requests `path` from the server that listens on `address`. Returns the body of a response with
/// status 200.
pub(super) async fn ask(address: SocketAddr, path: &str) -> Result<String, HealthError> {
    let address = reachable(address);
    tokio::time::timeout(PATIENCE, exchange(address, path))
        .await
        .unwrap_or(Err(HealthError::Late(address)))
}

async fn exchange(address: SocketAddr, path: &str) -> Result<String, HealthError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| HealthError::Connect(address, error))?;
    let http = |error| HealthError::Http(address, error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(HOST, host);
    }
    let answer = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MAX_BODY_BYTES).await;
        // The sender is dropped only now, because the connection ends with it.
        drop(sender);
        Ok((status, body.unwrap_or_default()))
    };
    let (answer, _) = tokio::join!(answer, connection);
    let (status, body) = answer?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(HealthError::Status {
            address,
            status,
            body,
        })
    }
}

/// Returns the address under which this machine reaches a listener. A listener on all addresses is
/// reached through the loopback address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_through_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:4000", "127.0.0.1:4000"),
            ("[::]:4000", "[::1]:4000"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            let listen = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), expected);
        }
    }
}
