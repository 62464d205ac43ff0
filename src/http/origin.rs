//! Decides which web pages may use the routes, for CORS and against cross-site request forgery.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Seconds for which a browser may cache a preflight response. Chromium limits this to two hours.
/// With one hour, a change of the configured origins takes effect sooner.
const PREFLIGHT_MAX_AGE: &str = "3600";

/// Methods that a page may use.
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// Request headers that a page may send.
const ALLOWED_HEADERS: &str = "authorization, apikey, x-client-info, x-supabase-api-version, content-type, \
    idempotency-key, if-match, if-none-match, prefer";

/// Response headers that a page may read. They are listed individually, because in responses with
/// credentials, browsers treat a wildcard as a header named `*`.
const EXPOSED_HEADERS: &str = "x-next-cursor, link, etag, retry-after, x-request-id, idempotency-replayed, \
    x-total-unread, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origins of web pages that may use the routes with a user's session. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    exact: Arc<[String]>,
    any_localhost: bool,
}

impl Origins {
    /// Allows these origins, such as `https://app.example`, without a path. With `any_localhost`,
    /// which is for development, every `localhost` origin is allowed, too.
    pub fn new(exact: &[String], any_localhost: bool) -> Self {
        let exact = exact
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        Self {
            exact,
            any_localhost,
        }
    }

    /// Returns whether pages of this origin may use the routes.
    pub fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.exact.contains(&origin) || (self.any_localhost && is_localhost(&origin))
    }

    /// Returns whether a write that is authenticated by cookie comes from a page that may send it.
    /// A browser adds the cookie to requests from any page, so the origin of a write must be
    /// checked. A request without any information about its origin is refused.
    pub fn permits_cookie_write(&self, headers: &HeaderMap) -> bool {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let origin = text(&ORIGIN);
        if origin.is_some_and(|origin| self.allows(origin)) {
            return true;
        }
        // The page has an origin of its own, for example because it is in a sandbox (see
        // `upstream/sandbox.rs`). Such a page is not trusted, whatever the browser reports about
        // its site.
        if origin == Some("null") {
            return false;
        }
        if let Some(site) = text(&SEC_FETCH_SITE) {
            return site == "same-origin";
        }
        // Some browsers send no fetch metadata. In that case, the page must be on the host that
        // received the request.
        let page = origin
            .and_then(|origin| origin.split_once("://"))
            .map(|(_, host)| host);
        page.is_some_and(|page| text(&HOST).is_some_and(|host| host.eq_ignore_ascii_case(page)))
    }
}

/// Middleware that responds to preflight requests, and adds CORS headers to responses for allowed
/// origins (Fetch standard, CORS protocol). Responses for other origins have none of these headers,
/// not even the one about credentials.
pub async fn cors(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed =
        origin.filter(|origin| origin.to_str().is_ok_and(|origin| origins.allows(origin)));
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        (
            StatusCode::NO_CONTENT,
            [(VARY, HeaderValue::from_static("Origin"))],
        )
            .into_response()
    } else {
        next.run(request).await
    };
    let Some(origin) = allowed else {
        return response;
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    if is_preflight {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(ALLOWED_METHODS),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(ALLOWED_HEADERS),
        );
        headers.insert(
            ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static(PREFLIGHT_MAX_AGE),
        );
    } else {
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED_HEADERS),
        );
    }
    response
}

fn is_localhost(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let (host, port) = match authority.strip_prefix("[::1]") {
        Some(rest) => ("[::1]", rest.strip_prefix(':').unwrap_or(rest)),
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    matches!(scheme, "http" | "https")
        && (matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost"))
        && port.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        let exact = Origins::new(&["https://App.example/".to_owned()], false);
        let local = Origins::new(&[], true);
        let cases = [
            (&exact, "https://app.example", true),
            (&exact, "HTTPS://APP.EXAMPLE", true),
            (&exact, "http://app.example", false),
            (&exact, "https://app.example.evil.test", false),
            (&exact, "https://app.example:8443", false),
            (&exact, "http://localhost:3000", false),
            (&exact, "null", false),
            (&local, "http://localhost:3000", true),
            (&local, "http://127.0.0.1:5173", true),
            (&local, "http://[::1]:5173", true),
            (&local, "http://app.localhost", true),
            (&local, "http://localhost.evil.test", false),
            (&local, "http://localhost:3000@evil.test", false),
            (&local, "http://evil.test", false),
            (&local, "null", false),
        ];
        for (origins, origin, expected) in cases {
            assert_eq!(origins.allows(origin), expected, "{origin}");
        }
    }

    #[test]
    fn a_write_by_cookie_must_come_from_an_allowed_page() {
        let origins = Origins::new(&["https://app.example".to_owned()], false);
        let cases: [(&[(&str, &str)], bool); 11] = [
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://evil.test"),
                ],
                false,
            ),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://app.example"),
                ],
                true,
            ),
            (&[("sec-fetch-site", "none")], false),
            (
                &[
                    ("origin", "https://chat.example:8443"),
                    ("host", "chat.example:8443"),
                ],
                true,
            ),
            (
                &[
                    ("origin", "https://evil.test"),
                    ("host", "chat.example:8443"),
                ],
                false,
            ),
            // A page cannot set `Host`, but it may be on another port of the same host.
            (
                &[
                    ("origin", "https://chat.example"),
                    ("host", "chat.example:8443"),
                ],
                false,
            ),
            (&[("origin", "null"), ("host", "chat.example")], false),
            (
                &[("origin", "null"), ("sec-fetch-site", "same-origin")],
                false,
            ),
            (&[("host", "chat.example")], false),
        ];
        for (pairs, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                );
            }
            assert_eq!(
                origins.permits_cookie_write(&headers),
                expected,
                "{pairs:?}"
            );
        }
    }
}
