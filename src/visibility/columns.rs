//! Which columns of a row a role may receive, prepared so that writing a record costs no look-ups.

use std::sync::Arc;

use bytes::Bytes;

use super::record::ValueEncoding;

/// The columns that may be sent, in the table's order. Made once per table, role, `select` and
/// options, and shared by all who have these in common.
#[derive(Debug, PartialEq, Eq)]
pub struct VisibleColumns {
    /// The columns.
    pub columns: Vec<VisibleColumn>,
    /// The `columns` array of the wire, `[{"name":…,"type":…},…]`.
    pub header: Bytes,
    /// Whether `old_record` of a DELETE holds the primary key alone: row-level security is
    /// enabled on the table (protocol 6.5, item 4).
    pub old_key_only: bool,
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
    /// Whether an old image that is not complete holds it.
    pub is_identity: bool,
}
