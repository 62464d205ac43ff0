//! Limits how many requests one address may send without signing in.
//!
//! A client with the public key or without any key can be identified only by its address. Signed-in
//! users have separate limits per user.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::admission::Admission;
use super::error::ApiError;
use super::peer::TrustedProxies;
use crate::auth::{PUBLIC_ROLE, Verifier};
use crate::config::ServerConfig;
use crate::error_code::ErrorCode;
use crate::limits::UnixMillis;
use crate::observability::metrics::HttpMetrics;

const API_KEY: HeaderName = HeaderName::from_static("apikey");

/// The limiter. Clones are cheap. The default does not limit anything.
#[derive(Clone, Default)]
pub struct AnonymousLimiter(Option<Arc<Inner>>);

struct Inner {
    admission: Admission,
    proxies: TrustedProxies,
    verifier: Verifier,
    metrics: HttpMetrics,
}

impl AnonymousLimiter {
    /// Builds the limiter from the configuration.
    pub fn new(verifier: Verifier, config: &ServerConfig, metrics: HttpMetrics) -> Self {
        let per_second = config.anonymous_requests_per_second;
        Self((per_second > 0).then(|| {
            Arc::new(Inner {
                admission: Admission::new(config.anonymous_request_burst, per_second),
                proxies: TrustedProxies::new(&config.trusted_proxies),
                verifier,
                metrics,
            })
        }))
    }

    /// Counts a request, unless it contains a valid token of a user or a service.
    ///
    /// # Errors
    /// 429 with the time until the next permit, if none is available now.
    pub fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        let headers = request.headers();
        // The tokens are verified before the address is counted, so that requests with a valid one
        // use no permit. A token with an unknown key can at most cause a fetch of keys, which has a
        // limit of its own.
        if inner.is_known(request.uri(), headers) {
            return Ok(());
        }
        let client = inner.proxies.client(request.extensions(), headers);
        let admitted = client.map_or(Ok(()), |client| {
            inner.admission.admit(client, UnixMillis::now())
        });
        admitted.map_err(|wait| {
            inner.metrics.rate_limited.inc();
            let seconds = wait.as_millis().div_ceil(1_000);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).max(1);
            ApiError::new(ErrorCode::RateLimited).with_retry_after(seconds)
        })
    }
}

impl Inner {
    /// Returns whether a request contains a user's or a service's token in any place where a route
    /// may look for one. The route itself decides which token counts and whether it suffices.
    fn is_known(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().split_once(' '))
            .map(|(_, token)| token.trim());
        let key = headers.get(API_KEY).and_then(|value| value.to_str().ok());
        let is_known = |token: &str| {
            let claims = self.verifier.verify_api_key(token.trim());
            claims.is_ok_and(|claims| claims.role != PUBLIC_ROLE)
        };
        bearer.is_some_and(is_known)
            || key.is_some_and(is_known)
            || Query::<Vec<(String, String)>>::try_from_uri(uri).is_ok_and(|Query(pairs)| {
                // As in the handshake, only the last key counts, so at most three tokens are
                // verified.
                let last = pairs.iter().rev().find(|(name, _)| name == "apikey");
                last.is_some_and(|(_, value)| is_known(value))
            })
    }
}

/// Middleware that limits requests to routes that do not authenticate callers.
pub async fn admit(
    State(anonymous_limiter): State<AnonymousLimiter>,
    request: Request,
    next: Next,
) -> Response {
    match anonymous_limiter.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
