//! Writes down how far messages were handed to the sockets of their recipients, so that senders see it.
//!
//! One statement for all positions that moved within a tick, however many messages moved them.

use std::time::Duration;

use uuid::Uuid;

use crate::auth::Claims;
use crate::bus::people::Delivered;
use crate::db::{Db, DbError};
use crate::shutdown::Tasks;

/// How long positions gather before they are written.
const GATHERING: Duration = Duration::from_millis(200);

/// Positions that one statement writes.
const POSITIONS_PER_STATEMENT: usize = 1_000;

/// The pause after a statement that failed.
const PAUSE: Duration = Duration::from_secs(1);

const NOTE: &str = "select chat.note_delivered($1::uuid[], $2::uuid[], $3::bigint[])";

/// Runs until the server stops.
pub(super) async fn run(delivered: Delivered, db: Db, tasks: Tasks) {
    let writing = async {
        loop {
            delivered.recorded().await;
            tokio::time::sleep(GATHERING).await;
            let positions: Vec<_> = delivered.take().into_iter().collect();
            let mut is_failing = false;
            for positions in positions.chunks(POSITIONS_PER_STATEMENT) {
                match write(&db, positions).await {
                    Ok(()) => {}
                    // What the database refuses it would refuse again.
                    Err(error @ (DbError::Refused(_) | DbError::Unexpected(_))) => {
                        tracing::warn!(%error, "deliveries of messages could not be noted");
                        is_failing = true;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "deliveries of messages are noted later");
                        is_failing = true;
                        for ((conversation, person), seq) in positions {
                            delivered.note(*conversation, *person, *seq);
                        }
                    }
                }
            }
            if is_failing {
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = tasks.token().cancelled() => {}
    }
}

async fn write(db: &Db, positions: &[((Uuid, Uuid), i64)]) -> Result<(), DbError> {
    let conversations: Vec<Uuid> = positions.iter().map(|((id, _), _)| *id).collect();
    let people: Vec<Uuid> = positions.iter().map(|((_, id), _)| *id).collect();
    let seqs: Vec<i64> = positions.iter().map(|(_, seq)| *seq).collect();
    db.query_as(
        &Claims::of_service(),
        NOTE,
        &[&conversations, &people, &seqs],
    )
    .await?;
    Ok(())
}
