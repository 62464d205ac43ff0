//! Records how far messages were sent to the sockets of their recipients, so that senders see it.
//! `realtime` delivers rows without knowing which of them are messages. This module recognizes
//! messages.
//!
//! All positions that moved within an interval are written together, however many messages moved
//! them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::auth::Claims;
use crate::bus::deliveries::{Delivered, Message};
use crate::change::{Action, ChangeEvent};
use crate::db::{Db, DbError};
use crate::shutdown::Tasks;

/// How long positions accumulate before they are written.
const INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of positions per statement.
const POSITIONS_PER_STATEMENT: usize = 1_000;

/// The pause after a failed statement. Also the pause before positions are written again because
/// their receipts were locked.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

const NOTE: &str = "select * from chat.note_delivered($1::uuid[], $2::uuid[], $3::bigint[])";

/// The conversation and the user of a receipt.
type Receipt = (Uuid, Uuid);

/// Positions whose receipts other transactions have locked. They wait here, so that other positions
/// are written without a pause. After a [`RETRY_PAUSE`], they all return to the shared map
/// ([`Delivered`]), which limits its own size. So only the positions that were found locked within
/// one pause are here.
#[derive(Debug, Default)]
struct Held {
    positions: HashMap<Receipt, i64>,
    /// When the positions are written again. `None` if there are none.
    at: Option<Instant>,
}

impl Held {
    fn put(&mut self, receipt: Receipt, seq: i64, now: Instant) {
        let position = self.positions.entry(receipt).or_insert(seq);
        *position = seq.max(*position);
        self.at.get_or_insert(now + RETRY_PAUSE);
    }

    /// Waits until the positions are due. Never returns if there are none.
    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes all positions if they are due.
    fn take(&mut self, now: Instant) -> HashMap<Receipt, i64> {
        if self.at.is_none_or(|at| at > now) {
            return HashMap::new();
        }
        self.at = None;
        std::mem::take(&mut self.positions)
    }
}

/// Returns the new message that a row change inserts. `None` for any other row change.
pub(super) fn message_of(change: &ChangeEvent) -> Option<Message> {
    let table = &change.relation.table;
    if change.action() != Action::Insert
        || table.name != "user_messages"
        || table.schema != "public"
    {
        return None;
    }
    let row = change.image();
    Some(Message {
        conversation: row.text("conversation_id")?.parse().ok()?,
        sender: row.text("sender_id").and_then(|id| id.parse().ok()),
        seq: row.text("seq")?.parse().ok()?,
    })
}

/// Writes delivered positions until the server stops.
pub(super) async fn run(delivered: Delivered, db: Db, tasks: Tasks) {
    let writing = async {
        let mut held = Held::default();
        loop {
            tokio::select! {
                () = delivered.recorded() => tokio::time::sleep(INTERVAL).await,
                () = held.due() => {}
            }
            for ((conversation, person), seq) in held.take(Instant::now()) {
                delivered.note(conversation, person, seq);
            }
            let positions: Vec<_> = delivered.take().into_iter().collect();
            let mut is_failing = false;
            for positions in positions.chunks(POSITIONS_PER_STATEMENT) {
                match write(&db, positions).await {
                    Ok(locked) => {
                        delivered.note_held(locked.len());
                        let now = Instant::now();
                        for (receipt, seq) in positions {
                            if locked.contains(receipt) {
                                held.put(*receipt, *seq, now);
                            }
                        }
                    }
                    // The database would refuse these positions again.
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

/// Writes positions. Returns the receipts that another transaction has locked; their positions were
/// not written.
async fn write(db: &Db, positions: &[(Receipt, i64)]) -> Result<HashSet<Receipt>, DbError> {
    let conversations: Vec<Uuid> = positions.iter().map(|((id, _), _)| *id).collect();
    let people: Vec<Uuid> = positions.iter().map(|((_, id), _)| *id).collect();
    let seqs: Vec<i64> = positions.iter().map(|(_, seq)| *seq).collect();
    let rows = db
        .query_as(
            &Claims::of_service(),
            NOTE,
            &[&conversations, &people, &seqs],
        )
        .await?;
    let receipt = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter()
        .map(receipt)
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|error| DbError::Unexpected(error.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::change::{
        Column, ColumnValue, Relation, ReplicaIdentity, Row, RowChange, TableName,
    };

    const PLACE: Uuid = Uuid::from_u128(1);
    const ANA: Uuid = Uuid::from_u128(2);
    const RECEIPT: Receipt = (PLACE, ANA);

    /// Returns a change of a row with these columns.
    fn change(
        table: TableName,
        columns: &[(&str, Option<String>)],
        row: impl FnOnce(Row) -> RowChange,
    ) -> ChangeEvent {
        let value = |value: &Option<String>| match value {
            Some(text) => ColumnValue::Text(text.clone().into()),
            None => ColumnValue::Null,
        };
        let values = columns.iter().map(|(_, text)| value(text)).collect();
        let column = |name: &str| Column {
            name: name.to_owned(),
            type_oid: 25,
            type_modifier: -1,
            is_identity: false,
        };
        ChangeEvent {
            relation: Arc::new(Relation {
                oid: 1,
                table,
                identity: ReplicaIdentity::Full,
                columns: columns.iter().map(|(name, _)| column(name)).collect(),
            }),
            row: row(Row(values)),
        }
    }

    #[test]
    fn only_an_inserted_message_is_a_new_message() {
        let message = |sender| Message {
            conversation: PLACE,
            sender,
            seq: 7,
        };
        let insert = |new| RowChange::Insert { new };
        let update = |new| RowChange::Update { old: None, new };
        let of = |schema: &str, table: &str, sender: Option<Uuid>, row: fn(Row) -> RowChange| {
            let columns = [
                ("seq", Some("7".to_owned())),
                ("sender_id", sender.map(|id| id.to_string())),
                ("conversation_id", Some(PLACE.to_string())),
            ];
            message_of(&change(TableName::new(schema, table), &columns, row))
        };
        let table = "user_messages";
        assert_eq!(
            of("public", table, Some(ANA), insert),
            Some(message(Some(ANA)))
        );
        // A message from the server has no sender.
        assert_eq!(of("public", table, None, insert), Some(message(None)));
        assert_eq!(of("public", table, Some(ANA), update), None);
        assert_eq!(of("public", "message_reactions", Some(ANA), insert), None);
        assert_eq!(of("other", table, Some(ANA), insert), None);
    }

    #[test]
    fn a_position_whose_receipt_is_locked_is_written_again_after_a_pause() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.put(RECEIPT, 2, now);
        held.put(RECEIPT, 1, now + RETRY_PAUSE / 2);
        assert!(held.take(now + RETRY_PAUSE / 2).is_empty());
        assert_eq!(held.take(now + RETRY_PAUSE), HashMap::from([(RECEIPT, 2)]));
        assert!(held.take(now + RETRY_PAUSE * 2).is_empty());
    }
}
