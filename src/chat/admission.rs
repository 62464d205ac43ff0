//! Identifies the caller of a request before its handler runs, and applies the caller's rate
//! limits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;

use super::ChatState;
use super::idempotency::{IDEMPOTENCY_KEY, is_replay};
use super::rate_limits::{Class, LimitExceeded, LimitStatus, RateLimits};
use crate::error_code::ErrorCode;
use crate::http::{ApiError, Identity};
use crate::observability::metrics::{ChatMetrics, RateLimitLabels};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The caller's rate limits as a request extension. Cheap to clone.
#[derive(Clone)]
pub(super) struct Allowance {
    person: Uuid,
    limits: Arc<RateLimits>,
    metrics: ChatMetrics,
    /// Set if the route's class had no token left. The request was admitted anyway: it may turn out
    /// to be a retry, or to find an existing resource, and either is free. Only
    /// [`Writer`](super::idempotency::Writer) can decide this.
    debt: Option<Debt>,
    /// Set if the request turned out to only read, whatever the class of its route.
    is_read_request: Arc<AtomicBool>,
    /// The status of the limit that refused the request, for the response headers.
    exceeded: Arc<OnceLock<LimitStatus>>,
}

/// A token that could not be taken.
#[derive(Clone, Copy)]
pub(super) struct Debt {
    pub(super) class: Class,
    pub(super) exceeded: LimitExceeded,
}

impl Allowance {
    /// Takes a token of a class.
    pub(super) fn take(&self, class: Class) -> Result<(), Debt> {
        let taken = self.limits.take(self.person, class, self.limits.now());
        taken.map_err(|exceeded| Debt { class, exceeded })
    }

    /// Puts a token of a class back.
    pub(super) fn refund(&self, class: Class) {
        self.limits.refund(self.person, class);
    }

    /// Counts the request as a read.
    pub(super) fn count_as_read_request(&self) {
        self.is_read_request.store(true, Ordering::Relaxed);
    }

    /// The token that the request owes since it was admitted.
    pub(super) fn debt(&self) -> Option<Debt> {
        self.debt
    }

    /// 429 with the time after which a token is available.
    pub(super) fn refuse(&self, debt: Debt) -> ApiError {
        let _ = self.exceeded.set(debt.exceeded.status);
        let labels = RateLimitLabels {
            class: debt.class.as_str(),
        };
        self.metrics.rate_limited.get_or_create(&labels).inc();
        ApiError::new(ErrorCode::RateLimited).with_retry_after(debt.exceeded.retry_after)
    }

    fn status(&self, class: Class) -> Option<LimitStatus> {
        let exceeded = self.exceeded.get().copied();
        exceeded.or_else(|| self.limits.status(self.person, class, self.limits.now()))
    }
}

/// Middleware that identifies the caller and takes a token of the caller's rate limits. An
/// unauthenticated request is refused here only if its address sends too many: some routes are
/// public, and an unknown path is 404 for everyone.
pub(super) async fn admit(
    State(state): State<ChatState>,
    mut request: Request,
    next: Next,
) -> Response {
    let identity = state
        .authentication
        .caller(request.method(), request.headers());
    let person = identity.as_ref().map(|caller| caller.user_id).ok();
    if person.is_none()
        && let Err(refusal) = state.strangers.admit(&request)
    {
        return refusal.into_response();
    }
    request.extensions_mut().insert(Identity(identity));
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let (Some(person), Some(class)) = (person, Class::of(request.method(), route)) else {
        return next.run(request).await;
    };
    let mut allowance = Allowance {
        person,
        limits: state.rate_limits,
        metrics: state.metrics,
        debt: None,
        is_read_request: Arc::default(),
        exceeded: Arc::default(),
    };
    allowance.debt = allowance.take(class).err();
    let refused = allowance
        .debt
        .filter(|_| !may_be_free(class, request.headers()));
    let mut response = if let Some(debt) = refused {
        allowance.refuse(debt).into_response()
    } else {
        request.extensions_mut().insert(allowance.clone());
        let response = next.run(request).await;
        // A retry costs one read token, like a conversation or message that already existed.
        // If no read token is left, the request keeps the token of its own class, so that nothing
        // is unlimited.
        let is_existing = allowance.is_read_request.load(Ordering::Relaxed)
            || matches!(class, Class::Open | Class::Send) && response.status() == StatusCode::OK;
        if allowance.debt.is_none()
            && (is_existing || is_replay(&response))
            && allowance.take(Class::Read).is_ok()
        {
            allowance.refund(class);
        }
        response
    };
    if let Some(status) = allowance.status(class) {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(status.limit));
        headers.insert(REMAINING, HeaderValue::from(status.remaining));
        headers.insert(RESET, HeaderValue::from(status.reset));
    }
    response
}

/// Whether a request may turn out to be free in its class: a retry (by its key or by a
/// `client_message_id`), or a conversation that already exists. Only the handler can decide. These
/// are the classes whose handlers write only through [`Writer`](super::idempotency::Writer).
fn may_be_free(class: Class, headers: &HeaderMap) -> bool {
    match class {
        Class::Send | Class::Open => true,
        Class::MarkRead | Class::Typing | Class::Write => headers.contains_key(IDEMPOTENCY_KEY),
        Class::Search | Class::Read | Class::ClientErrors => false,
    }
}
