//! Broadcasts rows of `realtime.messages` from the bus to the members of their topics (protocol
//! 4.6).
//!
//! Guarantees: rows are sent in commit order, each once. Only the bus delays them, because no
//! further check is needed: the database has already decided who may write them, and the members of
//! a private topic were checked when they joined. Only rows whose column `extension` is `broadcast`
//! are sent. Policies may admit rows with other values for other purposes, such as tracking
//! presence, and these rows must not become broadcasts. A broadcast that cannot be sent is counted
//! and logged.

use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use super::super::hub::{Deliveries, Hub, TopicKey};
use super::super::protocol::{Broadcast, BroadcastError, UserPayload};
use crate::bus::MessageListener;
use crate::change::{ColumnValue, Relation, Row};
use crate::observability::excerpt::Excerpt;
use crate::shutdown::Tasks;

/// Approximate number of frames queued before other tasks of the worker thread run. `change_feed`
/// uses the same number and gives the reason.
const FRAMES_PER_TURN: usize = 2_048;

/// The field `code` of the log lines in this file. Supabase Realtime logs the same code, so
/// operators know it (protocol 4.6).
const CODE: &str = "UnableToBroadcastChanges";

/// The extension of rows that are broadcasts.
const BROADCAST: &str = "broadcast";

/// Runs until all publishers are dropped or the server stops. Payloads larger than `max_bytes` are
/// not broadcast.
pub async fn run(mut listener: MessageListener, hub: Arc<Hub>, max_bytes: usize, tasks: Tasks) {
    let feed = async {
        while let Some(first) = listener.next().await {
            let mut next = Some(first);
            let mut turn = Turn::new(&hub, max_bytes);
            while let Some(inserted) = next {
                for (relation, row) in &inserted.rows {
                    turn.send(relation, row);
                    if turn.frames > FRAMES_PER_TURN {
                        turn.finish();
                        tokio::task::yield_now().await;
                        turn = Turn::new(&hub, max_bytes);
                    }
                }
                next = listener.try_next();
            }
            turn.finish();
        }
    };
    tokio::select! {
        () = feed => {}
        () = tasks.token().cancelled() => {}
    }
}

