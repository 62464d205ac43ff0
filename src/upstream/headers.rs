//! Changes the headers of forwarded requests and responses. Pure: no I/O.
//!
//! `docs/upstream.md` lists all changes. Every other header passes unchanged.

use std::borrow::Cow;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, COOKIE,
    EXPECT, HOST, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, STRICT_TRANSPORT_SECURITY, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers that belong to one connection even if `Connection` does not name them (RFC 9110, section
/// 7.6.1).
const OF_ONE_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The header in which an application's server names the address of its own client. Supabase Auth
/// may be configured to limit requests by it.
pub(super) const SB_FORWARDED_FOR: HeaderName = HeaderName::from_static("sb-forwarded-for");

/// Headers that only proxies set: the address of a client, the URL that it requested, its
/// certificate, and who it is. A service that trusts them would trust anything that a client
/// writes. The addresses and the URL that a trusted proxy reports are added again in the
/// `X-Forwarded-*` headers.
const CLAIMS: [&str; 22] = [
    // Defined by RFC 7239, RFC 9440 and RFC 9110, section 7.6.3.
    "client-cert",
    "client-cert-chain",
    "forwarded",
    "via",
    // Addresses.
    "client-ip",
    "do-connecting-ip",
    "incap-client-ip",
    "sb-forwarded-for",
    "true-client-ip",
    "x-azure-clientip",
    "x-azure-socketip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-nf-client-connection-ip",
    "x-originating-ip",
    // The requested URL.
    "front-end-https",
    "x-host",
    "x-scheme",
    "x-url-scheme",
    // Users of Kong, the gateway of a self-hosted Supabase.
    "x-anonymous-consumer",
    "x-credential-identifier",
    "x-credential-username",
];

/// Further headers that only proxies set, by the beginning of their names.
const CLAIM_PREFIXES: [&str; 22] = [
    "cf-",
    "fastly-",
    "fly-",
    "proxy",
    "remote-",
    "ssl-client-",
    "wl-proxy-",
    "x-amzn-",
    "x-appengine-",
    "x-authenticated-",
    "x-client-cert",
    "x-consumer-",
    "x-envoy-",
    "x-forwarded",
    "x-kong-",
    "x-original-",
    "x-proxy",
    "x-real-",
    "x-remote-",
    "x-rewrite-",
    "x-ssl-",
    "x-vercel-forwarded-",
];

/// Headers whose names match [`CLAIM_PREFIXES`] although no proxy adds them.
const NO_CLAIMS: [&str; 1] = [
    // The secret with which Cloudflare's notifications identify themselves to a function.
    "cf-webhook-auth",
];

/// The length of a body is ambiguous: two servers could read different bodies, so the request is
/// not forwarded (RFC 9112, section 11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Checks that the length of the body is declared in only one way. The HTTP library has already
/// refused contradictory values of `Content-Length`, and removed it if the body is chunked.
///
/// # Errors
/// [`Ambiguous`] for both a length and a transfer coding, and for a coding other than `chunked`.
pub(super) fn check_framing(headers: &HeaderMap) -> Result<(), Ambiguous> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let is_chunked = coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked");
    if !is_chunked || codings.next().is_some() || headers.contains_key(CONTENT_LENGTH) {
        return Err(Ambiguous);
    }
    Ok(())
}

/// Returns whether a request or response switches to the WebSocket protocol.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let is_named = headers
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_named && tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Removes the headers that belong to one connection. The length of the body stays, even if
/// `Connection` names it.
fn remove_of_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers)
        .filter_map(|token| token.parse().ok())
        .filter(|name| *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Removes from a request what is not forwarded: the headers of the connection, what a client
/// claims about proxies and addresses, and cookies. Call it before the API key is read, because
/// `Connection` may name any header, even `apikey`. If the request switches to the WebSocket
/// protocol, `Connection: Upgrade` and `Upgrade: websocket` stay.
///
/// Returns the removed [`SB_FORWARDED_FOR`], which is forwarded if the request has a server-side
/// key.
pub(super) fn strip_request(
    headers: &mut HeaderMap,
    keeps_cookies: bool,
    switches: bool,
) -> Option<HeaderValue> {
    remove_of_connection(headers);
    if switches {
        add_websocket(headers);
    }
    let address = headers.remove(SB_FORWARDED_FOR);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name))
        .cloned()
        .collect();
    for name in &claims {
        headers.remove(name);
    }
    // The HTTP library sends `100 Continue` itself.
    headers.remove(EXPECT);
    if !keeps_cookies {
        headers.remove(COOKIE);
    }
    address
}

/// Returns whether a header claims something about proxies or addresses. Some servers read an
/// underscore in a name as a hyphen, so both are treated alike.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    let name = if name.contains('_') {
        Cow::Owned(name.replace('_', "-"))
    } else {
        Cow::Borrowed(name)
    };
    let begins = CLAIM_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    (begins && !NO_CLAIMS.contains(&&*name)) || CLAIMS.contains(&&*name)
}

