//! Serves `GET /docs`: Swagger UI, a page for reading the OpenAPI document and trying the routes.
//!
//! All assets of the page are embedded in the program. Its content security policy allows it to
//! load only these assets and to connect only to this server.

use axum::Extension;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::document::OPERATIONS;
use super::schema::text;
use super::{ApiRouter, Operation};
use crate::http::responses::SharedBody;

/// The page's policy (Content Security Policy 3). Swagger UI uses `data:` URLs for its icons.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// Returns the routes of the page and its assets.
pub fn routes<S: Clone + Send + Sync + 'static>() -> ApiRouter<S> {
    ApiRouter::new()
        .get(
            "/docs",
            async || plain(HTML, include_bytes!("../../../assets/swagger-ui/page.html")),
            asset("show_docs", "Swagger UI for this document", HTML),
        )
        .get(
            "/docs/page.js",
            async || plain(SCRIPT, include_bytes!("../../../assets/swagger-ui/page.js")),
            asset("show_docs_script", "Asset of the page", SCRIPT),
        )
        .get(
            "/docs/swagger-ui-bundle.js",
            async || {
                compressed(
                    SCRIPT,
                    include_bytes!("../../../assets/swagger-ui/swagger-ui-bundle.js.gz"),
                )
            },
            asset("show_docs_bundle", "Asset of the page", SCRIPT),
        )
        .get(
            "/docs/swagger-ui.css",
            async || {
                compressed(
                    STYLE,
                    include_bytes!("../../../assets/swagger-ui/swagger-ui.css.gz"),
                )
            },
            asset("show_docs_style", "Asset of the page", STYLE),
        )
}

fn asset(id: &'static str, summary: &'static str, media_type: &str) -> Operation {
    Operation::bare(id, OPERATIONS, summary)
        .details("Available if `server.docs_page` is on.")
        .answers_as(200, "The file.", media_type, text())
}

fn plain(media_type: &'static str, content: &'static [u8]) -> Response {
    let headers: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // Another version of the program may serve a different file.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, Extension(SharedBody), content).into_response()
}

/// Responds with the stored gzip data regardless of `Accept-Encoding`. Every browser accepts gzip,
/// and RFC 9110, section 12.5.3, leaves the choice to the server.
fn compressed(media_type: &'static str, content: &'static [u8]) -> Response {
    let mut response = plain(media_type, content);
    response
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn all_clients_share_the_bodies() {
        for path in [
            "/docs",
            "/docs/page.js",
            "/docs/swagger-ui-bundle.js",
            "/docs/swagger-ui.css",
        ] {
            let router = routes::<()>().into_parts().0;
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert!(response.extensions().get::<SharedBody>().is_some());
        }
    }
}
