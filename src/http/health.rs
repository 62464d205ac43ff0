//! Whether the process lives, and whether it can do its work.

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

/// Seconds until a balancer should look again: reconnecting takes about that.
const RETRY_AFTER_SECONDS: u64 = 5;

/// `GET /health` and `GET /ready`, without a token.
pub fn routes(readiness: Readiness) -> ApiRouter {
    api().map(|routes| routes.with_state(readiness))
}

/// What they answer.
pub fn described() -> Described {
    api().into_parts().1
}

fn api() -> ApiRouter<Readiness> {
    let alive = object([("status", constant("ok"), "")]);
    let says_health = Operation::bare("health", OPERATIONS, "Whether the process lives")
        .details("Says nothing of the database.")
        .answers(200, "It does.", alive);
    let says_ready = Operation::bare("ready", OPERATIONS, "Whether new work is welcome")
        .answers(200, "It is.", report("ready"))
        .answers(503, "It is not, and this is why.", report("not_ready"))
        .with_header(503, "Retry-After", true);
    ApiRouter::new()
        .get("/health", health, says_health)
        .get("/ready", ready, says_ready)
}

/// The body of `/ready`: [`Report`](crate::observability::readiness::Report).
fn report(status: &str) -> Schema {
    let slot = object([
        (
            "state",
            one_of(&["active", "taken", "inactive", "lost"]),
            "Who reads it: this process, another one, nobody, or nobody ever again.",
        ),
        (
            "lag_bytes",
            count(),
            "Log that is written and not acknowledged.",
        ),
        (
            "lag_seconds",
            nullable(number()),
            "From writing to acknowledging, lately.",
        ),
        (
            "wal_held_bytes",
            count(),
            "Log that the database holds back for the slot.",
        ),
    ]);
    object([
        ("status", constant(status), ""),
        ("database_reachable", flag(), ""),
        (
            "replication",
            one_of(&["connecting", "streaming", "failing"]),
            "Reading of row changes.",
        ),
        (
            "replication_slot",
            nullable(slot),
            "Null while there is no connection that reads it.",
        ),
        ("draining", flag(), "The process is stopping."),
    ])
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
