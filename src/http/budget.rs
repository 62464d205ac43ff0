//! Memory of what arrives and is not whole: heads and bodies of requests.
//!
//! Anybody may begin a request and send the rest byte by byte. All that is begun has a budget. Beyond it
//! only a modest part may be taken each, so that small requests pass whatever others do.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;

/// What all may take together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    max_bytes: i64,
    modest_bytes: i64,
    /// The metric itself, so that counting is one addition.
    in_use: Gauge<i64, AtomicI64>,
}

/// Too much is under way, and this is not a modest part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many unfinished requests")]
pub struct Exhausted;

impl From<Exhausted> for io::Error {
    fn from(error: Exhausted) -> Self {
        Self::other(error)
    }
}

impl Budget {
    /// `max_bytes` for all, and beyond that `modest_bytes` for each, counted in `in_use`.
    pub fn new(max_bytes: usize, modest_bytes: usize, in_use: &Gauge<i64, AtomicI64>) -> Self {
        Self {
            max_bytes: signed(max_bytes),
            modest_bytes: signed(modest_bytes),
            in_use: in_use.clone(),
        }
    }

    /// Something that takes nothing yet.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: AtomicI64::new(0),
        }
    }
}

/// What one of them takes; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: AtomicI64,
}

impl Share {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// [`Exhausted`]; they are counted all the same, because they have arrived.
    pub fn take(&self, count: usize) -> Result<(), Exhausted> {
        let count = signed(count);
        let bytes = self.bytes.fetch_add(count, Ordering::Relaxed) + count;
        let all = self.budget.in_use.inc_by(count) + count;
        if all > self.budget.max_bytes && bytes > self.budget.modest_bytes {
            return Err(Exhausted);
        }
        Ok(())
    }

    /// Gives everything back.
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

/// As is counted. No memory has as many bytes as do not fit.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modest_shares_pass_however_much_others_take() {
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
        assert!(modest.take(1).is_ok(), "it is another request now");
        drop(large);
        assert!(modest.take(15_000).is_ok());
        drop(modest);
        assert_eq!(in_use.get(), 0);
    }
}
