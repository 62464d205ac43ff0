//! The route for the health of a tenant (protocol 1.6). The health checks in Supabase's compose
//! files call it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::service::Realtime;
use super::{access, reference};
use crate::http::anonymous_limiter;
use crate::http::openapi::{ApiRouter, Described};
use crate::observability::readiness::{Readiness, ReplicationState};

#[derive(Clone)]
struct Health {
    realtime: Realtime,
    readiness: Readiness,
}

/// Returns the route `GET /api/tenants/{id}/health`. Supabase Realtime calls a project a tenant.
/// Here there is only one, and every id refers to it. Unlike the routes for broadcasts, this route
/// does not exist under `/realtime/v1/api`, because Supabase's gateways do not expose it.
pub fn tenant_health(realtime: Realtime, readiness: Readiness) -> ApiRouter {
    let limit_anonymous =
        from_fn_with_state(realtime.anonymous_limiter.clone(), anonymous_limiter::admit);
    api().map(|routes| {
        routes.layer(limit_anonymous).with_state(Health {
            realtime,
            readiness,
        })
    })
}

/// Returns the documentation of the route.
pub(super) fn described() -> Described {
    api().into_parts().1
}

fn api() -> ApiRouter<Health> {
    ApiRouter::new().get(
        "/api/tenants/{id}/health",
        show_health,
        reference::show_tenant_health(),
    )
}

/// Reports the state of the server in the body. As in Supabase Realtime, the status is always 200
/// for authorized callers.
async fn show_health(State(health): State<Health>, headers: HeaderMap) -> Response {
    let shared = &health.realtime.shared;
    let caller = access::caller_with_keys(&shared.verifier, &headers, None).await;
    if caller.is_err() {
        return StatusCode::FORBIDDEN.into_response();
    }
    let report = health.readiness.report();
    Json(json!({ "data": {
        "healthy": report.is_ready(),
        "db_connected": report.database_reachable,
        "replication_connected": report.replication == ReplicationState::Streaming,
        "connected_cluster": shared.hub.socket_count(),
        "region": null,
        "node": env!("CARGO_PKG_NAME"),
    } }))
    .into_response()
}
