//! Limits how often one address may do something that requires no sign-in: open a socket or send a
//! request.
//!
//! The memory is fixed. It is a table of token buckets in which the position of an address is a
//! hash, with a new seed in every process. Addresses with the same position share its permits, and
//! a client cannot choose its position.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{Bucket, UnixMillis};

/// The number of buckets. Together they take 100 kB.
pub(super) const PLACES: usize = 4096;

/// The limit per address.
#[derive(Debug)]
pub struct Admission {
    burst: u32,
    per_second: u32,
    seed: RandomState,
    /// The buckets. Each has a standard mutex, because it is held only for a few additions.
    places: Box<[Mutex<Bucket>]>,
}

impl Admission {
    /// Allows `burst` permits at once, and `per_second` permits per second on average.
    pub fn new(burst: u32, per_second: u32) -> Self {
        // The refill time does not matter for full buckets.
        let full = || Mutex::new(Bucket::full(burst, UnixMillis(0)));
        Self {
            burst,
            per_second,
            seed: RandomState::new(),
            places: std::iter::repeat_with(full).take(PLACES).collect(),
        }
    }

    /// Takes one permit of `address`.
    ///
    /// # Errors
    /// The time until the next permit, if none is available now.
    pub fn admit(&self, address: IpAddr, now: UnixMillis) -> Result<(), Duration> {
        let hash = self.seed.hash_one(holder(address));
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let place = self.places[place].lock();
        let mut bucket = place.unwrap_or_else(PoisonError::into_inner);
        if bucket.take(self.burst, self.per_second, now) {
            return Ok(());
        }
        Err(bucket.wait(self.per_second))
    }
}

/// Returns a number for the subscriber line behind an address, as far as it can be determined. An
/// IPv4 address belongs to one subscriber, and so do all IPv6 addresses with the same first 64 bits
/// (RFC 6177).
pub(super) fn holder(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscriber_has_its_own_permits() {
        let admission = Admission::new(2, 1);
        let (start, address) = (UnixMillis(1_000_000), |text: &str| text.parse().unwrap());
        let admit = |text: &str, millis: i64| {
            admission
                .admit(address(text), UnixMillis(start.0 + millis))
                .is_ok()
        };
        // (address, milliseconds after the start, admitted)
        let cases = [
            ("10.0.0.1", 0, true),
            ("::ffff:10.0.0.1", 0, true),
            ("10.0.0.1", 0, false),
            ("10.0.0.1", 1_000, true),
            ("10.0.0.1", 1_000, false),
            ("2001:db8::1", 0, true),
            ("2001:db8::2", 0, true),
            ("2001:db8::3", 0, false),
        ];
        for (text, millis, expected) in cases {
            assert_eq!(admit(text, millis), expected, "{text} {millis}");
        }
        // A few of these addresses may share a bucket, but most have their own.
        let others = (0..20).filter(|last| admit(&format!("10.0.1.{last}"), 0));
        assert!(others.count() > 10);
    }
}
