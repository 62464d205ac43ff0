//! Whether row-level security lets a role see a row image: decided from the catalogue where
//! that suffices, otherwise put to PostgreSQL as a query.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::image_sql::{
    INPUT, ORDINAL, RELATION, SELECT_ORDINALS, cast, image_source, quote, unnested,
    whole_row_source,
};
use super::queries::{ExecutionMode, Query};
use super::query_cache::{QueryCache, QueryKey, QueryKind};
use super::table::{Table, TableColumn, TableRights};
use crate::change::{ColumnValue, Relation};

/// How long one condition of a filter may take. Filters are written by strangers, and a pattern
/// can be made to run for ever; an honest one takes microseconds a value.
const FILTER_TIME_LIMIT: Duration = Duration::from_millis(250);

/// How a role's access to the rows of a table is decided. The modes that need no SQL because
/// a policy is understood or a membership is known belong in here, in front of `Asked`.
#[derive(Debug)]
pub(super) enum Access {
    /// Row-level security does not hide any row.
    Visible,
    /// No policy lets any row through.
    Hidden,
    /// PostgreSQL evaluates the policies.
    ByQuery(AccessQueries),
}

/// What PostgreSQL is asked for the rows of one table and role.
#[derive(Debug)]
pub(super) struct AccessQueries {
    /// The policies on row images; absent if images can never be complete.
    pub(super) image: Option<RowQuery>,
    /// The row itself, for images that are not complete; absent without a primary key.
    pub(super) key: Option<RowQuery>,
    /// Whether the policies read other rows, so that the answer depends on the time of execution.
    pub(super) reads_other_rows: bool,
}

/// A query and what of an image it needs.
#[derive(Debug)]
pub(super) struct RowQuery {
    pub(super) query: Arc<Query>,
    /// Places of the needed values in the image.
    pub(super) columns: Vec<usize>,
    /// Whether they are sent as one row text instead of one list for each column.
    is_whole_row: bool,
}

/// How a role's access is decided for images of this shape.
pub(super) fn access(
    queries: &QueryCache,
    table: &Table,
    relation: &Relation,
    role: &str,
    rights: &TableRights,
) -> Access {
    if rights.bypasses_row_security || !table.has_row_security {
        return Access::Visible;
    }
    let mut permissive = Vec::new();
    let mut restrictive = Vec::new();
    for policy in table.policies_for(rights) {
        if policy.is_permissive {
            permissive.push(policy);
        } else {
            restrictive.push(policy);
        }
    }
    if permissive.is_empty() {
        return Access::Hidden;
    }
    // Only if all say so: beside a policy that makes every `select` fail, such as one that
    // refers to itself, `true` shows nothing.
    if restrictive.is_empty() && permissive.iter().all(|policy| policy.expression == "true") {
        return Access::Visible;
    }
    let policies = || permissive.iter().chain(&restrictive);
    let is_whole_row = policies().any(|policy| policy.uses_whole_row);
    let needed: Vec<&TableColumn> = table
        .columns
        .iter()
        .filter(|column| {
            is_whole_row || policies().any(|policy| policy.columns.contains(&column.number))
        })
        .collect();
    let image = places(&needed, relation).map(|columns| {
        let key = QueryKey {
            table: table.oid,
            role: role.to_owned(),
            kind: QueryKind::Image,
        };
        let parameters = if is_whole_row { 1 } else { needed.len().max(1) };
        let query = queries.get_or_create(key, || {
            // As PostgreSQL puts them together: every restrictive one, and any of the permissive.
            let any = permissive
                .iter()
                .map(|policy| format!("({})", policy.expression))
                .collect::<Vec<_>>()
                .join(" or ");
            let mut condition = String::new();
            for policy in &restrictive {
                // Writing to a String cannot fail.
                let _ = write!(condition, "({}) and ", policy.expression);
            }
            let _ = write!(condition, "({any})");
            let from = if is_whole_row {
                whole_row_source(table)
            } else {
                image_source(table, &needed)
            };
            Query::new(
                // `or false` keeps PostgreSQL from turning an `exists` into a join before it drops what a constant
                // decides: it would ask for rights on a table that a `select` under the policy never reads.
                format!("{SELECT_ORDINALS} from {from} where (({condition}) or false)"),
                parameters,
                policies().any(|policy| policy.uses_immutable_function),
            )
        });
        RowQuery {
            query,
            columns,
            is_whole_row,
        }
    });
    Access::ByQuery(AccessQueries {
        image: image.filter(|image| image.query.mode() != ExecutionMode::Impossible),
        key: key_query(queries, table, relation, role),
        reads_other_rows: policies().any(|policy| policy.reads_other_rows),
    })
}

