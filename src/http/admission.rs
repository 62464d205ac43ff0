//! How often one address may do something that needs no sign-in: open a socket, or send a request.
//!
//! Memory is bounded by construction: a table of token buckets of fixed size, in which an address has
//! its place by a hash that is seeded anew in every process. Addresses that share a place share its
//! permits; nobody can choose whose place to share.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{Bucket, UnixMillis};

/// Places of the table: 100 kB of them.
const PLACES: usize = 4096;

/// What each address may do.
#[derive(Debug)]
pub struct Admission {
    burst: u32,
    per_second: u32,
    seed: RandomState,
    /// A plain mutex per place: it is held for a few additions.
    places: Box<[Mutex<Bucket>]>,
}

impl Admission {
    /// `burst` times at once and `per_second` in the long run.
    pub fn new(burst: u32, per_second: u32) -> Self {
        // The time they were last filled at does not matter for full ones.
        let full = || Mutex::new(Bucket::full(burst, UnixMillis(0)));
        Self {
            burst,
            per_second,
            seed: RandomState::new(),
            places: std::iter::repeat_with(full).take(PLACES).collect(),
        }
    }

    /// Lets `address` do it once more.
    ///
    /// # Errors
    /// How long it has to wait, when it may not now.
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

/// Who an address belongs to, as far as that can be told: an IPv4 address is one subscriber's, of an
/// IPv6 address the first 64 bits, behind which a subscriber has all of them (RFC 6177).
fn holder(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 64) << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscriber_has_permits_of_its_own() {
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
        // Enough others that one of them, at least, has a place of its own.
        let others = (0..20).filter(|last| admit(&format!("10.0.1.{last}"), 0));
        assert!(others.count() > 10);
    }
}
