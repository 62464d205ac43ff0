//! Encodes messages as PostgreSQL's `proto.c` does, for tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use bytes::{BufMut, Bytes, BytesMut};

use super::message::{POSTGRES_EPOCH_MICROS, WalMessage};
use crate::change::{ColumnValue, OldRow, Relation, ReplicaIdentity, Row, TimestampMicros};

/// Returns the bytes that a server sends for `message`.
pub(crate) fn encode(message: &WalMessage) -> Bytes {
    let mut out = BytesMut::new();
    match message {
        WalMessage::Begin {
            commit_lsn,
            committed_at,
            xid,
        } => {
            out.put_u8(b'B');
            out.put_u64(commit_lsn.0);
            put_time(&mut out, *committed_at);
            out.put_u32(*xid);
        }
        WalMessage::Commit {
            commit_lsn,
            end_lsn,
            committed_at,
        } => {
            out.put_u8(b'C');
            out.put_u8(0);
            out.put_u64(commit_lsn.0);
            out.put_u64(end_lsn.0);
            put_time(&mut out, *committed_at);
        }
        WalMessage::Origin { commit_lsn, name } => {
            out.put_u8(b'O');
            out.put_u64(commit_lsn.0);
            put_string(&mut out, name);
        }
        WalMessage::Relation(relation) => put_relation(&mut out, relation),
        WalMessage::Type { oid, schema, name } => {
            out.put_u8(b'Y');
            out.put_u32(*oid);
            put_schema(&mut out, schema);
            put_string(&mut out, name);
        }
        WalMessage::Insert { relation_oid, new } => {
            out.put_u8(b'I');
            out.put_u32(*relation_oid);
            put_row(&mut out, b'N', new);
        }
        WalMessage::Update {
            relation_oid,
            old,
            new,
        } => {
            out.put_u8(b'U');
            out.put_u32(*relation_oid);
            if let Some(old) = old {
                put_old(&mut out, old);
            }
            put_row(&mut out, b'N', new);
        }
        WalMessage::Delete { relation_oid, old } => {
            out.put_u8(b'D');
            out.put_u32(*relation_oid);
            put_old(&mut out, old);
        }
        WalMessage::Truncate {
            relation_oids,
            cascade,
            restart_identity,
        } => {
            out.put_u8(b'T');
            out.put_i32(relation_oids.len().try_into().unwrap());
            out.put_u8(u8::from(*cascade) | u8::from(*restart_identity) << 1);
            for oid in relation_oids {
                out.put_u32(*oid);
            }
        }
        WalMessage::Message {
            transactional,
            lsn,
            prefix,
            content,
        } => {
            out.put_u8(b'M');
            out.put_u8(u8::from(*transactional));
            out.put_u64(lsn.0);
            put_string(&mut out, prefix);
            out.put_i32(content.len().try_into().unwrap());
            out.put_slice(content);
        }
    }
    out.freeze()
}

fn put_relation(out: &mut BytesMut, relation: &Relation) {
    out.put_u8(b'R');
    out.put_u32(relation.oid);
    put_schema(out, &relation.table.schema);
    put_string(out, &relation.table.name);
    out.put_u8(match relation.identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.put_i16(relation.columns.len().try_into().unwrap());
    for column in &relation.columns {
        out.put_u8(u8::from(column.is_identity));
        put_string(out, &column.name);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
}

fn put_old(out: &mut BytesMut, old: &OldRow) {
    match old {
        OldRow::Key(row) => put_row(out, b'K', row),
        OldRow::Full(row) => put_row(out, b'O', row),
    }
}

fn put_row(out: &mut BytesMut, kind: u8, row: &Row) {
    out.put_u8(kind);
    out.put_i16(row.0.len().try_into().unwrap());
    for value in &row.0 {
        match value {
            ColumnValue::Null => out.put_u8(b'n'),
            ColumnValue::Unchanged => out.put_u8(b'u'),
            ColumnValue::Text(text) => {
                out.put_u8(b't');
                out.put_i32(text.len().try_into().unwrap());
                out.put_slice(text);
            }
        }
    }
}

fn put_schema(out: &mut BytesMut, schema: &str) {
    put_string(out, if schema == "pg_catalog" { "" } else { schema });
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn put_time(out: &mut BytesMut, time: TimestampMicros) {
    out.put_i64(time.0 - POSTGRES_EPOCH_MICROS);
}
