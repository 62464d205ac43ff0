//! A client's copy of the chat. It is loaded once, and then updated only through `/sync`, as the
//! documentation describes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::support::chat_server::{ChatServer, Person};

/// The state of a client.
pub(super) struct Mirror {
    pub(super) person: Person,
    /// The cursor for the next request.
    pub(super) cursor: String,
    conversations: BTreeMap<String, Value>,
    /// Messages by conversation, then by id.
    messages: BTreeMap<String, BTreeMap<String, Value>>,
    /// The receipts of the other members, by conversation.
    receipts: BTreeMap<String, Vec<Value>>,
}

impl Mirror {
    /// Loads everything for the first time: the list through `/sync` in pages of `limit`, then
    /// every history.
    pub(super) async fn load(server: &ChatServer, person: Person, limit: u32) -> Self {
        let mut mirror = Self {
            person,
            cursor: String::new(),
            conversations: BTreeMap::new(),
            messages: BTreeMap::new(),
            receipts: BTreeMap::new(),
        };
        let mut page = mirror.fetch(server, &format!("/sync?limit={limit}")).await;
        while page["has_more"] == true {
            page = mirror.page(server, limit).await;
        }
        for id in mirror.conversations.keys().cloned().collect::<Vec<_>>() {
            for message in history(server, person, &id).await {
                mirror.store(message);
            }
        }
        mirror
    }

    /// Fetches one chain of pages. Returns the number of pages.
    pub(super) async fn sync(&mut self, server: &ChatServer, limit: u32) -> usize {
        let mut pages = 1;
        while self.page(server, limit).await["has_more"] == true {
            pages += 1;
        }
        pages
    }

    /// Fetches and applies the next page.
    pub(super) async fn page(&mut self, server: &ChatServer, limit: u32) -> Value {
        let path = format!("/sync?limit={limit}&since={}", self.cursor);
        self.fetch(server, &path).await
    }

