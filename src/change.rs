//! The data types of row changes, from replication to subscribers.
//!
//! All types are plain values; this module performs no I/O. Column values are in PostgreSQL's text
//! output format under the fixed settings of the replication connection (ISO dates, UTC, hex bytea)
//! and are shared without copying.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A position in the write-ahead log (PostgreSQL manual, `pg_lsn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A table by schema and name. Both are exact names, without patterns or quoting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema name as stored in `pg_namespace`.
    pub schema: String,
    /// The relation name as stored in `pg_class`.
    pub name: String,
}

impl TableName {
    /// Creates a table name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }
}

impl TableName {
    /// Returns whether this is `realtime.messages`, whose rows are broadcasts, or one of its
    /// partitions, called `messages_YYYY_MM_DD` and `messages_default`. The WAL names the partition
    /// instead of the table unless the publication has the option `publish_via_partition_root`
    /// (PostgreSQL manual, CREATE PUBLICATION).
    pub fn is_messages(&self) -> bool {
        let is_day = |rest: &str| {
            rest.len() == 11
                && rest.bytes().enumerate().all(|(at, byte)| match at {
                    0 | 5 | 8 => byte == b'_',
                    _ => byte.is_ascii_digit(),
                })
        };
        self.schema == "realtime"
            && self
                .name
                .strip_prefix("messages")
                .is_some_and(|rest| rest.is_empty() || rest == "_default" || is_day(rest))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The part of the old row that the WAL contains for an UPDATE or DELETE (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// No columns.
    Nothing,
    /// All columns.
    Full,
    /// The columns of one index.
    Index,
}

/// A column as a relation message describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The `pg_type.oid` of the column's type.
    pub type_oid: u32,
    /// The `pg_attribute.atttypmod`, or −1 if the type has no modifier.
    pub type_modifier: i32,
    /// Whether the column is part of the replica identity.
    pub is_identity: bool,
}

/// A table definition, as of the changes that refer to it.
///
/// When the columns of a table change, the stream contains a new `Relation` before the first row
/// that needs it. A row therefore always matches its `Relation`.
///
/// PostgreSQL also sends the definition of a table again when its policies, owner or privileges
/// have changed. Each definition that arrives is a separate `Arc`, so `Arc::ptr_eq` distinguishes
/// rows after such a change from rows before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema and name.
    pub table: TableName,
    /// The part of the row that old images contain.
    pub identity: ReplicaIdentity,
    /// The published columns, in the order of the row images.
    pub columns: Vec<Column>,
}

/// The value of one column in a row image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnValue {
    /// SQL null, or a column outside the key in an old image that contains only the key.
    Null,
    /// A value stored out of line (TOAST) that the change did not touch and the WAL does not
    /// repeat.
    Unchanged,
    /// The value in the text output format of its type, in UTF-8.
    Text(Bytes),
}

/// A row image: one value per column of its [`Relation`], in that order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row(pub Vec<ColumnValue>);

/// A row image with access to values by column name.
#[derive(Clone, Copy, Debug)]
pub struct NamedRow<'a> {
    /// The table definition of the image.
    pub relation: &'a Relation,
    /// The image.
    pub row: &'a Row,
}

impl<'a> NamedRow<'a> {
    /// Returns the text value of a column, or `None` if the value is null or
    /// [`ColumnValue::Unchanged`], or if the table has no such column.
    pub fn text(self, column: &str) -> Option<&'a str> {
        let columns = &self.relation.columns;
        let place = columns.iter().position(|found| found.name == column)?;
        match self.row.0.get(place)? {
            ColumnValue::Text(bytes) => std::str::from_utf8(bytes).ok(),
            ColumnValue::Null | ColumnValue::Unchanged => None,
        }
    }

    /// Returns whether another image of the same table has equal values in all columns, apart from
    /// those named in `changing`.
    pub fn equals_except(self, changing: &[&str], other: Self) -> bool {
        let columns = &self.relation.columns;
        columns.len() == other.relation.columns.len()
            && columns.iter().enumerate().all(|(place, found)| {
                changing.contains(&found.name.as_str())
                    || self.row.0.get(place) == other.row.0.get(place)
            })
    }
}

/// The old image of an updated or deleted row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldRow {
    /// Only the columns of the replica identity are set; all others are `Null`.
    Key(Row),
    /// All columns (`REPLICA IDENTITY FULL`).
    Full(Row),
}

impl OldRow {
    /// Returns the image.
    pub fn row(&self) -> &Row {
        match self {
            Self::Key(row) | Self::Full(row) => row,
        }
    }
}

