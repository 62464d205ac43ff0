//! Everything that was received during a period.

use hdrhistogram::{CreationError, Histogram};
use serde_json::{Value, json};

/// Receipts and their latencies.
pub(crate) struct Window {
    /// Deliveries: one per message and receiver.
    pub(crate) deliveries: u64,
    /// Frames that contained the deliveries.
    pub(crate) frames: u64,
    /// Messages that reached all their receivers.
    pub(crate) completed: u64,
    /// Receipts beyond one per receiver.
    pub(crate) repeated: u64,
    /// Receipts of expired messages.
    pub(crate) late: u64,
    /// Receipts by clients for which the message was not intended.
    pub(crate) misdelivered: u64,
    latency_us: Histogram<u64>,
}

impl Window {
    /// Creates an empty window.
    pub(crate) fn new(latency_us: Histogram<u64>) -> Self {
        Self {
            deliveries: 0,
            frames: 0,
            completed: 0,
            repeated: 0,
            late: 0,
            misdelivered: 0,
            latency_us,
        }
    }

    /// Returns this window and replaces it with a new one.
    pub(crate) fn take(&mut self) -> Self {
        let next = Self::new(Histogram::new_from(&self.latency_us));
        std::mem::replace(self, next)
    }

    /// Records one receipt with its latency in nanoseconds.
    #[inline]
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.deliveries += 1;
        self.latency_us.saturating_record(nanoseconds / 1000);
    }

    /// Returns a quantile of the time from send to receipt in milliseconds, or NaN if nothing was
    /// received.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        if self.latency_us.is_empty() {
            return f64::NAN;
        }
        milliseconds(&self.latency_us, quantile)
    }
}

/// Returns a histogram from one microsecond to ten minutes, with three significant digits.
pub(crate) fn microseconds() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, 600_000_000, 3)
}

/// Returns a quantile in milliseconds, with microsecond resolution.
pub(crate) fn milliseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// Returns the usual quantiles in milliseconds.
pub(crate) fn quantiles(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| milliseconds(histogram, quantile);
    json!({"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)})
}
