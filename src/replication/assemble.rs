//! Assembles [`Chunk`]s from pgoutput messages. A chunk is a whole transaction, or a bounded piece
//! of a large one.
//!
//! Guarantees, for a stream that starts at or before [`Progress`]:
//! - Chunks are returned in commit order.
//! - Each change is returned once, although PostgreSQL repeats everything that had not been
//!   acknowledged when a connection ended.
//! - The changes held in memory exceed [`ChunkLimits`] by at most one change.
//!
//! This module performs no I/O and reads no clock.
//!
//! Repeated changes are recognized by commit LSN and ordinal. The positions of commit records
//! strictly increase. Decoding a transaction again returns the same changes in the same order,
//! because the decoder reads the catalogue as it was at the time of the transaction. Rows inserted
//! into `realtime.messages` are counted separately from row changes, because they are handed over
//! separately, and a connection reads them only if their publication exists.

use std::sync::Arc;

use thiserror::Error;

use super::pgoutput::WalMessage;
use super::relation_cache::RelationCache;
use crate::change::{
    ChangeEvent, ChangeTransaction, ColumnValue, InsertedMessages, Lsn, OldRow, Relation, Row,
    RowChange, TimestampMicros,
};

/// The reason why pgoutput messages do not form a transaction. In each case, messages are missing
/// or out of order, and the stream must be read again from the last acknowledged position.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum AssembleError {
    /// A change or a commit arrived without a preceding begin.
    #[error("A change arrived outside a transaction")]
    OutsideTransaction,
    /// A begin arrived inside an open transaction.
    #[error("A transaction began inside another")]
    NestedBegin,
    /// The commit belongs to a transaction other than the open one.
    #[error("The commit at {found} ends the transaction of {expected}")]
    OtherCommit {
        /// The commit position in the begin message.
        expected: Lsn,
        /// The position in the commit message.
        found: Lsn,
    },
    /// A change refers to a table whose definition has not arrived.
    #[error("A change refers to the unknown relation {0}")]
    UnknownRelation(u32),
    /// A row image does not fit the definition of its table.
    #[error("A row of relation {oid} has {found} columns instead of {expected}")]
    ColumnCount {
        /// The table's oid.
        oid: u32,
        /// The table's number of columns.
        expected: usize,
        /// The number of values in the image.
        found: usize,
    },
}

/// The maximum size of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkLimits {
    /// Maximum number of changes.
    pub changes: usize,
    /// Maximum size in bytes: the pgoutput messages, and the values created from them. A single
    /// change that is larger is a separate chunk.
    pub bytes: usize,
}

/// The part of the stream that has been handed over. It outlives the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The last commit that was handed over, in part or completely.
    pub commit_lsn: Lsn,
    /// The number of row changes of that commit that were handed over.
    pub changes: u64,
    /// The number of rows of `realtime.messages` of that commit that were handed over.
    pub messages: u64,
    /// Whether that commit was handed over completely.
    pub is_whole: bool,
}

impl Progress {
    /// Counts the rows of `realtime.messages` in a chunk as handed over. The row changes of the
    /// chunk follow later.
    pub(super) fn advance_messages(&mut self, chunk: &Chunk) {
        let transaction = &chunk.transaction;
        *self = Self {
            commit_lsn: transaction.commit_lsn,
            changes: transaction.first_ordinal,
            messages: chunk.messages_end,
            is_whole: false,
        };
    }

    /// Counts a whole chunk as handed over.
    pub(super) fn advance(&mut self, chunk: &Chunk) {
        let transaction = &chunk.transaction;
        *self = Self {
            commit_lsn: transaction.commit_lsn,
            changes: transaction.first_ordinal + transaction.changes.len() as u64,
            messages: chunk.messages_end,
            is_whole: transaction.is_last,
        };
    }

    fn skip(&self, commit_lsn: Lsn) -> Skip {
        if commit_lsn < self.commit_lsn || (commit_lsn == self.commit_lsn && self.is_whole) {
            Skip::All
        } else if commit_lsn == self.commit_lsn {
            Skip::First {
                changes: self.changes,
                messages: self.messages,
            }
        } else {
            Skip::First {
                changes: 0,
                messages: 0,
            }
        }
    }
}

/// The part of a transaction that was handed over before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    All,
    First { changes: u64, messages: u64 },
}

