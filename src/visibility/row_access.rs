//! Decides whether row-level security shows a row image to a role: from the catalogue if that
//! suffices, otherwise by a query.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use super::image_sql::{
    ELAPSED, INPUT, ORDINAL, RELATION, SELECT_ORDINALS, cast, image_source, quote, unnested,
    whole_row_source,
};
use super::queries::{ExecutionMode, Query};
use super::query_cache::{QueryCache, QueryKey, QueryKind};
use super::table::{Table, TableColumn, TableRights};
use crate::change::{ColumnValue, Relation};

/// How the access of a role to the rows of a table is decided. A future method without SQL, such as
/// evaluating a policy or a membership in this process, belongs here, before `ByQuery`.
#[derive(Debug)]
pub(super) enum Access {
    /// Row-level security hides no row.
    Visible,
    /// No policy shows any row.
    Hidden,
    /// PostgreSQL evaluates the policies.
    ByQuery(AccessQueries),
}

/// The queries that decide access to the rows of one table for one role.
#[derive(Debug)]
pub(super) struct AccessQueries {
    /// Evaluates the policies on row images. `None` if the images lack a column that the policies
    /// read, or if the policies can be evaluated only on stored rows.
    pub(super) image: Option<RowQuery>,
    /// Looks up the stored row, for incomplete images. `None` if the table has no primary key, or
    /// if the images lack a column of it.
    pub(super) key: Option<RowQuery>,
    /// Whether the policies read other rows, so that the result depends on the time of execution.
    pub(super) reads_other_rows: bool,
}

/// A query, and the values of an image that it needs.
#[derive(Debug)]
pub(super) struct RowQuery {
    pub(super) query: Arc<Query>,
    /// The indexes of these values in the image.
    pub(super) columns: Vec<usize>,
    /// Whether the values are sent as the text of one row, instead of as one list per column.
    is_whole_row: bool,
}

/// Returns how a role's access is decided for images with this definition.
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
    // All permissive policies must be `true`, not just one. Another policy could make every
    // `select` fail, for example by referring to itself, and then a policy that is `true` shows
    // nothing.
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
            // Combines the policies as PostgreSQL does: all restrictive policies and at least one
            // permissive policy must be true.
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
                // `or false` prevents PostgreSQL from converting an `exists` to a join before it
                // removes constant conditions. Otherwise PostgreSQL would require rights on a table
                // that a `select` under the policy never reads.
                format!("{SELECT_ORDINALS} from {from} where (({condition}) or false)"),
                parameters,
                policies().any(|policy| policy.plans_per_caller),
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

/// Returns the indexes of columns in the images, or `None` if a column is missing or has another
/// type.
fn places(columns: &[&TableColumn], relation: &Relation) -> Option<Vec<usize>> {
    columns
        .iter()
        .map(|column| {
            relation.columns.iter().position(|published| {
                published.name == column.name
                    && published.type_oid == column.type_oid
                    // A cast to another type modifier, such as another length, would change the
                    // value.
                    && published.type_modifier == column.type_modifier
            })
        })
        .collect()
}

/// Returns the query that evaluates a filter condition on values of a column.
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
                "{SELECT_ORDINALS}, {ELAPSED} from pg_catalog.unnest($1::text[]) with ordinality as {INPUT} \
                 (\"rapport 0\", {ORDINAL}) where {}",
                condition.replace("{value}", &value)
            ),
            2,
            false,
        )
        .executed_separately()
    })
}

impl RowQuery {
    /// Returns the parameters for an image, or `None` if the image lacks a needed value.
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

/// Returns the text of a row (PostgreSQL manual 8.16.6): every value is quoted, and null is empty.
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
