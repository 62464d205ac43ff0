//! The identity that a channel acts for, and the mark that identifies its token.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::auth::Claims;
use crate::limits::UnixMillis;
use crate::visibility::Identity;

/// Recognizes a token that was seen before, without storing it. Tokens are long, and a session that
/// does not store a token cannot leak it. Each process uses a new seed, so an attacker cannot
/// search for a token with the same mark as another one.
#[derive(Clone, Debug, Default)]
pub struct TokenMarks(RandomState);

/// The hash of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMark(u64);

impl TokenMarks {
    /// Returns the mark of `token`.
    pub fn of(&self, token: &str) -> TokenMark {
        TokenMark(self.0.hash_one(token))
    }
}

/// The identity that a channel acts for.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The verified claims.
    pub claims: Arc<Claims>,
    /// The mark of the token that contained the claims.
    pub mark: TokenMark,
}

impl Holder {
    /// Returns the identity in the form that `visibility` uses.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::new(Identity {
            role: self.claims.role.clone(),
            claims: Arc::clone(&self.claims.json),
        })
    }

    /// Returns when the token expires.
    pub fn expires_at(&self) -> UnixMillis {
        UnixMillis::from_seconds(self.claims.expires_at)
    }
}
