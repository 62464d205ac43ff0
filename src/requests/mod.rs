//! The shared handling of signed-in users' requests: admission, rate limits, concurrency limits,
//! and writes that a retry does not repeat.
//!
//! A feature defines its classes of requests ([`Class`]) and registers its routes through
//! [`Routes`], each with its class. A [`Guard`] runs before every handler: it identifies the caller
//! and takes a token of the class. Handlers that write do so through a [`Writer`].
//!
//! This module depends on no feature. Classes, settings and statements are passed in.

mod allowance;
mod class;
mod concurrency;
mod guard;
mod idempotency;
mod identity;
mod rate_limits;
mod rates;
mod routes;
mod rows;
mod writer;

pub use self::class::{Class, Exemption};
pub use self::concurrency::{ConcurrencyLimit, Permit};
pub use self::guard::Guard;
pub use self::idempotency::KeyStatements;
pub use self::identity::check_identity;
pub use self::rates::{Rate, Rates};
pub use self::routes::Routes;
pub use self::rows::{column, confirmation, extended, only, whole_list};
pub use self::writer::Writer;
