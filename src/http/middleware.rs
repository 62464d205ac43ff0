//! Wraps every request: adds a request id and a log line, and writes the body of a refusal.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::handler::Handler;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tracing::Instrument as _;
use uuid::Uuid;

use super::anonymous_limiter::AnonymousLimiter;
use super::error::ApiError;
use crate::error_code::ErrorCode;
use crate::observability::excerpt::Excerpt;
use crate::observability::metrics::{HttpMetrics, RequestLabels};

/// The header that carries the request id in requests and responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length in characters of a client's request id, because the id is written to the log.
const MAX_REQUEST_ID: usize = 128;

/// The request id, stored as a request extension.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// The pattern of a path that no route matches, stored as a response extension by the fallback that
/// responds to it.
#[derive(Clone, Copy, Debug)]
pub struct RoutePattern(pub &'static str);

/// Wraps the complete router. Unknown paths and methods result in the usual error body, and every
/// request has an id and a log line. Call this once.
pub fn finish(router: Router, metrics: HttpMetrics, anonymous_limiter: AnonymousLimiter) -> Router {
    let lost = async move |request: Request| {
        let limited = anonymous_limiter.admit(&request).err();
        limited.unwrap_or_else(|| ApiError::new(ErrorCode::NotFound))
    };
    finish_with(router, lost, metrics)
}

/// Like [`finish`], but `fallback` responds to unknown paths.
pub fn finish_with<H, T>(router: Router, fallback: H, metrics: HttpMetrics) -> Router
where
    H: Handler<T, ()>,
    T: 'static,
{
    router
        .fallback(fallback)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(metrics, around))
}

/// Responds to a method that the path does not support. For OPTIONS, the response needs no more
/// than `Allow`, which the router adds. A router with its own layers must set this fallback before
/// it adds them, because preflight requests reach this fallback and must pass through the CORS
/// layer first.
pub async fn method_not_allowed(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    ApiError::new(ErrorCode::MethodNotAllowed).into_response()
}

async fn around(State(metrics): State<HttpMetrics>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));

    // Log lines of handlers contain the request id because of this span.
    let span = tracing::info_span!("request", %id);
    let mut response = next.run(request).instrument(span).await;
    let error = response.extensions_mut().remove::<ApiError>();
    if let Some(error) = &error {
        let body = error.body(&id).to_string();
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    let seconds = started.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    let pattern = response.extensions_mut().remove::<RoutePattern>();
    let route = match (&route, pattern) {
        (Some(route), _) => route.as_str(),
        (None, Some(RoutePattern(pattern))) => pattern,
        (None, None) => "unmatched",
    };
    let labels = RequestLabels {
        method: known_method(&method),
        route: route.to_owned(),
        status,
    };
    metrics.requests.get_or_create(&labels).inc();
    metrics.request_seconds.observe(seconds);
    if error
        .as_ref()
        .is_some_and(|error| error.code() == ErrorCode::PoolExhausted)
    {
        metrics.pool_exhausted.inc();
    }
    let code = error.as_ref().map(|error| error.code().as_str());
    if let Some(cause) = error.as_ref().and_then(ApiError::cause) {
        let cause = tracing::field::display(Excerpt(cause));
        if status >= 500 && status != StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            tracing::error!(request_id = id, code, cause, "request failed");
        } else {
            // An outage is logged once as an error where it is detected. The failed requests are
            // only its consequences.
            tracing::warn!(request_id = id, code, cause, "request failed");
        }
    }
    let method = labels.method;
    tracing::info!(
        method = %method,
        route,
        status,
        code,
        ms = seconds * 1000.0,
        request_id = id,
        "request"
    );
    response
}

/// Returns the method's name if it is a standard one, or `OTHER`. Otherwise clients could create
/// any number of label values and long log lines.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Returns the client's request id if it is safe to log, otherwise a new id.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if (1..=MAX_REQUEST_ID).contains(&given.len()) && given.chars().all(is_plain) {
        return given.to_owned();
    }
    Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_accepted() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_static(value));
            request_id(&headers)
        };
        assert_eq!(of("abc-1_2.3:4"), "abc-1_2.3:4");
        for value in ["", "a b", "{\"level\":\"error\"}"] {
            assert!(Uuid::try_parse(&of(value)).is_ok(), "{value}");
        }
    }
}
