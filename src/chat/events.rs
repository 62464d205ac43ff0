//! Events on chat topics, derived from the WAL (docs/api.md, *Live changes*).
//!
//! Events are derived from committed rows, never from requests. A row causes the same event whether
//! it was written over REST, over the data API or in SQL. No event is computed for a topic without
//! subscribers.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::composing::Composing;
use super::rights::Rights;
use super::topics;
use super::typing::Typing;
use super::unread::Unread;
use crate::bus::Bus;
use crate::bus::broadcasts::{Broadcasts, ServerBroadcast};
use crate::bus::tables::TableEvent;
use crate::change::{Action, ChangeEvent, ChangeTransaction, NamedRow, TableName};
use crate::shutdown::Tasks;

const MEMBERS: &str = "user_conversation_members";
const MESSAGES: &str = "user_messages";
const RECEIPTS: &str = "conversation_receipts";
const REACTIONS: &str = "message_reactions";

/// Maximum number of WAL events that are handled together, as one turn. Several changes of one row
/// in a turn become one event with the latest values.
const EVENTS_PER_TURN: usize = 256;

/// The columns of a membership that the member's devices receive, with their JSON types.
const MEMBERSHIP: [(&str, Form); 12] = [
    ("unread_count", Form::Number),
    ("mention_count", Form::Number),
    ("marked_unread", Form::Flag),
    ("is_archived", Form::Flag),
    ("is_pinned", Form::Flag),
    ("pinned_at", Form::Time),
    ("is_muted", Form::Flag),
    ("muted_until", Form::Time),
    ("notification_level", Form::Text),
    ("hidden", Form::Flag),
    ("last_read_seq", Form::Number),
    ("last_read_message_id", Form::Text),
];

/// The columns that unread totals depend on.
const COUNTED: [&str; 7] = [
    "unread_count",
    "mention_count",
    "marked_unread",
    "is_archived",
    "is_muted",
    "muted_until",
    "left_at",
];

#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    Flag,
    Time,
}

/// Derives events from the WAL and sends them.
pub(super) struct Events {
    broadcasts: Broadcasts,
    typing: Typing,
    unread: Unread,
    rights: Rights,
    composing: Composing,
    /// Whether the stream was interrupted, so that all totals must be sent again once it is live.
    owes_totals: bool,
}

impl Events {
    pub(super) fn new(
        broadcasts: Broadcasts,
        typing: Typing,
        unread: Unread,
        rights: Rights,
        composing: Composing,
    ) -> Self {
        Self {
            broadcasts,
            typing,
            unread,
            rights,
            composing,
            owes_totals: false,
        }
    }

