//! Decides which subscribers may see which row changes.
//!
//! A change is delivered to a subscriber exactly if `select` under the subscriber's role and claims
//! would return the row *as the WAL contains it*. An image that a subscriber could not see is not
//! sent, whatever the row contains now. When in doubt, the row is not visible. If a check fails,
//! bindings without a filter receive an error. Bindings with a filter do not, because the error
//! would show that the row satisfies the filter.
//!
//! The steps, in this order:
//! 0. `generated` adds generated columns that the WAL does not contain.
//! 1. `subscription` finds the bindings that may match. Equality filters are looked up in an index.
//! 2. `predicate` evaluates filters on types that it reproduces exactly.
//! 3. `row_access` reads rights and policies in the `catalog`. Without row-level security, without
//!    a policy, or for a role that bypasses row-level security, no query is needed.
//! 4. Otherwise `committed` waits until other connections see the commit. Then `checks` has
//!    PostgreSQL evaluate the policies on the row images, once per identity and batch, in a
//!    transaction under that identity's role and claims (`queries`).
//! 5. PostgreSQL evaluates the remaining filters (`conditions`), but only on rows that the
//!    subscriber may see, and within the time of each user (`filter_time`).
//! 6. `columns` removes the columns that the role may not select, and `record` writes the JSON.
//!
//! Limits:
//! - Rows are judged by the rules at the time of the check. If the stream shows that a table's
//!   policies or rights may have changed, the rules are never older than the row (`descriptions`).
//!   Roles, and other rules whose changes the stream does not show, may be as old as
//!   `visibility.catalog_ttl_ms`.
//! - A policy that reads other tables sees their state when it is evaluated, which is after the
//!   commit. A membership that was revoked in between no longer counts.
//! - If an image lacks a value that a policy needs (an unchanged large value, or a generated column
//!   that cannot be computed), the stored row is judged instead, under the same role.
//! - A DELETE leaves no row. With `replica identity full`, the old row is judged after the commit
//!   and, if the policies read other rows, also in the state before the commit (`snapshots`). With
//!   another replica identity, every subscriber with an applicable policy receives the columns of
//!   the primary key that the WAL contains, unless `visibility.delete_without_old_row` is off.

mod addressing;
mod backoff;
mod binding;
mod catalog;
mod catalog_cache;
mod checks;
mod columns;
mod committed;
mod completion;
mod conditions;
mod decisions;
mod delivery;
mod descriptions;
mod encoding;
mod engine;
mod error;
mod failure;
mod filter;
mod filter_time;
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
mod receivers;
mod recipients;
pub mod record;
mod request;
mod resolution;
mod resolve;
mod row_access;
mod snapshots;
mod subscription;
mod table;
mod table_batch;
mod types;
mod unpublished;
mod validate;
mod waiting;

pub use binding::{Binding, ChannelId, SubscribeOptions, Subscriber};
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
