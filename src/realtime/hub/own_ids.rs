//! The ids of messages that this process stores. They are recognized when the rows return through
//! the WAL.
//!
//! Such a message was sent to the members of its topic when it was stored, so its row must not be
//! sent again. The id itself contains a mark, because a list of ids would grow while replication
//! lags. Other processes do not recognize the mark, so they broadcast the row to their own sockets.

use std::hash::{BuildHasher as _, RandomState};

use uuid::Uuid;

/// The bits of a UUID's variant within its second half. The version is in the first half.
const VARIANT: u64 = 0b11 << 62;
/// The variant of every UUID that RFC 9562 defines.
const VARIANT_RFC_9562: u64 = 0b10 << 62;

/// Generates ids and recognizes them with a keyed hash. Its keys are random and never leave the
/// process.
#[derive(Debug, Default)]
pub struct OwnIds(RandomState);

impl OwnIds {
    /// Generates an id: a random UUID whose second half is a keyed hash of the first.
    pub fn next(&self) -> Uuid {
        let (random, _) = Uuid::new_v4().as_u64_pair();
        Uuid::from_u64_pair(random, self.mark(random))
    }

    /// Returns whether [`OwnIds::next`] generated the id. The probability that another id is
    /// mistaken for a generated one is 2⁻⁶².
    pub fn contains(&self, id: Uuid) -> bool {
        let (random, mark) = id.as_u64_pair();
        mark == self.mark(random)
    }

    fn mark(&self, random: u64) -> u64 {
        self.0.hash_one(random) & !VARIANT | VARIANT_RFC_9562
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_generated_an_id_recognizes_it() {
        let (own, other) = (OwnIds::default(), OwnIds::default());
        for _ in 0..1_000 {
            let id = own.next();
            assert!(own.contains(id) && !other.contains(id), "{id}");
            assert_eq!(
                (id.get_version_num(), id.get_variant()),
                (4, uuid::Variant::RFC4122)
            );
            assert!(!own.contains(Uuid::new_v4()));
        }
    }
}
