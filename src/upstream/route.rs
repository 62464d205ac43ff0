//! Decides which service of Supabase a path belongs to. Pure: no I/O and no settings.
//!
//! A prefix is compared with the bytes as received, so a path that contains escapes in its prefix
//! belongs to no service. A path that belongs to no service is never forwarded. In particular,
//! `/pg`, `/mcp` and the paths of Studio are for operators and have no entry here.

use std::borrow::Cow;

use axum::http::Method;

/// A service of Supabase, as clients address it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Service {
    /// Supabase Auth.
    Auth,
    /// PostgREST.
    Rest,
    /// GraphQL, which PostgREST serves through a function of the database.
    Graphql,
    /// Supabase Storage.
    Storage,
    /// Edge Functions.
    Functions,
}

impl Service {
    /// Every service.
    pub(super) const ALL: [Self; 5] = [
        Self::Auth,
        Self::Rest,
        Self::Graphql,
        Self::Storage,
        Self::Functions,
    ];

    /// Returns the name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Rest => "rest",
            Self::Graphql => "graphql",
            Self::Storage => "storage",
            Self::Functions => "functions",
        }
    }

    /// Returns the prefix under which clients address the service.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Auth => "/auth/v1",
            Self::Rest => "/rest/v1",
            Self::Graphql => "/graphql/v1",
            Self::Storage => "/storage/v1",
            Self::Functions => "/functions/v1",
        }
    }

    /// Returns the pattern of the service's paths, for logs and metrics.
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Self::Auth => "/auth/v1/*",
            Self::Rest => "/rest/v1/*",
            Self::Graphql => "/graphql/v1/*",
            Self::Storage => "/storage/v1/*",
            Self::Functions => "/functions/v1/*",
        }
    }

    /// Returns whether this service receives requests with this method. Functions may define their
    /// own methods. `TRACE` would return the request's credentials in a body (RFC 9110, section
    /// 9.3.8), and `CONNECT` asks for a tunnel.
    pub(super) fn allows(self, method: &Method) -> bool {
        match *method {
            Method::CONNECT | Method::TRACE => false,
            Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS => true,
            _ => self == Self::Functions,
        }
    }

    /// Returns whether an escaped slash may occur in a path. In paths of Storage, the keys of
    /// objects may contain one, and in paths of PostgREST, values may. For other services, servers
    /// disagree about whether `%2F` separates segments.
    fn allows_escaped_slash(self) -> bool {
        matches!(self, Self::Storage | Self::Rest)
    }
}

/// Which key a request must contain. Only services that Rapport reaches directly need this: the
/// gateway of a project checks keys itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyRule {
    /// No key: the service checks the request itself, or clients open the path without one.
    NotRequired,
    /// Any key of the project.
    Any,
    /// A server-side key.
    ServerSide,
}

/// The destination of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    /// The service.
    pub(super) service: Service,
    /// The key that the request needs.
    pub(super) key: KeyRule,
    /// The prefix of the path under which clients address the service. Empty if the path has none.
    pub(super) prefix: &'static str,
    /// The path as the service itself expects it.
    pub(super) own_path: Cow<'a, str>,
}

/// The path is at or below the prefix of this service, but servers could disagree about what it
/// names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous(pub(super) Service);

/// Returns the route of a path as received, or `None` if it belongs to no service.
///
/// # Errors
/// [`Ambiguous`] if the path contains a dot segment, a backslash, NUL, an invalid escape, invalid
/// UTF-8, or an escaped slash where none may occur.
pub(super) fn find(path: &str) -> Result<Option<Route<'_>>, Ambiguous> {
    if let Some(own_path) = outside_prefix(path) {
        return Ok(Some(Route {
            service: Service::Auth,
            key: KeyRule::NotRequired,
            prefix: "",
            own_path: own_path.into(),
        }));
    }
    for service in Service::ALL {
        if let Some(rest) = below(path, service.prefix()) {
            let plain = check(path, service)?;
            // The prefix of the path contains no escapes, so it has the same length in the decoded
            // path.
            let plain_rest = &plain[service.prefix().len()..];
            return Ok(Some(Route {
                service,
                key: key_rule(service, plain_rest),
                prefix: service.prefix(),
                own_path: own_path(service, rest),
            }));
        }
    }
    Ok(None)
}

/// If this is one of Supabase Auth's paths outside `/auth/v1`, returns the path at the service.
/// Identity providers and clients of the authorization server open these paths.
fn outside_prefix(path: &str) -> Option<&str> {
    match path {
        "/sso/saml/acs" | "/sso/saml/metadata" | "/.well-known/oauth-authorization-server" => {
            Some(path)
        }
        // RFC 8414, section 3.1: the path of the issuer follows the well-known name.
        "/.well-known/oauth-authorization-server/auth/v1" => {
            Some("/.well-known/oauth-authorization-server")
        }
        _ => None,
    }
}

/// Returns what follows the prefix, if the path is the prefix or below it.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn own_path(service: Service, rest: &str) -> Cow<'_, str> {
    match service {
        Service::Graphql => format!("/rpc/graphql{rest}").into(),
        _ if rest.is_empty() => "/".into(),
        _ => rest.into(),
    }
}

/// Returns which key a request needs. `rest` is the decoded path after the prefix.
fn key_rule(service: Service, rest: &str) -> KeyRule {
    match service {
        Service::Storage | Service::Functions => KeyRule::NotRequired,
        Service::Auth if is_open(rest) => KeyRule::NotRequired,
        // The root of PostgREST describes all tables. PostgREST ignores empty segments there.
        Service::Rest if rest.bytes().all(|byte| byte == b'/') => KeyRule::ServerSide,
        Service::Auth | Service::Rest | Service::Graphql => KeyRule::Any,
    }
}

