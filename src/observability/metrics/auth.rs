//! The metrics of tokens and published key sets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// The metrics of all issuers. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct AuthMetrics {
    /// Tokens whose key was not known, although their issuer publishes a key set.
    pub unknown_kid: Counter,
    /// Tokens that were issued more than five minutes in the future.
    pub clock_ahead: Counter,
    refreshes: Family<RefreshLabels, Counter>,
    ages: Ages,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    /// The issuer, as configured.
    source: Arc<str>,
    /// `changed`, `unchanged` or `failed`.
    outcome: &'static str,
}

/// When each key set that is in use was fetched. The age is computed when the metrics are exported.
#[derive(Clone, Debug, Default)]
struct Ages(Arc<Mutex<BTreeMap<Arc<str>, Instant>>>);

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut encoder = encoder.encode_descriptor(
            "key_set_age_seconds",
            "Seconds since the key set of an issuer was fetched.",
            None,
            MetricType::Gauge,
        )?;
        let fetched = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (source, at) in fetched {
            let age = ConstGauge::new(at.elapsed().as_secs_f64());
            age.encode(encoder.encode_family(&[("source", &*source)])?)?;
        }
        Ok(())
    }
}

impl AuthMetrics {
    /// Returns the metrics of an issuer's key set.
    pub fn key_set(&self, source: &str) -> KeySetMetrics {
        KeySetMetrics {
            source: source.into(),
            all: self.clone(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "unknown_kid",
            "Tokens whose key was not in the published key set of their issuer",
            self.unknown_kid.clone(),
        );
        registry.register(
            "clock_ahead",
            "Tokens that were issued more than five minutes in the future",
            self.clock_ahead.clone(),
        );
        registry.register(
            "key_set_refreshes",
            "Attempts to fetch a key set",
            self.refreshes.clone(),
        );
        registry.register_collector(Box::new(self.ages.clone()));
    }
}

/// The metrics of one key set.
#[derive(Clone, Debug)]
pub struct KeySetMetrics {
    source: Arc<str>,
    all: AuthMetrics,
}

impl KeySetMetrics {
    /// Counts a successful fetch, after which the age of the set is zero.
    pub fn fetched(&self, has_changed: bool) {
        self.count(if has_changed { "changed" } else { "unchanged" });
        let mut ages = self.ages();
        ages.insert(Arc::clone(&self.source), Instant::now());
    }

    /// Counts a failed attempt.
    pub fn failed(&self) {
        self.count("failed");
    }

    /// Records that the set is no longer used.
    pub fn removed(&self) {
        self.ages().remove(&self.source);
    }

    fn count(&self, outcome: &'static str) {
        let labels = RefreshLabels {
            source: Arc::clone(&self.source),
            outcome,
        };
        self.all.refreshes.get_or_create(&labels).inc();
    }

    fn ages(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Instant>> {
        self.all
            .ages
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
