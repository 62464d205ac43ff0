//! `GET /metrics`: the process's counters, for a scraper that knows the token or reaches a listener of
//! its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::error::ApiError;
use crate::config::Secret;
use crate::error_code::ErrorCode;
use crate::observability::metrics::Metrics;
use crate::observability::readiness::Readiness;
use crate::shutdown::Tasks;

/// What `prometheus-client` writes (`OpenMetrics` 1.0.0).
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Clone)]
struct Scrape {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: Tasks,
    /// Hashes are compared, so that the time of a comparison says nothing about the token.
    token_hash: Option<[u8; 32]>,
}

/// The route beside others, or none at all without a token: counters tell how busy people are.
pub fn routes(
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: Tasks,
    token: Option<Secret>,
) -> Router {
    match token {
        Some(token) => alone(metrics, readiness, tasks, Some(token)),
        None => Router::new(),
    }
}

/// The route on a listener of its own, where a token may be asked for as well.
pub fn alone(
    metrics: Arc<Metrics>,
    readiness: Readiness,
    tasks: Tasks,
    token: Option<Secret>,
) -> Router {
    let scrape = Scrape {
        metrics,
        readiness,
        tasks,
        token_hash: token.map(|token| Sha256::digest(token.expose()).into()),
    };
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(scrape)
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
            headers.insert(CONTENT_TYPE, OPEN_METRICS);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => ApiError::internal(error.to_string()).into_response(),
    }
}
