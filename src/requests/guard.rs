//! Identifies the caller of a request before its handler runs, and applies the caller's rate
//! limits.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::allowance::Allowance;
use super::class::{Class, Exemption};
use super::idempotency::{IDEMPOTENCY_KEY, KeyStatements, is_replay, with_key};
use super::rate_limits::RateLimits;
use crate::error_code::ErrorCode;
use crate::http::anonymous_limiter::AnonymousLimiter;
use crate::http::{Authentication, Identity};
use crate::observability::metrics::RateLimitRefusals;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Runs before the handlers of a feature. Cheap to clone.
#[derive(Clone)]
pub struct Guard<C: Class> {
    authentication: Authentication,
    anonymous_limiter: AnonymousLimiter,
    limits: Arc<RateLimits<C>>,
    refusals: RateLimitRefusals,
    keys: KeyStatements,
}

impl<C: Class> Guard<C> {
    /// Creates the guard. `refusals` counts refused requests by class, and `keys` are the
    /// statements for writes with an `Idempotency-Key`.
    pub fn new(
        authentication: Authentication,
        settings: C::Settings,
        refusals: RateLimitRefusals,
        keys: KeyStatements,
    ) -> Self {
        Self {
            authentication,
            anonymous_limiter: AnonymousLimiter::default(),
            limits: Arc::new(RateLimits::new(settings)),
            refusals,
            keys,
        }
    }

    /// Also limits the requests of clients that are not signed in.
    #[must_use]
    pub fn with_anonymous_limiter(mut self, anonymous_limiter: AnonymousLimiter) -> Self {
        self.anonymous_limiter = anonymous_limiter;
        self
    }

    /// Returns the [`Authentication`] that identifies callers.
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// Identifies the caller, takes a token of the class, and runs the handler. Without a class,
    /// signed-in users are not limited.
    ///
    /// An unauthenticated request is refused here only if its address sends too many requests.
    /// Other checks are left to the handler, because some routes are public and an unknown path is
    /// 404 for everyone.
    pub(super) async fn admit<F>(
        self,
        class: Option<C>,
        mut request: Request,
        handler: impl FnOnce(Request) -> F,
    ) -> Response
    where
        F: Future<Output = Response>,
    {
        let mut identity = self
            .authentication
            .caller(request.method(), request.headers());
        if let Err(error) = &identity {
            if let Err(refusal) = self.anonymous_limiter.admit(&request) {
                return refusal.into_response();
            }
            // Only requests that the limit per address admits may wait for keys.
            if error.code() == ErrorCode::KeysUnavailable {
                let (method, headers) = (request.method(), request.headers());
                identity = self.authentication.caller_with_keys(method, headers).await;
            }
        }
        let person = identity.as_ref().map(|caller| caller.user_id).ok();
        request.extensions_mut().insert(Identity(identity));
        let Some(person) = person else {
            return handler(request).await;
        };
        let Some(class) = class else {
            return with_key(self.keys, request, handler).await;
        };
        let allowance = Allowance::of_request(person, class, self.limits, self.refusals);
        let refused = allowance
            .debt()
            .filter(|_| !may_be_exempt(class, request.headers()));
        let mut response = if let Some(debt) = refused {
            allowance.refuse(debt).into_response()
        } else {
            request.extensions_mut().insert(allowance.clone());
            let response = with_key(self.keys, request, handler).await;
            // The request took a token of its own class but turned out to be a read or a retry, or
            // found an existing resource, so it costs one read token instead. If no read token is
            // left, the token of its own class is not put back, so that every request is limited.
            let finds = matches!(class.exemption(), Exemption::KeyOrId | Exemption::Existing);
            let is_existing =
                allowance.is_read_request() || finds && response.status() == StatusCode::OK;
            if allowance.debt().is_none()
                && (is_existing || is_replay(&response))
                && allowance.take(C::READ).is_ok()
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
}

/// Returns whether a request may turn out to cost no token of its class. Only the handler can
/// decide this.
fn may_be_exempt<C: Class>(class: C, headers: &HeaderMap) -> bool {
    match class.exemption() {
        Exemption::Never => false,
        Exemption::Key => headers.contains_key(IDEMPOTENCY_KEY),
        Exemption::KeyOrId | Exemption::Existing => true,
    }
}
