//! Values of generated columns that the log does not carry.
//!
//! pgoutput leaves generated columns out before PostgreSQL 18, later unless the publication says otherwise, and virtual
//! ones always. An expression reads nothing but other columns of its row, so PostgreSQL works the value out from the row
//! image: the value of the row as it was committed, which the table need not hold any more. This happens
//! once for a batch and before subscribers are looked for, so that filters, policies and records meet a
//! row that has the values. Tables without such columns, and without subscribers, cost nothing.
//!
//! The expressions are the table owner's and may call functions. They are evaluated as the role that may do nothing: a
//! column whose functions are not for everybody counts as unknown, as does one whose inputs are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;

use super::Identity;
use super::catalog::{Catalog, QueryKey, QueryKind, Table, TableColumn};
use super::checks::Backoff;
use super::engine::Engine;
use super::error::QueryError;
use super::queries::{Execution, ExecutionMode, Principal, Query, QueryOutput, State, TextArray};
use super::record::{new_row, new_value, old_row, old_value};
use super::row_access::image_source;
use super::validate::OUTPUT_SETTINGS;
use crate::change::{
    ChangeEvent, ChangeTransaction, Column, ColumnValue, OldRow, Relation, Row, RowChange,
};
use crate::db::PARKED_ROLE;

/// How a generated column is made.
#[derive(Debug)]
pub(super) struct Generation {
    /// Its expression as SQL.
    pub(super) expression: String,
    /// Numbers of the columns that it reads; the log carries all of them.
    pub(super) columns: Vec<i16>,
}

/// How row images of one shape are completed.
pub(super) struct Completion {
    /// The shape that they have then.
    relation: Arc<Relation>,
    /// Where the values of its columns come from.
    sources: Vec<Source>,
    generated: Vec<GeneratedColumn>,
    has_whole_old_rows: bool,
}

enum Source {
    /// A place in the image of the log.
    Log(usize),
    /// A place among the generated columns.
    Generated(usize),
}

struct GeneratedColumn {
    name: String,
    query: Arc<Query>,
    /// Places of its inputs in the image of the log.
    inputs: Vec<usize>,
}

/// Completions already made, by table. Lives and dies with a reading of the catalogue. A std lock: held for a look-up
/// or an insertion only.
#[derive(Default)]
pub(super) struct Completions(Mutex<HashMap<u32, Cached>>);

/// The shape of a table in the log, and the completion of images of it if there is one.
type Cached = (Arc<Relation>, Option<Arc<Completion>>);

impl Completions {
    fn get_or_make(
        &self,
        relation: &Arc<Relation>,
        make: impl FnOnce() -> Option<Completion>,
    ) -> Option<Arc<Completion>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An equal description is a new one all the same, and completed rows must show it: it is the sign that rights or
        // policies may have changed (`descriptions`).
        if let Some((shape, completion)) = known.get(&relation.oid)
            && Arc::ptr_eq(shape, relation)
        {
            return completion.clone();
        }
        let completion = make().map(Arc::new);
        known.insert(relation.oid, (Arc::clone(relation), completion.clone()));
        completion
    }

    fn forget(&self, table: u32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&table);
    }
}

/// The changes of a batch that one completion is for.
struct Incomplete {
    completion: Arc<Completion>,
    /// Transaction and change.
    places: Vec<(usize, usize)>,
}

/// What a column's value in a row image is worked out from; `None` where the image lacks a part of it.
type ImageInputs = Option<Vec<Option<Bytes>>>;

/// A value that was worked out, if it could be.
type Computed = Option<ColumnValue>;

impl Engine {
    /// The batch with the values of generated columns, where somebody subscribed to their tables. Waits for as long as
    /// the database is unreachable.
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

    /// What is to be completed.
    fn incomplete_changes(
        &self,
        catalog: &Catalog,
        batch: &[Arc<ChangeTransaction>],
    ) -> Vec<Incomplete> {
        let mut found: Vec<Incomplete> = Vec::new();
        // A relation is one shared value until its shape changes.
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
        let has_subscribers = || {
            let subscriptions = self.subscriptions.lock();
            let subscriptions = subscriptions.unwrap_or_else(PoisonError::into_inner);
            subscriptions.has(&relation.table)
        };
        let has_generated = table.columns.iter().any(|it| it.generation.is_some());
        if !has_generated || !has_subscribers() {
            return None;
        }
        let completions = &catalog.completions;
        completions.get_or_make(relation, || Completion::new(catalog, table, relation))
    }

    /// The values of one column, all or none: when an expression fails on one row, an old value must not pass for a new one.
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
        };
        let answer = self.pool.execute(&[execution], &State::Now).await.pop();
        let row = answer
            .unwrap_or(Err(QueryError::Unavailable(None)))
            .and_then(QueryOutput::row)?;
        Ok(row.try_get(0)?)
    }

    /// Whether row images have the column: the log carries it, or its value can be worked out.
    ///
    /// # Errors
    /// [`QueryError::Unavailable`] when the database cannot be asked.
    pub(super) async fn is_in_images(
        &self,
        catalog: &Catalog,
        table: &Table,
        column: &TableColumn,
    ) -> Result<bool, QueryError> {
        let Some(generation) = &column.generation else {
            return Ok(column.is_logged);
        };
        let query = query(catalog, table, column, generation);
        if query.mode() == ExecutionMode::Impossible {
            return Ok(false);
        }
        let nothing = vec![TextArray::new([].into_iter()); generation.columns.len().max(1)];
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
        "a generated column is left out of row changes: its expression failed"
    );
}

