//! Forwards requests for the other services of Supabase, so that an application needs only one URL.
//! Also fetches the key sets of issuers, because that requires the same HTTP client.
//!
//! The bytes of path, query and bodies are forwarded as received, except for the changes that
//! `docs/upstream.md` lists. Paths that belong to no service are never forwarded, and keys and
//! tokens are never logged.

mod body;
mod connect;
mod cors;
mod error;
mod failure;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod headers;
mod in_flight;
mod key_request;
mod key_sets;
mod keys;
mod route;
mod sandbox;
mod target;
mod upgrade;

pub use connect::TlsError;
pub use forward::Gateway;
pub use key_sets::fetch_key_sets;