fn key_query(
    queries: &QueryCache,
    table: &Table,
    relation: &Relation,
    role: &str,
) -> Option<RowQuery> {
    let key_columns: Vec<&TableColumn> = table.primary_key().collect();
    if key_columns.is_empty() {
        return None;
    }
    let columns = places(&key_columns, relation)?;
    let key = QueryKey {
        table: table.oid,
        role: role.to_owned(),
        kind: QueryKind::Key,
    };
    let query = queries.get_or_create(key, || {
        let mut condition = String::new();
        for (position, column) in key_columns.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(
                condition,
                "{}{RELATION}.{} = {INPUT}.\"rapport {position}\"::{}",
                if position > 0 { " and " } else { "" },
                quote(&column.name),
                column.type_sql
            );
        }
        Query::new(
            format!(
                "{SELECT_ORDINALS} from {} where exists (select from {}.{} as {RELATION} where {condition})",
                unnested(key_columns.len()),
                quote(&table.name.schema),
                quote(&table.name.name),
            ),
            key_columns.len(),
            false,
        )
    });
    Some(RowQuery {
        query,
        columns,
        is_whole_row: false,
    })
}

/// Places of columns in the images; `None` if one is missing there, or of another type.
fn places(columns: &[&TableColumn], relation: &Relation) -> Option<Vec<usize>> {
    columns
        .iter()
        .map(|column| {
            relation.columns.iter().position(|published| {
                published.name == column.name
                    && published.type_oid == column.type_oid
                    // A cast to another length would change the value.
                    && published.type_modifier == column.type_modifier
            })
        })
        .collect()
}

/// The query whether a filter condition is true of values of a column.
pub(super) fn condition_query(
    queries: &QueryCache,
    table: &Table,
    role: &str,
    column: &TableColumn,
    condition: &str,
) -> Arc<Query> {
    let key = QueryKey {
        table: table.oid,
        role: role.to_owned(),
        kind: QueryKind::Condition(column.number, condition.to_owned()),
    };
    queries.get_or_create(key, || {
        let value = format!("({})", cast(0, column));
        Query::new(
            format!(
                "{SELECT_ORDINALS} from pg_catalog.unnest($1::text[]) with ordinality as {INPUT} \
                 (\"rapport 0\", {ORDINAL}) where {}",
                condition.replace("{value}", &value)
            ),
            2,
            false,
        )
        .with_time_limit(FILTER_TIME_LIMIT)
    })
}

impl RowQuery {
    /// The texts to send for an image; `None` if the image lacks a needed value.
    pub(super) fn input<'a>(
        &self,
        value: impl Fn(usize) -> Option<&'a ColumnValue>,
    ) -> Option<Vec<Option<Bytes>>> {
        let values = self.columns.iter().map(|place| match value(*place)? {
            ColumnValue::Text(text) => Some(Some(text.clone())),
            ColumnValue::Null => Some(None),
            ColumnValue::Unchanged => None,
        });
        if self.is_whole_row {
            let values: Vec<_> = values.collect::<Option<_>>()?;
            return Some(vec![Some(row_text(&values))]);
        }
        values.collect()
    }
}

/// Row text (PostgreSQL manual 8.16.6): every value quoted, null as nothing.
fn row_text(values: &[Option<Bytes>]) -> Bytes {
    let mut text = vec![b'('];
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            text.push(b',');
        }
        if let Some(value) = value {
            text.push(b'"');
            for byte in value {
                if matches!(byte, b'"' | b'\\') {
                    text.push(*byte);
                }
                text.push(*byte);
            }
            text.push(b'"');
        }
    }
    text.push(b')');
    text.into()
}
