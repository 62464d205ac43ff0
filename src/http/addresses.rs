//! Counts what each client address holds, for clients that can be identified only by their address.
//!
//! The memory is fixed. An address is represented by a position, which is a hash with a new seed in
//! every process. Addresses with the same position share a limit, and a client cannot choose its
//! position.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of positions.
pub(super) const POSITIONS: usize = 4096;

/// Assigns positions to addresses.
#[derive(Debug, Default)]
pub(super) struct Positions(RandomState);

impl Positions {
    /// Returns the position of `address`, below [`POSITIONS`].
    pub(super) fn of(&self, address: IpAddr) -> u16 {
        let hash = self.0.hash_one(subscriber(address));
        u16::try_from(hash % POSITIONS as u64).unwrap_or(0)
    }
}

/// Returns a number for the subscriber line behind an address, as far as it can be determined. An
/// IPv4 address belongs to one subscriber. Of IPv6, a subscriber receives up to a /48 network
/// (RFC 6177), so all addresses with the same first 48 bits count together. A few subscribers with
/// smaller networks share a limit.
fn subscriber(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => (address.to_bits() >> 80) << 80,
    }
}

/// Limits how many of something, for instance sockets, one address holds at a time. Clones share
/// the counts.
#[derive(Clone, Debug)]
pub struct AddressLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    positions: Positions,
    held: Box<[AtomicUsize]>,
}

/// One thing that an address holds, until this is dropped.
#[derive(Debug)]
pub struct AddressShare {
    limit: AddressLimit,
    /// `None` if the address is unknown.
    position: Option<u16>,
}

impl AddressLimit {
    /// Allows each address to hold `max`. Zero means any number.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Inner {
            max: if max == 0 { usize::MAX } else { max },
            positions: Positions::default(),
            held: std::iter::repeat_with(AtomicUsize::default)
                .take(POSITIONS)
                .collect(),
        }))
    }

    /// Counts one more for `address`. Returns `None` if the address holds the maximum. An unknown
    /// address is not limited.
    pub fn take(&self, address: Option<IpAddr>) -> Option<AddressShare> {
        let inner = &self.0;
        let position = address.map(|address| inner.positions.of(address));
        if let Some(position) = position {
            let more = |held| (held < inner.max).then_some(held + 1);
            inner.held[usize::from(position)]
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .ok()?;
        }
        Some(AddressShare {
            limit: self.clone(),
            position,
        })
    }
}

impl AddressShare {
    /// Returns the position of the address, which few other addresses have. `None` if the address
    /// is unknown.
    pub fn position(&self) -> Option<u16> {
        self.position
    }
}

impl Drop for AddressShare {
    fn drop(&mut self) {
        if let Some(position) = self.position {
            self.limit.0.held[usize::from(position)].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscriber_holds_at_most_the_maximum() {
        let limit = AddressLimit::new(2);
        let take = |text: &str| limit.take(Some(text.parse().unwrap()));
        // IPv6 addresses of one subscriber count together.
        let first = take("2001:db8::1").unwrap();
        let second = take("2001:db8:0:ff::2").unwrap();
        assert!(take("2001:db8:0:1::3").is_none());
        drop(first);
        let third = take("2001:db8::3").unwrap();
        assert!(take("2001:db8::1").is_none());
        // A few of these addresses may share the position of the subscriber.
        let others = (0..20).filter(|last| take(&format!("10.0.1.{last}")).is_some());
        assert!(others.count() > 10);
        drop((second, third));
        assert!(
            limit
                .0
                .held
                .iter()
                .all(|held| held.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn unknown_addresses_and_zero_are_not_limited() {
        let address = Some("10.0.0.1".parse().unwrap());
        let limit = AddressLimit::new(1);
        let unknown: Vec<_> = (0..3).map(|_| limit.take(None)).collect();
        assert!(unknown.iter().all(Option::is_some));
        let unlimited = AddressLimit::new(0);
        let held: Vec<_> = (0..3).map(|_| unlimited.take(address)).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