    /// Runs until the server stops.
    pub(super) async fn run(mut self, bus: Bus, tasks: Tasks) {
        let tables =
            [MEMBERS, MESSAGES, RECEIPTS, REACTIONS].map(|name| TableName::new("public", name));
        let mut listener = bus.listen_to_tables(tables.into());
        let feed = async {
            loop {
                let mut turn = Turn::default();
                let mut next = Some(listener.next().await);
                let mut events = 0;
                while let Some(event) = next.take() {
                    self.take(&event, &mut turn);
                    events += 1;
                    if events < EVENTS_PER_TURN {
                        next = listener.try_next();
                    }
                }
                turn.end(&self.broadcasts);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = feed => {}
            () = tasks.token().cancelled() => {}
        }
    }

    fn take(&mut self, event: &TableEvent, turn: &mut Turn) {
        match event {
            TableEvent::Changes(transaction) => self.take_changes(transaction, turn),
            // Clients fetch everything else that they missed from `/sync`.
            TableEvent::Missed => {
                self.unread.mark_all();
                self.rights.recheck_all();
            }
            TableEvent::Interrupted => self.owes_totals = true,
            TableEvent::Live => {
                if std::mem::take(&mut self.owes_totals) {
                    self.unread.mark_all();
                }
            }
        }
    }

    fn take_changes(&self, transaction: &ChangeTransaction, turn: &mut Turn) {
        for change in &transaction.changes {
            let table = &change.relation.table;
            if table.schema != "public" {
                continue;
            }
            match table.name.as_str() {
                RECEIPTS => self.take_receipt(change, turn),
                MEMBERS => self.take_membership(change, transaction.xid, turn),
                MESSAGES => self.take_message(change),
                REACTIONS => self.take_reaction(change, turn),
                _ => {}
            }
        }
    }

    fn take_receipt(&self, change: &ChangeEvent, turn: &mut Turn) {
        let row = change.image();
        let (Some(conversation), Some(person)) = key(row) else {
            return;
        };
        if change.action() == Action::Delete
            || !self
                .broadcasts
                .has_members(&topics::of_conversation(conversation))
        {
            return;
        }
        let before = change.before();
        for column in ["last_read_seq", "last_delivered_seq"] {
            let position = row.text(column);
            let known = before.map_or(Some("0"), |before| before.text(column));
            if position != known
                && let Some(position) = position
            {
                let receipt = turn.receipts.entry((conversation, person)).or_default();
                receipt.insert(column.to_owned(), value(position, Form::Number));
            }
        }
    }

    fn take_membership(&self, change: &ChangeEvent, xid: u32, turn: &mut Turn) {
        let row = change.image();
        let (Some(conversation), Some(person)) = key(row) else {
            return;
        };
        let before = change.before();
        self.take_rights(change, (conversation, person), xid);
        if !self.broadcasts.has_members(&topics::of_person(person)) {
            return;
        }
        let is_same = |column: &&str| {
            change.action() == Action::Update
                && before.is_some_and(|before| before.text(column) == row.text(column))
        };
        if !COUNTED.iter().all(is_same) {
            self.unread.changed(person, xid);
        }
        let is_told = |(column, _): &(&str, Form)| is_same(column);
        let is_touched = is_touched(change);
        if is_touched && row.text("left_at").is_none() {
            self.composing.changed((conversation, person), xid);
        }
        if change.action() == Action::Delete
            || row.text("left_at").is_some()
            || (MEMBERSHIP.iter().all(is_told) && !is_touched)
        {
            return;
        }
        let mut membership = Map::new();
        for (column, form) in MEMBERSHIP {
            let text = row.text(column);
            membership.insert(
                column.to_owned(),
                text.map_or(Value::Null, |text| value(text, form)),
            );
        }
        turn.memberships.insert((conversation, person), membership);
    }

    /// Requests a recheck of the member's permissions on the conversation's topic if the change of
    /// the membership may have affected them.
    fn take_rights(&self, change: &ChangeEvent, membership: (Uuid, Uuid), xid: u32) {
        let row = change.image();
        let before = change.before();
        let may_matter = match (change.action(), before) {
            // A new membership only adds permissions.
            (Action::Insert, _) => false,
            (Action::Delete, _) | (Action::Update, None) => true,
            (Action::Update, Some(before)) => {
                before.text("left_at") != row.text("left_at")
                    || key(before) != key(row)
                    || is_touched(change)
            }
        };
        if !may_matter {
            return;
        }
        self.rights.changed(membership, xid);
        if let Some((Some(conversation), Some(person))) = before.map(key)
            && (conversation, person) != membership
        {
            self.rights.changed((conversation, person), xid);
        }
    }

    /// Queues an event for a deleted reaction. For a deleted row, clients receive only the primary
    /// key `id`, and so neither the message nor the emoji.
    fn take_reaction(&self, change: &ChangeEvent, turn: &mut Turn) {
        let Some(row) = change
            .before()
            .filter(|_| change.action() == Action::Delete)
        else {
            return;
        };
        let Some(conversation) = id(row, "conversation_id") else {
            return;
        };
        let topic = topics::of_conversation(conversation);
        if !self.broadcasts.has_members(&topic) {
            return;
        }
        let payload = json!({
            "id": row.text("id"),
            "conversation_id": conversation,
            "message_id": row.text("message_id"),
            "user_id": row.text("user_id"),
            "reaction": row.text("reaction"),
        });
        turn.reactions.push((topic, payload));
    }

    fn take_message(&self, change: &ChangeEvent) {
        let row = change.image();
        if change.action() == Action::Insert
            && let Some(conversation) = id(row, "conversation_id")
            && let Some(sender) = id(row, "sender_id")
        {
            self.typing.sent(conversation, sender);
        }
    }
}

/// The events of a turn, by conversation and user. Several changes of one row are merged.
#[derive(Default)]
struct Turn {
    receipts: HashMap<(Uuid, Uuid), Map<String, Value>>,
    memberships: HashMap<(Uuid, Uuid), Map<String, Value>>,
    /// Deleted reactions, each with its topic.
    reactions: Vec<(String, Value)>,
}

impl Turn {
    fn end(self, broadcasts: &Broadcasts) {
        for ((conversation, person), mut receipt) in self.receipts {
            receipt.insert("conversation_id".to_owned(), json!(conversation));
            receipt.insert("user_id".to_owned(), json!(person));
            broadcasts.send(ServerBroadcast {
                topic: topics::of_conversation(conversation),
                event: "receipt",
                payload: Value::Object(receipt).to_string().into(),
            });
        }
        for (topic, reaction) in self.reactions {
            broadcasts.send(ServerBroadcast {
                topic,
                event: "reaction.removed",
                payload: reaction.to_string().into(),
            });
        }
        for ((conversation, person), mut membership) in self.memberships {
            membership.insert("conversation_id".to_owned(), json!(conversation));
            broadcasts.send(ServerBroadcast {
                topic: topics::of_person(person),
                event: "conversation.updated",
                payload: Value::Object(membership).to_string().into(),
            });
        }
    }
}

/// Returns whether an update of a membership only marks a change of data stored elsewhere, such as
/// a draft or a block.
fn is_touched(change: &ChangeEvent) -> bool {
    change.action() == Action::Update
        && change.before().is_some_and(|before| {
            change
                .image()
                .equals_except(&["changed_xid", "updated_at"], before)
        })
}

/// Returns the conversation and the user of a row.
fn key(row: NamedRow<'_>) -> (Option<Uuid>, Option<Uuid>) {
    (id(row, "conversation_id"), id(row, "user_id"))
}

fn id(row: NamedRow<'_>, column: &str) -> Option<Uuid> {
    row.text(column)?.parse().ok()
}

/// Converts PostgreSQL's text, formatted under the settings of the replication connection, to the
/// JSON value in REST responses.
fn value(text: &str, form: Form) -> Value {
    match form {
        Form::Text => json!(text),
        Form::Number => text.parse::<i64>().map_or(Value::Null, Value::from),
        Form::Flag => json!(text == "t"),
        // `2026-11-24 19:45:31.5+00`
        Form::Time => match text.strip_suffix("+00") {
            Some(time) => json!(format!("{}+00:00", time.replacen(' ', "T", 1))),
            // `infinity`, which is a string in JSON as well
            None => json!(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_format_of_rest_responses() {
        let cases = [
            ("12", Form::Number, json!(12)),
            ("t", Form::Flag, json!(true)),
            ("f", Form::Flag, json!(false)),
            ("all", Form::Text, json!("all")),
            (
                "2026-11-24 19:45:31.5+00",
                Form::Time,
                json!("2026-11-24T19:45:31.5+00:00"),
            ),
            ("infinity", Form::Time, json!("infinity")),
        ];
        for (text, form, expected) in cases {
            assert_eq!(value(text, form), expected, "{text}");
        }
    }
}
