//! A device's copy of its owner's conversations: loaded, caught up with `/sync`, and updated over a
//! socket.
//!
//! It works like an application: rows are applied as they arrive, except those of messages with an
//! older `rev`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// Fields of a conversation that the device's owner sees, both in REST responses and in the rows of
/// `user_conversation_members`.
const CONVERSATION_FIELDS: [&str; 6] = [
    "is_archived",
    "is_pinned",
    "is_muted",
    "marked_unread",
    "mention_count",
    "unread_count",
];

/// Fields of a message, both in REST responses and in the rows of `user_messages`.
const MESSAGE_FIELDS: [&str; 11] = [
    "content",
    "created_at",
    "edited_at",
    "id",
    "is_deleted",
    "is_edited",
    "mentions",
    "reply_to_id",
    "rev",
    "sender_id",
    "seq",
];

/// The copy that a device has.
#[derive(Debug, Default)]
pub(super) struct Copy {
    owner: String,
    conversations: BTreeMap<String, Conversation>,
    messages: BTreeMap<String, Message>,
    /// Messages that the owner deleted only for themselves.
    hidden: BTreeSet<String>,
    /// Conversations in which another user is typing, and when each indicator expires.
    typing: BTreeMap<String, Instant>,
    /// Set if a message has a new `rev` but is otherwise unchanged. Its reactions have then
    /// changed, which the row does not show.
    pub(super) is_stale: bool,
    /// The unread count on the badge.
    pub(super) unread_total: Option<i64>,
}

#[derive(Debug, Default)]
struct Conversation {
    fields: Map<String, Value>,
    /// Whether the conversation is not in the list, because the owner has hidden or left it.
    is_gone: bool,
    cleared_seq: i64,
    /// Read positions of all members, including the owner.
    read: BTreeMap<String, i64>,
}

#[derive(Debug)]
struct Message {
    conversation: String,
    fields: Map<String, Value>,
    /// Pairs of reaction and user.
    reactions: BTreeSet<(String, String)>,
}

impl Copy {
    pub(super) fn new(owner: String) -> Self {
        Self {
            owner,
            ..Self::default()
        }
    }

    /// Applies a page of `GET /sync`.
    pub(super) fn catch_up(&mut self, page: &Value) {
        for row in items(&page["conversations"]) {
            let conversation = self.conversation(&row["id"]);
            conversation.fields = chosen(row, &CONVERSATION_FIELDS);
            conversation.is_gone = false;
            conversation.cleared_seq = number(&row["cleared_seq"]);
            let (owner, seq) = (self.owner.clone(), number(&row["last_read_seq"]));
            self.conversation(&row["id"]).read.insert(owner, seq);
        }
        for row in items(&page["receipts"]) {
            self.receipt(row);
        }
        for id in items(&page["removed_conversation_ids"]) {
            self.conversation(id).is_gone = true;
        }
        for id in items(&page["removed_message_ids"]) {
            self.hide(text(id));
        }
        for row in items(&page["messages"]) {
            self.loaded_message(row);
        }
    }

    /// Applies a message as returned by REST.
    pub(super) fn loaded_message(&mut self, row: &Value) {
        let reactions = items(&row["reactions"])
            .flat_map(|reaction| {
                let kind = text(&reaction["reaction"]);
                items(&reaction["user_ids"]).map(move |person| (kind.clone(), text(person)))
            })
            .collect();
        let message = Message {
            conversation: text(&row["conversation_id"]),
            fields: chosen(row, &MESSAGE_FIELDS),
            reactions,
        };
        self.messages.insert(text(&row["id"]), message);
    }

    /// Applies a row change from the socket.
    pub(super) fn change(&mut self, data: &Value) {
        let row = &data["record"];
        match (
            data["table"].as_str().unwrap_or_default(),
            data["type"].as_str().unwrap_or_default(),
        ) {
            ("user_conversation_members", "INSERT" | "UPDATE")
                if text(&row["user_id"]) == self.owner =>
            {
                let owner = self.owner.clone();
                let conversation = self.conversation(&row["conversation_id"]);
                conversation.fields = chosen(row, &CONVERSATION_FIELDS);
                conversation.is_gone = row["hidden"] == true || !row["left_at"].is_null();
                conversation.cleared_seq = number(&row["cleared_seq"]);
                conversation
                    .read
                    .insert(owner, number(&row["last_read_seq"]));
            }
            ("conversation_receipts", "INSERT" | "UPDATE") => self.receipt(row),
            ("user_messages", "INSERT" | "UPDATE") => {
                let fields = chosen(row, &MESSAGE_FIELDS);
                let conversation = text(&row["conversation_id"]);
                let message = self
                    .messages
                    .entry(text(&row["id"]))
                    .or_insert_with(|| Message {
                        conversation,
                        fields: Map::new(),
                        reactions: BTreeSet::new(),
                    });
                if message.fields.get("rev").map_or(0, number) > number(&fields["rev"]) {
                    // `/sync` has already returned a newer revision of this message.
                    return;
                }
                let is_same =
                    |name: &&str| *name == "rev" || message.fields.get(*name) == fields.get(*name);
                self.is_stale |= !message.fields.is_empty() && MESSAGE_FIELDS.iter().all(is_same);
                if fields["is_deleted"] == true {
                    message.reactions.clear();
                }
                message.fields = fields;
            }
            _ => {}
        }
    }

