//! The chat: its REST routes, under [`BASE_PATH`], and its background tasks.
//!
//! A handler checks the shape of its input and calls the database as its caller. The database
//! decides what the caller may do. PostgreSQL builds rows as JSON, and handlers return them without
//! parsing them. Changed rows and events on chat topics reach sockets through the WAL, never from a
//! handler. The exception is typing, which is not stored.

mod background;
mod blocks;
mod classes;
mod client_errors;
mod composing;
mod contacts;
mod conversation_settings;
mod conversations;
mod delivery;
mod events;
mod gathering;
mod history;
mod limits;
mod me;
mod media;
mod message_changes;
mod messages;
mod pins;
mod preferences;
mod presence;
mod presence_reports;
mod reactions;
mod reading;
mod reference;
mod reports;
mod rights;
mod routes;
mod search;
mod state;
mod sync;
mod topics;
mod typing;
mod unread;

pub use self::routes::{BASE_PATH, described, routes, row_schemas, tags};
pub use self::state::ChatState;
pub use self::topics::is_chat_topic;
