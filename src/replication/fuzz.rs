//! Properties of the change stream that fuzzing tries to violate with arbitrary bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use bytes::Bytes;

use super::assemble::{Assembler, ChunkLimits, Progress};
use super::pgoutput::encode::encode;
use super::pgoutput::{WalMessage, decode};
use super::relation_cache::RelationCache;
use crate::change::ChangeTransaction;

/// Checks that bytes which can be decoded are exactly one message: encoding and decoding the
/// message again results in the same message, and neither a prefix of the bytes nor a longer input
/// is a message.
pub fn pgoutput(data: &[u8]) {
    let Ok(message) = decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    let written = encode(&message);
    assert_eq!(decode(written).as_ref(), Ok(&message));
    for end in 0..data.len() {
        assert!(decode(Bytes::copy_from_slice(&data[..end])).is_err());
    }
    let more = [data, &[0]].concat();
    assert!(decode(Bytes::from(more)).is_err());
}

/// Checks that any sequence of messages results in chunks of bounded size, whose changes fit their
/// tables and are numbered without gaps. If the sequence is read again from the start, as after a
/// lost connection, no change is returned twice.
///
/// The data are messages, each preceded by its length in one byte. Reading stops at a begin message
/// whose commit position is not higher than the previous one, because PostgreSQL guarantees
/// increasing positions.
pub fn stream(data: &[u8]) {
    let limits = ChunkLimits {
        changes: 3,
        bytes: 1_000,
    };
    let mut last_commit = None;
    let messages: Vec<(WalMessage, usize)> = pieces(data)
        .filter_map(|piece| Some((decode(Bytes::copy_from_slice(piece)).ok()?, piece.len())))
        .take_while(|(message, _)| match message {
            WalMessage::Begin { commit_lsn, .. } => {
                let is_later = Some(*commit_lsn) > last_commit;
                last_commit = Some(*commit_lsn);
                is_later
            }
            _ => true,
        })
        .collect();
    let mut progress = Progress::default();
    let first = read(&messages, limits, &mut progress);
    // A transaction may be open at the end. The second read then returns its remaining changes.
    let again = read(&messages, limits, &mut progress);
    for chunk in &again {
        for before in &first {
            let is_same = before.commit_lsn == chunk.commit_lsn;
            let end = before.first_ordinal + before.changes.len() as u64;
            assert!(
                !is_same || chunk.first_ordinal >= end,
                "a change was repeated"
            );
        }
    }
}

/// Returns the chunks that are handed over by a connection that reads these messages and then ends.
fn read(
    messages: &[(WalMessage, usize)],
    limits: ChunkLimits,
    progress: &mut Progress,
) -> Vec<ChangeTransaction> {
    let mut assembler = Assembler::new(limits);
    let mut relations = RelationCache::default();
    let mut chunks: Vec<ChangeTransaction> = Vec::new();
    for (message, bytes) in messages {
        let begun = *progress;
        let Ok(step) = assembler.push(message.clone(), *bytes, &mut relations, progress) else {
            break;
        };
        let Some(chunk) = step.chunk else {
            continue;
        };
        let messages = chunk.messages.rows.len();
        let held = chunk.transaction.changes.len() + messages;
        progress.advance(&chunk);
        let messages_before = chunk.messages_end - messages as u64;
        let chunk = chunk.transaction;
        assert!(held <= limits.changes);
        assert!(chunk.bytes <= limits.bytes || held == 1);
        if begun.commit_lsn == chunk.commit_lsn {
            assert_eq!(chunk.first_ordinal, begun.changes, "without a gap");
            assert_eq!(messages_before, begun.messages, "without a gap");
        } else {
            assert_eq!(messages_before, 0, "from the beginning");
            assert!(
                chunk.commit_lsn > begun.commit_lsn,
                "in the order of commits"
            );
            assert_eq!(chunk.first_ordinal, 0, "from the beginning");
        }
        chunks.push(chunk);
    }
    chunks
}

/// Returns the pieces of `data`, each preceded by its length in one byte. The last piece may be cut
/// short.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        Some(piece)
    })
}
