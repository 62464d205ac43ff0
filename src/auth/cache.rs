//! A bounded memory of tokens whose signature was good.
//!
//! Holds hashes, never tokens, and nothing that depends on the time: whoever takes a value
//! from here still checks its expiry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// Entries of one generation. Two are kept, so about ten thousand people's tokens stay
/// known; at some 700 bytes each that is a few megabytes.
const GENERATION_SIZE: usize = 5_000;

/// What was found out about each of the tokens seen last.
pub(super) struct Cache<V> {
    /// A std mutex: it is held for two map look-ups and never across an await.
    generations: Mutex<Generations<V>>,
    generation_size: usize,
}

/// Two maps in place of an ordered list: what is still in use moves to the young one when it
/// is read, and the old one is dropped whole when the young one is full. Bounded, constant
/// time, and no bookkeeping per read.
struct Generations<V> {
    young: HashMap<TokenHash, Arc<V>>,
    old: HashMap<TokenHash, Arc<V>>,
}

impl<V> Cache<V> {
    pub(super) fn new() -> Self {
        Self::with_generation_size(GENERATION_SIZE)
    }

    fn with_generation_size(generation_size: usize) -> Self {
        let generations = Generations {
            young: HashMap::new(),
            old: HashMap::new(),
        };
        Self {
            generations: Mutex::new(generations),
            generation_size,
        }
    }

    pub(super) fn get(&self, hash: &TokenHash) -> Option<Arc<V>> {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = generations.young.get(hash) {
            return Some(Arc::clone(value));
        }
        let value = generations.old.remove(hash)?;
        self.store(&mut generations, *hash, Arc::clone(&value));
        Some(value)
    }

    pub(super) fn insert(&self, hash: TokenHash, value: Arc<V>) {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.store(&mut generations, hash, value);
    }

    fn store(&self, generations: &mut Generations<V>, hash: TokenHash, value: Arc<V>) {
        if generations.young.len() >= self.generation_size {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(hash, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Cache;

    fn hash(n: u8) -> [u8; 32] {
        [n; 32]
    }

    #[test]
    fn forgets_the_longest_unused_and_stays_bounded() {
        let cache = Cache::with_generation_size(2);
        for n in 0..4 {
            cache.insert(hash(n), Arc::new(n));
            assert_eq!(cache.get(&hash(0)).as_deref(), Some(&0), "in use, so kept");
        }
        for n in 4..8 {
            cache.insert(hash(n), Arc::new(n));
        }
        assert_eq!(cache.get(&hash(0)), None);
        let generations = cache.generations.lock().expect("no panic");
        assert!(generations.young.len() + generations.old.len() <= 4);
    }
}
