//! The caller's remaining rate limits, as a request extension.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use super::class::Class;
use super::rate_limits::{LimitExceeded, RateLimits};
use super::rates::LimitStatus;
use crate::error_code::ErrorCode;
use crate::http::ApiError;
use crate::observability::metrics::{RateLimitLabels, RateLimitRefusals};

/// The caller's rate limits. Cheap to clone.
#[derive(Clone)]
pub(super) struct Allowance<C: Class> {
    person: Uuid,
    limits: Arc<RateLimits<C>>,
    refusals: RateLimitRefusals,
    /// Set if the route's class had no token left. A request that may be exempt
    /// ([`Exemption`](super::Exemption)) is admitted anyway, because it may turn out to cost no
    /// token of this class. Only [`Writer`](super::Writer) can decide this.
    debt: Option<Debt<C>>,
    /// Set if the request turned out to be a read, whatever the class of its route.
    is_read_request: Arc<AtomicBool>,
    /// The status of the limit that refused the request, for the response headers.
    exceeded: Arc<OnceLock<LimitStatus>>,
}

/// A token that could not be taken.
#[derive(Clone, Copy)]
pub(super) struct Debt<C> {
    pub(super) class: C,
    pub(super) exceeded: LimitExceeded,
}

impl<C: Class> Allowance<C> {
    /// Takes a token of this class if one is available, and returns the allowance of the request.
    pub(super) fn of_request(
        person: Uuid,
        class: C,
        limits: Arc<RateLimits<C>>,
        refusals: RateLimitRefusals,
    ) -> Self {
        let mut allowance = Self {
            person,
            limits,
            refusals,
            debt: None,
            is_read_request: Arc::default(),
            exceeded: Arc::default(),
        };
        allowance.debt = allowance.take(class).err();
        allowance
    }

    /// Takes a token of a class.
    pub(super) fn take(&self, class: C) -> Result<(), Debt<C>> {
        let taken = self.limits.take(self.person, class, self.limits.now());
        taken.map_err(|exceeded| Debt { class, exceeded })
    }

    /// Puts a token of a class back.
    pub(super) fn refund(&self, class: C) {
        self.limits.refund(self.person, class);
    }

    /// Counts the request as a read.
    pub(super) fn count_as_read_request(&self) {
        self.is_read_request.store(true, Ordering::Relaxed);
    }

    /// Returns whether the request counts as a read.
    pub(super) fn is_read_request(&self) -> bool {
        self.is_read_request.load(Ordering::Relaxed)
    }

    /// Returns the token that the request still owes, because none was left when it was admitted.
    pub(super) fn debt(&self) -> Option<Debt<C>> {
        self.debt
    }

    /// Returns the refusal (429) with the time after which a token is available.
    pub(super) fn refuse(&self, debt: Debt<C>) -> ApiError {
        let _ = self.exceeded.set(debt.exceeded.status);
        let labels = RateLimitLabels {
            class: debt.class.label(),
        };
        self.refusals.get_or_create(&labels).inc();
        ApiError::new(ErrorCode::RateLimited).with_retry_after(debt.exceeded.retry_after)
    }

    /// Returns the status for the response headers: that of the limit that refused the request, or
    /// otherwise that of `class`.
    pub(super) fn status(&self, class: C) -> Option<LimitStatus> {
        let exceeded = self.exceeded.get().copied();
        exceeded.or_else(|| self.limits.status(self.person, class, self.limits.now()))
    }
}
