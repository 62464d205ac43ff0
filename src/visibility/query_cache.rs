//! Caches the queries of one reading of the catalogue, so that each is created once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::queries::Query;

/// The key of a query within one reading of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QueryKey {
    pub(super) table: u32,
    /// The role. Roles do not share statements, because PostgreSQL may have planned a statement
    /// with the rights of the role that first ran it.
    pub(super) role: String,
    pub(super) kind: QueryKind,
}

/// The kinds of queries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueryKind {
    /// Evaluates the policies on row images.
    Image,
    /// Looks up the stored row by its primary key.
    Key,
    /// Evaluates one filter condition: column number and SQL.
    Condition(i16, String),
    /// Computes the generated column with this number.
    Generated(i16),
}

/// The queries by key. A std lock, because it is held only for a look-up or an insertion.
#[derive(Default)]
pub(super) struct QueryCache(Mutex<HashMap<QueryKey, Arc<Query>>>);

impl QueryCache {
    /// Returns the query for `key`, from the cache or created by `create`.
    pub(super) fn get_or_create(
        &self,
        key: QueryKey,
        create: impl FnOnce() -> Query,
    ) -> Arc<Query> {
        let mut queries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queries.entry(key).or_insert_with(|| Arc::new(create())))
    }
}
