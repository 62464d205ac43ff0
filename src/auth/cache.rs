//! A bounded cache of tokens with a valid signature.
//!
//! The cache stores hashes, never tokens. It stores nothing that depends on the time, so the expiry
//! must be checked after each look-up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// Maximum entries of one generation. There are two generations, so the tokens of up to ten
/// thousand users stay cached. At about 700 bytes per token, the cache takes at most about 7 MB.
const GENERATION_SIZE: usize = 5_000;

/// The verified content of the most recently used tokens.
pub(super) struct Cache<V> {
    /// A standard mutex, held for two look-ups and never across an await.
    generations: Mutex<Generations<V>>,
    generation_size: usize,
}

/// Two maps take the place of an ordered list. An entry that is read moves to the young map. When
/// the young map is full, it becomes the old one, and the previous old map is dropped. The size is
/// bounded, a look-up takes constant time, and no order of entries has to be maintained.
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
    fn drops_the_least_recently_used_and_stays_bounded() {
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
