//! Which subscriber may see which row change.
//!
//! A change reaches a subscriber exactly when `select` under that subscriber's role and claims
//! would return the row *as it stands in the log*: an image that was never visible to someone is
//! not sent to them, whatever the row has become since. When in doubt the answer is no, and
//! a check that failed is reported to the channel it failed for.

mod columns;
mod delivery;
mod error;
mod filter;
pub mod record;
mod request;

use std::sync::Arc;

pub use columns::{VisibleColumn, VisibleColumns};
pub use delivery::{Delivery, Payload, Recipient};
pub use error::SubscribeError;
pub use filter::{Condition, Operator};
pub use record::{RecordDetail, ValueEncoding};
pub use request::{EventSelector, Selector, SubscriptionRequest};

/// Who asks: a role with its claims. Subscribers with equal identities are judged once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Database role, from the token's `role` claim.
    pub role: String,
    /// All claims as compact JSON, for `request.jwt.claims`.
    pub claims: Arc<str>,
}

/// Names one joined channel of one socket for as long as it is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u64);

/// A binding with the integer id that the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Equal parameters have equal ids; never 0 (protocol 3.3).
    pub id: u32,
    /// What was asked for.
    pub request: SubscriptionRequest,
}

/// What a channel wants differently from the protocol's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// `int8` and `numeric` as JSON strings, because JavaScript numbers lose digits.
    pub bigint_as_string: bool,
}
