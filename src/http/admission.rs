//! Limits how often one address may do something that requires no sign-in: open a socket or send a
//! request.
//!
//! The memory is fixed: a table of token buckets by the position of the address
//! ([`super::addresses`]).

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::addresses::{POSITIONS, Positions};
use crate::limits::{Bucket, UnixMillis};

/// The limit per address.
#[derive(Debug)]
pub struct Admission {
    burst: u32,
    per_second: u32,
    positions: Positions,
    /// The buckets, which take 100 kB. Each has a standard mutex, because it is held only for a few
    /// additions.
    buckets: Box<[Mutex<Bucket>]>,
}

impl Admission {
    /// Allows `burst` permits at once, and `per_second` permits per second on average.
    pub fn new(burst: u32, per_second: u32) -> Self {
        // The refill time does not matter for full buckets.
        let full = || Mutex::new(Bucket::full(burst, UnixMillis(0)));
        Self {
            burst,
            per_second,
            positions: Positions::default(),
            buckets: std::iter::repeat_with(full).take(POSITIONS).collect(),
        }
    }

    /// Takes one permit of `address`.
    ///
    /// # Errors
    /// The time until the next permit, if none is available now.
    pub fn admit(&self, address: IpAddr, now: UnixMillis) -> Result<(), Duration> {
        let bucket = self.buckets[usize::from(self.positions.of(address))].lock();
        let mut bucket = bucket.unwrap_or_else(PoisonError::into_inner);
        if bucket.take(self.burst, self.per_second, now) {
            return Ok(());
        }
        Err(bucket.wait(self.per_second))
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
