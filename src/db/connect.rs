//! Opens single connections from a connection URL, with the same TLS behaviour as libpq.

use std::sync::Arc;

use futures_util::future::poll_fn;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;
use tokio_postgres::config::Host;
use tokio_postgres::error::DbError;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::shutdown::Tasks;

/// Why a connection could not be prepared or opened. The texts never contain the URL, which
/// includes a password.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL is not a valid connection string.
    #[error("The database URL is invalid: {0}")]
    Url(#[source] tokio_postgres::Error),
    /// `sslmode` has a value that libpq does not define.
    #[error("The database URL has an unknown sslmode `{0}`")]
    SslMode(String),
    /// The root certificates could not be loaded.
    #[error("The root certificates for the database connection could not be loaded: {0}")]
    RootCertificates(String),
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[from] rustls::Error),
    /// PostgreSQL is unreachable or refused the login.
    #[error("Connecting to the database failed")]
    Connect(#[source] tokio_postgres::Error),
}

/// How the server's certificate is verified (PostgreSQL manual, "SSL Support", table of `sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateCheck {
    /// `disable`, `allow`, `prefer`, `require`: the connection may be encrypted, but the peer is
    /// not verified.
    None,
    /// `verify-ca`, `verify-full`: the certificate chain and the host name are verified.
    Full,
}

/// Runs first on each connection. JIT compilation of one of our statements takes longer than
/// running it. PostgreSQL compiles every statement that it estimates as expensive, and its
/// estimates are high for policies that call functions and for tables without statistics
/// (PostgreSQL manual, chapter 32).
const NO_JIT: &str = "set jit = off";

/// A parsed connection URL with its TLS options. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<tokio_postgres::Config>,
    tls: Tls,
    check: CertificateCheck,
    root_certificate: Option<Arc<str>>,
}

impl Connector {
    /// Parses `url` (`postgres://…`). `sslmode` and `sslrootcert` work as in libpq; the default is
    /// `prefer`.
    ///
    /// # Errors
    /// [`ConnectError::Url`], [`ConnectError::SslMode`], or an error while loading certificates.
    pub fn new(url: &str) -> Result<Self, ConnectError> {
        let (url, options) = extract_ssl_options(url);
        let check = match options.mode.as_deref() {
            None | Some("disable" | "allow" | "prefer" | "require") => CertificateCheck::None,
            Some("verify-ca" | "verify-full") => CertificateCheck::Full,
            Some(other) => return Err(ConnectError::SslMode(other.to_owned())),
        };
        let mut config: tokio_postgres::Config = url.parse().map_err(ConnectError::Url)?;
        if config.get_hosts().is_empty() {
            // If only addresses are given, certificates are verified against the addresses.
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        let are_sockets = !config.get_hosts().is_empty()
            && (config.get_hosts().iter()).all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(match options.mode.as_deref() {
            // PostgreSQL does not support TLS on Unix sockets, and libpq ignores sslmode there.
            _ if are_sockets => tokio_postgres::config::SslMode::Disable,
            Some("disable") => tokio_postgres::config::SslMode::Disable,
            None | Some("allow" | "prefer") => tokio_postgres::config::SslMode::Prefer,
            Some(_) => tokio_postgres::config::SslMode::Require,
        });
        let tls = Tls(MakeRustlsConnect::new(client_config(
            check,
            options.root_certificate.as_deref(),
        )?));
        let root_certificate = options.root_certificate.map(Into::into);
        Ok(Self {
            config: Arc::new(config),
            tls,
            check,
            root_certificate,
        })
    }

    /// Returns host, port, user, database and TLS mode as parsed.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// Returns the TLS connector, which cancelling a statement needs.
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Returns whether the server's certificate is verified.
    pub fn certificate_check(&self) -> CertificateCheck {
        self.check
    }

    /// Returns the file named by `sslrootcert`, if any.
    pub fn root_certificate(&self) -> Option<&str> {
        self.root_certificate.as_deref()
    }

    /// Opens a connection. `application_name` appears in `pg_stat_activity`. The task that drives
    /// the connection ends when the client is dropped.
    ///
    /// # Errors
    /// [`ConnectError::Connect`] if the server is unreachable or refuses the connection.
    pub async fn connect(
        &self,
        application_name: &str,
        tasks: &Tasks,
    ) -> Result<Client, ConnectError> {
        self.connect_with_notices(application_name, tasks, |_| {})
            .await
    }

    /// Like [`Self::connect`], and also passes on the server's notices and warnings (PostgreSQL
    /// manual, section 55.2.6). Each arrives before the result of the statement that raised it.
    ///
    /// # Errors
    /// Same as [`Self::connect`].
    pub async fn connect_with_notices(
        &self,
        application_name: &str,
        tasks: &Tasks,
        mut on_notice: impl FnMut(DbError) + Send + 'static,
    ) -> Result<Client, ConnectError> {
        let mut config = (*self.config).clone();
        config.application_name(application_name);
        let (client, mut connection) = config
            .connect(self.tls.clone())
            .await
            .map_err(ConnectError::Connect)?;
        tasks.spawn("database connection", async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => on_notice(notice),
                    Ok(_) => {}
                    // Statements in progress receive the error. No other code needs it.
                    Err(error) => {
                        tracing::debug!(error = %error, "database connection closed with an error");
                        break;
                    }
                }
            }
        });
        client
            .batch_execute(NO_JIT)
            .await
            .map_err(ConnectError::Connect)?;
        Ok(client)
    }
}

