//! The identity under which rows are checked for a subscriber.

use std::sync::Arc;

/// A role with its claims. Subscribers with equal identities share one check.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The database role: the token's `role` claim.
    pub role: String,
    /// All claims as JSON, for `request.jwt.claims`.
    pub claims: Arc<str>,
}
