//! The queries of one reading of the catalogue, each created once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::queries::Query;

/// What distinguishes the queries of one reading of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QueryKey {
    pub(super) table: u32,
    /// PostgreSQL may have planned a statement with the rights of the role that first ran it, so
    /// roles do not share statements.
    pub(super) role: String,
    pub(super) kind: QueryKind,
}

/// The kinds of queries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueryKind {
    /// The policies, on row images.
    Image,
    /// The stored row, by primary key.
    Key,
    /// One filter condition: column number and SQL.
    Condition(i16, String),
    /// A generated column, by number.
    Generated(i16),
}

/// The queries by key. A std lock: held for a look-up or an insertion.
#[derive(Default)]
pub(super) struct QueryCache(Mutex<HashMap<QueryKey, Arc<Query>>>);

impl QueryCache {
    /// The query for `key`, from the cache or created by `create`.
    pub(super) fn get_or_create(
        &self,
        key: QueryKey,
        create: impl FnOnce() -> Query,
    ) -> Arc<Query> {
        let mut queries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queries.entry(key).or_insert_with(|| Arc::new(create())))
    }
}
