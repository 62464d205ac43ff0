//! The key that identifies a topic, and the topic's name in the form that frames contain.

use std::sync::Arc;

use super::super::protocol::{TOPIC_PREFIX, json_string, sub_topic};

/// Identifies a topic. The public and the private topic with the same name are different topics
/// (protocol 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    topic: Arc<str>,
    /// Whether policies decide who may join.
    is_private: bool,
}

impl TopicKey {
    /// Creates the key of the topic with this sub-topic: the name without `realtime:`, which REST
    /// and SQL use.
    pub fn new(sub_topic: &str, is_private: bool) -> Self {
        Self::from_full_name(format!("{TOPIC_PREFIX}{sub_topic}").into(), is_private)
    }

    /// Creates the key of the topic with this full name, which channels use to join.
    pub fn from_full_name(topic: Arc<str>, is_private: bool) -> Self {
        Self { topic, is_private }
    }

    /// Returns the full name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Returns the name without `realtime:`.
    pub fn sub_topic(&self) -> &str {
        sub_topic(&self.topic)
    }

    /// Returns whether policies decide who may join.
    pub fn is_private(&self) -> bool {
        self.is_private
    }
}

/// The name of a topic with members.
#[derive(Debug)]
pub struct TopicName {
    key: TopicKey,
    /// The full name as JSON text, ready to be copied into every message.
    json: Box<str>,
}

impl TopicName {
    /// Creates the name of the topic with this key.
    pub fn new(key: TopicKey) -> Self {
        Self {
            json: json_string(key.topic()),
            key,
        }
    }

    /// Returns the key.
    pub fn key(&self) -> &TopicKey {
        &self.key
    }

    /// Returns the full name as JSON text.
    pub fn json(&self) -> &str {
        &self.json
    }
}
