//! The replication connection: its address, TLS and settings.

use std::time::Duration;

use pgwire_replication::{ReplicationClient, ReplicationConfig as WireConfig, SslMode, TlsConfig};
use tokio_postgres::config::{Host, SslMode as UrlSslMode};

use super::connection_error::ConnectionError;
use super::error::ReplicationError;
use super::names::{APPLICATION_NAME, SlotName};
use super::publication::Publications;
use super::timeout::with_timeout;
use crate::change::Lsn;
use crate::config::ReplicationConfig;
use crate::db::connect::{CertificateCheck, Connector};

/// Settings that determine the text form of values. In the startup packet, they take precedence
/// over the settings of the role and the database. `search_path` is empty so that names of other
/// objects (`regclass` and similar types) always contain their schema.
const CONNECTION_OPTIONS: &str = "-c datestyle=ISO,MDY -c intervalstyle=postgres -c timezone=UTC \
    -c bytea_output=hex -c extra_float_digits=3 -c search_path=";

/// Interval of status messages while nothing arrives. It is far below the 30 s after which
/// PostgreSQL requests a status (half of `wal_sender_timeout`), and short enough for another
/// process to notice that this one is gone ([`super::prepare::TAKEOVER_AFTER`]).
const IDLE_STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of messages between the socket and the assembler. Most messages contain one row,
/// which can be large. When the queue is full, the socket is not read, and TCP slows the server
/// down.
const QUEUED_MESSAGES: usize = 128;

/// The parts of a connection URL that a replication connection needs.
#[derive(Clone)]
pub(super) struct Address {
    hosts: Vec<(HostAddress, u16)>,
    user: String,
    password: String,
    database: String,
    options: String,
    ssl_mode: SslMode,
    root_certificate: Option<String>,
}

/// One host of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostAddress {
    /// A name, an address, or the directory of a Unix socket.
    host: String,
    /// The name or address that the certificate must contain. If absent, this is `host`.
    certificate_name: Option<String>,
}

impl Address {
    /// Extracts the parts from `connector`.
    ///
    /// # Errors
    /// [`ReplicationError::Url`] if a part is missing or not UTF-8.
    pub(super) fn new(connector: &Connector) -> Result<Self, ReplicationError> {
        let config = connector.config();
        let user = config
            .get_user()
            .ok_or(ReplicationError::Url("it names no user"))?;
        let password = std::str::from_utf8(config.get_password().unwrap_or_default())
            .map_err(|_| ReplicationError::Url("its password is not UTF-8"))?;
        let options = match config.get_options() {
            // If a setting appears twice, the last value wins.
            Some(given) => format!("{given} {CONNECTION_OPTIONS}"),
            None => CONNECTION_OPTIONS.to_owned(),
        };
        Ok(Self {
            hosts: hosts(config)?,
            user: user.to_owned(),
            password: password.to_owned(),
            database: config.get_dbname().unwrap_or(user).to_owned(),
            options,
            ssl_mode: match (config.get_ssl_mode(), connector.certificate_check()) {
                (UrlSslMode::Disable, _) => SslMode::Disable,
                (_, CertificateCheck::Full) => SslMode::VerifyFull,
                (UrlSslMode::Prefer, CertificateCheck::None) => SslMode::Prefer,
                (_, CertificateCheck::None) => SslMode::Require,
            },
            root_certificate: connector.root_certificate().map(str::to_owned),
        })
    }

