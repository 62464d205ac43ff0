//! Whether the process lives, and whether it can do its work.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::observability::readiness::Readiness;

/// Seconds until a balancer should look again: reconnecting takes about that.
const RETRY_AFTER_SECONDS: u64 = 5;

/// `GET /health` and `GET /ready`, without a token.
pub fn routes(readiness: Readiness) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(readiness)
}

/// The process answers. It says nothing of the database: restarting us would not bring it back.
async fn health() -> Response {
    uncached(Json(json!({ "status": "ok" })).into_response())
}

/// Whether new work is welcome, with the parts that decide it.
async fn ready(State(readiness): State<Readiness>) -> Response {
    let report = readiness.report();
    let status = if report.is_ready() {
        "ready"
    } else {
        "not_ready"
    };
    let mut response = Json(json!({
        "status": status,
        "database_reachable": report.database_reachable,
        "replication": report.replication,
        "replication_slot": report.slot,
        "draining": report.draining,
    }))
    .into_response();
    if !report.is_ready() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    uncached(response)
}

fn uncached(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
