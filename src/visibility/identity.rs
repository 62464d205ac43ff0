//! The identity under which rows are checked for a subscriber.

use std::sync::Arc;

/// Who asks: a role with its claims. Subscribers with equal identities are judged once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Database role, from the token's `role` claim.
    pub role: String,
    /// All claims as JSON, for `request.jwt.claims`.
    pub claims: Arc<str>,
}
