//! Computes generated columns that the WAL does not contain.
//!
//! Before PostgreSQL 18, pgoutput omits all generated columns. Since PostgreSQL 18, it omits
//! virtual ones and, unless the publication includes them, stored ones. The expression of a
//! generated column reads only other columns of its row, so PostgreSQL computes the value from the
//! row image. The result is the value at the commit, which the table may no longer contain. Columns
//! are computed once per batch, before subscribers are looked up, so filters, policies and records
//! use the completed row. Tables without such columns or without subscribers cause no queries.
//!
//! The expressions are written by the table owner and may call functions. They are evaluated as the
//! parked role, which has no rights. If that role may not execute a function, or if an input is
//! unknown, the value is unknown.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::backoff::Backoff;
use super::catalog::Catalog;
use super::completion::{Completion, Computed, GeneratedColumn, ImageInputs, generated_query};
use super::engine::Engine;
use super::error::QueryError;
use super::identity::Identity;
use super::queries::{
    DatabaseState, Execution, ExecutionMode, Principal, Query, QueryOutput, TextArray,
};
use super::table::{Table, TableColumn};
use crate::change::{ChangeTransaction, ColumnValue, Relation};
use crate::db::PARKED_ROLE;

/// The changes of a batch that have the same completion.
struct Incomplete {
    completion: Arc<Completion>,
    /// For each change, the index of the transaction and the index of the change in it.
    places: Vec<(usize, usize)>,
}

