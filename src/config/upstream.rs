//! The other services of Supabase, to which requests are forwarded.

use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::Authority;

use super::auth::AuthConfig;
use super::reader::Reader;
use super::secret::Secret;
use super::server::ServerConfig;
use super::supabase::SupabaseConfig;

/// `[upstream]`, with `supabase.url`.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The gateway of the project, for all services without a URL of their own.
    pub project_url: Option<Uri>,
    /// PostgREST.
    pub rest_url: Option<Uri>,
    /// Supabase Auth.
    pub auth_url: Option<Uri>,
    /// Supabase Storage.
    pub storage_url: Option<Uri>,
    /// Edge Functions.
    pub functions_url: Option<Uri>,
    /// The token that services receive in place of an opaque public key.
    pub anon_jwt: Option<Secret>,
    /// The token that services receive in place of an opaque server-side key.
    pub service_jwt: Option<Secret>,
    /// How long opening a connection may take.
    pub connect: Duration,
    /// How long a service may take from the end of a request to the head of its response.
    pub head: Duration,
    /// Like `head`, for functions.
    pub functions_head: Duration,
    /// How long a transfer may pause.
    pub stall: Duration,
    /// Maximum bytes of a request body. `None` leaves the decision to the service.
    pub max_body_bytes: Option<u64>,
    /// Maximum number of requests in progress per service.
    pub max_in_flight: usize,
    /// Maximum number of requests in progress per service and client address. Zero means any
    /// number.
    pub max_in_flight_per_address: usize,
    /// Whether `Cookie` is forwarded.
    pub forward_cookies: bool,
    /// PEM file of the only certificate authorities that are trusted, in place of the system's.
    pub tls_ca: Option<String>,
    /// The URL under which clients reach this server.
    pub public_url: Option<Uri>,
}

impl UpstreamConfig {
    pub(super) fn read(
        reader: &mut Reader,
        server: &ServerConfig,
        supabase: &SupabaseConfig,
        auth: &AuthConfig,
    ) -> Self {
        let max_body_bytes = reader.integer("upstream.max_body_bytes", 0..=u64::MAX >> 1);
        let config = Self {
            project_url: parse("supabase.url", supabase.url.as_deref(), reader),
            rest_url: url("upstream.rest_url", reader),
            auth_url: url("upstream.auth_url", reader),
            storage_url: url("upstream.storage_url", reader),
            functions_url: url("upstream.functions_url", reader),
            anon_jwt: reader.secret("upstream.anon_jwt"),
            service_jwt: reader.secret("upstream.service_jwt"),
            connect: reader.milliseconds("upstream.connect_ms", 1..=600_000),
            head: reader.milliseconds("upstream.head_ms", 1..=3_600_000),
            functions_head: reader.milliseconds("upstream.functions_head_ms", 1..=3_600_000),
            stall: reader.milliseconds("upstream.stall_ms", 1..=3_600_000),
            max_body_bytes: (max_body_bytes > 0).then_some(max_body_bytes),
            max_in_flight: reader.integer("upstream.max_in_flight", 1..=1_000_000),
            max_in_flight_per_address: reader
                .integer("upstream.max_in_flight_per_address", 0..=1_000_000),
            forward_cookies: reader.switch("upstream.forward_cookies"),
            tls_ca: reader.text("upstream.tls_ca"),
            public_url: parse("server.public_url", server.public_url.as_deref(), reader),
        };
        config.check_loop(reader);
        config.check_exchange(auth, reader);
        config
    }

    /// Reports URLs of this server itself, because requests to them would be forwarded without end.
    fn check_loop(&self, reader: &mut Reader) {
        let authority = |uri: &Option<Uri>| uri.as_ref().and_then(Uri::authority).cloned();
        let own = authority(&self.public_url);
        for (key, url) in [
            ("supabase.url", &self.project_url),
            ("upstream.rest_url", &self.rest_url),
            ("upstream.auth_url", &self.auth_url),
            ("upstream.storage_url", &self.storage_url),
            ("upstream.functions_url", &self.functions_url),
        ] {
            if own.is_some() && authority(url) == own {
                reader.problem(
                    key,
                    "is the same as `server.public_url`, so requests would be forwarded to this server itself",
                );
            }
        }
    }

    /// Reports missing tokens. A service that is reached directly cannot verify an opaque key, so
    /// it must receive a token in its place.
    fn check_exchange(&self, auth: &AuthConfig, reader: &mut Reader) {
        let urls = [
            &self.rest_url,
            &self.auth_url,
            &self.storage_url,
            &self.functions_url,
        ];
        if auth.jwt_secret.is_some() || urls.iter().all(|url| url.is_none()) {
            return;
        }
        let is_opaque = |key: &&Secret| key.expose().starts_with("sb_");
        for (setting, token, legacy, keys) in [
            (
                "upstream.anon_jwt",
                &self.anon_jwt,
                &auth.anon_key,
                &auth.publishable_keys,
            ),
            (
                "upstream.service_jwt",
                &self.service_jwt,
                &auth.service_role_key,
                &auth.secret_keys,
            ),
        ] {
            let is_legacy = legacy.as_ref().is_some_and(|key| !is_opaque(&key));
            let has_opaque = legacy.iter().chain(keys).any(|key| is_opaque(&key));
            if token.is_none() && !is_legacy && has_opaque {
                reader.problem(
                    setting,
                    "is required, because a service is reached directly, its keys are opaque, and without \
                     `auth.jwt_secret` no token can be signed for it",
                );
            }
        }
    }
}

/// Reads the URL of a service.
fn url(key: &'static str, reader: &mut Reader) -> Option<Uri> {
    let written = reader.web_url(key);
    parse(key, written.as_deref(), reader)
}

/// Parses the URL of a server. It has no credentials, because they would be sent to the server, and
/// no query, because paths are appended to it.
fn parse(key: &'static str, written: Option<&str>, reader: &mut Reader) -> Option<Uri> {
    // Another scheme has already been reported.
    let written = written.filter(|url| url.starts_with("http"))?;
    let url = written.parse().ok().filter(is_plain);
    if url.is_none() {
        reader.problem(
            key,
            "must be a URL without credentials and query, as in http://rest:3000",
        );
    }
    url
}

fn is_plain(url: &Uri) -> bool {
    let has_host =
        |authority: &Authority| !authority.host().is_empty() && !authority.as_str().contains('@');
    url.scheme().is_some() && url.query().is_none() && url.authority().is_some_and(has_host)
}
