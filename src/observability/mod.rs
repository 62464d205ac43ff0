//! What the process tells about itself: log lines, metrics, and whether it is ready.

pub mod logging;
pub mod metrics;
pub mod readiness;
