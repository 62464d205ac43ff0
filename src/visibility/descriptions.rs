//! When the stream described each table, and how old a reading of the catalogue may be for it.
//!
//! PostgreSQL describes a table again, before its next row, after every statement that
//! invalidates its relation cache: policies, row-level security, owner, grants on the table and
//! its columns, columns, replica identity, membership in a publication. Rows behind a new
//! description are judged by a reading that begins when their commit is visible, so never by
//! rules older than the row. `VACUUM`, `ANALYZE` and a new connection are followed by a
//! description as well, so the reading compares a fingerprint first.
//!
//! The stream says nothing of role attributes and memberships, of functions and other tables that
//! policies name, of rights on the schema (before PostgreSQL 16), and of statements that follow
//! the row within its transaction. These are in force after `visibility.catalog_ttl_ms`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::change::Relation;

/// For how long after a new description every batch has a reading of its own. `GRANT` and `REVOKE`
/// lock no table: a row that follows one in the log can be visible microseconds before it, and
/// a reading that sees the row and not yet the statement must not be trusted for longer.
const SETTLING: Duration = Duration::from_millis(100);

/// Tables remembered. Beyond this all are forgotten, which costs each a comparison of
/// fingerprints.
const MAX_TABLES: usize = 10_000;

/// The latest description of each table.
#[derive(Default)]
pub(super) struct Descriptions(Mutex<HashMap<u32, Noted>>);

struct Noted {
    /// Kept, so that no other description can have its address.
    relation: Arc<Relation>,
    /// When its first rows were seen to be committed.
    at: Instant,
}

impl Descriptions {
    /// How old a reading may be for rows with these descriptions; zero where one is new.
    pub(super) fn age_limit<'a>(
        &self,
        relations: impl Iterator<Item = &'a Arc<Relation>>,
    ) -> Duration {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        relations
            .map(|relation| match noted.get(&relation.oid) {
                Some(noted) if Arc::ptr_eq(&noted.relation, relation) => {
                    noted.at.elapsed().saturating_sub(SETTLING)
                }
                _ => Duration::ZERO,
            })
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// Takes note of descriptions whose rows are visible to readings from now on.
    pub(super) fn note<'a>(&self, relations: impl Iterator<Item = &'a Arc<Relation>>) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= MAX_TABLES {
            noted.clear();
        }
        for relation in relations {
            let is_known = noted
                .get(&relation.oid)
                .is_some_and(|noted| Arc::ptr_eq(&noted.relation, relation));
            if !is_known {
                let (relation, at) = (Arc::clone(relation), Instant::now());
                noted.insert(relation.oid, Noted { relation, at });
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
        descriptions.note([&first, &other].into_iter());
        assert_eq!(limit(&[&first]), Duration::ZERO, "it settles");
        descriptions
            .0
            .lock()
            .unwrap()
            .values_mut()
            .for_each(|noted| {
                noted.at = noted.at.checked_sub(Duration::from_secs(5)).unwrap();
            });
        let settled = limit(&[&first, &other]);
        assert!(settled > Duration::from_secs(4) && settled < Duration::from_secs(5));

        let again = relation(1);
        assert_eq!(first, again, "equal, and a description of its own");
        assert_eq!(limit(&[&again, &other]), Duration::ZERO);
        descriptions.note([&first, &again].into_iter());
        assert_eq!(limit(&[&first]), Duration::ZERO, "the later one counts");
        assert!(limit(&[&other]) > Duration::from_secs(4));
    }
}
