//! Logging, metrics and readiness of the process.

pub mod logging;
pub mod metrics;
pub mod readiness;
