//! The nouns of a row change, as they travel from replication to subscribers.
//!
//! Pure values: nothing here does I/O. Texts of column values are PostgreSQL's own
//! output format under the fixed settings of the replication session (ISO dates,
//! UTC, hex bytea), shared without a copy.

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

/// A table by schema and name, both exact (no patterns, no quoting).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Schema name as stored in `pg_namespace`.
    pub schema: String,
    /// Relation name as stored in `pg_class`.
    pub name: String,
}

impl TableName {
    /// A table name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }
}

impl TableName {
    /// Whether it is `realtime.messages`, whose rows are broadcasts, or one of its partitions: they
    /// are called `messages_YYYY_MM_DD` and `messages_default`, and the log names them instead of
    /// the table unless the publication says otherwise (PostgreSQL manual, CREATE PUBLICATION,
    /// `publish_via_partition_root`).
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

/// What an UPDATE or DELETE carries of the old row (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of one index.
    Index,
}

/// A column as a relation message describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// `pg_type.oid` of its type.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, −1 when the type takes none.
    pub type_modifier: i32,
    /// Whether it is part of the replica identity.
    pub is_identity: bool,
}

/// A table as it was when the changes that refer to it were made.
///
/// A change of its columns arrives in the stream as a new `Relation` before the
/// first row that needs it, so a holder of this value never sees a row that does not fit.
///
/// PostgreSQL also describes a table again when its policies, its owner or the rights on it have
/// changed. Each description is an `Arc` of its own, so rows behind such a change are told from
/// those before it by `Arc::ptr_eq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema and name.
    pub table: TableName,
    /// What old images hold.
    pub identity: ReplicaIdentity,
    /// Published columns in the order of the row images.
    pub columns: Vec<Column>,
}

/// One column's value in a row image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnValue {
    /// SQL null; also a column that an old image of key columns leaves out.
    Null,
    /// A value stored out of line (TOAST) that the change did not touch and the log does not repeat.
    Unchanged,
    /// The value in its type's text output format, UTF-8.
    Text(Bytes),
}

/// A row image: one value per column of its [`Relation`], in that order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row(pub Vec<ColumnValue>);

/// A row image whose values are found by their columns' names.
#[derive(Clone, Copy, Debug)]
pub struct NamedRow<'a> {
    /// The table as of the image.
    pub relation: &'a Relation,
    /// The image.
    pub row: &'a Row,
}

impl<'a> NamedRow<'a> {
    /// A column's value as text. `None` where it is null or unchanged out of line, or where the table has
    /// no such column.
    pub fn text(self, column: &str) -> Option<&'a str> {
        let columns = &self.relation.columns;
        let place = columns.iter().position(|found| found.name == column)?;
        match self.row.0.get(place)? {
            ColumnValue::Text(bytes) => std::str::from_utf8(bytes).ok(),
            ColumnValue::Null | ColumnValue::Unchanged => None,
        }
    }

    /// Whether another image of the same table has the same values in all columns but these.
    pub fn is_same_but_for(self, changing: &[&str], other: Self) -> bool {
        let columns = &self.relation.columns;
        columns.len() == other.relation.columns.len()
            && columns.iter().enumerate().all(|(place, found)| {
                changing.contains(&found.name.as_str())
                    || self.row.0.get(place) == other.row.0.get(place)
            })
    }
}

/// The old image of a row that was updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldRow {
    /// Only the replica identity's columns are filled in, the others read `Null`.
    Key(Row),
    /// Every column (`REPLICA IDENTITY FULL`).
    Full(Row),
}

impl OldRow {
    /// The image.
    pub fn row(&self) -> &Row {
        match self {
            Self::Key(row) | Self::Full(row) => row,
        }
    }
}

/// What happened to the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// A new row.
    Insert {
        /// The row as inserted.
        new: Row,
    },
    /// A changed row.
    Update {
        /// The row before; absent where the identity did not change and is not FULL.
        old: Option<OldRow>,
        /// The row after.
        new: Row,
    },
    /// A removed row.
    Delete {
        /// What the log keeps of it.
        old: OldRow,
    },
}

/// The kind of a change, without its images.
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
    /// The name on the wire: `INSERT`, `UPDATE` or `DELETE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One changed row of one committed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// The table as of this change.
    pub relation: Arc<Relation>,
    /// Images before and after.
    pub row: RowChange,
}

impl ChangeEvent {
    /// The kind of this change.
    pub fn action(&self) -> Action {
        match self.row {
            RowChange::Insert { .. } => Action::Insert,
            RowChange::Update { .. } => Action::Update,
            RowChange::Delete { .. } => Action::Delete,
        }
    }

    /// The row after the change, or the one that was deleted.
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

    /// The row before the change, where the log holds all of it.
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

/// A run of changes of one committed transaction, in order: all of it, or a bounded
/// piece of a large one. Only committed data gets here (pgoutput protocol version 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeTransaction {
    /// The commit record's position: transactions arrive in its order.
    pub commit_lsn: Lsn,
    /// Its number, by which the database tells whether a snapshot sees it.
    pub xid: u32,
    /// When it was committed.
    pub committed_at: TimestampMicros,
    /// Position among the transaction's row changes of `changes[0]`, counted from 0. With
    /// `commit_lsn` it names a change uniquely and for ever.
    pub first_ordinal: u64,
    /// The changes, in the order in which they were made.
    pub changes: Vec<ChangeEvent>,
    /// Whether the transaction ends with this piece.
    pub is_last: bool,
    /// Bytes of memory that `changes` takes, nearly: what queues of pieces are bounded by.
    pub bytes: usize,
}

/// Rows that one committed transaction, or a bounded piece of it, inserted into
/// `realtime.messages`, in order. They are broadcasts and never row changes: they are in no
/// [`ChangeTransaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertedMessages {
    /// When they were committed.
    pub committed_at: TimestampMicros,
    /// Each row with its table as of then.
    pub rows: Vec<(Arc<Relation>, Row)>,
}

/// What the change stream tells its listeners.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// Committed changes.
    Changes(Arc<ChangeTransaction>),
    /// Streaming has begun, for the first time or again: what is committed from here
    /// on will be delivered.
    Live,
    /// The connection is down; nothing is lost, what is committed meanwhile comes later.
    Interrupted,
    /// The slot was lost: changes between the last one delivered and the next may be missing.
    Gap,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_known_by_their_table_and_its_partitions() {
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
