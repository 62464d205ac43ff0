//! The metrics of requests that are forwarded to the other services of Supabase.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The metrics of all services. Clones share their values.
#[derive(Clone, Debug)]
pub struct UpstreamMetrics {
    requests: Family<StatusLabels, Counter>,
    seconds: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    bytes: Family<DirectionLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    in_flight: Family<ServiceLabels, Gauge<i64, AtomicI64>>,
    retries: Family<ServiceLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    service: &'static str,
    /// `2xx` and so on.
    status_class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    service: &'static str,
    /// `up` to the service or `down` to the client.
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    service: &'static str,
    /// The error code that the client received, or `cut_off`.
    code: &'static str,
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        // From 0.5 ms to 262 s, because functions may take 150 seconds.
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 20));
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            bytes: Family::default(),
            errors: Family::default(),
            in_flight: Family::default(),
            retries: Family::default(),
        }
    }
}

impl UpstreamMetrics {
    /// Returns the metrics of a service.
    pub fn service(&self, service: &'static str) -> ServiceMetrics {
        let labels = ServiceLabels { service };
        let bytes = |direction| {
            let labels = DirectionLabels { service, direction };
            self.bytes.get_or_create(&labels).clone()
        };
        ServiceMetrics {
            uploaded: bytes("up"),
            downloaded: bytes("down"),
            cut: self
                .errors
                .get_or_create(&ErrorLabels {
                    service,
                    code: "cut_off",
                })
                .clone(),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            retries: self.retries.get_or_create(&labels).clone(),
            seconds: self.seconds.get_or_create(&labels).clone(),
            all: self.clone(),
            service,
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Forwarded requests that received a response",
            self.requests.clone(),
        );
        registry.register(
            "seconds",
            "Seconds from sending a request to the head of its response",
            self.seconds.clone(),
        );
        registry.register("bytes", "Bytes of forwarded bodies", self.bytes.clone());
        registry.register(
            "errors",
            "Requests that were refused or failed",
            self.errors.clone(),
        );
        registry.register(
            "in_flight",
            "Requests in progress, including open event streams and sockets",
            self.in_flight.clone(),
        );
        registry.register(
            "retries",
            "Requests sent again because the service closed an idle connection",
            self.retries.clone(),
        );
    }
}

/// The metrics of one service.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    /// Bytes of request bodies.
    pub uploaded: Counter,
    /// Bytes of response bodies.
    pub downloaded: Counter,
    /// Response bodies that were cut off.
    pub cut: Counter,
    /// Requests in progress.
    pub in_flight: Gauge<i64, AtomicI64>,
    /// Requests that were sent again.
    pub retries: Counter,
    seconds: Histogram,
    all: UpstreamMetrics,
    service: &'static str,
}

impl ServiceMetrics {
    /// Counts a response.
    pub fn answered(&self, status: u16, duration: Duration) {
        let labels = StatusLabels {
            service: self.service,
            status_class: match status / 100 {
                1 => "1xx",
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                _ => "5xx",
            },
        };
        self.all.requests.get_or_create(&labels).inc();
        self.seconds.observe(duration.as_secs_f64());
    }

    /// Counts a refusal or failure with its error code.
    pub fn failed(&self, code: &'static str) {
        let labels = ErrorLabels {
            service: self.service,
            code,
        };
        self.all.errors.get_or_create(&labels).inc();
    }
}
