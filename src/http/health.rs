//! Liveness (`/health`) and readiness (`/ready`).

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::openapi::document::OPERATIONS;
use super::openapi::schema::{Schema, constant, count, flag, nullable, number, object, one_of};
use super::openapi::{ApiRouter, Described, Operation};
use crate::observability::readiness::Readiness;

/// Seconds after which a load balancer should check again. A reconnect takes about this long.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Returns the routes `GET /health` and `GET /ready`, which require no token.
pub fn routes(readiness: Readiness) -> ApiRouter {
    api().map(|routes| routes.with_state(readiness))
}

/// Returns the documentation of these routes.
pub fn described() -> Described {
    api().into_parts().1
}

fn api() -> ApiRouter<Readiness> {
    let alive = object([("status", constant("ok"), "")]);
    let health_operation = Operation::bare("health", OPERATIONS, "Whether the process is alive")
        .details("Does not check the database.")
        .answers(200, "The process is alive.", alive);
    let ready_operation = Operation::bare("ready", OPERATIONS, "Whether the server accepts work")
        .answers(200, "The server is ready.", report("ready"))
        .answers(
            503,
            "The server is not ready; the body shows why.",
            report("not_ready"),
        )
        .with_header(503, "Retry-After", true);
    ApiRouter::new()
        .get("/health", health, health_operation)
        .get("/ready", ready, ready_operation)
}

/// Returns the schema of the body of `/ready`: [`Report`](crate::observability::readiness::Report).
fn report(status: &str) -> Schema {
    let slot = object([
        (
            "state",
            one_of(&["active", "taken", "inactive", "lost"]),
            "`active`: this process reads the slot; `taken`: another process reads it; `inactive`: no process reads it; `lost`: it is no longer usable.",
        ),
        (
            "lag_bytes",
            count(),
            "WAL written but not yet acknowledged, in bytes.",
        ),
        (
            "lag_seconds",
            nullable(number()),
            "Recent delay from write to acknowledgement, in seconds.",
        ),
        (
            "wal_held_bytes",
            count(),
            "WAL that the database retains for the slot, in bytes.",
        ),
    ]);
    object([
        ("status", constant(status), ""),
        ("database_reachable", flag(), ""),
        (
            "replication",
            one_of(&["connecting", "streaming", "failing"]),
            "State of the replication stream of row changes.",
        ),
        (
            "replication_slot",
            nullable(slot),
            "Null before the first check, and while `replication` is not `streaming`.",
        ),
        ("draining", flag(), "Whether the process is shutting down."),
    ])
}

/// Reports that the process is alive. It does not check the database, because restarting this
/// process would not bring the database back.
async fn health() -> Response {
    uncached(Json(json!({ "status": "ok" })).into_response())
}

/// Reports whether the process is ready, with the state of each subsystem that determines it.
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
