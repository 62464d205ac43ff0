//! Records how far messages were sent to the sockets of their recipients, so that senders see it.
//!
//! One statement writes all positions that moved within an interval, however many messages moved
//! them.

use std::time::Duration;

use uuid::Uuid;

use crate::auth::Claims;
use crate::bus::people::Delivered;
use crate::db::{Db, DbError};
use crate::shutdown::Tasks;

/// How long positions accumulate before they are written.
const INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of positions per statement.
const POSITIONS_PER_STATEMENT: usize = 1_000;

/// The pause after a failed statement.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const NOTE: &str = "select chat.note_delivered($1::uuid[], $2::uuid[], $3::bigint[])";

/// Runs until the server stops.
pub(super) async fn run(delivered: Delivered, db: Db, tasks: Tasks) {
    let writing = async {
        loop {
            delivered.recorded().await;
            tokio::time::sleep(INTERVAL).await;
            let positions: Vec<_> = delivered.take().into_iter().collect();
            let mut is_failing = false;
            for positions in positions.chunks(POSITIONS_PER_STATEMENT) {
                match write(&db, positions).await {
                    Ok(()) => {}
                    // The database would refuse the same positions again.
                    Err(error @ (DbError::Refused(_) | DbError::Unexpected(_))) => {
                        tracing::warn!(%error, "cannot record deliveries of messages; dropping them");
                        is_failing = true;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot record deliveries of messages; retrying");
                        is_failing = true;
                        for ((conversation, person), seq) in positions {
                            delivered.note(*conversation, *person, *seq);
                        }
                    }
                }
            }
            if is_failing {
                tokio::time::sleep(RETRY_PAUSE).await;
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
