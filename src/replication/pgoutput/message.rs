//! The pgoutput messages, and how they are decoded.

use bytes::Bytes;

use super::reader::{DecodeError, Reader};
use crate::change::{
    Column, Lsn, OldRow, Relation, ReplicaIdentity, Row, TableName, TimestampMicros,
};

/// The difference between PostgreSQL's epoch (2000-01-01) and the Unix epoch, in microseconds.
pub(super) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// One decoded pgoutput message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WalMessage {
    /// The beginning of a committed transaction.
    Begin {
        /// Position of the transaction's commit record. It is already known, because only committed
        /// transactions are sent.
        commit_lsn: Lsn,
        /// When the transaction was committed.
        committed_at: TimestampMicros,
        /// The transaction id.
        xid: u32,
    },
    /// The end of the transaction.
    Commit {
        /// Position of the commit record.
        commit_lsn: Lsn,
        /// Position after the commit record. This is the position to acknowledge.
        end_lsn: Lsn,
        /// When the transaction was committed.
        committed_at: TimestampMicros,
    },
    /// The origin of a transaction that was replicated from another server.
    Origin {
        /// Position of the commit on that server.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: String,
    },
    /// A table definition for the following changes.
    Relation(Relation),
    /// A type that is not built in.
    Type {
        /// `pg_type.oid`.
        oid: u32,
        /// The type's schema.
        schema: String,
        /// The type's name.
        name: String,
    },
    /// A new row.
    Insert {
        /// `pg_class.oid` of the row's table.
        relation_oid: u32,
        /// The row.
        new: Row,
    },
    /// A changed row.
    Update {
        /// `pg_class.oid` of the row's table.
        relation_oid: u32,
        /// The old image, if the replica identity is FULL or a column of it has changed.
        old: Option<OldRow>,
        /// The new image.
        new: Row,
    },
    /// A removed row.
    Delete {
        /// `pg_class.oid` of the row's table.
        relation_oid: u32,
        /// The old image.
        old: OldRow,
    },
    /// Tables that were emptied.
    Truncate {
        /// `pg_class.oid` of each table.
        relation_oids: Vec<u32>,
        /// Whether `CASCADE` was given.
        cascade: bool,
        /// Whether `RESTART IDENTITY` was given.
        restart_identity: bool,
    },
    /// A message from `pg_logical_emit_message`.
    Message {
        /// Whether the message is part of the surrounding transaction.
        transactional: bool,
        /// The message's position.
        lsn: Lsn,
        /// The message's prefix.
        prefix: String,
        /// The message's content.
        content: Bytes,
    },
}

/// Decodes one message.
///
/// # Errors
/// [`DecodeError`] if the bytes are not exactly one message of protocol version 1.
pub(crate) fn decode(bytes: Bytes) -> Result<WalMessage, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = match reader.u8("kind")? {
        b'B' => begin(&mut reader),
        b'C' => commit(&mut reader),
        b'O' => origin(&mut reader),
        b'R' => relation(&mut reader),
        b'Y' => type_name(&mut reader),
        b'I' => insert(&mut reader),
        b'U' => update(&mut reader),
        b'D' => delete(&mut reader),
        b'T' => truncate(&mut reader),
        b'M' => logical_message(&mut reader),
        kind => Err(DecodeError::UnknownKind(kind)),
    }?;
    reader.finish()?;
    Ok(message)
}

/// Converts a pgoutput time, which counts microseconds since 2000-01-01.
pub(crate) fn timestamp(postgres_micros: i64) -> TimestampMicros {
    TimestampMicros(postgres_micros.saturating_add(POSTGRES_EPOCH_MICROS))
}

fn begin(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    Ok(WalMessage::Begin {
        commit_lsn: Lsn(reader.u64("final LSN")?),
        committed_at: timestamp(reader.i64("commit timestamp")?),
        xid: reader.u32("transaction id")?,
    })
}

