//! The REST routes, over real HTTP against a real PostgreSQL.

mod client_errors;
mod conversation_settings;
mod conversations;
mod deleted_content;
mod events;
mod idempotency;
mod lists;
mod message_changes;
mod messages;
mod people;
mod pins;
mod presence;
mod presence_reports;
mod protocol;
mod rate_limits;
mod reactions;
mod reading;
mod search;
mod sync;
