//! The queries of one reading of the catalogue, each prepared once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::queries::Query;

/// What a query to PostgreSQL depends on, within one reading of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QueryKey {
    pub(super) table: u32,
    /// A plan may have been made with the rights of the role that ran it first, so roles do
    /// not share one.
    pub(super) role: String,
    pub(super) kind: QueryKind,
}

/// The kinds of query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueryKind {
    /// The policies on row images.
    Image,
    /// The row itself by primary key.
    Key,
    /// One filter condition: column number, comparison, text of the comparison.
    Condition(i16, String),
    /// The values of a generated column, by its number.
    Generated(i16),
}

/// Queries by what distinguishes them. A std lock: held for a look-up or an insertion.
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
