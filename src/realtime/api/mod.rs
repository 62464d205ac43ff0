//! Broadcasting over HTTP, and the other routes of Supabase Realtime that clients and health checks
//! use (protocol 1.5, 1.6).
//!
//! Messages use the same fan-out as messages from sockets, so receivers cannot distinguish them.
//! Broadcasts to public topics do not need the database.

mod access;

mod bodies;
mod broadcast;
mod health;
pub mod reference;
mod refusal;
pub mod request;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde_json::{Value, json};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

pub use self::health::tenant_health;
use self::refusal::Refusal;
use super::hub::rate::Rate;
use super::service::Realtime;
use crate::http::anonymous_limiter;
use crate::http::middleware::method_not_allowed;
use crate::http::openapi::{ApiRouter, Described};

/// The base paths of the routes. Clients use the first one, and a gateway that rewrites paths uses
/// the second one.
const BASE_PATHS: [&str; 2] = ["/realtime/v1/api", "/api"];

/// Returns the routes under both base paths, including responses to CORS preflights.
pub(super) fn routes(realtime: Realtime) -> ApiRouter {
    api()
        .map(|routes| {
            routes
                .layer(DefaultBodyLimit::max(
                    realtime.shared.config.max_request_bytes,
                ))
                .layer(from_fn_with_state(realtime.clone(), check_rate))
                // The fallback is inside the CORS layer, because a preflight uses a method that no
                // route has.
                .method_not_allowed_fallback(method_not_allowed)
                .layer(cors())
                .with_state(realtime)
        })
        .under_each(&BASE_PATHS)
        .merge(healthcheck())
}

/// Returns the documentation of the routes.
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

/// Lets any page use the routes and read their responses, with any headers. Credentials are not
/// allowed, because callers authenticate only with a token in a header, which no browser adds on
/// its own.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
}

/// Handles `GET …/api/ping`, which shows that the server responds.
async fn ping() -> Json<Value> {
    Json(json!({ "message": "Success" }))
}

/// Refuses requests while the server exceeds its rate of events, and reports the rate in headers.
/// As in Supabase Realtime, the rate is checked before the token. The limits for requests without a
/// sign-in apply as well.
async fn check_rate(State(realtime): State<Realtime>, request: Request, next: Next) -> Response {
    let hub = &realtime.shared.hub;
    let mut response = if hub.rates().events.is_over() {
        Refusal::TooManyRequests.respond(hub.metrics())
    } else {
        anonymous_limiter::admit(State(realtime.anonymous_limiter.clone()), request, next).await
    };
    add_rate_headers(&hub.rates().events, response.headers_mut());
    response
}

fn add_rate_headers(rate: &Rate, headers: &mut HeaderMap) {
    let (average, limit) = (rate.average(), rate.limit());
    for (name, number) in [
        ("x-rate-rolling", average),
        ("x-rate-limit", limit),
        ("x-rate-limit-remaining", limit.saturating_sub(average)),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
}
