//! What the routes of the chat take and answer, for the OpenAPI document: one function for each
//! handler, with its name.
//!
//! Every request and answer of the tests is held against this.

mod conversations;
mod messages;
mod people;
mod rows;

pub(super) use self::conversations::*;
pub(super) use self::messages::*;
pub(super) use self::people::*;
pub(super) use self::rows::schemas;
use crate::http::openapi::Input;
use crate::http::openapi::input;
use crate::http::openapi::schema::uuid;

/// Groups of operations, in the order of the document.
pub(super) const TAGS: [(&str, &str); 4] = [
    (
        CONVERSATIONS,
        "The list of conversations, and what their members keep to themselves about them.",
    ),
    (MESSAGES, "Sending, reading and changing messages."),
    (PEOPLE, "Presence, typing, search, blocks and preferences."),
    (
        SETTINGS,
        "What a client needs to know before anybody is signed in, and what it reports.",
    ),
];

const CONVERSATIONS: &str = "Conversations";
const MESSAGES: &str = "Messages";
const PEOPLE: &str = "People";
const SETTINGS: &str = "Settings";

/// A field that names the caller.
fn own_id(name: &'static str) -> Input {
    input(name, uuid(), "The caller; anybody else is refused.")
}
