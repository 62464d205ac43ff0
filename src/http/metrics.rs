//! Serves `GET /metrics`, the metrics of the process. The route requires a token, or a separate
//! listener that only the scraper can reach.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::openapi::document::OPERATIONS;
use super::openapi::schema::text;
use super::openapi::{ApiRouter, Described, Operation};
use crate::config::Secret;
use crate::error_code::ErrorCode;
use crate::observability::metrics::Metrics;
use crate::observability::readiness::Readiness;
use crate::shutdown::Tasks;

/// The format that `prometheus-client` writes (`OpenMetrics` 1.0.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Scrape {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: Tasks,
    /// The hash of the token. Hashes are compared so that the time of the comparison does not
    /// reveal the token.
    token_hash: Option<[u8; 32]>,
}

/// Returns the route for the public listener. The route exists only if a token is set, because
/// metrics reveal how busy the service is.
pub fn routes(
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: Tasks,
    token: Option<Secret>,
) -> ApiRouter {
    match token {
        Some(token) => separate_routes(metrics, readiness, tasks, Some(token)),
        None => ApiRouter::new(),
    }
}

/// Returns the documentation of the route.
pub fn described() -> Described {
    api().into_parts().1
}

fn api() -> ApiRouter<Scrape> {
    let operation = Operation::bare("show_metrics", OPERATIONS, "Metrics for a scraper")
        .details("Available if `server.metrics_token` is set, or on a separate listener.")
        .secured_by(&["metrics"])
        .answers_as(200, "Metrics in OpenMetrics format.", OPEN_METRICS, text())
        .refuses(&[
            ErrorCode::Unauthorized,
            ErrorCode::NotFound,
            ErrorCode::Internal,
        ]);
    ApiRouter::new().get("/metrics", show_metrics, operation)
}

/// Returns the route for a separate listener, where the token is optional.
pub fn separate_routes(
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: Tasks,
    token: Option<Secret>,
) -> ApiRouter {
    let scrape = Scrape {
        metrics,
        readiness,
        tasks,
        token_hash: token.map(|token| Sha256::digest(token.expose()).into()),
    };
    api().map(|routes| routes.with_state(scrape))
}

async fn show_metrics(State(scrape): State<Scrape>, headers: HeaderMap) -> Response {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let hash: [u8; 32] = Sha256::digest(token).into();
    if scrape.token_hash.is_some_and(|expected| expected != hash) {
        return ApiError::new(ErrorCode::Unauthorized).into_response();
    }
    let process = &scrape.metrics.process;
    process.set(scrape.readiness.report(), scrape.tasks.running());
    match scrape.metrics.encode() {
        Ok(text) => {
            let mut response = text.into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => ApiError::internal(error.to_string()).into_response(),
    }
}
