//! A published table as the catalogue describes it: columns, policies, rights.

use std::collections::HashSet;
use std::sync::Arc;

use super::encoding::ValueEncoding;
use crate::change::{Relation, TableName};

/// How a generated column is made.
#[derive(Debug)]
pub(super) struct Generation {
    /// Its expression as SQL.
    pub(super) expression: String,
    /// Numbers of the columns that it reads; the log carries all of them.
    pub(super) columns: Vec<i16>,
}

/// A published table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    pub(super) name: TableName,
    /// In the order of their numbers, without dropped ones.
    pub(super) columns: Vec<TableColumn>,
    pub(super) has_row_security: bool,
    /// Whether the log holds deleted rows whole (`replica identity full`).
    pub(super) keeps_deleted_rows: bool,
    pub(super) policies: Vec<Policy>,
    /// Whether its rows are stored in partitions, in whose place it is published. Each has a replica identity of its
    /// own, and the stream describes the table with them, so not when only its own policies or rights have changed.
    pub(super) is_partitioned: bool,
    /// Whether an old image that is said to be full is so.
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
    /// The type as SQL without a modifier: what a filter's operand is cast to.
    pub(super) bare_type_sql: String,
    /// The type below all domains.
    pub(super) base_type: u32,
    /// Its `pg_type.typname`.
    pub(super) base_type_name: String,
    pub(super) is_enum: bool,
    pub(super) is_primary_key: bool,
    /// Whether the log carries its values.
    pub(super) is_logged: bool,
    /// How its values are worked out otherwise.
    pub(super) generation: Option<Generation>,
    /// Whether it is part of the replica identity of everything that stores rows of the table.
    pub(super) is_identity: bool,
    /// A collation other than the type's own, as SQL.
    pub(super) collation: Option<String>,
    /// Whether equal texts are equal bytes.
    pub(super) is_deterministic: bool,
    pub(super) encoding: Arc<ValueEncoding>,
}

/// A policy that applies to `select`.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) oid: u32,
    pub(super) is_permissive: bool,
    pub(super) expression: String,
    /// Numbers of the columns it depends on.
    pub(super) columns: Vec<i16>,
    /// Whether some row is referred to as a whole; it may be this table's.
    pub(super) uses_whole_row: bool,
    /// Whether it calls functions of users that are declared immutable: if that is a lie, a
    /// plan would carry one caller's answer to the next.
    pub(super) uses_immutable_function: bool,
    /// Whether it reads other rows than the one that it is evaluated for, or calls a function that
    /// may do so.
    pub(super) reads_other_rows: bool,
}

/// What a role may do with a table.
#[derive(Debug)]
pub(super) struct TableRights {
    /// Numbers of the columns it may select.
    pub(super) selectable: HashSet<i16>,
    /// Whether row-level security does not concern it.
    pub(super) bypasses_row_security: bool,
    /// Policies that apply to it.
    pub(super) policies: HashSet<u32>,
}

impl Table {
    /// The column of this name.
    pub(super) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns of the primary key; empty when there is none.
    pub(super) fn primary_key(&self) -> impl Iterator<Item = &TableColumn> {
        self.columns.iter().filter(|column| column.is_primary_key)
    }

    /// The columns with these numbers.
    pub(super) fn numbered<'a>(
        &'a self,
        numbers: &'a [i16],
    ) -> impl Iterator<Item = &'a TableColumn> {
        self.columns
            .iter()
            .filter(|column| numbers.contains(&column.number))
    }

    /// The policies that apply to a role with these rights.
    pub(super) fn policies_for<'a>(
        &'a self,
        rights: &'a TableRights,
    ) -> impl Iterator<Item = &'a Policy> {
        self.policies
            .iter()
            .filter(|policy| rights.policies.contains(&policy.oid))
    }

    /// Whether deleted rows are judged in the state before their deletion, too.
    pub(super) fn needs_snapshots(&self) -> bool {
        self.keeps_deleted_rows
            && self.has_row_security
            && self.policies.iter().any(|policy| policy.reads_other_rows)
    }

    /// Whether the columns of row images are columns of this reading, type for type.
    pub(super) fn agrees_with(&self, relation: &Relation) -> bool {
        self.name == relation.table
            && relation.columns.iter().all(|column| {
                self.column(&column.name).is_some_and(|known| {
                    known.type_oid == column.type_oid && known.type_modifier == column.type_modifier
                })
            })
    }
}