/// A TLS connector for hosts with a name or an address. Unix sockets do not use TLS.
#[derive(Clone)]
pub struct Tls(MakeRustlsConnect);

/// Replaces the host name that a Unix socket lacks. No TLS session ever uses it: the driver
/// requests a connector before it checks the mode, and refuses a handshake without a host name.
const SOCKET_NAME: &str = "localhost";

impl MakeTlsConnect<Socket> for Tls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let name = if host.is_empty() { SOCKET_NAME } else { host };
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, name)
    }
}

#[derive(Default, Debug, PartialEq, Eq)]
struct SslOptions {
    mode: Option<String>,
    root_certificate: Option<String>,
}

/// Removes `sslmode` and `sslrootcert` from the URL's query, because `tokio_postgres` supports only
/// some of their values.
fn extract_ssl_options(url: &str) -> (String, SslOptions) {
    let mut options = SslOptions::default();
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), options);
    };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => options.mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => options.root_certificate = Some(value.to_owned()),
            _ => kept.push(pair),
        }
    }
    let url = if kept.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", kept.join("&"))
    };
    (url, options)
}

fn client_config(
    check: CertificateCheck,
    root_certificate: Option<&str>,
) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    Ok(match check {
        CertificateCheck::None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth(),
        CertificateCheck::Full => builder
            .with_root_certificates(root_store(root_certificate)?)
            .with_no_client_auth(),
    })
}

fn root_store(root_certificate: Option<&str>) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    let problem = |error: &dyn std::fmt::Display| ConnectError::RootCertificates(error.to_string());
    if let Some(path) = root_certificate {
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| problem(&error))? {
            roots.add(certificate.map_err(|error| problem(&error))?)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(ConnectError::RootCertificates("none were found".to_owned()));
    }
    Ok(roots)
}

/// Accepts any certificate, as libpq does below `verify-ca`. Signatures are still verified, so the
/// peer at least has the private key of the certificate that it presents.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssl_options_are_extracted_and_the_rest_is_kept() {
        let cases = [
            ("postgres://h/db", "postgres://h/db", None, None),
            (
                "postgres://h/db?sslmode=verify-full",
                "postgres://h/db",
                Some("verify-full"),
                None,
            ),
            (
                "postgres://h/db?a=1&sslmode=require&sslrootcert=/x.pem&b=2",
                "postgres://h/db?a=1&b=2",
                Some("require"),
                Some("/x.pem"),
            ),
        ];
        for (url, kept, mode, root) in cases {
            let (rest, options) = extract_ssl_options(url);
            assert_eq!(rest, kept);
            assert_eq!(
                (options.mode.as_deref(), options.root_certificate.as_deref()),
                (mode, root),
                "{url}"
            );
        }
    }

    #[test]
    fn a_unix_socket_is_used_without_tls() {
        use tokio_postgres::config::SslMode;
        let cases = [
            (
                "postgres://u@%2Frun%2Fpg/d?sslmode=require",
                SslMode::Disable,
            ),
            (
                "postgres://u@/d?host=/run/pg&sslmode=verify-full",
                SslMode::Disable,
            ),
            ("postgres://u@/d?host=/run/pg", SslMode::Disable),
            ("postgres://u@h/d?sslmode=require", SslMode::Require),
            // If the list contains a host that supports TLS, TLS is used for it.
            (
                "postgres://u@/d?host=h,/run/pg&sslmode=require",
                SslMode::Require,
            ),
        ];
        for (url, expected) in cases {
            let connector = Connector::new(url).unwrap();
            assert_eq!(connector.config().get_ssl_mode(), expected, "{url}");
        }
    }

    #[test]
    fn an_address_without_a_name_serves_as_the_name() {
        let connector = Connector::new("postgres://u@/d?hostaddr=127.0.0.1").unwrap();
        assert_eq!(
            connector.config().get_hosts(),
            [Host::Tcp("127.0.0.1".to_owned())]
        );
    }

    #[test]
    fn modes_below_verify_ca_do_not_check_the_certificate() {
        assert_eq!(
            Connector::new("postgres://u@h/d?sslmode=require")
                .map(|c| c.certificate_check())
                .ok(),
            Some(CertificateCheck::None)
        );
        assert!(matches!(
            Connector::new("postgres://u@h/d?sslmode=maybe"),
            Err(ConnectError::SslMode(_))
        ));
    }
}
