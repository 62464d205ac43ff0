//! What every HTTP route shares: errors, callers, input, pages, headers.
//!
//! Knows no feature. [`finish`] wraps the whole router once; [`origin::Origins`] decides which
//! web pages may talk to it.

pub mod admission;
pub mod budget;
pub mod caller;
pub mod conditional;
mod cookie;
pub mod error;
pub mod heads;
pub mod health;
pub mod input;
pub mod metrics;
pub mod middleware;
pub mod openapi;
pub mod origin;
pub mod pagination;
pub mod peer;
pub mod serve;
pub mod strangers;

pub use caller::{Authentication, Caller, Identity};
pub use error::ApiError;
pub use middleware::finish;