    /// Returns the database's name.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    fn wire_config(
        &self,
        attempt: usize,
        slot: &SlotName,
        config: &ReplicationConfig,
        publications: Publications,
    ) -> WireConfig {
        let (target, port) = &self.hosts[attempt % self.hosts.len()];
        let is_socket = target.host.starts_with('/');
        let tls = TlsConfig {
            mode: if is_socket {
                SslMode::Disable
            } else {
                self.ssl_mode
            },
            ca_pem_path: self.root_certificate.as_ref().map(Into::into),
            sni_hostname: target.certificate_name.clone(),
            ..TlsConfig::default()
        };
        WireConfig::new(
            target.host.as_str(),
            self.user.as_str(),
            self.password.as_str(),
            self.database.as_str(),
            slot.as_str(),
            publications.names(&config.publication),
        )
        .with_port(*port)
        .with_tls(tls)
        .with_options(self.options.as_str())
        .with_application_name(APPLICATION_NAME)
        // PostgreSQL's fast shutdown waits until everything that it has sent is acknowledged. This
        // interval bounds that wait.
        .with_status_interval(config.status_interval)
        .with_wakeup_interval(IDLE_STATUS_INTERVAL)
        .with_buffer_size(QUEUED_MESSAGES)
    }
}

/// Returns the hosts of the URL with their ports. Each attempt uses the next one.
fn hosts(config: &tokio_postgres::Config) -> Result<Vec<(HostAddress, u16)>, ReplicationError> {
    /// PostgreSQL's default port.
    const DEFAULT_PORT: u16 = 5432;
    let ports = config.get_ports();
    let addresses = config.get_hostaddrs();
    let count = config.get_hosts().len().max(addresses.len());
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let name = match config.get_hosts().get(index) {
            Some(Host::Tcp(name)) => Some(name.clone()),
            Some(Host::Unix(directory)) => Some(
                directory
                    .to_str()
                    .ok_or(ReplicationError::Url("its socket directory is not UTF-8"))?
                    .to_owned(),
            ),
            None => None,
        };
        let address = addresses.get(index).map(ToString::to_string);
        let target = match (name, address) {
            (Some(name), Some(address)) => HostAddress {
                host: address,
                certificate_name: Some(name),
            },
            // A certificate can also contain an IP address, but the replication client checks one
            // only if it is set here.
            (Some(host), None) | (None, Some(host)) => HostAddress {
                certificate_name: host
                    .parse::<std::net::IpAddr>()
                    .is_ok()
                    .then(|| host.clone()),
                host,
            },
            (None, None) => continue,
        };
        let port = ports.get(index).or_else(|| ports.first());
        hosts.push((target, port.copied().unwrap_or(DEFAULT_PORT)));
    }
    if hosts.is_empty() {
        return Err(ReplicationError::Url("it names no host"));
    }
    Ok(hosts)
}

/// A cluster and its history. Positions are comparable only within one history of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterHistory {
    /// `pg_control_system().system_identifier`.
    pub system_id: String,
    /// The timeline, which increases when a standby takes over.
    pub timeline: u32,
}

/// A replication connection that has logged in but not started streaming.
pub(super) struct Opened {
    /// The client.
    pub client: ReplicationClient,
    /// The cluster to which the client is connected.
    pub cluster: ClusterHistory,
    /// The end of the cluster's WAL.
    pub end: Lsn,
    /// The walsender's process id.
    pub pid: i32,
}

/// Opens a replication connection. `attempt` selects one of several hosts, `publications` are those
/// to read, and `start` is the position to start at. The server does not start before the slot's
/// acknowledged position.
pub(super) async fn open(
    address: &Address,
    attempt: usize,
    slot: &SlotName,
    config: &ReplicationConfig,
    publications: Publications,
    start: Lsn,
) -> Result<Opened, ConnectionError> {
    let config = address
        .wire_config(attempt, slot, config, publications)
        .with_start_lsn(pgwire_replication::Lsn::from_u64(start.0));
    let mut client = ReplicationClient::connect_gated(config).await?;
    let identified = with_timeout("opening the replication connection", async {
        let system = client.identify_system().await?;
        let rows = client.simple_query("select pg_backend_pid()").await?;
        Ok::<_, ConnectionError>((system, rows))
    })
    .await;
    // Without the abort, a connection to a silent server would not end.
    let (system, rows) = identified.inspect_err(|_| client.abort())?;
    let pid = rows
        .first()
        .and_then(|row| row.first()?.as_deref())
        .and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
        .ok_or(ConnectionError::Ended)?;
    Ok(Opened {
        client,
        cluster: ClusterHistory {
            system_id: system.system_id,
            timeline: system.timeline,
        },
        end: Lsn(system.xlogpos.as_u64()),
        pid,
    })
}