/// The operation on a row, with its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// A new row.
    Insert {
        /// The row as inserted.
        new: Row,
    },
    /// A changed row.
    Update {
        /// The row before the change. Absent if the columns of the replica identity did not change
        /// and the identity is not FULL.
        old: Option<OldRow>,
        /// The row after the change.
        new: Row,
    },
    /// A removed row.
    Delete {
        /// The part of the deleted row that the WAL contains.
        old: OldRow,
    },
}

/// The operation without its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A removed row.
    Delete,
}

impl Action {
    /// Returns the name that the protocol uses: `INSERT`, `UPDATE` or `DELETE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One changed row of a committed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// The table definition as of this change.
    pub relation: Arc<Relation>,
    /// The operation with its images.
    pub row: RowChange,
}

impl ChangeEvent {
    /// Returns the operation.
    pub fn action(&self) -> Action {
        match self.row {
            RowChange::Insert { .. } => Action::Insert,
            RowChange::Update { .. } => Action::Update,
            RowChange::Delete { .. } => Action::Delete,
        }
    }

    /// Returns the row after the change, or the deleted row.
    pub fn image(&self) -> NamedRow<'_> {
        let row = match &self.row {
            RowChange::Insert { new } | RowChange::Update { new, .. } => new,
            RowChange::Delete { old } => old.row(),
        };
        NamedRow {
            relation: &self.relation,
            row,
        }
    }

    /// Returns the complete row before the change, if the WAL contains it.
    pub fn before(&self) -> Option<NamedRow<'_>> {
        match &self.row {
            RowChange::Update {
                old: Some(OldRow::Full(row)),
                ..
            }
            | RowChange::Delete {
                old: OldRow::Full(row),
            } => Some(NamedRow {
                relation: &self.relation,
                row,
            }),
            _ => None,
        }
    }
}

/// Microseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimestampMicros(pub i64);

/// Consecutive changes of one committed transaction, in order: all of them, or a bounded chunk of a
/// large transaction. It contains only committed data, because version 1 of the pgoutput protocol
/// sends a transaction only after its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeTransaction {
    /// The position of the commit record. Transactions arrive in this order.
    pub commit_lsn: Lsn,
    /// The transaction id, which determines whether a snapshot sees the transaction.
    pub xid: u32,
    /// The commit time.
    pub committed_at: TimestampMicros,
    /// The index of `changes[0]` among the row changes of the transaction, counted from 0. Such an
    /// index and `commit_lsn` together identify a change uniquely and permanently.
    pub first_ordinal: u64,
    /// The changes, in the order in which they were made.
    pub changes: Vec<ChangeEvent>,
    /// Whether this is the last chunk of the transaction.
    pub is_last: bool,
    /// Approximate memory size of `changes` in bytes. Queues of chunks are limited by it.
    pub bytes: usize,
}

impl ChangeTransaction {
    /// Creates a transaction in one chunk, with `xid` as the position of its commit record. For
    /// tests.
    pub fn whole(xid: u32, changes: Vec<ChangeEvent>) -> Self {
        Self {
            commit_lsn: Lsn(u64::from(xid)),
            xid,
            committed_at: TimestampMicros(0),
            first_ordinal: 0,
            changes,
            is_last: true,
            bytes: 0,
        }
    }
}

/// Rows that one committed transaction, or a bounded chunk of it, inserted into
/// `realtime.messages`, in order. They are broadcasts, not row changes, and are never part of a
/// [`ChangeTransaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertedMessages {
    /// The commit time.
    pub committed_at: TimestampMicros,
    /// Each row with its table definition.
    pub rows: Vec<(Arc<Relation>, Row)>,
}

/// An event of the change stream.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// Committed changes.
    Changes(Arc<ChangeTransaction>),
    /// Streaming has started, for the first time or again. All changes that are committed from now
    /// on will be delivered.
    Live,
    /// The connection is down. Nothing is lost, because changes committed during the outage follow
    /// later.
    Interrupted,
    /// The slot was lost, or the history of the database has changed, for example after a failover.
    /// Changes between the last delivered one and the next may be missing.
    Gap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_recognized_by_table_and_partition_names() {
        let cases = [
            ("realtime", "messages", true),
            ("realtime", "messages_2026_11_24", true),
            ("realtime", "messages_default", true),
            ("realtime", "messages_2026_11_2x", false),
            ("realtime", "messages_2026-11-24", false),
            ("realtime", "messages_old", false),
            ("realtime", "message", false),
            ("public", "messages", false),
        ];
        for (schema, name, expected) in cases {
            assert_eq!(
                TableName::new(schema, name).is_messages(),
                expected,
                "{schema}.{name}"
            );
        }
    }
}