/// A transaction, or a bounded piece of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The row changes, possibly none.
    pub transaction: ChangeTransaction,
    /// The rows of `realtime.messages`, possibly none.
    pub messages: InsertedMessages,
    /// The number of the transaction's rows of `realtime.messages` in this chunk and the chunks
    /// before it.
    pub messages_end: u64,
}

impl Chunk {
    /// Returns whether listeners of row changes need this chunk. A last chunk without changes ends
    /// a transaction whose first chunks the listeners have received.
    pub(super) fn has_changes(&self) -> bool {
        !self.transaction.changes.is_empty() || self.transaction.first_ordinal > 0
    }
}

/// The result of adding one pgoutput message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// A chunk to hand over.
    pub chunk: Option<Chunk>,
    /// The position to acknowledge once the chunk and everything before it have been handed over.
    pub acknowledge: Option<Lsn>,
    /// The number of tables that were emptied by TRUNCATE. Subscribers are not notified of that.
    pub truncated_tables: usize,
}

/// Collects the changes of the open transaction. Each connection has its own.
#[derive(Debug)]
pub(super) struct Assembler {
    limits: ChunkLimits,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    commit_lsn: Lsn,
    committed_at: TimestampMicros,
    xid: u32,
    skip: Skip,
    /// The ordinal of the next change of this transaction.
    next_ordinal: u64,
    changes: Vec<ChangeEvent>,
    /// The ordinal of the next row of `realtime.messages`.
    next_message: u64,
    messages: Vec<(Arc<Relation>, Row)>,
    bytes: usize,
}

impl Assembler {
    /// Creates an assembler without an open transaction.
    pub(super) fn new(limits: ChunkLimits) -> Self {
        Self { limits, open: None }
    }

    /// Returns whether a transaction is open. Positions that the server reports before the
    /// transaction ends must not be acknowledged.
    pub(super) fn is_inside_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Adds the next pgoutput message, `bytes` long. `progress` is the part of the stream that was
    /// handed over before.
    ///
    /// # Errors
    /// [`AssembleError`] if messages are missing or out of order. The assembler must then be
    /// dropped.
    pub(super) fn push(
        &mut self,
        message: WalMessage,
        bytes: usize,
        relations: &mut RelationCache,
        progress: &Progress,
    ) -> Result<Step, AssembleError> {
        match message {
            WalMessage::Begin {
                commit_lsn,
                committed_at,
                xid,
            } => self.begin(commit_lsn, committed_at, xid, progress),
            WalMessage::Commit {
                commit_lsn,
                end_lsn,
                ..
            } => self.commit(commit_lsn, end_lsn),
            WalMessage::Relation(relation) => {
                relations.insert(relation);
                Ok(Step::default())
            }
            WalMessage::Insert { relation_oid, new } => {
                self.change(relation_oid, RowChange::Insert { new }, bytes, relations)
            }
            WalMessage::Update {
                relation_oid,
                old,
                new,
            } => self.change(
                relation_oid,
                RowChange::Update { old, new },
                bytes,
                relations,
            ),
            WalMessage::Delete { relation_oid, old } => {
                self.change(relation_oid, RowChange::Delete { old }, bytes, relations)
            }
            WalMessage::Truncate { relation_oids, .. } => Ok(Step {
                truncated_tables: relation_oids.len(),
                ..Step::default()
            }),
            WalMessage::Origin { .. } | WalMessage::Type { .. } | WalMessage::Message { .. } => {
                Ok(Step::default())
            }
        }
    }

    fn begin(
        &mut self,
        commit_lsn: Lsn,
        committed_at: TimestampMicros,
        xid: u32,
        progress: &Progress,
    ) -> Result<Step, AssembleError> {
        if self.open.is_some() {
            return Err(AssembleError::NestedBegin);
        }
        self.open = Some(Open {
            commit_lsn,
            committed_at,
            xid,
            skip: progress.skip(commit_lsn),
            next_ordinal: 0,
            changes: Vec::new(),
            next_message: 0,
            messages: Vec::new(),
            bytes: 0,
        });
        Ok(Step::default())
    }

