//! The code that all HTTP routes share: errors, callers, input, pagination and headers.
//!
//! This module does not depend on any feature. [`finish`] wraps the complete router once.
//! [`origin::Origins`] decides which web pages may use the routes.

pub mod addresses;
pub mod admission;
pub mod anonymous_limiter;
pub mod budget;
pub mod caller;
pub mod conditional;
mod cookie;
pub mod demo;
pub mod error;
pub mod heads;
pub mod health;
pub mod idle;
pub mod input;
pub mod metrics;
pub mod middleware;
pub mod openapi;
pub mod origin;
pub mod pagination;
pub mod peer;
pub mod responses;
pub mod serve;

pub use caller::{Authentication, Caller, Identity};
pub use error::ApiError;
pub use middleware::{finish, finish_with};
