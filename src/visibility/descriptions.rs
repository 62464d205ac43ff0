//! Records the latest description of each table in the stream, and derives the maximum age of a
//! reading of the catalogue from it.
//!
//! PostgreSQL describes a table again before its next row after every statement that invalidates
//! its relation cache entry. Such statements concern policies, row-level security, owner, grants on
//! the table or its columns, columns, replica identity, and publications. Rows that follow a new
//! description are judged by a reading that begins after their commit is visible. The rules are
//! therefore not older than the row. `VACUUM`, `ANALYZE` and a new connection also cause a
//! description. Therefore a fingerprint is compared first, and the catalogue is read again only if
//! the fingerprint has changed.
//!
//! The stream does not show changes to role attributes and memberships, to functions and other
//! tables that policies name, and to rights on the schema (before PostgreSQL 16). It also does not
//! yet show a statement that follows the row in the same transaction. Such changes take effect
//! after `visibility.catalog_ttl_ms`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::change::Relation;

/// Time after a new description during which every batch needs a new reading. `GRANT` and `REVOKE`
/// do not lock the table, so a row that follows the statement in the WAL can become visible
/// microseconds before the statement does. A reading that sees the row but not yet the statement
/// must not be used for longer.
const NEW_DESCRIPTION_PERIOD: Duration = Duration::from_millis(100);

/// Maximum number of tables. Beyond this, all tables are forgotten, which costs one comparison of
/// fingerprints per table.
const MAX_TABLES: usize = 10_000;

/// The latest description of each table.
#[derive(Default)]
pub(super) struct Descriptions(Mutex<HashMap<u32, Recorded>>);

struct Recorded {
    /// The description. It is kept alive so that no later description can have the same address.
    relation: Arc<Relation>,
    /// When the commit of the first rows with this description was visible.
    at: Instant,
}

impl Descriptions {
    /// Returns the maximum age of a reading for rows with these descriptions. It is zero if one of
    /// them is new.
    pub(super) fn age_limit<'a>(
        &self,
        relations: impl Iterator<Item = &'a Arc<Relation>>,
    ) -> Duration {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        relations
            .map(|relation| match recorded.get(&relation.oid) {
                Some(recorded) if Arc::ptr_eq(&recorded.relation, relation) => {
                    recorded.at.elapsed().saturating_sub(NEW_DESCRIPTION_PERIOD)
                }
                _ => Duration::ZERO,
            })
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// Records descriptions whose rows are visible to every reading that begins from now on.
    pub(super) fn record<'a>(&self, relations: impl Iterator<Item = &'a Arc<Relation>>) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.len() >= MAX_TABLES {
            recorded.clear();
        }
        for relation in relations {
            let is_known = recorded
                .get(&relation.oid)
                .is_some_and(|recorded| Arc::ptr_eq(&recorded.relation, relation));
            if !is_known {
                let (relation, at) = (Arc::clone(relation), Instant::now());
                recorded.insert(relation.oid, Recorded { relation, at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{ReplicaIdentity, TableName};

    fn relation(oid: u32) -> Arc<Relation> {
        Arc::new(Relation {
            oid,
            table: TableName::new("public", "t"),
            identity: ReplicaIdentity::Default,
            columns: Vec::new(),
        })
    }

    #[test]
    fn a_reading_from_before_a_description_is_too_old() {
        let descriptions = Descriptions::default();
        let limit =
            |relations: &[&Arc<Relation>]| descriptions.age_limit(relations.iter().copied());
        assert_eq!(limit(&[]), Duration::MAX);
        let (first, other) = (relation(1), relation(2));
        assert_eq!(limit(&[&first]), Duration::ZERO);
        descriptions.record([&first, &other].into_iter());
        assert_eq!(limit(&[&first]), Duration::ZERO, "still settling");
        descriptions
            .0
            .lock()
            .unwrap()
            .values_mut()
            .for_each(|recorded| {
                recorded.at = recorded.at.checked_sub(Duration::from_secs(5)).unwrap();
            });
        let settled = limit(&[&first, &other]);
        assert!(settled > Duration::from_secs(4) && settled < Duration::from_secs(5));

        let again = relation(1);
        assert_eq!(first, again, "equal, but a separate description");
        assert_eq!(limit(&[&again, &other]), Duration::ZERO);
        descriptions.record([&first, &again].into_iter());
        assert_eq!(limit(&[&first]), Duration::ZERO, "the later one counts");
        assert!(limit(&[&other]) > Duration::from_secs(4));
    }
}