    /// Adds one change. A full chunk is returned only when the next change arrives. So the last
    /// chunk of a transaction is empty only if all its changes were handed over before.
    fn change(
        &mut self,
        relation_oid: u32,
        row: RowChange,
        bytes: usize,
        relations: &RelationCache,
    ) -> Result<Step, AssembleError> {
        let open = self
            .open
            .as_mut()
            .ok_or(AssembleError::OutsideTransaction)?;
        let Skip::First { changes, messages } = open.skip else {
            return Ok(Step::default());
        };
        let relation = relations
            .get(relation_oid)
            .ok_or(AssembleError::UnknownRelation(relation_oid))?;
        let is_message = relation.table.is_messages();
        if is_message && !matches!(row, RowChange::Insert { .. }) {
            // Only inserted rows are broadcast. Updates and deletions are maintenance of the table,
            // so they are ignored.
            return Ok(Step::default());
        }
        let (next, handed_over) = if is_message {
            (&mut open.next_message, messages)
        } else {
            (&mut open.next_ordinal, changes)
        };
        let ordinal = *next;
        *next += 1;
        if ordinal < handed_over {
            return Ok(Step::default());
        }
        for image in images(&row) {
            if image.0.len() != relation.columns.len() {
                return Err(AssembleError::ColumnCount {
                    oid: relation_oid,
                    expected: relation.columns.len(),
                    found: image.0.len(),
                });
            }
        }
        let bytes = bytes + size_in_memory(&row);
        let is_full = open.held() >= self.limits.changes
            || open.bytes.saturating_add(bytes) > self.limits.bytes;
        let chunk = (is_full && open.held() > 0).then(|| open.take_chunk(Some(is_message), false));
        match row {
            RowChange::Insert { new } if is_message => open.messages.push((relation, new)),
            row => open.changes.push(ChangeEvent { relation, row }),
        }
        open.bytes += bytes;
        Ok(Step {
            chunk,
            ..Step::default()
        })
    }

    fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<Step, AssembleError> {
        let mut open = self.open.take().ok_or(AssembleError::OutsideTransaction)?;
        if open.commit_lsn != commit_lsn {
            return Err(AssembleError::OtherCommit {
                expected: open.commit_lsn,
                found: commit_lsn,
            });
        }
        let is_begun =
            matches!(open.skip, Skip::First { changes, messages } if changes + messages > 0);
        let chunk = (is_begun || open.held() > 0).then(|| open.take_chunk(None, true));
        Ok(Step {
            chunk,
            acknowledge: Some(end_lsn),
            truncated_tables: 0,
        })
    }
}

impl Open {
    /// Returns the number of collected row changes and rows of `realtime.messages`.
    fn held(&self) -> usize {
        self.changes.len() + self.messages.len()
    }

    /// Returns the collected row changes and rows of `realtime.messages` as a chunk. If a row
    /// already has an ordinal but is not collected yet, `counted` is its kind: true for a row of
    /// `realtime.messages`, false for a row change.
    fn take_chunk(&mut self, counted: Option<bool>, is_last: bool) -> Chunk {
        let bytes = std::mem::take(&mut self.bytes);
        let changes = std::mem::take(&mut self.changes);
        let changes_end = self.next_ordinal - u64::from(counted == Some(false));
        Chunk {
            transaction: ChangeTransaction {
                commit_lsn: self.commit_lsn,
                committed_at: self.committed_at,
                xid: self.xid,
                first_ordinal: changes_end - changes.len() as u64,
                changes,
                is_last,
                bytes,
            },
            messages: InsertedMessages {
                committed_at: self.committed_at,
                rows: std::mem::take(&mut self.messages),
            },
            messages_end: self.next_message - u64::from(counted == Some(true)),
        }
    }
}

fn images(row: &RowChange) -> impl Iterator<Item = &Row> {
    let (old, new) = match row {
        RowChange::Insert { new } => (None, Some(new)),
        RowChange::Update { old, new } => (old.as_ref(), Some(new)),
        RowChange::Delete { old } => (Some(old), None),
    };
    let old = old.map(|(OldRow::Key(row) | OldRow::Full(row))| row);
    old.into_iter().chain(new)
}

