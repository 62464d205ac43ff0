//! Limits the number of requests in progress per service.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::addresses::{AddressLimit, AddressShare};

/// The limit of a service. Clones share it.
#[derive(Clone)]
pub(super) struct InFlightLimit {
    permits: Arc<Semaphore>,
    addresses: AddressLimit,
    in_flight: Gauge<i64, AtomicI64>,
}

impl InFlightLimit {
    pub(super) fn new(
        max: usize,
        max_per_address: usize,
        in_flight: Gauge<i64, AtomicI64>,
    ) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            addresses: AddressLimit::new(max_per_address),
            in_flight,
        }
    }

    /// Starts a request of the client with this address, unless too many are in progress. It does
    /// not wait for a free permit, because waiting requests would take the resources that the limit
    /// protects.
    pub(super) fn start(&self, client: Option<IpAddr>) -> Option<InFlight> {
        let address_share = self.addresses.take(client)?;
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        self.in_flight.inc();
        Some(InFlight {
            _permit: permit,
            _address_share: address_share,
            in_flight: self.in_flight.clone(),
        })
    }
}

/// A request in progress, until it is dropped.
pub(super) struct InFlight {
    _permit: OwnedSemaphorePermit,
    _address_share: AddressShare,
    in_flight: Gauge<i64, AtomicI64>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}
