//! What must hold of the change stream whatever bytes arrive: the properties that fuzzing tries
//! to break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is a panic"
)]

use bytes::Bytes;

use super::assemble::{Assembler, ChunkLimits, Position};
use super::pgoutput::encode::encode;
use super::pgoutput::{WalMessage, decode};
use super::relation_cache::RelationCache;
use crate::change::ChangeTransaction;

/// A message that is read is exactly one message: written again it reads the same, and neither
/// less nor more of the bytes is a message.
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

/// Any sequence of messages makes chunks of bounded size whose changes are numbered without a gap and
/// fit their tables; read again from the start, as after a lost connection, it brings nothing
/// twice.
///
/// The bytes are messages, each behind its length in one byte. They end where the positions of commits
/// do not rise: that they do is PostgreSQL's promise, on which the assembler relies.
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
    let mut position = Position::default();
    let first = read(&messages, limits, &mut position);
    // Half a transaction may be open at the end: its changes come with the repetition at most.
    let again = read(&messages, limits, &mut position);
    for chunk in &again {
        for before in &first {
            let is_same = before.commit_lsn == chunk.commit_lsn;
            let end = before.first_ordinal + before.changes.len() as u64;
            assert!(
                !is_same || chunk.first_ordinal >= end,
                "a change came twice"
            );
        }
    }
}

/// What a connection hands over that brings these messages and then breaks.
fn read(
    messages: &[(WalMessage, usize)],
    limits: ChunkLimits,
    position: &mut Position,
) -> Vec<ChangeTransaction> {
    let mut assembler = Assembler::new(limits);
    let mut relations = RelationCache::default();
    let mut chunks: Vec<ChangeTransaction> = Vec::new();
    for (message, bytes) in messages {
        let begun = *position;
        let Ok(step) = assembler.push(message.clone(), *bytes, &mut relations, position) else {
            break;
        };
        let Some(chunk) = step.chunk else {
            continue;
        };
        let messages = chunk.messages.rows.len();
        let held = chunk.transaction.changes.len() + messages;
        position.advance(&chunk);
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

/// The pieces of `data`, each behind its length in one byte; the last may be cut short.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        Some(piece)
    })
}
