//! The REST routes of the chat, under [`BASE_PATH`].
//!
//! A handler checks the shape of its input and calls the database as its caller: who may do
//! what is decided there. Rows are JSON as PostgreSQL built them and are passed on unread. A
//! row that is written here reaches sockets through the log, never from here; so do the events on the
//! topics of the chat, but for typing, which is not stored.

mod admission;
mod blocks;
mod conversation_settings;
mod conversations;
mod delivery;
mod events;
mod history;
mod idempotency;
mod limits;
mod message_changes;
mod messages;
mod pins;
mod preferences;
mod presence;
mod reactions;
mod reading;
mod reports;
mod search;
mod sync;
mod typing;
mod unread;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use self::events::Events;
use self::typing::Typing;
use self::unread::Unread;
use crate::bus::Bus;
use crate::db::Db;
use crate::error_code::ErrorCode;
use crate::http::conditional::conditional;
use crate::http::input::{Fields, MAX_BODY_BYTES};
use crate::http::middleware::method_not_allowed;
use crate::http::origin::cors;
use crate::http::pagination::json_text;
use crate::http::{ApiError, Authentication, Caller};
use crate::observability::metrics::ChatMetrics;
use crate::shutdown::Tasks;

/// Where the routes are found.
pub const BASE_PATH: &str = "/api/supabase/user-chat";

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct ChatState {
    authentication: Authentication,
    db: Db,
    bus: Bus,
    typing: Typing,
    limits: limits::Limits,
    signals: sync::Signals,
}

impl ChatState {
    /// The handlers' view of the parts. What they start, and requests that wait, end with `tasks`.
    pub fn new(
        authentication: Authentication,
        db: Db,
        bus: Bus,
        metrics: ChatMetrics,
        tasks: &Tasks,
    ) -> Self {
        Self {
            authentication,
            signals: sync::Signals::start(&bus, metrics, tasks),
            typing: Typing::new(bus.broadcasts().clone()),
            bus,
            limits: limits::Limits::new(db.clone()),
            db,
        }
    }

    /// Starts what works beside requests: events on the topics of the chat, and what was delivered to
    /// sockets. It ends with `tasks`.
    pub fn start(&self, tasks: &Tasks) {
        let broadcasts = self.bus.broadcasts();
        let unread = Unread::new(broadcasts.clone());
        let events = Events::new(broadcasts.clone(), self.typing.clone(), unread.clone());
        tasks.spawn("chat events", events.run(self.bus.clone(), tasks.clone()));
        tasks.spawn("unread totals", unread.run(self.db.clone(), tasks.clone()));
        tasks.spawn("typing", self.typing.clone().run(tasks.clone()));
        let delivered = self.bus.delivered().clone();
        let writing = delivery::run(delivered, self.db.clone(), tasks.clone());
        tasks.spawn("deliveries", writing);
    }
}

impl FromRef<ChatState> for Authentication {
    fn from_ref(state: &ChatState) -> Self {
        state.authentication.clone()
    }
}

impl FromRef<ChatState> for Db {
    fn from_ref(state: &ChatState) -> Self {
        state.db.clone()
    }
}

impl FromRef<ChatState> for Typing {
    fn from_ref(state: &ChatState) -> Self {
        state.typing.clone()
    }
}

impl FromRef<ChatState> for sync::Signals {
    fn from_ref(state: &ChatState) -> Self {
        state.signals.clone()
    }
}

impl FromRef<ChatState> for limits::Limits {
    fn from_ref(state: &ChatState) -> Self {
        state.limits.clone()
    }
}

