//! The names of the private topics of the chat.

use uuid::Uuid;

/// The prefix of a conversation's topic.
pub(super) const CONVERSATION: &str = "conversation:";
/// The prefix of a user's own topic.
pub(super) const PERSON: &str = "user:";

/// Returns whether a private topic of this name belongs to the chat, as `chat.is_chat_topic` does.
pub fn is_chat_topic(name: &str) -> bool {
    const HYPHENATED: usize = 36;
    [CONVERSATION, PERSON]
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix))
        // The parser accepts several forms. Only the hyphenated one has this length.
        .any(|id| id.len() == HYPHENATED && Uuid::try_parse(id).is_ok())
}

/// Returns the topic of a conversation.
pub(super) fn of_conversation(conversation: Uuid) -> String {
    format!("{CONVERSATION}{conversation}")
}

/// Returns the topic of a user's devices.
pub(super) fn of_person(person: Uuid) -> String {
    format!("{PERSON}{person}")
}

/// Returns the ids in the names that start with this prefix.
pub(super) fn ids(names: &[String], prefix: &str) -> impl Iterator<Item = Uuid> {
    names
        .iter()
        .filter_map(move |name| name.strip_prefix(prefix)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_topic_is_a_known_prefix_and_an_id() {
        let id = Uuid::from_u128(0xabc);
        for name in [
            of_conversation(id),
            of_person(id),
            of_person(id).to_uppercase().replace("USER", "user"),
        ] {
            assert!(is_chat_topic(&name), "{name}");
        }
        for name in [
            format!("room:{id}"),
            format!("conversation{id}"),
            format!("conversation:{}", id.simple()),
            format!("conversation:{id}x"),
            format!("Conversation:{id}"),
            format!("x-conversation:{id}"),
            "conversation:".to_owned(),
            "user:none".to_owned(),
        ] {
            assert!(!is_chat_topic(&name), "{name}");
        }
    }
}
