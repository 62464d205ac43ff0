//! Limits the memory of incomplete request heads and bodies.
//!
//! Any client may start a request and send the rest byte by byte. All incomplete heads share one
//! budget, and all incomplete bodies share another. Once a budget is used up, each head or body may
//! take only a modest size, so that small requests succeed regardless of other clients.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;

/// A shared budget. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Budget {
    max_bytes: i64,
    modest_bytes: i64,
    /// The bytes in use. This is the metric itself, so that counting is a single addition.
    in_use: Gauge<i64, AtomicI64>,
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
        Self {
            max_bytes: signed(max_bytes),
            modest_bytes: signed(modest_bytes),
            in_use: in_use.clone(),
        }
    }

    /// Returns an empty share of the budget.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: AtomicI64::new(0),
        }
    }
}

/// The bytes of one head or body. They are released on drop.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
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
        let bytes = self.bytes.fetch_add(count, Ordering::Relaxed) + count;
        let all = self.budget.in_use.inc_by(count) + count;
        if all > self.budget.max_bytes && bytes > self.budget.modest_bytes {
            return Err(Exhausted);
        }
        Ok(())
    }

    /// Releases all bytes.
    pub fn clear(&self) {
        self.budget
            .in_use
            .dec_by(self.bytes.swap(0, Ordering::Relaxed));
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
        let large: Vec<_> = (0..4).map(|_| budget.share()).collect();
        let taken = large.iter().filter(|share| share.take(9_000).is_ok());
        assert_eq!(taken.count(), 2);
        let modest = budget.share();
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
}
