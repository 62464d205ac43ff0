//! What is found out about a request before its handler.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use crate::http::{Authentication, Identity};

/// Middleware that finds out whose a request is. It refuses nobody: some routes are open, and a path that does not
/// exist is told to everybody.
pub(super) async fn identify(
    State(authentication): State<Authentication>,
    mut request: Request,
    next: Next,
) -> Response {
    let identity = Identity(authentication.caller(request.method(), request.headers()));
    request.extensions_mut().insert(identity);
    next.run(request).await
}
