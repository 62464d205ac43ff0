//! What is found out about a request before its handler: whose it is, and whether they may ask so often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use uuid::Uuid;

use super::ChatState;
use super::idempotency::{IDEMPOTENCY_KEY, is_replay};
use super::rate_limits::{Class, RateLimits, Refused, Standing};
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
    /// Of the class of the route there was none left. The request was let in all the same: it may turn out to be a
    /// repetition, or to find what it asks for, which costs nothing. Only [`Writer`](super::idempotency::Writer) can tell.
    debt: Option<Debt>,
    /// The request turned out to read, whatever its route counts as.
    is_reading: Arc<AtomicBool>,
    /// What is left of the limit that refused the request: what its headers are to tell.
    refused: Arc<OnceLock<Standing>>,
}

/// Something that could not be taken.
#[derive(Clone, Copy)]
pub(super) struct Debt {
    pub(super) class: Class,
    pub(super) refused: Refused,
}

impl Allowance {
    /// Takes one of a class.
    pub(super) fn take(&self, class: Class) -> Result<(), Debt> {
        let taken = self.limits.take(self.person, class, self.limits.now());
        taken.map_err(|refused| Debt { class, refused })
    }

    /// Gives one back.
    pub(super) fn give_back(&self, class: Class) {
        self.limits.give_back(self.person, class);
    }

    /// Makes the request count as a reading.
    pub(super) fn mark_as_reading(&self) {
        self.is_reading.store(true, Ordering::Relaxed);
    }

    /// What the request owes since it was let in.
    pub(super) fn debt(&self) -> Option<Debt> {
        self.debt
    }

    /// 429 with the time after which there is one.
    pub(super) fn refuse(&self, debt: Debt) -> ApiError {
        let _ = self.refused.set(debt.refused.standing);
        let labels = RateLimitLabels {
            class: debt.class.as_str(),
        };
        self.metrics.rate_limited.get_or_create(&labels).inc();
        ApiError::new(ErrorCode::RateLimited).with_retry_after(debt.refused.retry_after)
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
    let mut allowance = Allowance {
        person,
        limits: state.rate_limits,
        metrics: state.metrics,
        debt: None,
        is_reading: Arc::default(),
        refused: Arc::default(),
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
        // A repetition costs no more than reading does, nor does a conversation or a message that was there already. Whoever
        // has read more than they may pays for it after all: none of it is without limit.
        let is_found = allowance.is_reading.load(Ordering::Relaxed)
            || matches!(class, Class::Open | Class::Send) && response.status() == StatusCode::OK;
        if allowance.debt.is_none()
            && (is_found || is_replay(&response))
            && allowance.take(Class::Read).is_ok()
        {
            allowance.give_back(class);
        }
        response
    };
    if let Some(standing) = allowance.standing(class) {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(standing.limit));
        headers.insert(REMAINING, HeaderValue::from(standing.remaining));
        headers.insert(RESET, HeaderValue::from(standing.reset));
    }
    response
}

/// Whether a request may turn out to cost nothing of its class: a repetition, by its key or by a `client_message_id`, or
/// a conversation that is there already. Only its handler can tell. The classes are those whose handlers write through
/// [`Writer`](super::idempotency::Writer) alone.
fn may_be_free(class: Class, headers: &HeaderMap) -> bool {
    match class {
        Class::Send | Class::Open => true,
        Class::MarkRead | Class::Typing | Class::Write => headers.contains_key(IDEMPOTENCY_KEY),
        Class::Search | Class::Read | Class::ClientErrors => false,
    }
}
