//! Which columns of a row a role may receive, prepared so that writing a record costs no look-ups.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::SubscribeOptions;
use super::catalog::{Table, TableColumn, TableRights};
use super::record::{ValueEncoding, write_string};
use crate::change::Relation;

/// The columns that may be sent, in the table's order. Made once per table, role, `select` and
/// options, and shared by all who have these in common.
#[derive(Debug, PartialEq, Eq)]
pub struct VisibleColumns {
    /// The columns.
    pub columns: Vec<VisibleColumn>,
    /// The `columns` array of the wire, `[{"name":…,"type":…},…]`.
    pub header: Bytes,
    /// Of which changes `old_record` holds the primary key alone (protocol 6.5, item 4).
    pub old_key_only: OldKeyOnly,
    /// Whether an old image that is said to be full is so: the partitions of a table decide that, each for its own rows.
    pub has_whole_old_rows: bool,
}

impl VisibleColumns {
    /// The same columns, with only the primary key in `old_record`.
    pub(super) fn without_old_rows(self) -> Self {
        Self {
            old_key_only: OldKeyOnly::Everything,
            ..self
        }
    }
}

/// Of which changes of a table subscribers are told the primary key of the old row and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKeyOnly {
    /// Of none: row-level security is not enabled.
    Nothing,
    /// Of deletions: nobody could ask any more who may see the row.
    Deletes,
    /// Of all: the settings say so.
    Everything,
}

/// One column that may be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct VisibleColumn {
    /// Its place in the row images.
    pub index: usize,
    /// `"name":`, ready to write.
    pub name_json: Bytes,
    /// How its text becomes JSON.
    pub encoding: Arc<ValueEncoding>,
    /// Whether it belongs to the primary key.
    pub is_primary_key: bool,
    /// Whether it belongs to the replica identity, so that it has not changed where the log holds no old image.
    pub is_identity: bool,
}

/// What column sets of one reading of the catalogue differ by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ColumnsKey {
    pub(super) table: u32,
    pub(super) role: String,
    pub(super) select: Option<Arc<[String]>>,
    pub(super) options: SubscribeOptions,
    /// Whether `old_record` contains only the primary key, whatever `old_key_only` says of the table.
    pub(super) hides_old_row: bool,
}

/// Column sets already made. Lives and dies with a reading of the catalogue.
#[derive(Default)]
pub(super) struct ColumnsCache(HashMap<ColumnsKey, (Arc<Relation>, Arc<VisibleColumns>)>);

/// Sets kept at most: enough for every table and role there is; only strange `select` lists
/// by the thousand come near it.
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
            // The next look-up need not compare it column by column.
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

/// The columns of `relation` that a role with `rights` may receive. A column that the catalogue
/// does not know by this name and type is left out: nobody can tell who may see it.
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