/// Returns whether a path of Supabase Auth is open without a key: browsers arrive there by
/// redirect, or the path only serves public information, such as the key set.
fn is_open(rest: &str) -> bool {
    matches!(
        rest,
        "/verify"
            | "/callback"
            | "/authorize"
            | "/health"
            | "/.well-known/jwks.json"
            | "/.well-known/openid-configuration"
            | "/sso/saml/acs"
            | "/sso/saml/metadata"
    ) || rest.starts_with("/oauth/")
}

/// Decodes a path once and checks that all servers read it in the same way.
fn check(path: &str, service: Service) -> Result<String, Ambiguous> {
    let plain = decode(path).ok_or(Ambiguous(service))?;
    let has_dots = plain
        .split('/')
        .any(|segment| matches!(segment, "." | ".."));
    if has_dots || plain.contains(['\\', '\0']) {
        return Err(Ambiguous(service));
    }
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    if !service.allows_escaped_slash() && slashes(&plain) != slashes(path) {
        return Err(Ambiguous(service));
    }
    Ok(plain)
}

/// Decodes percent-encoding. Returns `None` if an escape or the resulting UTF-8 is invalid.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_service_or_none() {
        use KeyRule::{Any, NotRequired, ServerSide};
        use Service::{Auth, Functions, Graphql, Rest, Storage};
        // (path, service, key, path at the service)
        let cases = [
            ("/auth/v1/token", Auth, Any, "/token"),
            ("/auth/v1/verify", Auth, NotRequired, "/verify"),
            ("/auth/v1/verify/", Auth, Any, "/verify/"),
            ("/auth/v1/verifying", Auth, Any, "/verifying"),
            ("/auth/v1/callback", Auth, NotRequired, "/callback"),
            ("/auth/v1/authorize", Auth, NotRequired, "/authorize"),
            ("/auth/v1/oauth/token", Auth, NotRequired, "/oauth/token"),
            ("/auth/v1/oauthx", Auth, Any, "/oauthx"),
            ("/auth/v1/health", Auth, NotRequired, "/health"),
            (
                "/auth/v1/.well-known/jwks.json",
                Auth,
                NotRequired,
                "/.well-known/jwks.json",
            ),
            ("/sso/saml/acs", Auth, NotRequired, "/sso/saml/acs"),
            (
                "/.well-known/oauth-authorization-server/auth/v1",
                Auth,
                NotRequired,
                "/.well-known/oauth-authorization-server",
            ),
            ("/rest/v1/todos", Rest, Any, "/todos"),
            ("/rest/v1//todos/", Rest, Any, "//todos/"),
            ("/rest/v1/a%2Fb", Rest, Any, "/a%2Fb"),
            ("/rest/v1", Rest, ServerSide, "/"),
            ("/rest/v1/", Rest, ServerSide, "/"),
            ("/rest/v1///", Rest, ServerSide, "///"),
            ("/rest/v1/%2f", Rest, ServerSide, "/%2f"),
            ("/graphql/v1", Graphql, Any, "/rpc/graphql"),
            ("/graphql/v1/", Graphql, Any, "/rpc/graphql/"),
            (
                "/storage/v1/object/b/a//%2F%252e",
                Storage,
                NotRequired,
                "/object/b/a//%2F%252e",
            ),
            ("/functions/v1/mcp", Functions, NotRequired, "/mcp"),
        ];
        for (path, service, key, own_path) in cases {
            let route = find(path).unwrap().expect(path);
            let found = (route.service, route.key, &*route.own_path);
            assert_eq!(found, (service, key, own_path), "{path}");
        }
    }

    #[test]
    fn everything_else_is_never_forwarded() {
        for path in [
            "",
            "*",
            "/",
            "/rest",
            "/rest/",
            "/rest/v1x",
            "/rest/v12/",
            "/rest/v2/x",
            "//rest/v1/x",
            "/REST/v1/x",
            "/%72est/v1/x",
            "/rest%2Fv1/x",
            "/rest/../pg/",
            "/pg",
            "/pg/",
            "/pg/tables",
            "/mcp",
            "/api/mcp",
            "/analytics/v1",
            "/project/default",
            "/sso/saml",
            "/sso/saml/acs/",
            "/sso/saml/other",
            "/.well-known/other",
            "/.well-known/oauth-authorization-server/x",
            "/realtime/v1/api/tenants",
            "/api/tenants",
            "/dashboard",
        ] {
            assert_eq!(find(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "/rest/v1/../../pg/tables",
            "/rest/v1/..",
            "/rest/v1/.",
            "/rest/v1/./x",
            "/rest/v1/%2e%2e/pg",
            "/rest/v1/%2E%2e%2Fpg",
            "/rest/v1/.%2e/x",
            "/storage/v1/a%2F..%2Fb",
            "/rest/v1/a\\b",
            "/rest/v1/a%5cb",
            "/storage/v1/a%00",
            "/rest/v1/%ff",
            "/rest/v1/%",
            "/rest/v1/%2",
            "/rest/v1/%zz",
            "/auth/v1/a%2Fb",
            "/functions/v1/a%2fb",
            "/graphql/v1/%2F",
        ] {
            assert!(find(path).is_err(), "{path}");
        }
    }

    #[test]
    fn only_functions_define_methods_of_their_own() {
        let own = Method::from_bytes(b"PURGE").unwrap();
        for service in Service::ALL {
            for method in [Method::GET, Method::HEAD, Method::PATCH, Method::OPTIONS] {
                assert!(service.allows(&method), "{service:?} {method}");
            }
            assert!(!service.allows(&Method::TRACE), "{service:?}");
            assert!(!service.allows(&Method::CONNECT), "{service:?}");
            assert_eq!(service.allows(&own), service == Service::Functions);
        }
    }
}
