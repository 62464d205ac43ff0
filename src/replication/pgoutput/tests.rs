//! Tests the decoder with handwritten bytes, an encoder, and random bytes.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::encode::encode;
use super::*;
use crate::change::{
    Column, ColumnValue, Lsn, OldRow, Relation, ReplicaIdentity, Row, TableName, TimestampMicros,
};

/// Decodes messages that were written byte by byte from the tables in the manual. They also check
/// the encoder that is used below, so it cannot share a mistake with the decoder.
#[test]
fn messages_written_by_hand_decode() {
    let text = |text: &'static str| ColumnValue::Text(Bytes::from_static(text.as_bytes()));
    let cases: &[(&'static [u8], WalMessage)] = &[
        (
            b"B\0\0\0\0\x01\x02\x03\x04\0\0\0\0\0\0\0\x07\0\0\x02\xed",
            WalMessage::Begin {
                commit_lsn: Lsn(0x0102_0304),
                committed_at: TimestampMicros(946_684_800_000_007),
                xid: 749,
            },
        ),
        (
            b"C\0\0\0\0\0\x01\x02\x03\x04\0\0\0\0\x01\x02\x03\x34\0\0\0\0\0\0\0\x07",
            WalMessage::Commit {
                commit_lsn: Lsn(0x0102_0304),
                end_lsn: Lsn(0x0102_0334),
                committed_at: TimestampMicros(946_684_800_000_007),
            },
        ),
        (
            b"O\0\0\0\0\0\0\0\x09elsewhere\0",
            WalMessage::Origin {
                commit_lsn: Lsn(9),
                name: "elsewhere".to_owned(),
            },
        ),
        (
            b"R\0\0\x40\0public\0note\0d\0\x02\x01id\0\0\0\0\x14\xff\xff\xff\xff\0title\0\0\0\x04\x13\0\0\0\x24",
            WalMessage::Relation(Relation {
                oid: 16384,
                table: TableName::new("public", "note"),
                identity: ReplicaIdentity::Default,
                columns: vec![
                    Column {
                        name: "id".to_owned(),
                        type_oid: 20,
                        type_modifier: -1,
                        is_identity: true,
                    },
                    Column {
                        name: "title".to_owned(),
                        type_oid: 1043,
                        type_modifier: 36,
                        is_identity: false,
                    },
                ],
            }),
        ),
        (
            b"Y\0\0\x40\x01\0mood\0",
            WalMessage::Type {
                oid: 16385,
                schema: "pg_catalog".to_owned(),
                name: "mood".to_owned(),
            },
        ),
        (
            b"I\0\0\x40\0N\0\x03t\0\0\0\x011nt\0\0\0\0",
            WalMessage::Insert {
                relation_oid: 16384,
                new: Row(vec![text("1"), ColumnValue::Null, text("")]),
            },
        ),
        (
            b"U\0\0\x40\0N\0\x02t\0\0\0\x011u",
            WalMessage::Update {
                relation_oid: 16384,
                old: None,
                new: Row(vec![text("1"), ColumnValue::Unchanged]),
            },
        ),
        (
            b"U\0\0\x40\0K\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x012t\0\0\0\x01x",
            WalMessage::Update {
                relation_oid: 16384,
                old: Some(OldRow::Key(Row(vec![text("1"), ColumnValue::Null]))),
                new: Row(vec![text("2"), text("x")]),
            },
        ),
        (
            b"D\0\0\x40\0O\0\x01t\0\0\0\x011",
            WalMessage::Delete {
                relation_oid: 16384,
                old: OldRow::Full(Row(vec![text("1")])),
            },
        ),
        (
            b"T\0\0\0\x02\x03\0\0\x40\0\0\0\x40\x05",
            WalMessage::Truncate {
                relation_oids: vec![16384, 16389],
                cascade: true,
                restart_identity: true,
            },
        ),
        (
            b"M\x01\0\0\0\0\0\0\0\x08app\0\0\0\0\x02\0\xff",
            WalMessage::Message {
                transactional: true,
                lsn: Lsn(8),
                prefix: "app".to_owned(),
                content: Bytes::from_static(b"\0\xff"),
            },
        ),
    ];
    for (bytes, message) in cases {
        assert_eq!(decode(Bytes::from_static(bytes)).as_ref(), Ok(message));
        assert_eq!(&encode(message)[..], *bytes, "the encoder of these tests");
    }
}

#[test]
fn invalid_messages_are_refused_with_the_field() {
    let cases: &[(&'static [u8], DecodeError)] = &[
        (b"", DecodeError::Truncated("kind")),
        (b"Z", DecodeError::UnknownKind(b'Z')),
        // `S`, the start of a streamed transaction, exists only in protocol version 2 and later.
        (b"S\0\0\0\x01\x01", DecodeError::UnknownKind(b'S')),
        (
            b"I\0\0\x40\0N\0",
            DecodeError::Truncated("number of columns"),
        ),
        (
            b"I\0\0\x40\0N\xff\xff",
            DecodeError::Negative("number of columns"),
        ),
        (
            b"I\0\0\x40\0N\0\x01t\xff\xff\xff\xff",
            DecodeError::Negative("column length"),
        ),
        (
            b"I\0\0\x40\0N\0\x01t\x7f\xff\xff\xffx",
            DecodeError::Truncated("column value"),
        ),
        (
            b"I\0\0\x40\0N\0\x01b\0\0\0\x01x",
            DecodeError::UnknownValue {
                field: "column kind",
                value: b'b',
            },
        ),
        (
            b"D\0\0\x40\0N\0\0",
            DecodeError::UnknownValue {
                field: "tuple kind",
                value: b'N',
            },
        ),
        (
            b"T\x7f\xff\xff\xff\0",
            DecodeError::Truncated("relation id"),
        ),
        (
            b"O\0\0\0\0\0\0\0\x09name",
            DecodeError::Truncated("origin name"),
        ),
        (
            b"O\0\0\0\0\0\0\0\x09\xff\0",
            DecodeError::NotUtf8("origin name"),
        ),
        (b"I\0\0\x40\0N\0\0xyz", DecodeError::TrailingBytes(3)),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(Bytes::from_static(bytes)).as_ref(), Err(error));
    }
}

#[test]
fn values_share_the_memory_of_the_message() {
    let message = Bytes::from_static(b"I\0\0\x40\0N\0\x01t\0\0\0\x05hello");
    let Ok(WalMessage::Insert { new, .. }) = decode(message.clone()) else {
        panic!("an insert");
    };
    let [ColumnValue::Text(value)] = &new.0[..] else {
        panic!("one value");
    };
    assert_eq!(value.as_ptr(), message[message.len() - 5..].as_ptr());
}

#[test]
fn invalid_utf8_in_a_value_is_replaced() {
    let decoded = decode(Bytes::from_static(b"I\0\0\x40\0N\0\x01t\0\0\0\x03a\xffb"));
    let Ok(WalMessage::Insert { new, .. }) = decoded else {
        panic!("an insert");
    };
    assert_eq!(
        new.0,
        [ColumnValue::Text(Bytes::from_static(
            "a\u{fffd}b".as_bytes()
        ))]
    );
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{1,20}"
}

fn row() -> impl Strategy<Value = Row> {
    let value = prop_oneof![
        Just(ColumnValue::Null),
        Just(ColumnValue::Unchanged),
        ".{0,40}".prop_map(|text| ColumnValue::Text(Bytes::from(text))),
    ];
    vec(value, 0..12).prop_map(Row)
}

fn old() -> impl Strategy<Value = OldRow> {
    prop_oneof![row().prop_map(OldRow::Key), row().prop_map(OldRow::Full)]
}

fn time() -> impl Strategy<Value = TimestampMicros> {
    (-1_000_000_000_000_000..4_000_000_000_000_000_i64).prop_map(TimestampMicros)
}

fn relation() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index),
    ];
    let column = (name(), any::<u32>(), any::<i32>(), any::<bool>()).prop_map(
        |(name, type_oid, type_modifier, is_identity)| Column {
            name,
            type_oid,
            type_modifier,
            is_identity,
        },
    );
    (any::<u32>(), name(), name(), identity, vec(column, 0..10)).prop_map(
        |(oid, schema, name, identity, columns)| Relation {
            oid,
            table: TableName::new(schema, name),
            identity,
            columns,
        },
    )
}

