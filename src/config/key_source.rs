//! Where the keys of an issuer come from: a setting that is a key set itself, a path, or a URL.

use std::net::Ipv6Addr;

use axum::http::Uri;
use axum::http::uri::{Authority, Scheme};

use super::key_set::{MIN_SECRET_BYTES, is_inline_key_set, short_secrets};
use super::reader::Reader;
use super::secret::Secret;

/// The settings that make this server the gateway of services in a private network.
const SERVICE_URLS: [&str; 4] = [
    "upstream.rest_url",
    "upstream.auth_url",
    "upstream.storage_url",
    "upstream.functions_url",
];

/// Where a key set comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The set itself. If a path is configured, its file has already been read. The set is a secret
    /// because it may contain symmetric keys.
    Text(Secret),
    /// The URL of the set.
    Url(Uri),
    /// The URL of a discovery document (`OpenID` Connect Discovery 1.0), which names the URL of the
    /// set.
    Discovery(Uri),
}

impl KeySource {
    /// Reads `written`, the value of the setting `key`: a key set if it starts with a brace or a
    /// bracket, a URL if it starts like one, and otherwise a path.
    pub(super) fn parse(key: &str, written: &str, reader: &mut Reader) -> Self {
        if is_web_address(written) {
            return Self::Url(address(key, written, reader));
        }
        Self::Text(Secret::new(text(key, written, reader)))
    }

    /// Returns the address of the key set that the project publishes. It is below
    /// `upstream.auth_url` if that is set, and otherwise below `supabase.url`.
    pub(super) fn of_project(reader: &mut Reader) -> Option<Self> {
        let auth = reader.text("upstream.auth_url");
        let (key, base) = match auth {
            Some(url) => ("upstream.auth_url", url),
            None => {
                let url = reader.text("supabase.url")?;
                (
                    "supabase.url",
                    format!("{}/auth/v1", url.trim_end_matches('/')),
                )
            }
        };
        // Another scheme is reported where the URL is read.
        is_web_address(&base).then(|| Self::Url(address(key, &key_set_below(&base), reader)))
    }

    /// Returns the address of the set or of its discovery document, unless it is in the
    /// configuration itself.
    pub fn address(&self) -> Option<&Uri> {
        match self {
            Self::Text(_) => None,
            Self::Url(url) | Self::Discovery(url) => Some(url),
        }
    }
}

pub(super) fn is_web_address(written: &str) -> bool {
    written.starts_with("http://") || written.starts_with("https://")
}

/// Returns the URL at which issuers commonly publish their key set.
pub(super) fn key_set_below(base: &str) -> String {
    format!("{}/.well-known/jwks.json", base.trim_end_matches('/'))
}

/// Parses the URL of a key set. An attacker who changes the response can sign in as every user, so
/// the connection must be protected. Exceptions are loopback addresses, and all addresses if this
/// server is the gateway of a private network.
pub(super) fn address(key: &str, written: &str, reader: &mut Reader) -> Uri {
    let url = written.parse::<Uri>().ok().filter(has_plain_host);
    let Some(url) = url else {
        reader.problem(
            key,
            "must be a URL without credentials, as in https://auth.example/jwks.json",
        );
        return Uri::default();
    };
    let is_protected = url.scheme() == Some(&Scheme::HTTPS);
    if !is_protected && !is_loopback(&url) && !is_gateway(reader) {
        reader.problem(
            key,
            "is the address of keys and must begin with https://, because an attacker who changes the \
             response can sign in as every user. http:// is allowed for loopback addresses, and if a URL \
             of `upstream` is set",
        );
    }
    url
}

fn has_plain_host(url: &Uri) -> bool {
    let is_plain =
        |authority: &Authority| !authority.host().is_empty() && !authority.as_str().contains('@');
    url.authority().is_some_and(is_plain)
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse()
            .is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
        || host.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback())
}

fn is_gateway(reader: &mut Reader) -> bool {
    SERVICE_URLS.iter().any(|key| reader.text(key).is_some())
}

/// Returns the text of a key set that is given as text or as a path.
fn text(key: &str, written: &str, reader: &mut Reader) -> String {
    let text = if is_inline_key_set(written) {
        written.to_owned()
    } else {
        std::fs::read_to_string(written).unwrap_or_else(|error| {
            reader.problem(key, &format!("names a file that cannot be read: {error}"));
            String::new()
        })
    };
    for position in short_secrets(&text) {
        reader.problem(
            key,
            &format!(
                "contains, at position {position} (from 0), a symmetric key of fewer than \
                 {MIN_SECRET_BYTES} bytes, which can be guessed from one token"
            ),
        );
    }
    text
}