    /// Applies the payload of a `typing` event.
    pub(super) fn typing(&mut self, payload: &Value) {
        if payload["user_id"] == self.owner.as_str() {
            return;
        }
        let conversation = text(&payload["conversation_id"]);
        if payload["is_typing"] == true {
            let holds = Duration::from_millis(number(&payload["expires_in_ms"]).unsigned_abs());
            self.typing.insert(conversation, Instant::now() + holds);
        } else {
            self.typing.remove(&conversation);
        }
    }

    /// Returns whether any user is shown as typing.
    pub(super) fn shows_typing(&self) -> bool {
        self.typing.values().any(|until| *until > Instant::now())
    }

    /// Clears the typing states, which are unknown after a lost connection.
    pub(super) fn disconnected(&mut self) {
        self.typing.clear();
    }

    pub(super) fn hide(&mut self, message: String) {
        self.hidden.insert(message);
    }

    /// Returns the ids of the listed conversations.
    pub(super) fn listed(&self) -> Vec<String> {
        let listed = self.conversations.iter().filter(|(_, c)| !c.is_gone);
        listed.map(|(id, _)| id.clone()).collect()
    }

    /// Returns the id of each visible message of a conversation, oldest first, and whether the
    /// owner wrote it. Tombstones are omitted.
    pub(super) fn shown(&self, conversation: &str) -> Vec<(String, bool)> {
        let cleared = self
            .conversations
            .get(conversation)
            .map_or(0, |c| c.cleared_seq);
        let mut shown: Vec<_> = self
            .messages
            .iter()
            .filter(|(id, message)| {
                message.conversation == conversation
                    && number(&message.fields["seq"]) > cleared
                    && message.fields["is_deleted"] == false
                    && !self.hidden.contains(*id)
            })
            .map(|(id, message)| {
                let is_own = message.fields["sender_id"] == self.owner.as_str();
                (number(&message.fields["seq"]), id.clone(), is_own)
            })
            .collect();
        shown.sort();
        shown
            .into_iter()
            .map(|(_, id, is_own)| (id, is_own))
            .collect()
    }

    /// Returns everything that the owner sees, in a canonical form.
    pub(super) fn canonical(&self) -> Value {
        let mut messages: BTreeMap<&str, BTreeMap<i64, Value>> = BTreeMap::new();
        for (id, message) in &self.messages {
            let Some(conversation) = self.conversations.get(&message.conversation) else {
                continue;
            };
            let seq = number(&message.fields["seq"]);
            if conversation.is_gone || seq <= conversation.cleared_seq || self.hidden.contains(id) {
                continue;
            }
            let readers: Vec<&String> = conversation
                .read
                .iter()
                .filter(|(person, read)| {
                    **read >= seq && message.fields["sender_id"] != person.as_str()
                })
                .map(|(person, _)| person)
                .collect();
            let mut row = message.fields.clone();
            row.insert("read_by".to_owned(), json!(readers));
            row.insert("reactions".to_owned(), json!(message.reactions));
            messages
                .entry(&message.conversation)
                .or_default()
                .insert(seq, row.into());
        }
        let conversations: BTreeMap<_, _> = self
            .conversations
            .iter()
            .filter(|(_, conversation)| !conversation.is_gone)
            .map(|(id, conversation)| (id, &conversation.fields))
            .collect();
        let messages: BTreeMap<_, Vec<_>> = messages
            .into_iter()
            .map(|(id, rows)| (id, rows.into_values().collect()))
            .collect();
        json!({"conversations": conversations, "messages": messages})
    }

    fn receipt(&mut self, row: &Value) {
        let person = text(&row["user_id"]);
        // The owner's position is in the owner's membership row, because a receipt does not reflect
        // "mark as unread".
        if person != self.owner {
            let seq = number(&row["last_read_seq"]);
            self.conversation(&row["conversation_id"])
                .read
                .insert(person, seq);
        }
    }

    fn conversation(&mut self, id: &Value) -> &mut Conversation {
        self.conversations.entry(text(id)).or_default()
    }
}

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn chosen(row: &Value, fields: &[&str]) -> Map<String, Value> {
    fields
        .iter()
        .map(|field| ((*field).to_owned(), row[*field].clone()))
        .collect()
}
