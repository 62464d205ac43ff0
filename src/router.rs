//! All HTTP routes of the process, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use serde_json::Value;

use crate::chat::{self, ChatState};
use crate::config::Secret;
use crate::error_code::ErrorCode;
use crate::http::anonymous_limiter::AnonymousLimiter;
use crate::http::openapi::document::OPERATIONS;
use crate::http::openapi::schema::{any_object, text};
use crate::http::openapi::{ApiRouter, Document, Operation, input, page};
use crate::http::{self, anonymous_limiter, demo, health, metrics};
use crate::observability::metrics::Metrics;
use crate::observability::readiness::Readiness;
use crate::realtime::{self, Realtime};
use crate::shutdown::Tasks;
use crate::upstream::Gateway;

/// The state of the routes.
pub struct Parts {
    /// The state of the chat's handlers.
    pub chat: ChatState,
    /// The sockets.
    pub realtime: Realtime,
    /// The state behind `/ready`.
    pub readiness: Readiness,
    /// The metrics behind `/metrics`, which also count requests.
    pub metrics: Arc<Metrics>,
    /// The tasks counted by `/metrics`.
    pub tasks: Tasks,
    /// The limiter for requests without a sign-in.
    pub anonymous_limiter: AnonymousLimiter,
    /// Forwards requests for the other services of Supabase.
    pub gateway: Gateway,
    /// The token for `/metrics`. Without one, the main listener does not serve that route.
    pub metrics_token: Option<Secret>,
    /// Whether `/docs` exists.
    pub has_docs_page: bool,
    /// Whether `/demo` exists.
    pub has_demo_page: bool,
    /// Additional routes of the command that runs the server.
    pub more_routes: ApiRouter,
}

/// Creates the complete router.
///
/// | path | module |
/// | --- | --- |
/// | `/health`, `/ready` | [`http::health`] |
/// | `/metrics` | [`http::metrics`] |
/// | `/openapi.json` | [`document`] |
/// | `/docs` | [`http::openapi::page`] |
/// | `/demo/…` | [`http::demo`] |
/// | `/api/supabase/user-chat/…` | [`chat`] |
/// | `/realtime/v1/websocket`, `/socket/websocket` | [`crate::realtime`] |
/// | `/realtime/v1/api/…`, `/api/broadcast…`, `/api/ping`, `/api/tenants/…`, `/healthcheck` | [`crate::realtime::api`] |
/// | `/auth/v1/…`, `/rest/v1/…`, `/graphql/v1`, `/storage/v1/…`, `/functions/v1/…` | [`crate::upstream`] |
pub fn router(parts: Parts) -> Router {
    let http_metrics = parts.metrics.http.clone();
    let document = Document::new(&document());
    let limit_anonymous =
        from_fn_with_state(parts.anonymous_limiter.clone(), anonymous_limiter::admit);
    let docs = if parts.has_docs_page {
        page::routes()
    } else {
        ApiRouter::new()
    };
    let demo = if parts.has_demo_page {
        demo::routes(demo::embedded())
    } else {
        ApiRouter::new()
    };
    let (routes, _) = health::routes(parts.readiness.clone())
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
        .merge(realtime::routes(parts.realtime))
        .merge(
            openapi_route()
                .map(|routes| routes.with_state(document))
                .merge(docs)
                .merge(demo)
                .merge(parts.more_routes)
                .map(|routes| routes.layer(limit_anonymous)),
        )
        .into_parts();
    let gateway = parts.gateway;
    let forward = async move |request: Request| gateway.handle(request).await;
    http::finish_with(routes, forward, http_metrics)
}

/// Returns the OpenAPI document of all routes, including those that this process is not configured
/// to serve, so that the document does not depend on the configuration. It omits the pages at
/// `/docs` and `/demo` and the routes of `rapport dev`.
pub fn document() -> Value {
    let described = chat::described()
        .and(realtime::api::described())
        .and(health::described())
        .and(metrics::described())
        .and(openapi_route().into_parts().1);
    let mut tags = chat::tags().to_vec();
    tags.push(realtime::api::reference::TAG);
    tags.push((OPERATIONS, "For operators of the server."));
    described.document(chat::row_schemas(), &tags)
}

fn openapi_route() -> ApiRouter<Document> {
    let operation = Operation::bare("show_openapi", OPERATIONS, "This document")
        .header(input(
            "If-None-Match",
            text(),
            "The entity tag of a cached copy.",
        ))
        .answers(200, "The document, in OpenAPI 3.1.", any_object())
        .with_header(200, "ETag", true)
        .answers_nothing(304, "The cached copy is still current.")
        .with_header(304, "ETag", true)
        .refuses(&[ErrorCode::RateLimited]);
    ApiRouter::new().get("/openapi.json", show_document, operation)
}

async fn show_document(State(document): State<Document>, headers: HeaderMap) -> Response {
    document.respond(&headers)
}