fn message() -> impl Strategy<Value = WalMessage> {
    let lsn = any::<u64>().prop_map(Lsn);
    prop_oneof![
        (lsn.clone(), time(), any::<u32>()).prop_map(|(commit_lsn, committed_at, xid)| {
            WalMessage::Begin {
                commit_lsn,
                committed_at,
                xid,
            }
        }),
        (lsn.clone(), lsn.clone(), time()).prop_map(|(commit_lsn, end_lsn, committed_at)| {
            WalMessage::Commit {
                commit_lsn,
                end_lsn,
                committed_at,
            }
        }),
        (lsn.clone(), name())
            .prop_map(|(commit_lsn, name)| WalMessage::Origin { commit_lsn, name }),
        relation().prop_map(WalMessage::Relation),
        (any::<u32>(), name(), name()).prop_map(|(oid, schema, name)| WalMessage::Type {
            oid,
            schema,
            name
        }),
        (any::<u32>(), row())
            .prop_map(|(relation_oid, new)| WalMessage::Insert { relation_oid, new }),
        (any::<u32>(), proptest::option::of(old()), row()).prop_map(|(relation_oid, old, new)| {
            WalMessage::Update {
                relation_oid,
                old,
                new,
            }
        }),
        (any::<u32>(), old())
            .prop_map(|(relation_oid, old)| WalMessage::Delete { relation_oid, old }),
        (vec(any::<u32>(), 0..6), any::<bool>(), any::<bool>()).prop_map(
            |(relation_oids, cascade, restart_identity)| WalMessage::Truncate {
                relation_oids,
                cascade,
                restart_identity,
            }
        ),
        (any::<bool>(), lsn, name(), vec(any::<u8>(), 0..64)).prop_map(
            |(transactional, lsn, prefix, content)| WalMessage::Message {
                transactional,
                lsn,
                prefix,
                content: Bytes::from(content),
            }
        ),
    ]
}

proptest! {
    #[test]
    fn encoded_messages_decode_to_the_same(message in message()) {
        prop_assert_eq!(decode(encode(&message)), Ok(message));
    }

    #[test]
    fn every_cut_of_a_message_is_an_error(message in message(), at in any::<prop::sample::Index>()) {
        let whole = encode(&message);
        let cut = whole.slice(..at.index(whole.len()));
        prop_assert!(decode(cut).is_err());
    }

    #[test]
    fn one_wrong_byte_never_panics(
        message in message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&message).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(Bytes::from(bytes));
    }

    #[test]
    fn noise_never_panics(kind in prop::sample::select(&b"BCORYIUDTMxS"[..]), noise in vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![kind];
        bytes.extend(noise);
        let _ = decode(Bytes::from(bytes));
    }
}