fn commit(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    // The flags are unused and always 0 in this version.
    reader.u8("flags")?;
    Ok(WalMessage::Commit {
        commit_lsn: Lsn(reader.u64("commit LSN")?),
        end_lsn: Lsn(reader.u64("end LSN")?),
        committed_at: timestamp(reader.i64("commit timestamp")?),
    })
}

fn origin(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    Ok(WalMessage::Origin {
        commit_lsn: Lsn(reader.u64("origin LSN")?),
        name: reader.string("origin name")?,
    })
}

fn relation(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    let oid = reader.u32("relation id")?;
    let schema = schema_name(reader)?;
    let name = reader.string("relation name")?;
    let identity = match reader.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        value => {
            return Err(DecodeError::UnknownValue {
                field: "replica identity",
                value,
            });
        }
    };
    let count = reader.column_count()?;
    let mut columns = Vec::with_capacity(count.min(reader.remaining()));
    for _ in 0..count {
        let is_identity = reader.u8("column flags")? & 1 != 0;
        columns.push(Column {
            name: reader.string("column name")?,
            type_oid: reader.u32("column type")?,
            type_modifier: reader.i32("column type modifier")?,
            is_identity,
        });
    }
    Ok(WalMessage::Relation(Relation {
        oid,
        table: TableName::new(schema, name),
        identity,
        columns,
    }))
}

/// Reads the schema of a relation or type. `pg_catalog` is sent as an empty text.
fn schema_name(reader: &mut Reader) -> Result<String, DecodeError> {
    let schema = reader.string("namespace")?;
    Ok(if schema.is_empty() {
        "pg_catalog".to_owned()
    } else {
        schema
    })
}

fn type_name(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    Ok(WalMessage::Type {
        oid: reader.u32("type id")?,
        schema: schema_name(reader)?,
        name: reader.string("type name")?,
    })
}

fn insert(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    let relation_oid = reader.u32("relation id")?;
    let kind = reader.u8("tuple kind")?;
    Ok(WalMessage::Insert {
        relation_oid,
        new: new_row(reader, kind)?,
    })
}

fn update(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    let relation_oid = reader.u32("relation id")?;
    let mut kind = reader.u8("tuple kind")?;
    let mut old = None;
    if matches!(kind, b'K' | b'O') {
        old = Some(old_row(reader, kind)?);
        kind = reader.u8("tuple kind")?;
    }
    Ok(WalMessage::Update {
        relation_oid,
        old,
        new: new_row(reader, kind)?,
    })
}

fn delete(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    let relation_oid = reader.u32("relation id")?;
    let kind = reader.u8("tuple kind")?;
    Ok(WalMessage::Delete {
        relation_oid,
        old: old_row(reader, kind)?,
    })
}

fn new_row(reader: &mut Reader, kind: u8) -> Result<Row, DecodeError> {
    match kind {
        b'N' => reader.row(),
        value => Err(DecodeError::UnknownValue {
            field: "tuple kind",
            value,
        }),
    }
}

fn old_row(reader: &mut Reader, kind: u8) -> Result<OldRow, DecodeError> {
    match kind {
        b'K' => Ok(OldRow::Key(reader.row()?)),
        b'O' => Ok(OldRow::Full(reader.row()?)),
        value => Err(DecodeError::UnknownValue {
            field: "tuple kind",
            value,
        }),
    }
}

fn truncate(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    let count = reader.length("number of relations")?;
    let options = reader.u8("truncate options")?;
    let mut relation_oids = Vec::with_capacity(count.min(reader.remaining() / size_of::<u32>()));
    for _ in 0..count {
        relation_oids.push(reader.u32("relation id")?);
    }
    Ok(WalMessage::Truncate {
        relation_oids,
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

fn logical_message(reader: &mut Reader) -> Result<WalMessage, DecodeError> {
    let transactional = reader.u8("flags")? & 1 != 0;
    let lsn = Lsn(reader.u64("LSN")?);
    let prefix = reader.string("prefix")?;
    let length = reader.length("content length")?;
    Ok(WalMessage::Message {
        transactional,
        lsn,
        prefix,
        content: reader.take(length, "content")?,
    })
}
