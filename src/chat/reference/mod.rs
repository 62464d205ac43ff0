//! The OpenAPI documentation of the chat routes: one function per handler, with the same name.
//!
//! The tests check every request and response against it.

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
        "The list of conversations, and each member's private settings for them.",
    ),
    (MESSAGES, "Sending, reading and changing messages."),
    (PEOPLE, "Presence, typing, search, blocks and preferences."),
    (
        SETTINGS,
        "What a client needs before anyone is signed in, and error reports.",
    ),
];

const CONVERSATIONS: &str = "Conversations";
const MESSAGES: &str = "Messages";
const PEOPLE: &str = "People";
const SETTINGS: &str = "Settings";

/// A field that may contain only the caller's id.
fn own_id(name: &'static str) -> Input {
    input(name, uuid(), "The caller's id. Any other id is refused.")
}
