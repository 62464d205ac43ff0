//! Which web pages may use the routes: for CORS, and against forged requests.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember a preflight's answer. Firefox's limit is a day; an hour
/// keeps a change of the configured origins from being felt for long.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(3600);

/// Headers a page may send (chat API 2.2).
const ALLOWED_HEADERS: [HeaderName; 8] = [
    HeaderName::from_static("authorization"),
    HeaderName::from_static("apikey"),
    HeaderName::from_static("x-client-info"),
    HeaderName::from_static("content-type"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("if-match"),
    HeaderName::from_static("if-none-match"),
    HeaderName::from_static("prefer"),
];

/// Headers a page may read (chat API 2.2). Named one by one: with credentials a browser takes
/// a wildcard for a header of that name.
const EXPOSED_HEADERS: [HeaderName; 10] = [
    HeaderName::from_static("x-next-cursor"),
    HeaderName::from_static("link"),
    HeaderName::from_static("etag"),
    HeaderName::from_static("retry-after"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("x-total-unread"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The web pages that may use the routes with a person's session. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    exact: Arc<[String]>,
    any_localhost: bool,
}

impl Origins {
    /// These origins (`https://app.example`, no path), and every `localhost` one if
    /// `any_localhost`, which is for development.
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

    /// Whether pages of this origin may use the routes.
    pub fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.exact.contains(&origin) || (self.any_localhost && is_localhost(&origin))
    }

    /// The CORS answers of the chat routes: credentials, for the listed origins alone.
    pub fn cors(&self) -> CorsLayer {
        let origins = self.clone();
        let allowed = AllowOrigin::predicate(move |origin: &HeaderValue, _: &Parts| {
            origin.to_str().is_ok_and(|origin| origins.allows(origin))
        });
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_credentials(true)
            .allow_methods([
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ])
            .allow_headers(ALLOWED_HEADERS)
            .expose_headers(EXPOSED_HEADERS)
            .max_age(PREFLIGHT_MAX_AGE)
            // The routes name what their answers vary by themselves.
            .vary([])
    }

    /// Whether a request that a browser signed with a cookie comes from a page that may send
    /// it. A browser adds the cookie to anybody's request, so a write needs this proof; what
    /// says nothing about where it comes from has none.
    pub fn vouches_for(&self, headers: &HeaderMap) -> bool {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let origin = text(&ORIGIN);
        if origin.is_some_and(|origin| self.allows(origin)) {
            return true;
        }
        if let Some(site) = text(&SEC_FETCH_SITE) {
            return site == "same-origin";
        }
        // Browsers without fetch metadata: the page's host is the one the request went to.
        let page = origin
            .and_then(|origin| origin.split_once("://"))
            .map(|(_, host)| host);
        page.is_some_and(|page| text(&HOST).is_some_and(|host| host.eq_ignore_ascii_case(page)))
    }
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
    fn a_write_by_cookie_needs_to_come_from_a_known_page() {
        let origins = Origins::new(&["https://app.example".to_owned()], false);
        let cases: [(&[(&str, &str)], bool); 10] = [
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
            // A page cannot set the host, but it can be the same host on another port.
            (
                &[
                    ("origin", "https://chat.example"),
                    ("host", "chat.example:8443"),
                ],
                false,
            ),
            (&[("origin", "null"), ("host", "chat.example")], false),
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
            assert_eq!(origins.vouches_for(&headers), expected, "{pairs:?}");
        }
    }
}
