//! Whether row-level security lets a role see a row image: decided from the catalogue where
//! that suffices, otherwise put to PostgreSQL as a query.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::catalog::{Catalog, QueryKey, QueryKind, Table, TableColumn, TableRights};
use super::queries::{ExecutionMode, Query};
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
    catalog: &Catalog,
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
        let query = catalog.query(key, || {
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
        key: key_query(catalog, table, relation, role),
        reads_other_rows: policies().any(|policy| policy.reads_other_rows),
    })
}

fn key_query(
    catalog: &Catalog,
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
    let query = catalog.query(key, || {
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

/// Names that no policy can mean: an unqualified name in a policy is a column's of its table.
const INPUT: &str = "\"rapport input\"";
const RELATION: &str = "\"rapport relation\"";
const ORDINAL: &str = "\"rapport ordinal\"";

/// One row with the ordinals, counted from 1, for which the condition is true.
const SELECT_ORDINALS: &str =
    "select coalesce(pg_catalog.array_agg(\"rapport ordinal\"), '{}'::pg_catalog.int8[])";

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

/// `unnest` of one list per column, and the ordinal.
fn unnested(columns: usize) -> String {
    // Without any column one list still says how many rows there are.
    let lists: Vec<_> = (1..=columns.max(1))
        .map(|n| format!("pg_catalog.unnest(${n}::text[])"))
        .collect();
    let names: Vec<_> = (0..columns.max(1))
        .map(|n| format!("\"rapport {n}\""))
        .collect();
    format!(
        "rows from ({}) with ordinality as {INPUT} ({}, {ORDINAL})",
        lists.join(", "),
        names.join(", ")
    )
}

/// A sub-select that is named as the table and has the needed columns with their types, so
/// that qualified and unqualified names of a policy mean the image.
pub(super) fn image_source(table: &Table, columns: &[&TableColumn]) -> String {
    let mut list = format!("{INPUT}.{ORDINAL}");
    for (position, column) in columns.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            list,
            ", ({}) as {}",
            cast(position, column),
            quote(&column.name)
        );
    }
    format!(
        "(select {list} from {}) as {}",
        unnested(columns.len()),
        quote(&table.name.name)
    )
}

/// A value of the unnested lists as its column's type and collation.
fn cast(position: usize, column: &TableColumn) -> String {
    let collation = column
        .collation
        .as_ref()
        .map(|collation| format!(" collate {collation}"))
        .unwrap_or_default();
    format!(
        "{INPUT}.\"rapport {position}\"::{}{collation}",
        column.type_sql
    )
}

/// The images as rows of the table's own row type, for policies that hand a row on as a whole.
fn whole_row_source(table: &Table) -> String {
    format!(
        "{} cross join lateral pg_catalog.unnest(array[{INPUT}.\"rapport 0\"::{}.{}]) as {}",
        unnested(1),
        quote(&table.name.schema),
        quote(&table.name.name),
        quote(&table.name.name)
    )
}

/// The query whether a filter condition is true of values of a column.
pub(super) fn condition_query(
    catalog: &Catalog,
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
    catalog.query(key, || {
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

/// An identifier as SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
