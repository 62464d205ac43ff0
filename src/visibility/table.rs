//! A published table as the catalogue describes it: columns, policies and rights.

use std::collections::HashSet;
use std::sync::Arc;

use super::encoding::ValueEncoding;
use crate::change::{Relation, TableName};

/// How a generated column is computed.
#[derive(Debug)]
pub(super) struct GeneratedExpression {
    /// The column's expression as SQL.
    pub(super) sql: String,
    /// The numbers of the columns that the expression reads. The WAL contains all of them.
    pub(super) columns: Vec<i16>,
}

/// A published table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) name: TableName,
    /// The columns in the order of their numbers, without dropped ones.
    pub(super) columns: Vec<TableColumn>,
    pub(super) has_row_security: bool,
    /// Whether the WAL contains deleted rows completely (`replica identity full`).
    pub(super) keeps_deleted_rows: bool,
    pub(super) policies: Vec<Policy>,
    /// Whether the rows are stored in partitions and the table is published in their place. Each
    /// partition has its own replica identity. The stream describes the table only together with a
    /// partition, so it does not show changes to the table's own policies and rights.
    pub(super) is_partitioned: bool,
    /// Whether an old image that is marked as full really is full.
    pub(super) has_whole_old_rows: bool,
}

/// A column of a published table.
#[derive(Debug)]
pub(super) struct TableColumn {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) type_modifier: i32,
    /// `pg_type.typname`.
    pub(super) type_name: String,
    /// The type as SQL, with its modifier.
    pub(super) type_sql: String,
    /// The type as SQL without a modifier. Operands of filters are cast to it.
    pub(super) bare_type_sql: String,
    /// The type below all domains.
    pub(super) base_type: u32,
    /// The `pg_type.typname` of the base type.
    pub(super) base_type_name: String,
    pub(super) is_enum: bool,
    pub(super) is_primary_key: bool,
    /// Whether the WAL contains the column's values.
    pub(super) is_logged: bool,
    /// How the column's values are computed if the WAL does not contain them.
    pub(super) generated: Option<GeneratedExpression>,
    /// Whether the column is part of the replica identity of all relations that store rows of the
    /// table.
    pub(super) is_identity: bool,
    /// A collation other than the type's own, as SQL.
    pub(super) collation: Option<String>,
    /// Whether texts that compare as equal have equal bytes.
    pub(super) is_deterministic: bool,
    pub(super) encoding: Arc<ValueEncoding>,
}

/// A policy that applies to `select`.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) oid: u32,
    pub(super) is_permissive: bool,
    pub(super) expression: String,
    /// The numbers of the columns that the policy depends on.
    pub(super) columns: Vec<i16>,
    /// Whether the policy refers to a whole row, possibly of this table.
    pub(super) uses_whole_row: bool,
    /// Whether the policy must be planned for each caller; see [`crate::db::plans`].
    pub(super) plans_per_caller: bool,
    /// Whether the policy reads rows other than the one that it is evaluated for, or calls a
    /// function that may do so.
    pub(super) reads_other_rows: bool,
}

/// The rights of a role on a table.
#[derive(Debug)]
pub(super) struct TableRights {
    /// The numbers of the columns that the role may select.
    pub(super) selectable: HashSet<i16>,
    /// Whether row-level security does not apply to the role.
    pub(super) bypasses_row_security: bool,
    /// The oids of the policies that apply to the role.
    pub(super) policies: HashSet<u32>,
}

impl Table {
    /// Returns the column with this name.
    pub(super) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the columns of the primary key, if there is one.
    pub(super) fn primary_key(&self) -> impl Iterator<Item = &TableColumn> {
        self.columns.iter().filter(|column| column.is_primary_key)
    }

    /// Returns the columns with these numbers.
    pub(super) fn numbered<'a>(
        &'a self,
        numbers: &'a [i16],
    ) -> impl Iterator<Item = &'a TableColumn> {
        self.columns
            .iter()
            .filter(|column| numbers.contains(&column.number))
    }

    /// Returns the policies that apply to a role with these rights.
    pub(super) fn policies_for<'a>(
        &'a self,
        rights: &'a TableRights,
    ) -> impl Iterator<Item = &'a Policy> {
        self.policies
            .iter()
            .filter(|policy| rights.policies.contains(&policy.oid))
    }

    /// Returns whether deleted rows are also judged in the state before their deletion.
    pub(super) fn needs_snapshots(&self) -> bool {
        self.keeps_deleted_rows
            && self.has_row_security
            && self.policies.iter().any(|policy| policy.reads_other_rows)
    }

    /// Returns whether the row images have this table's name, and all their columns are columns of
    /// this table with the same types.
    pub(super) fn agrees_with(&self, relation: &Relation) -> bool {
        self.name == relation.table
            && relation.columns.iter().all(|column| {
                self.column(&column.name).is_some_and(|known| {
                    known.type_oid == column.type_oid && known.type_modifier == column.type_modifier
                })
            })
    }
}