/// Every route of the chat with its full path, CORS and caching included.
pub fn routes(state: ChatState) -> Router {
    let cors = from_fn_with_state(state.authentication.origins().clone(), cors);
    let routes = Router::new()
        .route(
            "/conversations",
            get(conversations::list_conversations).post(conversations::open_conversation),
        )
        .route(
            "/conversations/{id}",
            get(conversations::get_conversation)
                .patch(conversation_settings::set_conversation_settings)
                .put(conversation_settings::set_conversation_settings)
                .delete(conversation_settings::clear_conversation),
        )
        .route(
            "/conversations/{id}/read",
            post(reading::mark_conversation_read),
        )
        .route("/conversations/{id}/pins", get(pins::list_pins))
        .route(
            "/conversations/{id}/unread",
            post(conversation_settings::mark_conversation_unread),
        )
        .route(
            "/conversations/{id}/typing",
            post(presence::set_conversation_typing),
        )
        .route(
            "/messages",
            get(history::list_messages)
                .post(messages::send_message)
                .patch(reading::mark_messages_read)
                .put(reading::mark_messages_read),
        )
        .route("/messages/read", post(reading::mark_messages_read))
        .route("/messages/mark-read", post(reading::mark_messages_read))
        .route(
            "/messages/{id}",
            get(messages::get_message)
                .patch(message_changes::edit_message)
                .put(message_changes::edit_message)
                .delete(message_changes::delete_message),
        )
        .route(
            "/messages/{id}/history",
            get(message_changes::list_earlier_wordings),
        )
        .route(
            "/messages/{id}/pin",
            put(pins::pin_message).delete(pins::unpin_message),
        )
        .route("/messages/{id}/report", post(reports::report_message))
        .route(
            "/messages/{id}/reactions",
            get(reactions::list_reactions).post(reactions::react),
        )
        .route(
            "/messages/{id}/reactions/{reaction}",
            put(reactions::add_reaction).delete(reactions::remove_reaction),
        )
        .route(
            "/presence",
            get(presence::list_presence)
                .post(presence::set_presence)
                .put(presence::set_presence)
                .delete(presence::end_presence),
        )
        .route(
            "/presence/typing",
            post(presence::set_typing).put(presence::set_typing),
        )
        .route("/blocks", get(blocks::list_blocks).post(blocks::block))
        .route("/blocks/{user_id}", delete(blocks::unblock))
        .route(
            "/preferences",
            get(preferences::get_preferences)
                .put(preferences::set_preferences)
                .patch(preferences::set_preferences),
        )
        .route("/search", get(search::search))
        .route("/sync", get(sync::sync))
        .route("/unread-count", get(reading::count_unread))
        .route("/config", get(limits::show_config))
        .method_not_allowed_fallback(method_not_allowed)
        // Inside the layers: without CORS a page would be told of a network error.
        .fallback(async || ApiError::new(ErrorCode::NotFound))
        .layer(from_fn(idempotency::keyed))
        .layer(from_fn_with_state(state.clone(), admission::identify))
        .layer(from_fn(conditional))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(cors)
        .with_state(state);
    Router::new().nest(BASE_PATH, routes)
}

/// Names under which clients name the other person of a conversation, snake case first
/// (chat API 2.2). `user_id` is one where a conversation is opened and nowhere else.
const OTHER_PERSON: [&str; 3] = ["other_user_id", "participant_id", "recipient_id"];

/// Refuses a request in which somebody else is named as its caller. `current_user_id` always
/// names the caller, `others` do so here.
fn check_identity(caller: &Caller, fields: &Fields, others: &[&str]) -> Result<(), ApiError> {
    for name in [&["current_user_id"], others].concat() {
        caller.must_be(fields.uuid(name)?)?;
    }
    Ok(())
}

/// A column of a row that one of our own statements selected.
fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, ApiError> {
    row.try_get(index)
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// The first column of the only row, which such a statement always has.
fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<T, ApiError> {
    let row = rows
        .first()
        .ok_or_else(|| ApiError::internal("a statement returned no row"))?;
    column(row, 0)
}

/// A JSON object with more fields behind its own, without parsing it.
fn extended(row: &str, fields: &str) -> Result<String, ApiError> {
    let open = row
        .trim_end()
        .strip_suffix('}')
        .ok_or_else(|| ApiError::internal("a row is not an object"))?;
    Ok(format!("{open},{fields}}}"))
}

/// The answer to a deletion: what dashboards show, and what was deleted.
fn confirmation(message: &str, id: Uuid) -> Response {
    json_text(json!({ "message": message, "success": true, "id": id }).to_string())
}
