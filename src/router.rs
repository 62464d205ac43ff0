//! Every HTTP route of the process, and what is wrapped around all of them.

use std::sync::Arc;

use axum::Router;

use crate::chat::{self, ChatState};
use crate::config::Secret;
use crate::http::{self, health, metrics};
use crate::observability::metrics::Metrics;
use crate::observability::readiness::Readiness;
use crate::realtime::{self, Realtime};
use crate::shutdown::Tasks;

/// What the routes work with.
pub struct Parts {
    /// The chat's handlers.
    pub chat: ChatState,
    /// The sockets.
    pub realtime: Realtime,
    /// What `/ready` reads.
    pub readiness: Readiness,
    /// What `/metrics` reads, and where requests are counted.
    pub metrics: Arc<Metrics>,
    /// What `/metrics` counts.
    pub tasks: Tasks,
    /// What opens `/metrics`; without it the route does not exist here.
    pub metrics_token: Option<Secret>,
}

/// The whole router.
///
/// | path | module |
/// | --- | --- |
/// | `/health`, `/ready` | [`http::health`] |
/// | `/metrics` | [`http::metrics`] |
/// | `/api/supabase/user-chat/…` | [`chat`] |
/// | `/realtime/v1/websocket`, `/socket/websocket` | [`crate::realtime`] |
/// | `/realtime/v1/api/…`, `/api/broadcast…`, `/api/ping`, `/api/tenants/…`, `/healthcheck` | [`crate::realtime::api`] |
pub fn router(parts: Parts) -> Router {
    let http_metrics = parts.metrics.http.clone();
    let routes = Router::new()
        .merge(health::routes(parts.readiness.clone()))
        .merge(metrics::routes(
            parts.metrics,
            parts.readiness.clone(),
            parts.tasks,
            parts.metrics_token,
        ))
        .merge(chat::routes(parts.chat))
        .merge(realtime::api::tenant_health(
            parts.realtime.clone(),
            parts.readiness,
        ))
        .merge(realtime::routes(parts.realtime));
    http::finish(routes, http_metrics)
}
