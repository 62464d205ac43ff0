//! Completes row images with the generated columns that the WAL does not contain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::image_sql::{OUTPUT_SETTINGS, image_source};
use super::queries::{ExecutionMode, Query};
use super::query_cache::{QueryCache, QueryKey, QueryKind};
use super::record::{new_row, new_value, old_row, old_value};
use super::table::{GeneratedExpression, Table, TableColumn};
use crate::change::{
    ChangeEvent, ChangeTransaction, Column, ColumnValue, OldRow, Relation, Row, RowChange,
};
use crate::db::PARKED_ROLE;

/// How the row images of one table definition are completed.
pub(super) struct Completion {
    /// The table definition of the completed images.
    pub(super) relation: Arc<Relation>,
    /// The source of each column's value.
    sources: Vec<Source>,
    pub(super) generated: Vec<GeneratedColumn>,
    has_whole_old_rows: bool,
}

enum Source {
    /// Index in the WAL's image.
    Log(usize),
    /// Index in the generated columns.
    Generated(usize),
}

pub(super) struct GeneratedColumn {
    pub(super) name: String,
    pub(super) query: Arc<Query>,
    /// Indexes, in the WAL's image, of the columns from which the value is computed.
    pub(super) inputs: Vec<usize>,
}

/// The completions of one reading of the catalogue, by table oid. A std lock, because it is held
/// only for a look-up or an insertion.
#[derive(Default)]
pub(super) struct Completions(Mutex<HashMap<u32, Cached>>);

/// A table definition in the WAL, and the completion of its images if any column can be added.
type Cached = (Arc<Relation>, Option<Arc<Completion>>);

impl Completions {
    pub(super) fn get_or_make(
        &self,
        relation: &Arc<Relation>,
        make: impl FnOnce() -> Option<Completion>,
    ) -> Option<Arc<Completion>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A new definition needs its own completion even if it equals the old one, because it shows
        // that rights or policies may have changed (`descriptions`).
        if let Some((shape, completion)) = known.get(&relation.oid)
            && Arc::ptr_eq(shape, relation)
        {
            return completion.clone();
        }
        let completion = make().map(Arc::new);
        known.insert(relation.oid, (Arc::clone(relation), completion.clone()));
        completion
    }

    pub(super) fn forget(&self, table: u32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&table);
    }
}

/// The values from which a generated column is computed; `None` if the image lacks one of them.
pub(super) type ImageInputs = Option<Vec<Option<Bytes>>>;

/// A computed value, if it is known.
pub(super) type Computed = Option<ColumnValue>;

impl Completion {
    /// Creates the completion of a table. Returns `None` if no column can be added.
    pub(super) fn new(queries: &QueryCache, table: &Table, relation: &Relation) -> Option<Self> {
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
            let Some(expression) = &column.generated else {
                continue;
            };
            let inputs = table
                .numbered(&expression.columns)
                .map(|it| place(&it.name));
            let query = generated_query(queries, table, column, expression);
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

    /// Returns the inputs of each generated column, for each image of the changes. The new image of
    /// a change precedes its old image.
    pub(super) fn images(
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

    /// Completes a change with the computed values, in the order of [`Self::images`].
    pub(super) fn complete(
        &self,
        event: &mut ChangeEvent,
        images: &mut impl Iterator<Item = Vec<Computed>>,
    ) {
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
            // A key image contains null for all other columns.
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

/// Returns the query that computes a generated column for row images.
pub(super) fn generated_query(
    queries: &QueryCache,
    table: &Table,
    column: &TableColumn,
    expression: &GeneratedExpression,
) -> Arc<Query> {
    let key = QueryKey {
        table: table.oid,
        role: PARKED_ROLE.to_owned(),
        kind: QueryKind::Generated(column.number),
    };
    queries.get_or_create(key, || {
        let inputs: Vec<&TableColumn> = table.numbered(&expression.columns).collect();
        // The cast applies the column's type modifier, such as the number of digits, which the
        // expression does not show. `is distinct from null` is needed because `is null` is true for
        // a row of nulls, which is a value.
        let sql = format!(
            "with {OUTPUT_SETTINGS} \
             select coalesce(pg_catalog.array_agg(case when computed.value is distinct from null then \
               pg_catalog.format('%s' || settings.nothing, computed.value) end order by computed.ordinal), '{{}}'::text[]) \
             from settings cross join \
               (select \"rapport ordinal\" as ordinal, ({})::{} as value from {}) as computed",
            expression.sql,
            column.type_sql,
            image_source(table, &inputs),
        );
        Query::new(sql, inputs.len().max(1), false)
    })
}
