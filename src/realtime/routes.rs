//! The routes of the realtime service.

use axum::Router;
use axum::routing::any;

use super::api;
use super::service::Realtime;
use super::socket::upgrade;
use crate::http::openapi::ApiRouter;

/// Returns the routes of `api` and the two paths of the socket. One path is public; the other is
/// for gateways that rewrite paths (protocol 1.1).
#[expect(
    clippy::disallowed_methods,
    reason = "OpenAPI cannot describe a WebSocket; `docs/protocol.md` does"
)]
pub fn routes(realtime: Realtime) -> ApiRouter {
    let sockets = Router::new()
        .route("/realtime/v1/websocket", any(upgrade))
        .route("/socket/websocket", any(upgrade))
        .with_state(realtime.clone());
    api::routes(realtime).map(|routes| routes.merge(sockets))
}