fn add_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The address under which the client reached this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicAddress {
    proto: HeaderValue,
    host: HeaderValue,
    port: HeaderValue,
}

impl PublicAddress {
    /// Returns the configured address.
    pub(super) fn of_url(url: &Uri) -> Option<Self> {
        let proto = url.scheme_str()?;
        Self::new(proto, url.authority()?.as_str())
    }

    /// Determines the address from a request as received. `X-Forwarded-*` headers count only if a
    /// trusted proxy sent them.
    pub(super) fn of_request(headers: &HeaderMap, is_trusted: bool) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let claimed = |name: &HeaderName| text(name).filter(|_| is_trusted);
        let proto = match claimed(&FORWARDED_PROTO) {
            Some("https") => "https",
            _ => "http",
        };
        let host = claimed(&FORWARDED_HOST).or_else(|| text(&HOST))?;
        let mut address = Self::new(proto, host)?;
        let port = claimed(&FORWARDED_PORT).filter(|port| port.parse::<u16>().is_ok());
        if let Some(port) = port {
            address.port = HeaderValue::from_str(port).ok()?;
        }
        Some(address)
    }

    fn new(proto: &str, authority: &str) -> Option<Self> {
        let written = authority.parse::<axum::http::uri::Authority>().ok()?;
        let default = if proto == "https" { 443 } else { 80 };
        Some(Self {
            proto: HeaderValue::from_str(proto).ok()?,
            host: HeaderValue::from_str(authority).ok()?,
            port: written.port_u16().unwrap_or(default).into(),
        })
    }
}

/// Adds to a stripped request the headers that every server receives: `Host`, the addresses of the
/// client and its proxies, and the request id.
pub(super) fn complete_request(
    headers: &mut HeaderMap,
    host: &HeaderValue,
    forwarded_for: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
) {
    headers.insert(HOST, host.clone());
    if let Some(value) = forwarded_for {
        headers.insert(FORWARDED_FOR, value);
    }
    if let Some(value) = request_id {
        headers.insert(REQUEST_ID, value);
    }
}

/// Adds the address and the path prefix under which clients reach a service. Only services that
/// Rapport reaches directly receive them: the gateway of a project adds such headers itself, and
/// could derive the name of a hosted project from those of Rapport.
pub(super) fn add_public_address(
    headers: &mut HeaderMap,
    address: Option<PublicAddress>,
    prefix: &'static str,
) {
    if let Some(address) = address {
        headers.insert(FORWARDED_HOST, address.host);
        headers.insert(FORWARDED_PROTO, address.proto);
        headers.insert(FORWARDED_PORT, address.port);
    }
    if !prefix.is_empty() {
        headers.insert(FORWARDED_PREFIX, HeaderValue::from_static(prefix));
    }
}

/// Changes the headers of a response. `origin` is the scheme and authority of the server that
/// responded. `prefix` is the path prefix that clients add to that server's paths, or empty.
pub(super) fn convert_response(
    headers: &mut HeaderMap,
    origin: &str,
    prefix: &str,
    switches: bool,
) {
    remove_of_connection(headers);
    if switches {
        add_websocket(headers);
    }
    // These headers describe the host of the service, to which the client does not connect.
    headers.remove(ALT_SVC);
    headers.remove(STRICT_TRANSPORT_SECURITY);
    for name in [LOCATION, CONTENT_LOCATION] {
        let value = headers.get(&name).and_then(|value| value.to_str().ok());
        let moved = value.and_then(|value| relative(value, origin, prefix));
        if let Some(value) = moved.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    // Browsers refuse a response with two values.
    let allowed = headers.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
    let allowed = allowed.unwrap_or_else(|| HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
}

/// Converts a URL on `origin` to a reference relative to this server's root, which is valid under
/// every address of this server (RFC 9110, section 10.2.2). Returns `None` for other URLs, and for
/// URLs whose reference would name another host.
fn relative(url: &str, origin: &str, prefix: &str) -> Option<String> {
    let head = url.get(..origin.len())?;
    let path = &url[origin.len()..];
    let is_own =
        head.eq_ignore_ascii_case(origin) && (path.is_empty() || path.starts_with(['/', '?', '#']));
    if !is_own || (prefix.is_empty() && names_host(path)) {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let has_prefix = path
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with(['/', '?', '#']));
    let missing = if has_prefix { "" } else { prefix };
    Some(format!("{missing}{slash}{path}"))
}

/// Returns whether browsers would find a host in a reference that consists of this path. They
/// remove tabs and line ends, and read a backslash as a slash (URL standard, basic URL parser).
fn names_host(path: &str) -> bool {
    let mut characters = path.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r'));
    let mut is_slash = || matches!(characters.next(), Some('/' | '\\'));
    is_slash() && is_slash()
}

#[cfg(test)]
mod tests;
