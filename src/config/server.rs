//! The HTTP listener and the web origins that may use it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::network::Network;
use super::reader::Reader;
use super::secret::Secret;

/// `[server]`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address to listen on. Port 0 selects any free port.
    pub listen: SocketAddr,
    /// The URL under which clients reach this server, without a trailing slash, if known. Services
    /// that are reached directly receive it, and `rapport dev` uses it for the sign-in.
    pub public_url: Option<String>,
    /// Origins whose pages may call the chat routes.
    pub allowed_origins: Vec<String>,
    /// Whether pages from localhost, on any port, may call the chat routes, too.
    pub allow_localhost_origins: bool,
    /// Whether `/docs` serves a page to try the routes.
    pub docs_page: bool,
    /// Whether `/demo` serves the demonstration page.
    pub demo_page: bool,
    /// The token for `/metrics`. Without one, the main listener does not serve that route.
    pub metrics_token: Option<Secret>,
    /// A separate listener for `/metrics`. If set, the main listener does not serve that route.
    pub metrics_listen: Option<SocketAddr>,
    /// How long a shutdown may take before whatever still runs is aborted.
    pub shutdown_deadline: Duration,
    /// Maximum memory of incomplete request heads.
    pub all_heads_max_bytes: usize,
    /// Maximum memory of responses that wait for their clients to read.
    pub all_responses_max_bytes: usize,
    /// Requests without a sign-in per second from one address, on average. 0 disables the limit.
    pub anonymous_requests_per_second: u32,
    /// Burst of requests without a sign-in from one address.
    pub anonymous_request_burst: u32,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
}

impl ServerConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let address = reader.required_text("server.address");
        let address: IpAddr = address.parse().unwrap_or_else(|_| {
            reader.problem("server.address", "must be an IP address");
            Ipv4Addr::LOCALHOST.into()
        });
        let port = reader.integer("server.port", 0..=u16::MAX);
        let allowed_origins = reader.list("server.allowed_origins");
        if let Some(wrong) = allowed_origins.iter().find(|origin| !is_origin(origin)) {
            let message = format!(
                "contains `{wrong}`, which is not an origin: scheme, host and port without a path, \
                 as in https://app.example.com"
            );
            reader.problem("server.allowed_origins", &message);
        }
        let written = reader.list("server.trusted_proxies");
        let trusted_proxies = written.iter().filter_map(|text| {
            let network = Network::parse(text);
            if network.is_none() {
                let message = format!("contains `{text}`, which is not an address or network");
                reader.problem("server.trusted_proxies", &message);
            }
            network
        });
        let trusted_proxies = trusted_proxies.collect();
        Self {
            listen: SocketAddr::new(address, port),
            public_url: reader.web_url("server.public_url"),
            allowed_origins,
            allow_localhost_origins: reader.switch("server.allow_localhost_origins"),
            docs_page: reader.switch("server.docs_page"),
            demo_page: reader.switch("server.demo_page"),
            metrics_token: reader.secret("server.metrics_token"),
            metrics_listen: reader.socket_address("server.metrics_listen"),
            shutdown_deadline: reader.milliseconds("server.shutdown_deadline_ms", 0..=600_000),
            all_heads_max_bytes: reader.integer("server.all_heads_max_bytes", 0..=1 << 40),
            // The smallest value exceeds the size of the responses that the kernel holds.
            all_responses_max_bytes: reader
                .integer("server.all_responses_max_bytes", 1 << 20..=1 << 40),
            anonymous_requests_per_second: reader
                .integer("server.anonymous_requests_per_second", 0..=1_000_000),
            anonymous_request_burst: reader
                .integer("server.anonymous_request_burst", 1..=1_000_000),
            trusted_proxies,
        }
    }
}

/// Returns whether the text is a serialized origin (RFC 6454, section 6.2), as browsers send it.
/// Origins are compared literally.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty()
            && !host.contains(['/', '*', '?', '#', '@', ' '])
            && *host == host.to_lowercase()
    })
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_has_no_path_and_no_wildcard() {
        for (text, expected) in [
            ("https://app.example.com", true),
            ("http://localhost:3000", true),
            ("https://app.example.com/", false),
            ("https://*.example.com", false),
            ("https://App.example.com", false),
            ("app.example.com", false),
            ("*", false),
            ("https://", false),
        ] {
            assert_eq!(is_origin(text), expected, "{text}");
        }
    }
}
