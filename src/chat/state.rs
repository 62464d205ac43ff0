//! The state that the handlers of the chat share. A handler extracts only the parts that it needs.

use axum::extract::FromRef;

use super::classes::Class;
use super::limits::Limits;
use super::search::Searches;
use super::sync::Signals;
use super::typing::Typing;
use crate::bus::Bus;
use crate::bus::deliveries::Delivered;
use crate::config::ChatLimitsConfig;
use crate::db::Db;
use crate::http::Authentication;
use crate::http::anonymous_limiter::AnonymousLimiter;
use crate::observability::metrics::ChatMetrics;
use crate::requests::{Guard, KeyStatements};
use crate::shutdown::Tasks;

/// The statements for writes with an `Idempotency-Key`. If a response needs data besides its
/// resource, the setting `rapport.outcome` contains that data. It is stored with the key, and
/// `chat.outcome()` reads it.
const KEYS: KeyStatements = KeyStatements {
    claim: "select chat.claim_idempotency_key($1::text, $2::bytea)",
    store: "select chat.keep_idempotency_key($1::text, $2::bytea)",
    recall: "select chat.recall_idempotency_key($1::text)",
    refuse_new: "select chat.refuse('rate_limited')",
};

/// The state that the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ChatState {
    guard: Guard<Class>,
    pub(super) db: Db,
    pub(super) bus: Bus,
    pub(super) typing: Typing,
    pub(super) metrics: ChatMetrics,
    limits: Limits,
    signals: Signals,
    searches: Searches,
}

impl ChatState {
    /// Creates the state. Its background tasks and waiting requests end with `tasks`.
    pub fn new(
        authentication: Authentication,
        db: Db,
        bus: Bus,
        limits: ChatLimitsConfig,
        metrics: ChatMetrics,
        tasks: &Tasks,
    ) -> Self {
        let refusals = metrics.rate_limited.clone();
        Self {
            guard: Guard::new(authentication, limits, refusals.clone(), KEYS),
            signals: Signals::start(&bus, metrics.clone(), tasks),
            searches: Searches::new(refusals),
            typing: Typing::new(bus.broadcasts().clone()),
            bus,
            limits: Limits::new(db.clone()),
            metrics,
            db,
        }
    }

    /// Also limits the requests of clients that are not signed in.
    #[must_use]
    pub fn with_anonymous_limiter(mut self, anonymous_limiter: AnonymousLimiter) -> Self {
        self.guard = self.guard.with_anonymous_limiter(anonymous_limiter);
        self
    }

    /// Returns the [`Authentication`] that identifies callers.
    pub(super) fn authentication(&self) -> &Authentication {
        self.guard.authentication()
    }
}

impl FromRef<ChatState> for Guard<Class> {
    fn from_ref(state: &ChatState) -> Self {
        state.guard.clone()
    }
}

impl FromRef<ChatState> for Authentication {
    fn from_ref(state: &ChatState) -> Self {
        state.authentication().clone()
    }
}

impl FromRef<ChatState> for Db {
    fn from_ref(state: &ChatState) -> Self {
        state.db.clone()
    }
}

impl FromRef<ChatState> for Delivered {
    fn from_ref(state: &ChatState) -> Self {
        state.bus.delivered().clone()
    }
}

impl FromRef<ChatState> for Typing {
    fn from_ref(state: &ChatState) -> Self {
        state.typing.clone()
    }
}

impl FromRef<ChatState> for Searches {
    fn from_ref(state: &ChatState) -> Self {
        state.searches.clone()
    }
}

impl FromRef<ChatState> for Signals {
    fn from_ref(state: &ChatState) -> Self {
        state.signals.clone()
    }
}

impl FromRef<ChatState> for ChatMetrics {
    fn from_ref(state: &ChatState) -> Self {
        state.metrics.clone()
    }
}

impl FromRef<ChatState> for Limits {
    fn from_ref(state: &ChatState) -> Self {
        state.limits.clone()
    }
}
