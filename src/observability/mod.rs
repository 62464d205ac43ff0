//! Logging, metrics and readiness of the process.

pub mod excerpt;
mod log_lines;
pub mod logging;
pub mod metrics;
pub mod readiness;
