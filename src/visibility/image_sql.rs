//! SQL that presents row images as tables and prints values as the WAL contains them.

use std::fmt::Write as _;

use super::table::{Table, TableColumn};

/// The alias of the unnested inputs. No policy can refer to this name or the two that follow,
/// because an unqualified name in a policy is a column of its table.
pub(super) const INPUT: &str = "\"rapport input\"";

/// The alias of the table in a query on the stored row.
pub(super) const RELATION: &str = "\"rapport relation\"";

/// The column with the number of an input, counted from 1.
pub(super) const ORDINAL: &str = "\"rapport ordinal\"";

/// The beginning of a statement that returns, in one row, the ordinals of the inputs for which its
/// condition is true.
pub(super) const SELECT_ORDINALS: &str =
    "select coalesce(pg_catalog.array_agg(\"rapport ordinal\"), '{}'::pg_catalog.int8[])";

/// The time since the statement began, in seconds, as the second column of a filter's statement.
/// The column is computed after the values that the first column aggregates.
pub(super) const ELAPSED: &str = "extract(epoch from pg_catalog.clock_timestamp() \
     - pg_catalog.statement_timestamp())::pg_catalog.float8";

/// Returns a table expression that unnests one list per column and adds the ordinal.
pub(super) fn unnested(columns: usize) -> String {
    // Even without columns, one list is needed, because it determines the number of rows.
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

/// Returns a sub-select with the table's name and the needed columns with their types, so that
/// qualified and unqualified names in a policy refer to the image.
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

/// Returns the expression that casts an unnested text to its column's type and collation.
pub(super) fn cast(position: usize, column: &TableColumn) -> String {
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

/// Returns a table expression with the images as values of the table's row type, for policies that
/// refer to a whole row.
pub(super) fn whole_row_source(table: &Table) -> String {
    format!(
        "{} cross join lateral pg_catalog.unnest(array[{INPUT}.\"rapport 0\"::{}.{}]) as {}",
        unnested(1),
        quote(&table.name.schema),
        quote(&table.name.name),
        quote(&table.name.name)
    )
}

/// Returns an identifier, quoted for SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table expression with the settings under which values print as on the replication connection.
/// Expressions that must be evaluated afterwards refer to `nothing`, which is an empty text.
pub(super) const OUTPUT_SETTINGS: &str = "settings as materialized ( \
     select pg_catalog.left(pg_catalog.set_config('timezone', 'UTC', true) \
       || pg_catalog.set_config('datestyle', 'ISO, MDY', true) \
       || pg_catalog.set_config('intervalstyle', 'postgres', true) \
       || pg_catalog.set_config('bytea_output', 'hex', true) \
       || pg_catalog.set_config('extra_float_digits', '3', true), 0) as nothing)";