/// The reason why a row is not broadcast.
#[derive(Debug, Error)]
enum RowError {
    /// The table lacks a column that a message needs.
    #[error("the table has no column `{0}`")]
    NoColumn(&'static str),
    /// A column that a message needs is null or invalid.
    #[error("`{0}` is null or invalid")]
    Unreadable(&'static str),
    /// The payload is larger than allowed.
    #[error("the payload has {bytes} bytes, more than the {limit} allowed")]
    TooLarge { bytes: usize, limit: usize },
    /// The message cannot be encoded as a frame.
    #[error(transparent)]
    Invalid(#[from] BroadcastError),
}

/// Rows that are sent together, without awaiting in between.
struct Turn<'a> {
    deliveries: Deliveries<'a>,
    hub: &'a Hub,
    max_bytes: usize,
    frames: usize,
    refused: u64,
}

impl<'a> Turn<'a> {
    fn new(hub: &'a Hub, max_bytes: usize) -> Self {
        Self {
            deliveries: hub.deliveries(),
            hub,
            max_bytes,
            frames: 0,
            refused: 0,
        }
    }

    fn send(&mut self, relation: &Relation, row: &Row) {
        let metrics = self.hub.metrics();
        match self.broadcast(relation, row) {
            Ok(Some(members)) => {
                metrics.database_broadcasts.inc();
                self.frames += members.max(1);
            }
            Ok(None) => {}
            Err(error) => {
                metrics.database_broadcasts_refused.inc();
                // Only the first refusal of a turn is logged in full, because many refusals at once
                // usually have the same cause.
                if self.refused == 0 {
                    let id = value(relation, row, "id").ok().flatten();
                    let id = id
                        .map(String::from_utf8_lossy)
                        .map(Excerpt)
                        .map(tracing::field::display);
                    tracing::warn!(code = CODE, id, error = %Excerpt(&error), "row of realtime.messages was not broadcast");
                }
                self.refused += 1;
            }
        }
    }

    /// Broadcasts a row and returns the number of members of its topic. Returns `None` if the row
    /// is not a broadcast, or if this process stored the row and has already sent it.
    fn broadcast(&mut self, relation: &Relation, row: &Row) -> Result<Option<usize>, RowError> {
        if required(relation, row, "extension")? != BROADCAST {
            return Ok(None);
        }
        let message = Message::read(relation, row)?;
        if self.hub.own_ids().contains(message.id) {
            return Ok(None);
        }
        let bytes = message.payload.bytes();
        if bytes > self.max_bytes {
            return Err(RowError::TooLarge {
                bytes,
                limit: self.max_bytes,
            });
        }
        let metadata = format!("{{\"id\":\"{}\"}}", message.id);
        let decoded;
        let broadcast = Broadcast::User {
            event: message.event,
            metadata: &metadata,
            payload: match message.payload {
                Payload::Json(text) => UserPayload::Json(text),
                Payload::Hex(digits) => {
                    decoded = unhex(digits).ok_or(RowError::Unreadable("binary_payload"))?;
                    UserPayload::Binary(&decoded)
                }
            },
        };
        let key = TopicKey::new(message.topic, message.is_private);
        Ok(Some(
            self.deliveries.row(&key, &broadcast, message.id, None)?,
        ))
    }

    /// Writes queued frames. If several rows were refused, logs their number.
    fn finish(self) {
        drop(self.deliveries);
        if self.refused > 1 {
            tracing::warn!(
                code = CODE,
                rows = self.refused,
                "rows of realtime.messages were not broadcast"
            );
        }
    }
}

/// A row, read as a message.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    id: Uuid,
    topic: &'a str,
    event: &'a str,
    is_private: bool,
    payload: Payload<'a>,
}

/// The payload in PostgreSQL's text format.
#[derive(Debug, PartialEq, Eq)]
enum Payload<'a> {
    /// `jsonb`, which is one JSON value.
    Json(&'a str),
    /// `bytea` without the leading `\x`. The replication connection sets `bytea_output` to `hex`,
    /// so this is the only format.
    Hex(&'a str),
}

impl Payload<'_> {
    /// Returns the length of the payload in bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Hex(digits) => digits.len() / 2,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a row. All columns except the payload are required (protocol 4.6). If there is no
    /// payload, the message has the payload `null`.
    fn read(relation: &Relation, row: &'a Row) -> Result<Self, RowError> {
        let text = |name| required(relation, row, name);
        text("inserted_at")?;
        let payload = match value(relation, row, "binary_payload") {
            Ok(Some(bytes)) => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| text.strip_prefix("\\x"))
                .map(Payload::Hex)
                .ok_or(RowError::Unreadable("binary_payload"))?,
            // Tables created before binary payloads existed lack the column.
            Ok(None) | Err(_) => match value(relation, row, "payload")? {
                Some(bytes) => std::str::from_utf8(bytes)
                    .map(Payload::Json)
                    .map_err(|_| RowError::Unreadable("payload"))?,
                None => Payload::Json("null"),
            },
        };
        Ok(Self {
            id: text("id")?
                .parse()
                .map_err(|_| RowError::Unreadable("id"))?,
            topic: text("topic")?,
            event: text("event")?,
            is_private: text("private")? == "t",
            payload,
        })
    }
}

/// Returns the value of a column that must not be null.
fn required<'a>(
    relation: &Relation,
    row: &'a Row,
    name: &'static str,
) -> Result<&'a str, RowError> {
    value(relation, row, name)?
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(RowError::Unreadable(name))
}

/// Returns the value of a column, or `None` if it is null.
fn value<'a>(
    relation: &Relation,
    row: &'a Row,
    name: &'static str,
) -> Result<Option<&'a [u8]>, RowError> {
    let place = relation
        .columns
        .iter()
        .position(|column| column.name == name)
        .ok_or(RowError::NoColumn(name))?;
    Ok(match row.0.get(place) {
        Some(ColumnValue::Text(bytes)) => Some(bytes),
        _ => None,
    })
}