    async fn fetch(&mut self, server: &ChatServer, path: &str) -> Value {
        let answer = server.get(self.person, path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        self.apply(&answer.body);
        answer.body
    }

    fn apply(&mut self, page: &Value) {
        let list = |name: &str| page[name].as_array().unwrap().clone();
        for id in list("removed_conversation_ids") {
            let id = text(&id);
            self.conversations.remove(&id);
            self.messages.remove(&id);
            self.receipts.remove(&id);
        }
        for row in list("conversations") {
            let id = text(&row["id"]);
            let cleared = row["cleared_seq"].as_i64().unwrap();
            if let Some(messages) = self.messages.get_mut(&id) {
                messages.retain(|_, message| message["seq"].as_i64().unwrap() > cleared);
            }
            self.receipts.insert(id.clone(), Vec::new());
            self.conversations.insert(id, row);
        }
        for receipt in list("receipts") {
            let of = text(&receipt["conversation_id"]);
            self.receipts.entry(of).or_default().push(receipt);
        }
        for id in list("removed_message_ids") {
            for messages in self.messages.values_mut() {
                messages.remove(&text(&id));
            }
        }
        for message in list("messages") {
            self.store(message);
        }
        self.cursor = text(&page["cursor"]);
    }

    fn store(&mut self, message: Value) {
        let of = text(&message["conversation_id"]);
        let id = text(&message["id"]);
        self.messages.entry(of).or_default().insert(id, message);
    }

    /// Returns what the client would show, with each delivery status derived from the receipts.
    pub(super) fn state(&self) -> Value {
        for (id, messages) in &self.messages {
            assert!(
                messages.is_empty() || self.conversations.contains_key(id),
                "messages of a missing conversation: {messages:?}"
            );
        }
        let conversations: Map<String, Value> = self
            .conversations
            .iter()
            .map(|(id, row)| {
                let mut messages: Vec<Value> = self
                    .messages
                    .get(id)
                    .into_iter()
                    .flat_map(BTreeMap::values)
                    .map(|message| self.with_ticks(row, message))
                    .collect();
                messages.sort_by_key(|message| message["seq"].as_i64());
                (id.clone(), json!({ "row": row, "messages": messages }))
            })
            .collect();
        Value::Object(conversations)
    }

    fn with_ticks(&self, conversation: &Value, message: &Value) -> Value {
        let me = self.person.id().to_string();
        let seq = message["seq"].as_i64();
        let sender = message["sender_id"].as_str();
        let others = self
            .receipts
            .get(&text(&conversation["id"]))
            .into_iter()
            .flatten();
        let mut read_by: Vec<String> = others
            .clone()
            .filter(|receipt| receipt["last_read_seq"].as_i64() >= seq)
            .map(|receipt| text(&receipt["user_id"]))
            .collect();
        if conversation["last_read_seq"].as_i64() >= seq {
            read_by.push(me.clone());
        }
        read_by.retain(|reader| Some(reader.as_str()) != sender);
        read_by.sort();
        let reached = |name: &str| {
            others
                .clone()
                .filter(|receipt| receipt["user_id"].as_str() != sender)
                .any(|receipt| receipt[name].as_i64() >= seq)
        };
        let status = match sender == Some(me.as_str()) {
            true if reached("last_read_seq") => "read",
            true if reached("last_delivered_seq") => "delivered",
            true => "sent",
            false if read_by.contains(&me) => "read",
            false => "delivered",
        };
        let mut message = message.clone();
        message["read_by"] = json!(read_by);
        message["delivery_status"] = json!(status);
        message
    }
}

/// Returns what a client would show after loading everything again through the other routes.
pub(super) async fn fresh(server: &ChatServer, person: Person) -> Value {
    let mut conversations = Map::new();
    let mut path = "/conversations?archived=all&limit=100".to_owned();
    loop {
        let list = server.get(person, &path).await;
        for row in list.rows() {
            let id = text(&row["id"]);
            let messages = history(server, person, &id).await;
            conversations.insert(id, json!({ "row": row, "messages": messages }));
        }
        match list.header("x-next-cursor") {
            Some(cursor) => path = format!("/conversations?archived=all&limit=100&cursor={cursor}"),
            None => return Value::Object(conversations),
        }
    }
}

/// Fetches a whole conversation, including deleted messages, oldest first.
async fn history(server: &ChatServer, person: Person, conversation: &str) -> Vec<Value> {
    let base = format!("/messages?conversation_id={conversation}&include_deleted=true&limit=200");
    let mut messages = Vec::new();
    let mut path = base.clone();
    loop {
        let page = server.get(person, &path).await;
        assert_eq!(page.status, 200, "{page:?}");
        messages.splice(0..0, page.rows().iter().cloned());
        match page.header("x-next-cursor") {
            Some(cursor) => path = format!("{base}&cursor={cursor}"),
            None => return messages,
        }
    }
}

/// Panics with the first difference unless the client shows the same as after a fresh load.
pub(super) async fn assert_like_fresh(server: &ChatServer, mirror: &Mirror, what: &str) {
    let (kept, loaded) = (mirror.state(), fresh(server, mirror.person).await);
    if kept != loaded {
        panic!(
            "{what}: {:?} differs at {}",
            mirror.person,
            difference("", &kept, &loaded)
        );
    }
}

/// Returns the first difference between two values.
fn difference(path: &str, kept: &Value, loaded: &Value) -> String {
    match (kept, loaded) {
        (Value::Object(one), Value::Object(two)) if one.keys().eq(two.keys()) => one
            .iter()
            .filter(|(name, value)| two[*name] != **value)
            .map(|(name, value)| difference(&format!("{path}/{name}"), value, &two[name]))
            .next()
            .unwrap_or_default(),
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => one
            .iter()
            .zip(two)
            .enumerate()
            .filter(|(_, (one, two))| one != two)
            .map(|(index, (one, two))| difference(&format!("{path}/{index}"), one, two))
            .next()
            .unwrap_or_default(),
        _ => format!("{path}: kept {kept}, loaded {loaded}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
