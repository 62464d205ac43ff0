//! Which subscriber may see which row change.
//!
//! A change reaches a subscriber exactly when `select` under that subscriber's role and claims
//! would return the row *as it stands in the log*: an image that was never visible to someone is
//! not sent to them, whatever the row has become since. When in doubt the answer is no, and
//! a check that failed is reported to the channel it failed for.
//!
//! How a change is judged, in this order:
//! 0. `generated` adds what the log lacks of its images.
//! 1. `subscription` finds the bindings it may concern; filters on equality are looked up.
//! 2. `predicate` decides filters whose types are reproduced exactly.
//! 3. `row_access` looks at rights and policies in the `catalog`. No row-level security, no
//!    policy, a role that bypasses: no query is needed.
//! 4. Otherwise `committed` waits until others see the commit, and `checks` has PostgreSQL evaluate the policies on the row image, once for each
//!    identity and batch, in a transaction under that identity's role and claims (`queries`).
//! 5. PostgreSQL decides the other filters (`conditions`), of rows that may be seen and of no others.
//! 6. `columns` takes out what the role may not select; `record` writes JSON.
//!
//! What to know about the limits of this:
//! - Rows are judged by the rules at the time of judging. If the stream shows that a table's
//!   policies or rights may have changed, these are never older than the row (`descriptions`).
//!   Roles, and other things that the stream does not show, may be as old as
//!   `visibility.catalog_ttl_ms`.
//! - Tables that a policy reads besides its own are read as they are when it is asked, which is
//!   after the commit: a membership that was revoked in between no longer counts.
//! - An image without a value that a policy needs (an unchanged large value, or a generated column
//!   that cannot be computed) is judged by the stored row, under the same role.
//! - A DELETE leaves no row. With `replica identity full` the old row is judged: after the commit,
//!   and again in the state before it if the policies read other rows (`snapshots`). Otherwise every
//!   subscriber with an applicable policy receives the columns of the primary key that the log
//!   holds, unless a setting forbids it.

mod backoff;
mod binding;
mod catalog;
mod catalog_cache;
mod checks;
mod columns;
mod committed;
mod completion;
mod conditions;
mod delivery;
mod descriptions;
mod encoding;
mod engine;
mod error;
mod failure;
mod filter;
pub(crate) mod fingerprint;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generated;
mod handle;
mod identity;
mod image_sql;
mod inspect;
mod log_coverage;
mod predicate;
mod published;
mod queries;
mod query_cache;
mod recipients;
pub mod record;
mod request;
mod resolution;
mod resolve;
mod row_access;
mod slow_filters;
mod snapshots;
mod subscription;
mod table;
mod table_batch;
mod types;
mod unpublished;
mod validate;
mod waiting;

pub use binding::{Binding, ChannelId, SubscribeOptions};
pub use columns::{VisibleColumn, VisibleColumns};
pub use delivery::{Delivery, Payload, Recipient, Resolved};
pub use encoding::ValueEncoding;
pub use error::SubscribeError;
pub use filter::{Condition, Operator};
pub use handle::Visibility;
pub use identity::Identity;
pub use record::RecordDetail;
pub use request::{EventSelector, Selector, SubscriptionRequest};
pub use unpublished::PublicationNews;