impl Completion {
    /// `None` where nothing can be added.
    fn new(catalog: &Catalog, table: &Table, relation: &Relation) -> Option<Self> {
        if !table.agrees_with(relation) {
            return None;
        }
        let place = |name: &str| relation.columns.iter().position(|it| it.name == name);
        let mut columns = Vec::new();
        let mut sources = Vec::new();
        let mut generated = Vec::new();
        for column in &table.columns {
            if let Some(place) = place(&column.name) {
                columns.push(relation.columns[place].clone());
                sources.push(Source::Log(place));
                continue;
            }
            let Some(generation) = &column.generation else {
                continue;
            };
            let inputs = table
                .numbered(&generation.columns)
                .map(|it| place(&it.name));
            let query = query(catalog, table, column, generation);
            let (Some(inputs), false) =
                (inputs.collect(), query.mode() == ExecutionMode::Impossible)
            else {
                continue;
            };
            columns.push(Column {
                name: column.name.clone(),
                type_oid: column.type_oid,
                type_modifier: column.type_modifier,
                is_identity: column.is_identity,
            });
            sources.push(Source::Generated(generated.len()));
            generated.push(GeneratedColumn {
                name: column.name.clone(),
                query,
                inputs,
            });
        }
        (!generated.is_empty()).then(|| Self {
            relation: Arc::new(Relation {
                columns,
                ..relation.clone()
            }),
            sources,
            generated,
            has_whole_old_rows: table.has_whole_old_rows,
        })
    }

    /// For each image of the changes, the new one of a change before the old one, the inputs of each column.
    fn images(
        &self,
        batch: &[Arc<ChangeTransaction>],
        places: &[(usize, usize)],
    ) -> Vec<Vec<ImageInputs>> {
        let mut images = Vec::new();
        for (transaction, change) in places {
            let row = &batch[*transaction].changes[*change].row;
            if new_row(row).is_some() {
                images.push(self.inputs(|index| new_value(row, index)));
            }
            if old_row(row).is_some() {
                let is_whole = self.has_whole_old_rows;
                images.push(self.inputs(|index| old_value(row, index, false, is_whole)));
            }
        }
        images
    }

    fn inputs<'a>(&self, value: impl Fn(usize) -> Option<&'a ColumnValue>) -> Vec<ImageInputs> {
        let text = |index: &usize| match value(*index)? {
            ColumnValue::Text(text) => Some(Some(text.clone())),
            ColumnValue::Null => Some(None),
            ColumnValue::Unchanged => None,
        };
        let columns = self.generated.iter();
        columns
            .map(|column| column.inputs.iter().map(text).collect())
            .collect()
    }

    /// Completes a change with the values of its images, in the order of [`Self::images`].
    fn complete(&self, event: &mut ChangeEvent, images: &mut impl Iterator<Item = Vec<Computed>>) {
        event.relation = Arc::clone(&self.relation);
        let mut complete = |row: &mut Row, unknown: ColumnValue| {
            *row = self.row(row, &images.next().unwrap_or_default(), &unknown);
        };
        let (new, old) = match &mut event.row {
            RowChange::Insert { new } => (Some(new), None),
            RowChange::Update { new, old } => (Some(new), old.as_mut()),
            RowChange::Delete { old } => (None, Some(old)),
        };
        if let Some(new) = new {
            complete(new, ColumnValue::Unchanged);
        }
        match old {
            // What an image of the key does not hold reads null.
            Some(OldRow::Key(row)) => complete(row, ColumnValue::Null),
            Some(OldRow::Full(row)) => complete(row, ColumnValue::Unchanged),
            None => {}
        }
    }

    fn row(&self, row: &Row, computed: &[Computed], unknown: &ColumnValue) -> Row {
        let sources = self.sources.iter().map(|source| match source {
            Source::Log(place) => row.0.get(*place),
            Source::Generated(place) => computed.get(*place).and_then(Option::as_ref),
        });
        Row(sources
            .map(|value| value.unwrap_or(unknown).clone())
            .collect())
    }
}

/// The query for the values of a generated column in row images.
fn query(
    catalog: &Catalog,
    table: &Table,
    column: &TableColumn,
    generation: &Generation,
) -> Arc<Query> {
    let key = QueryKey {
        table: table.oid,
        role: PARKED_ROLE.to_owned(),
        kind: QueryKind::Generated(column.number),
    };
    catalog.query(key, || {
        let inputs: Vec<&TableColumn> = table.numbered(&generation.columns).collect();
        // The cast repeats what the column's type demands of the value, such as its digits: the text
        // of the expression does not show it. A row of nulls `is null` and is a value all the same.
        let sql = format!(
            "with {OUTPUT_SETTINGS} \
             select coalesce(pg_catalog.array_agg(case when computed.value is distinct from null then \
               pg_catalog.format('%s' || settings.nothing, computed.value) end order by computed.ordinal), '{{}}'::text[]) \
             from settings cross join \
               (select \"rapport ordinal\" as ordinal, ({})::{} as value from {}) as computed",
            generation.expression,
            column.type_sql,
            image_source(table, &inputs),
        );
        Query::new(sql, inputs.len().max(1), false)
    })
}
