//! Maps relation ids to the latest table definition in the stream.
//!
//! On each connection, PostgreSQL sends a relation message before the first change of a table. If a
//! statement may have changed the table, its policies or the rights on it, PostgreSQL sends the
//! message again before the table's next change.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::Relation;

/// The table definitions received so far. They outlive connections.
///
/// Each message creates a new `Arc`, even if the definition equals the previous one. A definition
/// does not contain policies. So only the arrival of a message shows that a policy may have
/// changed.
#[derive(Debug, Default)]
pub(super) struct RelationCache {
    relations: HashMap<u32, Arc<Relation>>,
}

impl RelationCache {
    /// Stores a definition in place of the previous one with the same id.
    pub(super) fn insert(&mut self, relation: Relation) {
        self.relations.insert(relation.oid, Arc::new(relation));
    }

    /// Returns the latest definition of the table with this id.
    pub(super) fn get(&self, oid: u32) -> Option<Arc<Relation>> {
        self.relations.get(&oid).cloned()
    }

    /// Removes all definitions. In another cluster, the ids belong to other tables.
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
    fn a_later_definition_replaces_even_an_equal_one() {
        let mut cache = RelationCache::default();
        assert!(cache.get(1).is_none());

        cache.insert(relation(1, "a"));
        let first = cache.get(1).expect("inserted");
        cache.insert(relation(1, "a"));
        let second = cache.get(1).expect("a new definition");
        assert_eq!(first, second);
        assert!(!Arc::ptr_eq(&first, &second), "it is a new value");

        cache.insert(relation(1, "b"));
        assert_eq!(cache.get(1).expect("replaced").table.name, "b");
        assert_eq!(first.table.name, "a", "the old value is unchanged");

        cache.clear();
        assert!(cache.get(1).is_none());
    }
}
