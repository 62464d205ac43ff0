//! `Idempotency-Key`: a repeated write has no further effect (docs/api.md, *Retrying a write*).
//!
//! This file reads the key. [`Writer`](super::Writer) claims it before the statements of a write
//! and stores it after them, in the same transaction and round trip. So a write never succeeds
//! without its key, and a key is never stored without its write. The claim ends with the
//! transaction, however it ends. Responses are not stored: a retry reads the current state of the
//! resource.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::http::ApiError;
use crate::http::input::{BODY_DEADLINE, body};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Header that marks the response to a retry.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Maximum length of a key, in characters.
const MAX_KEY: usize = 255;

/// The statements with which a feature remembers its callers' keys. They run as the caller.
#[derive(Clone, Copy, Debug)]
pub struct KeyStatements {
    /// Claims a key (`$1`, text) for the request with this hash (`$2`, bytea) until the end of the
    /// transaction. Raises [`DbError::DoneBefore`](crate::db::DbError::DoneBefore) if the same
    /// request was carried out, and another error if the key is in use or was used for another
    /// request.
    pub claim: &'static str,
    /// Stores the key after the write, with the same parameters. It may also store the data that
    /// the response needs besides the resource, such as its id and whether it was created.
    pub store: &'static str,
    /// Makes the data that was stored with the key (`$1`, text) available to the statements after
    /// this one.
    pub recall: &'static str,
    /// Raises `rate_limited`. It runs after the claim if the caller has no token left for the
    /// write. For a retry, the claim fails first, so this statement does not run.
    pub refuse_new: &'static str,
}

/// The key of a request, and the hash of the request.
pub(super) struct Claim {
    pub(super) statements: KeyStatements,
    pub(super) key: String,
    pub(super) hash: [u8; 32],
    /// Set if the request turned out to be a retry.
    is_replay: AtomicBool,
}

impl Claim {
    /// Records that the request is a retry.
    pub(super) fn set_replay(&self) {
        self.is_replay.store(true, Ordering::Relaxed);
    }

    /// Returns whether the request turned out to be a retry.
    pub(super) fn is_replay(&self) -> bool {
        self.is_replay.load(Ordering::Relaxed)
    }
}

/// Reads the key of a write and runs the handler, whose [`Writer`](super::Writer) uses the key. The
/// body is buffered for the hash, so this may only be called for known callers.
pub(super) async fn with_key<F>(
    statements: KeyStatements,
    request: Request,
    handler: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    if request.method().is_safe() {
        return handler(request).await;
    }
    let key = match key(request.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return handler(request).await,
        Err(error) => return error.into_response(),
    };
    let (mut parts, stream) = request.into_parts();
    let buffered = Request::from_parts(parts.clone(), stream);
    let bytes = match body(buffered, &(), BODY_DEADLINE).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let claim = Arc::new(Claim {
        statements,
        key,
        hash: hash(&parts, &bytes),
        is_replay: AtomicBool::new(false),
    });
    parts.extensions.insert(Arc::clone(&claim));
    let mut response = handler(Request::from_parts(parts, Body::from(bytes))).await;
    if claim.is_replay() {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, replayed);
    }
    response
}

/// Returns whether a response is marked as the response to a retry.
pub(super) fn is_replay(response: &Response) -> bool {
    response.headers().contains_key(REPLAYED)
}

/// Returns the key in the headers. In the IETF's draft, an empty key counts as absent. Here it is
/// an error, because a client that sends a key expects protection against repeated writes.
fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let is_printable = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match value.to_str().ok().filter(is_printable) {
        Some(key) if more.is_none() && (1..=MAX_KEY).contains(&key.len()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(ApiError::invalid(format!(
            "Idempotency-Key must be a single text of 1 to {MAX_KEY} printable ASCII characters"
        ))),
    }
}

/// Returns a hash that distinguishes a retry from another request with the same key. Neither a
/// method nor a URI contains a line feed, so the line feeds separate the fields unambiguously.
fn hash(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n", parts.method, parts.uri));
    hash.update(body);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printable_and_short() {
        let longest = "k".repeat(MAX_KEY);
        let too_long = "k".repeat(MAX_KEY + 1);
        let cases: [(&[&str], Option<Option<&str>>); 8] = [
            (&[], Some(None)),
            (&["a"], Some(Some("a"))),
            (
                &["8e03978e-40d5 \"x\"~"],
                Some(Some("8e03978e-40d5 \"x\"~")),
            ),
            (&[&longest], Some(Some(&longest))),
            (&[""], None),
            (&[&too_long], None),
            (&["a\tb"], None),
            (&["a", "a"], None),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
            }
            let read = key(&headers).ok();
            assert_eq!(read.as_ref().map(Option::as_deref), expected, "{values:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(b"\xe9").unwrap());
        assert!(key(&headers).is_err());
    }
}
