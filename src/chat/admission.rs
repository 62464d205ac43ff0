//! What is found out about a request before its handler: whose it is, and whether they may ask so often.

use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;

use super::ChatState;
use super::idempotency::is_replay;
use super::rate_limits::{Class, RateLimits, Standing};
use crate::error_code::ErrorCode;
use crate::http::{ApiError, Identity};
use crate::observability::metrics::{ChatMetrics, RateLimitLabels};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What a request takes from its caller's limits, as a request extension. Cheap to clone.
#[derive(Clone)]
pub(super) struct Allowance {
    person: Uuid,
    limits: Arc<RateLimits>,
    metrics: ChatMetrics,
    /// What is left of the limit that refused the request: what its headers are to tell.
    refused: Arc<OnceLock<Standing>>,
}

impl Allowance {
    /// Takes one of a class.
    ///
    /// # Errors
    /// 429 with the time after which there is one.
    pub(super) fn take(&self, class: Class) -> Result<(), ApiError> {
        let taken = self.limits.take(self.person, class, self.limits.now());
        taken.map_err(|refused| {
            let _ = self.refused.set(refused.standing);
            let labels = RateLimitLabels {
                class: class.as_str(),
            };
            self.metrics.rate_limited.get_or_create(&labels).inc();
            ApiError::new(ErrorCode::RateLimited).with_retry_after(refused.retry_after)
        })
    }

    /// Gives one back.
    pub(super) fn give_back(&self, class: Class) {
        self.limits.give_back(self.person, class);
    }

    fn standing(&self, class: Class) -> Option<Standing> {
        let refused = self.refused.get().copied();
        refused.or_else(|| self.limits.standing(self.person, class, self.limits.now()))
    }
}

/// Middleware that finds out whose a request is and takes it from what they may ask for. It refuses no stranger: some
/// routes are open, and a path that does not exist is told to everybody.
pub(super) async fn admit(
    State(state): State<ChatState>,
    mut request: Request,
    next: Next,
) -> Response {
    let identity = state
        .authentication
        .caller(request.method(), request.headers());
    let person = identity.as_ref().map(|caller| caller.user_id).ok();
    request.extensions_mut().insert(Identity(identity));
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let (Some(person), Some(class)) = (person, Class::of(request.method(), route)) else {
        return next.run(request).await;
    };
    let allowance = Allowance {
        person,
        limits: state.rate_limits,
        metrics: state.metrics,
        refused: Arc::default(),
    };
    let mut response = match allowance.take(class) {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            request.extensions_mut().insert(allowance.clone());
            let response = next.run(request).await;
            // Neither a repetition costs anything, nor a conversation that was there already.
            let is_found = class == Class::Open && response.status() == StatusCode::OK;
            if is_found || is_replay(&response) {
                allowance.give_back(class);
            }
            response
        }
    };
    if let Some(standing) = allowance.standing(class) {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(standing.limit));
        headers.insert(REMAINING, HeaderValue::from(standing.remaining));
        headers.insert(RESET, HeaderValue::from(standing.reset));
    }
    response
}
