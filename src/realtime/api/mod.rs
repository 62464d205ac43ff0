//! Broadcasting over HTTP, and what else of the original's HTTP interface clients and health checks
//! use (protocol 1.5, 1.6).
//!
//! Messages enter the same fan-out as those of sockets, so who listens cannot tell them apart. Public
//! topics need no database.

mod access;
mod answer;
pub(super) mod bodies;
mod broadcast;
mod health;
pub mod reference;
pub mod request;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde_json::{Value, json};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

use self::answer::Refusal;
pub use self::health::tenant_health;
use super::Realtime;
use super::hub::rate::Rate;
use crate::http::middleware::method_not_allowed;
use crate::http::openapi::{ApiRouter, Described};
use crate::http::strangers;

/// Where the routes are found: as clients see them, and as a gateway that rewrites asks for them.
const BASE_PATHS: [&str; 2] = ["/realtime/v1/api", "/api"];

/// The routes in both families, answers to browsers' preflights included.
pub(super) fn routes(realtime: Realtime) -> ApiRouter {
    api()
        .map(|routes| {
            routes
                .layer(DefaultBodyLimit::max(
                    realtime.shared.config.max_request_bytes,
                ))
                .layer(from_fn_with_state(realtime.clone(), within_rate))
                // Inside the layer below: a preflight is a verb that no route has.
                .method_not_allowed_fallback(method_not_allowed)
                .layer(cors())
                .with_state(realtime)
        })
        .under_each(&BASE_PATHS)
        .merge(healthcheck())
}

/// What the routes take and answer.
pub fn described() -> Described {
    let routes = api().under_each(&BASE_PATHS).into_parts().1;
    routes
        .and(healthcheck::<()>().into_parts().1)
        .and(health::described())
}

fn api() -> ApiRouter<Realtime> {
    ApiRouter::new()
        .post(
            "/broadcast",
            broadcast::broadcast_batch,
            reference::broadcast_batch(),
        )
        .post(
            "/broadcast/{topic}/events/{event}",
            broadcast::broadcast_single,
            reference::broadcast_single(),
        )
        .get("/ping", ping, reference::ping())
}

fn healthcheck<S: Clone + Send + Sync + 'static>() -> ApiRouter<S> {
    ApiRouter::new().get("/healthcheck", async || "ok", reference::healthcheck())
}

/// Any page may use the routes and read their answers, with whatever headers it sends: a token in a
/// header is the only way in, and no browser adds one by itself. No credentials, therefore.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
}

/// `GET …/api/ping`: the server answers.
async fn ping() -> Json<Value> {
    Json(json!({ "message": "Success" }))
}

/// Refuses requests while the server is over its rate of events, and tells everybody how far from
/// that it is. Before the token is looked at, as in the original.
async fn within_rate(State(realtime): State<Realtime>, request: Request, next: Next) -> Response {
    let hub = &realtime.shared.hub;
    let mut response = if hub.rates().events.is_over() {
        Refusal::TooManyRequests.respond(hub.metrics())
    } else {
        strangers::admit(State(realtime.strangers.clone()), request, next).await
    };
    tell_rate(&hub.rates().events, response.headers_mut());
    response
}

fn tell_rate(rate: &Rate, headers: &mut HeaderMap) {
    let (average, limit) = (rate.average(), rate.limit());
    for (name, number) in [
        ("x-rate-rolling", average),
        ("x-rate-limit", limit),
        ("x-rate-limit-remaining", limit.saturating_sub(average)),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
}
