//! The changes that the headers of a request and a response undergo. Pure: no I/O.
//!
//! `docs/upstream.md` lists all of them. Every other header passes unchanged.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALT_SVC, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, COOKIE,
    EXPECT, FORWARDED, HOST, LOCATION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
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

/// Headers with which a client could claim to be a proxy.
const CLAIMS_OF_PROXIES: [HeaderName; 7] = [
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PORT,
    FORWARDED_PREFIX,
    FORWARDED_PROTO,
    REAL_IP,
];

/// Two servers may read different bodies from this request, so it is not forwarded (RFC 9112,
/// section 11.2).
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
/// claims about proxies, and cookies. Call it before the API key is read, because `Connection` may
/// name any header, also that of the key. If the request switches to the WebSocket protocol, the
/// two headers for that stay.
pub(super) fn strip_request(headers: &mut HeaderMap, keeps_cookies: bool, switches: bool) {
    remove_of_connection(headers);
    if switches {
        add_websocket(headers);
    }
    for name in &CLAIMS_OF_PROXIES {
        headers.remove(name);
    }
    // The HTTP library has answered it.
    headers.remove(EXPECT);
    if !keeps_cookies {
        headers.remove(COOKIE);
    }
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

    /// Determines the address from a request as received. `X-Forwarded-*` count only from a trusted
    /// proxy.
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

/// Adds the address under which clients reach a service. Only services that Rapport reaches
/// directly receive it. The gateway of a project adds its own headers, and could derive the name of
/// a hosted project from these.
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
/// responded, and `prefix` is the path prefix that its own paths lack.
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
    // They describe the host of the service, which the client does not know.
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

/// Returns a URL on `origin` as a reference relative to this server's root, which is valid under
/// every address of this server (RFC 9110, section 10.2.2). Returns `None` for other URLs.
fn relative(url: &str, origin: &str, prefix: &str) -> Option<String> {
    let head = url.get(..origin.len())?;
    let path = &url[origin.len()..];
    let is_own =
        head.eq_ignore_ascii_case(origin) && (path.is_empty() || path.starts_with(['/', '?', '#']));
    // A path that starts with two slashes would name a host.
    if !is_own || (prefix.is_empty() && path.starts_with("//")) {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let has_prefix = path
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with(['/', '?', '#']));
    let missing = if has_prefix { "" } else { prefix };
    Some(format!("{missing}{slash}{path}"))
}

#[cfg(test)]
mod tests;
