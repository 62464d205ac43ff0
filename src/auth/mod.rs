//! Verifies tokens and returns their claims.
//!
//! This module never uses the database, the network or the environment, and never logs a token.
//! There are two profiles. The profile for sockets is that of Supabase's Realtime server. The
//! profile for the chat routes is stricter and requires a user.

mod api_key;
mod cache;
mod claims;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod keys;
mod mint;
mod requirements;
mod source;
mod token;
mod verifier;

pub use api_key::{PUBLIC_ROLE, SERVICE_ROLE, is_opaque_key};
pub use claims::{Claims, PublishedKey};
pub use error::{KeyError, TokenError};
pub use keys::KeySet;
pub use mint::mint;
pub use requirements::Requirements;
pub use source::KeyFeed;
pub use verifier::Verifier;
