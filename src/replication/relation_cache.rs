//! Relation id to the table as it was last described.
//!
//! PostgreSQL sends a relation message before the first change that needs it, in every
//! connection anew and after every change of the table. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::Relation;

/// The tables seen so far. It outlives connections: a relation that is described again without
/// a difference keeps its `Arc`, so that what is derived from it further on can be kept too.
#[derive(Debug, Default)]
pub(super) struct RelationCache {
    relations: HashMap<u32, Arc<Relation>>,
}

impl RelationCache {
    /// Takes a relation message; it replaces what was known of the same id.
    pub(super) fn insert(&mut self, relation: Relation) {
        match self.relations.get_mut(&relation.oid) {
            Some(known) if **known == relation => {}
            Some(known) => *known = Arc::new(relation),
            None => {
                self.relations.insert(relation.oid, Arc::new(relation));
            }
        }
    }

    /// The table with this id, as of the last relation message.
    pub(super) fn get(&self, oid: u32) -> Option<Arc<Relation>> {
        self.relations.get(&oid).cloned()
    }

    /// Forgets everything: ids of another cluster mean other tables.
    pub(super) fn clear(&mut self) {
        self.relations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{ReplicaIdentity, TableName};

    fn relation(oid: u32, name: &str) -> Relation {
        Relation {
            oid,
            table: TableName::new("public", name),
            identity: ReplicaIdentity::Default,
            columns: Vec::new(),
        }
    }

    #[test]
    fn a_later_description_replaces_and_an_equal_one_keeps_the_value() {
        let mut cache = RelationCache::default();
        assert!(cache.get(1).is_none());

        cache.insert(relation(1, "a"));
        let first = cache.get(1).expect("inserted");
        cache.insert(relation(1, "a"));
        assert!(Arc::ptr_eq(&first, &cache.get(1).expect("kept")));

        cache.insert(relation(1, "b"));
        assert_eq!(cache.get(1).expect("replaced").table.name, "b");
        assert_eq!(first.table.name, "a", "holders of the old value keep it");

        cache.clear();
        assert!(cache.get(1).is_none());
    }
}