/// Returns the memory size of a change in bytes, without the bytes of the pgoutput message, which
/// its values share.
fn size_in_memory(row: &RowChange) -> usize {
    images(row)
        .map(|image| image.0.len() * size_of::<ColumnValue>())
        .sum::<usize>()
        + size_of::<ChangeEvent>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::change::{Column, ReplicaIdentity, TableName};

    const OID: u32 = 7;
    const MESSAGES_OID: u32 = 9;
    const UNBOUNDED: ChunkLimits = ChunkLimits {
        changes: usize::MAX,
        bytes: usize::MAX,
    };

    fn relation(oid: u32, schema: &str, name: &str) -> WalMessage {
        WalMessage::Relation(Relation {
            oid,
            table: TableName::new(schema, name),
            identity: ReplicaIdentity::Default,
            columns: vec![Column {
                name: "id".to_owned(),
                type_oid: 20,
                type_modifier: -1,
                is_identity: true,
            }],
        })
    }

    fn begin(lsn: u64) -> WalMessage {
        WalMessage::Begin {
            commit_lsn: Lsn(lsn),
            committed_at: TimestampMicros(lsn as i64),
            xid: 1,
        }
    }

    fn insert(value: &str) -> WalMessage {
        insert_into(OID, value)
    }

    fn insert_into(relation_oid: u32, value: &str) -> WalMessage {
        WalMessage::Insert {
            relation_oid,
            new: Row(vec![ColumnValue::Text(Bytes::from(value.to_owned()))]),
        }
    }

    fn commit(lsn: u64) -> WalMessage {
        WalMessage::Commit {
            commit_lsn: Lsn(lsn),
            end_lsn: Lsn(lsn + 1),
            committed_at: TimestampMicros(lsn as i64),
        }
    }

    /// Returns a transaction of `count` inserts, whose values contain the commit LSN and the
    /// ordinal.
    fn transaction(lsn: u64, count: usize) -> Vec<WalMessage> {
        let inserts = (0..count).map(|ordinal| insert(&format!("{lsn}.{ordinal}")));
        std::iter::once(begin(lsn))
            .chain(inserts)
            .chain(std::iter::once(commit(lsn)))
            .collect()
    }

    /// Returns a transaction with one insert per element of `kinds`: a row of `realtime.messages`
    /// if the element is true.
    fn mixed_transaction(lsn: u64, kinds: &[bool]) -> Vec<WalMessage> {
        let mut counts = [0, 0];
        let inserts = kinds.iter().map(|is_message| {
            let (oid, count) = match is_message {
                true => (MESSAGES_OID, &mut counts[1]),
                false => (OID, &mut counts[0]),
            };
            let insert = insert_into(oid, &format!("{lsn}.{count}"));
            *count += 1;
            insert
        });
        std::iter::once(begin(lsn))
            .chain(inserts.collect::<Vec<_>>())
            .chain(std::iter::once(commit(lsn)))
            .collect()
    }

    /// Everything that the listeners of row changes and of `realtime.messages` received.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct HandedOver {
        chunks: Vec<ChangeTransaction>,
        messages: Vec<String>,
    }

    impl HandedOver {
        fn take_messages(&mut self, chunk: &Chunk) {
            for (_, row) in &chunk.messages.rows {
                let [ColumnValue::Text(value)] = row.0.as_slice() else {
                    panic!("one value");
                };
                self.messages
                    .push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
    }

    /// Feeds `messages` to a new assembler, as one connection does, and hands over everything. The
    /// connection ends in the chunk with the index `dies_in`, after the rows of `realtime.messages`
    /// in that chunk.
    fn connection(
        messages: &[WalMessage],
        limits: ChunkLimits,
        progress: &mut Progress,
        dies_in: Option<usize>,
        handed_over: &mut HandedOver,
    ) -> Result<(), AssembleError> {
        let mut assembler = Assembler::new(limits);
        let mut relations = RelationCache::default();
        for relation in [
            relation(OID, "public", "note"),
            relation(MESSAGES_OID, "realtime", "messages_2026_11_24"),
        ] {
            assembler.push(relation, 0, &mut relations, progress)?;
        }
        let mut number = 0;
        for message in messages {
            let step = assembler.push(message.clone(), 10, &mut relations, progress)?;
            let Some(chunk) = step.chunk else { continue };
            if !chunk.messages.rows.is_empty() {
                handed_over.take_messages(&chunk);
                progress.advance_messages(&chunk);
            }
            if dies_in == Some(number) {
                return Ok(());
            }
            number += 1;
            progress.advance(&chunk);
            if chunk.has_changes() {
                handed_over.chunks.push(chunk.transaction);
            }
        }
        Ok(())
    }

    /// Feeds `messages` to a new assembler over a connection that does not end early.
    fn stream(
        messages: &[WalMessage],
        limits: ChunkLimits,
        progress: &mut Progress,
    ) -> Result<Vec<ChangeTransaction>, AssembleError> {
        let mut handed_over = HandedOver::default();
        connection(messages, limits, progress, None, &mut handed_over)?;
        Ok(handed_over.chunks)
    }

    /// Returns the changes as `commit.ordinal`, which must equal their values.
    fn flatten(chunks: &[ChangeTransaction]) -> Vec<String> {
        let mut out = Vec::new();
        for chunk in chunks {
            for (index, change) in chunk.changes.iter().enumerate() {
                let ordinal = chunk.first_ordinal + index as u64;
                let RowChange::Insert { new } = &change.row else {
                    panic!("only inserts are made here");
                };
                let name = format!("{}.{ordinal}", chunk.commit_lsn.0);
                assert_eq!(
                    new.0,
                    [ColumnValue::Text(Bytes::from(name.clone()))],
                    "the ordinal identifies the change"
                );
                out.push(name);
            }
        }
        out
    }

    #[test]
    fn a_transaction_that_fits_is_one_chunk_and_an_empty_one_is_none() {
        let mut messages = transaction(10, 3);
        messages.extend(transaction(20, 0));
        let chunks = stream(&messages, UNBOUNDED, &mut Progress::default()).expect("well formed");
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].commit_lsn, Lsn(10));
        assert_eq!(chunks[0].committed_at, TimestampMicros(10));
        assert!(chunks[0].is_last);
        assert_eq!(flatten(&chunks), ["10.0", "10.1", "10.2"]);
    }

    #[test]
    fn chunks_respect_both_limits_and_the_last_is_not_empty() {
        let one = 10 + size_of::<ColumnValue>() + size_of::<ChangeEvent>();
        let cases = [
            // (limits, changes, sizes of the chunks)
            (
                ChunkLimits {
                    changes: 2,
                    ..UNBOUNDED
                },
                4,
                vec![2, 2],
            ),
            (
                ChunkLimits {
                    changes: 2,
                    ..UNBOUNDED
                },
                5,
                vec![2, 2, 1],
            ),
            (
                ChunkLimits {
                    bytes: 3 * one,
                    ..UNBOUNDED
                },
                7,
                vec![3, 3, 1],
            ),
            // A change that is larger than the limit is a separate chunk.
            (
                ChunkLimits {
                    bytes: 1,
                    ..UNBOUNDED
                },
                3,
                vec![1, 1, 1],
            ),
            (
                ChunkLimits {
                    changes: 0,
                    bytes: 0,
                },
                2,
                vec![1, 1],
            ),
        ];
        for (limits, count, sizes) in cases {
            let chunks = stream(&transaction(10, count), limits, &mut Progress::default())
                .expect("well formed");
            let found: Vec<usize> = chunks.iter().map(|chunk| chunk.changes.len()).collect();
            assert_eq!(found, sizes, "{limits:?}");
            let last: Vec<bool> = chunks.iter().map(|chunk| chunk.is_last).collect();
            assert_eq!(last.iter().filter(|&&last| last).count(), 1);
            assert_eq!(last.last(), Some(&true));
        }
    }

    #[test]
    fn a_skipped_transaction_is_acknowledged_too() {
        let mut relations = RelationCache::default();
        let progress = Progress {
            commit_lsn: Lsn(10),
            changes: 1,
            messages: 0,
            is_whole: true,
        };
        let mut assembler = Assembler::new(UNBOUNDED);
        let mut last = Step::default();
        for message in transaction(10, 1) {
            last = assembler
                .push(message, 10, &mut relations, &progress)
                .expect("skipped changes need no relation");
        }
        assert_eq!(last.chunk, None);
        assert_eq!(last.acknowledge, Some(Lsn(11)));
        assert!(!assembler.is_inside_transaction());
    }

    #[test]
    fn a_transaction_handed_over_up_to_its_last_change_still_ends() {
        let mut progress = Progress {
            commit_lsn: Lsn(10),
            changes: 2,
            messages: 0,
            is_whole: false,
        };
        let chunks = stream(&transaction(10, 2), UNBOUNDED, &mut progress).expect("well formed");
        assert_eq!(chunks.len(), 1);
        assert!(chunks[0].changes.is_empty() && chunks[0].is_last);
        assert!(progress.is_whole);
    }

    #[test]
    fn inserts_into_the_messages_table_are_separate_from_changes() {
        let old = Row(vec![ColumnValue::Null]);
        let mut messages = mixed_transaction(10, &[true, false, true]);
        messages.insert(
            2,
            WalMessage::Update {
                relation_oid: MESSAGES_OID,
                old: None,
                new: old.clone(),
            },
        );
        messages.insert(
            3,
            WalMessage::Delete {
                relation_oid: MESSAGES_OID,
                old: OldRow::Key(old),
            },
        );
        let mut handed_over = HandedOver::default();
        let mut progress = Progress::default();
        connection(&messages, UNBOUNDED, &mut progress, None, &mut handed_over)
            .expect("well formed");
        assert_eq!(handed_over.messages, ["10.0", "10.1"]);
        assert_eq!(flatten(&handed_over.chunks), ["10.0"]);

        // A transaction that contains only rows of `realtime.messages` yields no row changes.
        let messages = mixed_transaction(20, &[true]);
        assert_eq!(stream(&messages, UNBOUNDED, &mut progress), Ok(Vec::new()));
        assert!(progress.is_whole && progress.commit_lsn == Lsn(20));
    }

    #[test]
    fn missing_messages_are_detected() {
        let wide = WalMessage::Insert {
            relation_oid: OID,
            new: Row(vec![ColumnValue::Null, ColumnValue::Null]),
        };
        let unknown = WalMessage::Insert {
            relation_oid: 8,
            new: Row(Vec::new()),
        };
        let cases = [
            (vec![insert("x")], AssembleError::OutsideTransaction),
            (vec![commit(1)], AssembleError::OutsideTransaction),
            (vec![begin(1), begin(2)], AssembleError::NestedBegin),
            (
                vec![begin(1), commit(2)],
                AssembleError::OtherCommit {
                    expected: Lsn(1),
                    found: Lsn(2),
                },
            ),
            (vec![begin(1), unknown], AssembleError::UnknownRelation(8)),
            (
                vec![begin(1), wide],
                AssembleError::ColumnCount {
                    oid: OID,
                    expected: 1,
                    found: 2,
                },
            ),
        ];
        for (messages, error) in cases {
            let found = stream(&messages, UNBOUNDED, &mut Progress::default());
            assert_eq!(found, Err(error));
        }
    }

    proptest! {
        /// Checks that everything arrives once and in order, although connections may end anywhere
        /// and the server may repeat all transactions that were not acknowledged.
        #[test]
        fn cut_connections_lose_and_repeat_nothing(
            sizes in vec(vec(any::<bool>(), 0_usize..9), 1..8),
            changes in 1_usize..5,
            cuts in vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::option::of(0_usize..4)),
                0..6,
            ),
        ) {
            let limits = ChunkLimits { changes, bytes: usize::MAX };
            let transactions: Vec<Vec<WalMessage>> = sizes
                .iter()
                .enumerate()
                .map(|(index, kinds)| mixed_transaction(10 * (index as u64 + 1), kinds))
                .collect();
            let mut progress = Progress::default();
            let mut handed_over = HandedOver::default();
            for (from, cut, dies_in) in cuts {
                // The server may start at any transaction up to the first one that is not complete.
                let done = transactions
                    .iter()
                    .filter(|messages| match messages[0] {
                        WalMessage::Begin { commit_lsn, .. } => {
                            matches!(progress.skip(commit_lsn), Skip::All)
                        }
                        _ => false,
                    })
                    .count();
                let messages: Vec<WalMessage> =
                    transactions[from.index(done + 1).min(transactions.len() - 1)..].concat();
                let messages = &messages[..cut.index(messages.len() + 1)];
                connection(messages, limits, &mut progress, dies_in, &mut handed_over)
                    .expect("well formed");
            }
            connection(&transactions.concat(), limits, &mut progress, None, &mut handed_over)
                .expect("well formed");
            let expected = |kind: bool| -> Vec<String> {
                sizes
                    .iter()
                    .enumerate()
                    .flat_map(|(index, kinds)| {
                        let count = kinds.iter().filter(|is_message| **is_message == kind).count();
                        (0..count).map(move |ordinal| format!("{}.{ordinal}", 10 * (index + 1)))
                    })
                    .collect()
            };
            prop_assert_eq!(flatten(&handed_over.chunks), expected(false));
            prop_assert_eq!(&handed_over.messages, &expected(true));
            let closed = handed_over.chunks.iter().filter(|chunk| chunk.is_last).count();
            let with_changes = sizes.iter().filter(|kinds| kinds.contains(&false)).count();
            prop_assert_eq!(closed, with_changes);
        }
    }
}
