//! The groups of operations, and the parameter that operations of every group share.

use crate::http::openapi::schema::uuid;
use crate::http::openapi::{Input, input};

/// Groups of operations, in the order of the document.
pub(in crate::chat) const TAGS: [(&str, &str); 4] = [
    (
        CONVERSATIONS,
        "The list of conversations, and each member's private settings for them.",
    ),
    (MESSAGES, "Sending, reading and changing messages."),
    (PEOPLE, "Presence, typing, search, blocks and preferences."),
    (
        SETTINGS,
        "What a client needs before anyone is signed in, and error reports.",
    ),
];

pub(super) const CONVERSATIONS: &str = "Conversations";
pub(super) const MESSAGES: &str = "Messages";
pub(super) const PEOPLE: &str = "People";
pub(super) const SETTINGS: &str = "Settings";

/// Returns a field that may contain only the caller's id.
pub(super) fn own_id(name: &'static str) -> Input {
    input(name, uuid(), "The caller's id. Any other id is refused.")
}