/// Starts streaming and waits for the server's confirmation.
pub(super) async fn start(client: &mut ReplicationClient) -> Result<(), ConnectionError> {
    let started = with_timeout("starting to stream", async {
        client.start().await?;
        client.wait_started().await
    })
    .await;
    started.inspect_err(|_| client.abort())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address::new(&Connector::new(url).expect("a good URL")).expect("a usable URL")
    }

    const PUBLICATIONS: Publications = Publications {
        changes: true,
        messages: true,
    };

    fn config() -> ReplicationConfig {
        ReplicationConfig {
            publication: "p".to_owned(),
            slot_name: "rapport".to_owned(),
            keep_slot: false,
            max_wal_held_bytes: 1,
            chunk_max_changes: 1,
            chunk_max_bytes: 1,
            status_interval: Duration::from_secs(1),
            check_interval: Duration::from_secs(1),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(1),
        }
    }

    fn slot() -> SlotName {
        SlotName::new("rapport", "d").expect("a usable name")
    }

    #[test]
    fn the_url_decides_address_and_tls() {
        // (URL, host, port, TLS mode, name in the certificate)
        let cases = [
            (
                "postgres://u:p@db.example/d",
                "db.example",
                5432,
                SslMode::Prefer,
                None,
            ),
            (
                "postgres://u:p@db.example:6000/d?sslmode=disable",
                "db.example",
                6000,
                SslMode::Disable,
                None,
            ),
            (
                "postgres://u:p@db.example/d?sslmode=require",
                "db.example",
                5432,
                SslMode::Require,
                None,
            ),
            (
                "postgres://u:p@10.0.0.1/d?sslmode=require",
                "10.0.0.1",
                5432,
                SslMode::Require,
                Some("10.0.0.1"),
            ),
            (
                "postgres://u@%2Frun%2Fpostgresql/d?sslmode=require",
                "/run/postgresql",
                5432,
                SslMode::Disable,
                None,
            ),
        ];
        for (url, host, port, mode, name) in cases {
            let config = address(url).wire_config(0, &slot(), &config(), PUBLICATIONS);
            assert_eq!(
                (config.host.as_str(), config.port, config.tls.mode),
                (host, port, mode),
                "{url}"
            );
            assert_eq!(config.tls.sni_hostname.as_deref(), name, "{url}");
            assert_eq!(config.user, "u");
            assert_eq!(
                config.publication.names(),
                ["\"p\"", "\"supabase_realtime_messages_publication\""]
            );
            assert_eq!(config.database, "d");
        }
    }

    #[test]
    fn several_hosts_take_turns_and_options_of_the_url_come_first() {
        let address = address("postgres://u@a:1,b:2/d?options=-c%20timezone%3DEST");
        let found = [0, 1, 2].map(|attempt| {
            let config = address.wire_config(attempt, &slot(), &config(), PUBLICATIONS);
            (config.host, config.port)
        });
        assert_eq!(
            found,
            [
                ("a".to_owned(), 1),
                ("b".to_owned(), 2),
                ("a".to_owned(), 1)
            ]
        );
        assert!(address.options.starts_with("-c timezone=EST "));
        assert!(address.options.contains("-c timezone=UTC"));
    }

    #[test]
    fn a_url_without_user_or_host_is_refused() {
        for url in ["postgres://h/d", "postgres://u@/d"] {
            let connector = Connector::new(url).expect("a good URL");
            assert!(
                matches!(Address::new(&connector), Err(ReplicationError::Url(_))),
                "{url}"
            );
        }
    }
}
