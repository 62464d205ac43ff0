//! Tokens in, verified claims out.
//!
//! Never touches the database, the network or the environment, and never logs a token.
//! There are two profiles: the socket's, which is the original Realtime server's, and
//! the stricter one of the chat routes, which insists on a person.

mod api_key;
mod cache;
mod claims;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod keys;
mod mint;
mod verifier;

pub use api_key::PUBLIC_ROLE;
pub use claims::Claims;
pub use error::{KeyError, TokenError};
pub use keys::KeySet;
pub use mint::mint;
pub use verifier::{Requirements, Verifier};

/// What every API key of the newer, opaque kind starts with (`sb_publishable_…`,
/// `sb_secret_…`): it is not a token and says nothing about a person.
const OPAQUE_KEY_PREFIX: &str = "sb_";

/// Whether this is an opaque API key and not a JSON Web Token. Clients send such a key as
/// `Authorization: Bearer sb_…` while nobody is signed in.
pub fn is_opaque_key(token: &str) -> bool {
    token.starts_with(OPAQUE_KEY_PREFIX)
}
