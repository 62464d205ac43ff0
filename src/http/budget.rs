//! Limits the memory of incomplete request heads and bodies.
//!
//! Any client may start a request and send the rest byte by byte. All incomplete heads share one
//! budget, and all incomplete bodies share another. Once a budget is used up, each head or body may
//! take only a modest size, so that small requests succeed regardless of other clients. The same
//! applies to one address that uses its part of the budget, so that the larger requests of others
//! succeed as well.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;

use super::addresses::{POSITIONS, Positions};

/// One address may use the budget divided by this number. Its part is large, because all users may
/// be behind one router.
const ADDRESSES: i64 = 2;

/// A shared budget. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max_bytes: i64,
    modest_bytes: i64,
    /// The bytes in use. This is the metric itself, so that counting is a single addition.
    in_use: Gauge<i64, AtomicI64>,
    positions: Positions,
    /// The same bytes, by the position of the client's address.
    per_address: Box<[AtomicI64]>,
}

/// The error if the budget is used up and this head or body exceeds the modest size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many unfinished requests")]
pub struct Exhausted;

impl From<Exhausted> for io::Error {
    fn from(error: Exhausted) -> Self {
        Self::other(error)
    }
}

impl Budget {
    /// Creates a budget of `max_bytes` for all heads or bodies. Once it is used up, each may take
    /// `modest_bytes`. `in_use` counts the bytes.
    pub fn new(max_bytes: usize, modest_bytes: usize, in_use: &Gauge<i64, AtomicI64>) -> Self {
        Self(Arc::new(Inner {
            max_bytes: signed(max_bytes),
            modest_bytes: signed(modest_bytes),
            in_use: in_use.clone(),
            positions: Positions::default(),
            per_address: std::iter::repeat_with(AtomicI64::default)
                .take(POSITIONS)
                .collect(),
        }))
    }

    /// Returns an empty share of the budget for a client. If its address is unknown, only the whole
    /// budget limits the share.
    pub fn share(&self, client: Option<IpAddr>) -> Share {
        Share {
            budget: self.clone(),
            position: client.map(|address| self.0.positions.of(address)),
            bytes: AtomicI64::new(0),
        }
    }
}

/// The bytes of one head or body. They are released on drop.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    position: Option<u16>,
    bytes: AtomicI64,
}

impl Share {
    /// Takes `count` more bytes.
    ///
    /// # Errors
    /// [`Exhausted`] if the bytes are not allowed. They are counted anyway, because they have
    /// already arrived.
    pub fn take(&self, count: usize) -> Result<(), Exhausted> {
        let count = signed(count);
        let budget = &self.budget.0;
        let bytes = self.bytes.fetch_add(count, Ordering::Relaxed) + count;
        let all = budget.in_use.inc_by(count) + count;
        let of_address = self
            .of_address()
            .map_or(0, |held| held.fetch_add(count, Ordering::Relaxed) + count);
        let is_used_up = all > budget.max_bytes || of_address > budget.max_bytes / ADDRESSES;
        if is_used_up && bytes > budget.modest_bytes {
            return Err(Exhausted);
        }
        Ok(())
    }

    /// Releases all bytes.
    pub fn clear(&self) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.budget.0.in_use.dec_by(bytes);
        if let Some(held) = self.of_address() {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Returns the bytes that the client's address holds.
    fn of_address(&self) -> Option<&AtomicI64> {
        Some(&self.budget.0.per_address[usize::from(self.position?)])
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Converts to the type of the metric. No machine has enough memory for an overflow.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modest_shares_are_allowed_when_the_budget_is_used_up() {
        let in_use = Gauge::default();
        let budget = Budget::new(20_000, 8_000, &in_use);
        let large: Vec<_> = (0..4).map(|_| budget.share(None)).collect();
        let taken = large.iter().filter(|share| share.take(9_000).is_ok());
        assert_eq!(taken.count(), 2);
        let modest = budget.share(None);
        assert!(modest.take(8_000).is_ok());
        assert_eq!(modest.take(1), Err(Exhausted));
        assert_eq!(in_use.get(), 44_001);
        modest.clear();
        assert!(modest.take(1).is_ok(), "a cleared share starts again");
        drop(large);
        assert!(modest.take(15_000).is_ok());
        drop(modest);
        assert_eq!(in_use.get(), 0);
    }

    #[test]
    fn one_address_does_not_use_up_the_budget() {
        let in_use = Gauge::default();
        let budget = Budget::new(40_000, 1_000, &in_use);
        let [attacker, other] = ["10.0.0.1", "10.0.0.2"].map(|text| Some(text.parse().unwrap()));
        let mut of_many: Vec<_> = (0..10).map(|_| budget.share(attacker)).collect();
        let taken = of_many.iter().filter(|share| share.take(5_000).is_ok());
        assert_eq!(taken.count(), 4);
        // A refused head or body is dropped with its connection or request.
        of_many.truncate(4);
        let modest = budget.share(attacker);
        assert!(modest.take(1_000).is_ok());
        assert_eq!(modest.take(1), Err(Exhausted));
        let of_other = budget.share(other);
        assert!(of_other.take(18_000).is_ok());
        drop((of_many, modest, of_other));
        assert_eq!(in_use.get(), 0);
        let again = budget.share(attacker);
        assert!(
            again.take(20_000).is_ok(),
            "released bytes can be taken again"
        );
    }
}
