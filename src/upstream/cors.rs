//! Answers preflight requests of web pages. Every origin is allowed, as in the gateways of
//! Supabase.
//!
//! The services authenticate by token and ignore cookies, so every page may call them (Fetch
//! standard, CORS protocol). Answering here saves a round trip.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

/// The methods that the services support.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Seconds for which a browser may cache the answer, the same as for the chat routes.
const MAX_AGE: &str = "3600";

/// Returns whether a request is a preflight. Other `OPTIONS` requests are for the service.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Allows what the page asks for.
pub(super) fn allow(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let allowed = response.headers_mut();
    let fixed = HeaderValue::from_static;
    allowed.insert(ACCESS_CONTROL_ALLOW_ORIGIN, fixed("*"));
    allowed.insert(ACCESS_CONTROL_ALLOW_METHODS, fixed(METHODS));
    allowed.insert(ACCESS_CONTROL_MAX_AGE, fixed(MAX_AGE));
    allowed.insert(VARY, fixed("Access-Control-Request-Headers"));
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        allowed.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}