impl Engine {
    /// Adds the values of generated columns to the changes of tables that have subscribers. Waits
    /// while the database is unreachable.
    pub(super) async fn add_generated_columns<'b>(
        &self,
        catalog: &Catalog,
        batch: &'b [Arc<ChangeTransaction>],
    ) -> Cow<'b, [Arc<ChangeTransaction>]> {
        let mut batch = Cow::Borrowed(batch);
        if !catalog.has_generated_columns {
            return batch;
        }
        for part in self.incomplete_changes(catalog, &batch) {
            let Incomplete { completion, places } = part;
            let images = completion.images(&batch, &places);
            let columns = completion.generated.iter().enumerate();
            let computed = join_all(columns.map(|(at, column)| {
                let inputs: Vec<ImageInputs> =
                    images.iter().map(|image| image[at].clone()).collect();
                self.compute(catalog, &completion.relation, column, inputs)
            }))
            .await;
            let mut images = (0..images.len()).map(|image| {
                let values = computed.iter().map(|values| values[image].clone());
                values.collect::<Vec<Computed>>()
            });
            for (transaction, change) in places {
                let transaction = Arc::make_mut(&mut batch.to_mut()[transaction]);
                completion.complete(&mut transaction.changes[change], &mut images);
            }
        }
        batch
    }

    /// Returns the changes that need completion.
    fn incomplete_changes(
        &self,
        catalog: &Catalog,
        batch: &[Arc<ChangeTransaction>],
    ) -> Vec<Incomplete> {
        let mut found: Vec<Incomplete> = Vec::new();
        // Changes share one `Relation` until the stream contains a new definition of the table.
        let mut by_relation: HashMap<*const Relation, Option<usize>> = HashMap::new();
        for (transaction, changes) in batch.iter().enumerate() {
            for (change, event) in changes.changes.iter().enumerate() {
                let place = *by_relation
                    .entry(Arc::as_ptr(&event.relation))
                    .or_insert_with(|| {
                        let completion = self.completion(catalog, &event.relation)?;
                        found.push(Incomplete {
                            completion,
                            places: Vec::new(),
                        });
                        Some(found.len() - 1)
                    });
                if let Some(place) = place {
                    found[place].places.push((transaction, change));
                }
            }
        }
        found
    }

    fn completion(&self, catalog: &Catalog, relation: &Arc<Relation>) -> Option<Arc<Completion>> {
        let table = catalog.table(relation.oid)?;
        let has_subscribers =
            || self.with_subscriptions(|subscriptions| subscriptions.has(&relation.table));
        let has_generated = table.columns.iter().any(|it| it.generated.is_some());
        if !has_generated || !has_subscribers() {
            return None;
        }
        let completions = &catalog.completions;
        completions.get_or_make(relation, || {
            Completion::new(&catalog.queries, table, relation)
        })
    }

    /// Computes one column for all images, or for none if the expression fails on one of them. If
    /// only some images had a value, a new image without one would take the value of its old image.
    async fn compute(
        &self,
        catalog: &Catalog,
        relation: &Relation,
        column: &GeneratedColumn,
        inputs: Vec<ImageInputs>,
    ) -> Vec<Computed> {
        let mut computed = vec![None; inputs.len()];
        let known: Vec<(usize, Vec<Option<Bytes>>)> = inputs
            .into_iter()
            .enumerate()
            .filter_map(|(image, inputs)| Some((image, inputs?)))
            .collect();
        for part in known.chunks(self.config.batch_max_rows) {
            let width = column.inputs.len().max(1);
            let parameters: Arc<[TextArray]> = (0..width)
                .map(|at| {
                    let values = part.iter().map(|(_, inputs)| inputs.get(at)?.as_deref());
                    TextArray::new(values)
                })
                .collect();
            let mut backoff = Backoff::new(&self.metrics);
            let values = loop {
                match self.evaluate(&column.query, Arc::clone(&parameters)).await {
                    Ok(values) if values.len() == part.len() => break values,
                    Ok(_) => return vec![None; computed.len()],
                    Err(error @ QueryError::Unavailable(_)) => backoff.wait(&error).await,
                    Err(error) => {
                        log_failure(&relation.table.to_string(), &column.name, &error);
                        if error.is_statement_error() {
                            column.query.disable();
                            catalog.completions.forget(relation.oid);
                        }
                        return vec![None; computed.len()];
                    }
                }
            };
            for ((image, _), value) in part.iter().zip(values) {
                computed[*image] = Some(match value {
                    Some(text) => ColumnValue::Text(text.into()),
                    None => ColumnValue::Null,
                });
            }
        }
        computed
    }

    async fn evaluate(
        &self,
        query: &Arc<Query>,
        parameters: Arc<[TextArray]>,
    ) -> Result<Vec<Option<String>>, QueryError> {
        let execution = Execution {
            principal: Arc::new(Principal::new(Arc::new(Identity {
                role: PARKED_ROLE.to_owned(),
                claims: "{}".into(),
            }))),
            query: Arc::clone(query),
            mode: ExecutionMode::Prepared,
            parameters,
            time_limit: None,
        };
        let answer = self
            .pool
            .execute(&[execution], &DatabaseState::Current)
            .await
            .pop();
        let row = answer
            .unwrap_or(Err(QueryError::Unavailable(None)))
            .and_then(QueryOutput::row)?;
        Ok(row.try_get(0)?)
    }

    /// Returns whether row images contain the column: the WAL contains it, or its value can be
    /// computed.
    ///
    /// # Errors
    /// [`QueryError::Unavailable`] if the database is unreachable.
    pub(super) async fn is_in_images(
        &self,
        catalog: &Catalog,
        table: &Table,
        column: &TableColumn,
    ) -> Result<bool, QueryError> {
        let Some(expression) = &column.generated else {
            return Ok(column.is_logged);
        };
        let query = generated_query(&catalog.queries, table, column, expression);
        if query.mode() == ExecutionMode::Impossible {
            return Ok(false);
        }
        let nothing = vec![TextArray::new([].into_iter()); expression.columns.len().max(1)];
        match self.evaluate(&query, nothing.into()).await {
            Ok(_) => Ok(true),
            Err(error @ QueryError::Unavailable(_)) => Err(error),
            Err(error) => {
                log_failure(&table.name.to_string(), &column.name, &error);
                query.disable();
                catalog.completions.forget(table.oid);
                Ok(false)
            }
        }
    }
}

fn log_failure(table: &str, column: &str, error: &QueryError) {
    let sqlstate = error.sqlstate();
    tracing::warn!(
        table,
        column,
        sqlstate,
        "expression of a generated column failed; omitting the column from row changes"
    );
}
