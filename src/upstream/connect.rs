//! Opens connections to the services, and runs them as tasks of the server.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Uri;
use hyper::rt::Executor;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

use super::body::Upload;
use crate::shutdown::Tasks;

/// Maximum size in bytes of the head of a response, and of what is read ahead of a body. Request
/// heads have the same limit.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// Maximum number of idle connections per service. Under load, more connections are opened, and
/// closed when they become idle.
const MAX_IDLE: usize = 64;

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file with the certificate authorities cannot be read.
    #[error("The certificate authorities for `upstream` cannot be read: {0}")]
    Authorities(String),
    /// No authority is known.
    #[error("No certificate authority is known, so services cannot be reached with HTTPS")]
    NoAuthority,
    /// The library refuses the configuration.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A client for one kind of server.
pub(super) type HttpClient = Client<Connector, Upload>;

/// Opens connections within a time limit that includes the look-up of the name and the TLS
/// handshake.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

impl Connector {
    pub(super) fn new(tls: ClientConfig, limit: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Nagle's algorithm would delay small frames until earlier ones are acknowledged.
        tcp.set_nodelay(true);
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Self { inner, limit }
    }

    /// Returns a client for key sets. It keeps no idle connections, because key sets are fetched
    /// rarely.
    pub(super) fn key_client(&self, tasks: Tasks) -> Client<Self, Body> {
        Client::builder(Spawner(tasks))
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(MAX_BUFFER_BYTES)
            .build(self.clone())
    }

    /// Returns a client that closes idle connections after `idle`.
    pub(super) fn client(&self, idle: Duration, tasks: Tasks) -> HttpClient {
        Client::builder(Spawner(tasks))
            .pool_idle_timeout(idle)
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_BUFFER_BYTES)
            .set_host(false)
            .build(self.clone())
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            timeout(limit, connecting).await.map_err(late)?
        })
    }
}

/// Runs connections as tasks of the server, which end with it.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        let stop = self.0.token().clone();
        self.0.spawn("connection to a service", async move {
            tokio::select! {
                () = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Returns the TLS settings with the certificate authorities in the PEM file `authorities` or,
/// without such a file, with those of the operating system. `is_used` is false if no URL requires
/// TLS. The authorities of the operating system are then not read.
///
/// # Errors
/// [`TlsError`]
pub(super) fn tls(authorities: Option<&str>, is_used: bool) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let problem = |error: &dyn std::fmt::Display| TlsError::Authorities(error.to_string());
    if let Some(path) = authorities {
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))? {
            roots.add(certificate.map_err(|error| problem(&error))?)?;
        }
    } else if is_used {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if is_used && roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
