//! Adds entity tags to responses, and responds with 304 if the client's copy is current.
//!
//! The tag is a hash of the body, because rows contain presence, names and per-user flags that no
//! revision covers. A handler with a more precise tag sets that tag itself.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::error::ApiError;

/// Number of bytes of the hash that the tag uses. 128 bits do not collide by accident.
const TAG_BYTES: usize = 16;

/// Maximum body size in bytes that is buffered for hashing. All responses are built in memory. The
/// largest has 200 messages of 20,000 four-byte code points, doubled by escapes, and takes about
/// half this size.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Middleware for routes whose responses depend on the caller. It adds `Cache-Control` and `Vary`.
/// If the request is GET or HEAD and the status is 200, it also adds a tag and compares the tag
/// with `If-None-Match`.
pub async fn conditional(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = request
        .headers()
        .get_all(IF_NONE_MATCH)
        .into_iter()
        .cloned()
        .collect::<Vec<_>>();
    let mut response = next.run(request).await;
    if is_read && response.status() == StatusCode::OK {
        response = match tagged(response).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
        if response
            .headers()
            .get(ETAG)
            .is_some_and(|tag| matches_any(tag, &known))
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(CONTENT_LENGTH);
            response.headers_mut().remove(CONTENT_TYPE);
        }
    }
    set_caching(response.headers_mut());
    response
}

fn set_caching(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(
        VARY,
        HeaderValue::from_static("Authorization, Cookie, Origin, Accept-Encoding"),
    );
}

async fn tagged(response: Response) -> Result<Response, ApiError> {
    if response.headers().contains_key(ETAG) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, MAX_ANSWER_BYTES)
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    if let Some(tag) = tag_of(&bytes) {
        parts.headers.insert(ETAG, tag);
    }
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// Returns the entity tag for this body.
pub(super) fn tag_of(text: &[u8]) -> Option<HeaderValue> {
    let hash = Sha256::digest(text);
    HeaderValue::from_str(&format!(
        "\"{}\"",
        URL_SAFE_NO_PAD.encode(&hash[..TAG_BYTES])
    ))
    .ok()
}

/// Compares tags weakly (RFC 9110, section 13.1.2), because a compressing proxy turns strong tags
/// into weak ones.
pub(super) fn matches_any(tag: &HeaderValue, known: &[HeaderValue]) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(tag) = tag.to_str() else { return false };
    let tag = strong(tag);
    known
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|candidate| candidate.trim() == "*" || strong(candidate) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_compare_weakly() {
        let tag = HeaderValue::from_static("\"abc\"");
        let cases = [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", W/\"abc\"", true),
            ("*", true),
            ("\"ab\"", false),
            ("abc", false),
            ("", false),
        ];
        for (known, expected) in cases {
            assert_eq!(
                matches_any(&tag, &[HeaderValue::from_static(known)]),
                expected,
                "{known}"
            );
        }
    }
}