/// Decodes hexadecimal digits.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, ReplicaIdentity, TableName};

    const COLUMNS: [&str; 7] = [
        "id",
        "topic",
        "event",
        "private",
        "inserted_at",
        "payload",
        "binary_payload",
    ];
    const ID: &str = "01020304-0506-4708-890a-0b0c0d0e0f10";

    fn relation(columns: &[&str]) -> Relation {
        Relation {
            oid: 1,
            table: TableName::new("realtime", "messages"),
            identity: ReplicaIdentity::Default,
            columns: columns
                .iter()
                .map(|name| Column {
                    name: (*name).to_owned(),
                    type_oid: 25,
                    type_modifier: -1,
                    is_identity: false,
                })
                .collect(),
        }
    }

    /// Creates a row in which `~` stands for null.
    fn row(values: [&'static str; 7]) -> Row {
        let value = |text: &'static str| match text {
            "~" => ColumnValue::Null,
            text => ColumnValue::Text(text.into()),
        };
        Row(values.map(value).into())
    }

    #[test]
    fn every_column_of_a_message_but_its_payload_is_required() {
        let now = "2026-11-24 10:00:00";
        let json = "{\"a\": 1}";
        // (row, expected result)
        let cases = [
            (
                [ID, "room", "hi", "t", now, json, "~"],
                Ok((true, Payload::Json(json))),
            ),
            (
                [ID, "room", "hi", "f", now, "~", "\\x00ff"],
                Ok((false, Payload::Hex("00ff"))),
            ),
            (
                [ID, "room", "hi", "t", now, "~", "~"],
                Ok((true, Payload::Json("null"))),
            ),
            (
                [ID, "room", "~", "t", now, json, "~"],
                Err("`event` is null or invalid"),
            ),
            (
                [ID, "room", "hi", "~", now, json, "~"],
                Err("`private` is null or invalid"),
            ),
            (
                [ID, "~", "hi", "t", now, json, "~"],
                Err("`topic` is null or invalid"),
            ),
            (
                ["x", "room", "hi", "t", now, json, "~"],
                Err("`id` is null or invalid"),
            ),
            (
                [ID, "room", "hi", "t", "~", json, "~"],
                Err("`inserted_at` is null or invalid"),
            ),
            (
                [ID, "room", "hi", "t", now, "~", "00"],
                Err("`binary_payload` is null or invalid"),
            ),
        ];
        let relation = relation(&COLUMNS);
        for (values, expected) in cases {
            let row = row(values);
            let found = Message::read(&relation, &row);
            match expected {
                Ok((is_private, payload)) => assert_eq!(
                    found.unwrap(),
                    Message {
                        id: ID.parse().unwrap(),
                        topic: "room",
                        event: "hi",
                        is_private,
                        payload,
                    }
                ),
                Err(text) => assert_eq!(found.unwrap_err().to_string(), text),
            }
        }
    }

    #[test]
    fn tables_without_newer_columns_are_read() {
        let row = row([ID, "room", "hi", "t", "now", "1", "~"]);
        let older = relation(&COLUMNS[..6]);
        let message = Message::read(&older, &row).unwrap();
        assert_eq!(message.payload, Payload::Json("1"));
        let error = Message::read(&relation(&COLUMNS[..4]), &row).unwrap_err();
        assert_eq!(error.to_string(), "the table has no column `inserted_at`");
    }

    #[test]
    fn invalid_hexadecimal_is_refused() {
        let cases: [(&str, Option<&[u8]>); 4] = [
            ("", Some(b"")),
            ("00fFa1", Some(b"\x00\xff\xa1")),
            ("0", None),
            ("0g", None),
        ];
        for (digits, bytes) in cases {
            assert_eq!(unhex(digits).as_deref(), bytes, "{digits}");
        }
    }
}
