//! `GET /docs`: a page on which the document can be read and routes be called (Swagger UI).
//!
//! Everything it needs is in the program, and its policy lets it load nothing else and talk to this
//! server alone.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::document::OPERATIONS;
use super::schema::text;
use super::{ApiRouter, Operation};

/// What the page may do (Content Security Policy 3). Swagger UI draws its icons from `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page and what it loads.
pub fn routes<S: Clone + Send + Sync + 'static>() -> ApiRouter<S> {
    ApiRouter::new()
        .get(
            "/docs",
            async || plain(HTML, include_bytes!("../../../assets/swagger-ui/page.html")),
            says(
                "show_docs",
                "A page on which this document can be read and tried",
                HTML,
            ),
        )
        .get(
            "/docs/page.js",
            async || plain(SCRIPT, include_bytes!("../../../assets/swagger-ui/page.js")),
            says("show_docs_script", "Part of the page", SCRIPT),
        )
        .get(
            "/docs/swagger-ui-bundle.js",
            async || {
                compressed(
                    SCRIPT,
                    include_bytes!("../../../assets/swagger-ui/swagger-ui-bundle.js.gz"),
                )
            },
            says("show_docs_bundle", "Part of the page", SCRIPT),
        )
        .get(
            "/docs/swagger-ui.css",
            async || {
                compressed(
                    STYLE,
                    include_bytes!("../../../assets/swagger-ui/swagger-ui.css.gz"),
                )
            },
            says("show_docs_style", "Part of the page", STYLE),
        )
}

fn says(id: &'static str, summary: &'static str, media_type: &str) -> Operation {
    Operation::bare(id, OPERATIONS, summary)
        .details("Only where `server.docs_page` is on.")
        .answers_as(200, "As it is.", media_type, text())
}

fn plain(media_type: &'static str, content: &'static [u8]) -> Response {
    let headers: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // Another version of the program has another one.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// What is stored compressed is sent so, whatever the client accepts: every browser does
/// (RFC 9110, 12.5.3, leaves that to the server).
fn compressed(media_type: &'static str, content: &'static [u8]) -> Response {
    let mut response = plain(media_type, content);
    response
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}
