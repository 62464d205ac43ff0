//! Prepares the columns that a role may receive, so that records are written without look-ups.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::binding::SubscribeOptions;
use super::encoding::{ValueEncoding, write_string};
use super::table::{Table, TableColumn, TableRights};
use crate::change::Relation;

/// The columns that may be sent, in the table's order. One set is created for each combination of
/// table, role, `select` list, options, and whether the old row is hidden, and is shared by all
/// subscribers with the same combination.
#[derive(Debug, PartialEq, Eq)]
pub struct VisibleColumns {
    /// The columns.
    pub columns: Vec<VisibleColumn>,
    /// The `columns` array of the protocol, `[{"name":…,"type":…},…]`.
    pub header: Bytes,
    /// The changes whose `old_record` contains only the primary key (protocol 6.5, item 4).
    pub old_key_only: OldKeyOnly,
    /// Whether an old image that is marked as full really is full. For a partitioned table, this
    /// depends on all its partitions.
    pub has_whole_old_rows: bool,
}

impl VisibleColumns {
    /// Returns the same columns, with only the primary key in `old_record`.
    pub(super) fn without_old_rows(self) -> Self {
        Self {
            old_key_only: OldKeyOnly::Everything,
            ..self
        }
    }
}

/// The changes of a table for which subscribers receive only the primary key of the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKeyOnly {
    /// No change, because row-level security is not enabled.
    Nothing,
    /// Deletions, because row-level security is enabled.
    Deletes,
    /// Updates and deletions, because of `visibility.tables_without_old_rows`, or because the
    /// policies hide the old row.
    Everything,
}

/// A column that may be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct VisibleColumn {
    /// The column's index in the row images.
    pub index: usize,
    /// `"name":` as JSON, ready to write.
    pub name_json: Bytes,
    /// How the column's values become JSON.
    pub encoding: Arc<ValueEncoding>,
    /// Whether the column is part of the primary key.
    pub is_primary_key: bool,
    /// Whether the column is part of the replica identity. The value of such a column has not
    /// changed if the WAL contains no old image.
    pub is_identity: bool,
}

/// The key of a column set within one reading of the catalogue: everything that determines the set,
/// except the table definition in the WAL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ColumnsKey {
    pub(super) table: u32,
    pub(super) role: String,
    pub(super) select: Option<Arc<[String]>>,
    pub(super) options: SubscribeOptions,
    /// Whether `old_record` contains only the primary key, whatever the table's `old_key_only` is.
    pub(super) hides_old_row: bool,
}

/// The column sets of one reading of the catalogue, with the table definition for which each was
/// created.
#[derive(Default)]
pub(super) struct ColumnsCache(HashMap<ColumnsKey, (Arc<Relation>, Arc<VisibleColumns>)>);

/// Maximum number of sets. This is enough for all tables and roles of a database; only thousands of
/// different `select` lists exceed it.
const MAX_CACHED: usize = 4096;

impl ColumnsCache {
    pub(super) fn get_or_make(
        &mut self,
        key: ColumnsKey,
        relation: &Arc<Relation>,
        make: impl FnOnce() -> VisibleColumns,
    ) -> Arc<VisibleColumns> {
        if let Some((known, columns)) = self.0.get_mut(&key)
            && (Arc::ptr_eq(known, relation) || known == relation)
        {
            // The next look-up then needs no comparison of columns.
            known.clone_from(relation);
            return Arc::clone(columns);
        }
        if self.0.len() >= MAX_CACHED {
            self.0.clear();
        }
        let columns = Arc::new(make());
        self.0
            .insert(key, (Arc::clone(relation), Arc::clone(&columns)));
        columns
    }
}

/// Returns the columns of `relation` that a role with `rights` may receive. A column that the
/// catalogue does not contain with this name and type is left out, because the rights on it are
/// unknown.
pub(super) fn visible_columns(
    table: &Table,
    relation: &Relation,
    rights: &TableRights,
    select: Option<&[String]>,
    options: SubscribeOptions,
    tables_without_old_rows: &[String],
) -> VisibleColumns {
    let mut columns = Vec::new();
    let mut header = b"[".to_vec();
    for (index, image_column) in relation.columns.iter().enumerate() {
        let Some(column) = table.column(&image_column.name).filter(|column| {
            column.type_oid == image_column.type_oid
                && rights.selectable.contains(&column.number)
                && (column.is_primary_key
                    || select.is_none_or(|names| names.contains(&column.name)))
        }) else {
            continue;
        };
        if header.len() > 1 {
            header.push(b',');
        }
        let mut name_json = Vec::new();
        write_string(&mut name_json, column.name.as_bytes());
        header.extend_from_slice(b"{\"name\":");
        header.extend_from_slice(&name_json);
        header.extend_from_slice(b",\"type\":");
        write_string(&mut header, column.type_name.as_bytes());
        header.push(b'}');
        name_json.push(b':');
        columns.push(VisibleColumn {
            index,
            name_json: name_json.into(),
            encoding: encoding(column, options),
            is_primary_key: column.is_primary_key,
            is_identity: if table.is_partitioned {
                column.is_identity
            } else {
                image_column.is_identity
            },
        });
    }
    header.push(b']');
    VisibleColumns {
        columns,
        header: header.into(),
        old_key_only: old_key_only(table, tables_without_old_rows),
        has_whole_old_rows: table.has_whole_old_rows,
    }
}

fn old_key_only(table: &Table, tables_without_old_rows: &[String]) -> OldKeyOnly {
    let name = format!("{}.{}", table.name.schema, table.name.name);
    if tables_without_old_rows.contains(&name) {
        OldKeyOnly::Everything
    } else if table.has_row_security {
        OldKeyOnly::Deletes
    } else {
        OldKeyOnly::Nothing
    }
}

fn encoding(column: &TableColumn, options: SubscribeOptions) -> Arc<ValueEncoding> {
    const INT8: u32 = 20;
    const NUMERIC: u32 = 1700;
    if options.bigint_as_string && matches!(column.base_type, INT8 | NUMERIC) {
        Arc::new(ValueEncoding::Text)
    } else {
        Arc::clone(&column.encoding)
    }
}
