//! The REST routes of the chat, under [`BASE_PATH`].
//!
//! A handler checks the shape of its input and calls the database as its caller. The database
//! decides what the caller may do. PostgreSQL builds rows as JSON, and handlers return them without
//! parsing them. Changed rows and events on chat topics reach sockets through the WAL, never from a
//! handler. The exception is typing, which is not stored.

mod admission;
mod attendance;
mod blocks;
mod client_errors;
mod composing;
mod concurrency;
mod contacts;
mod conversation_settings;
mod conversations;
mod delivery;
mod events;
mod history;
mod idempotency;
mod limits;
mod me;
mod media;
mod message_changes;
mod messages;
mod pins;
mod preferences;
mod presence;
mod rate_limits;
mod reactions;
mod reading;
mod reference;
mod reports;
mod rights;
mod search;
mod sync;
mod topics;
mod typing;
mod unread;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use self::attendance::Attendance;
use self::composing::Composing;
use self::events::Events;
use self::rights::Rights;
use self::rights::standing::Standings;
pub use self::topics::is_chat_topic;
use self::typing::Typing;
use self::unread::Unread;
use crate::bus::Bus;
use crate::bus::people::Delivered;
use crate::config::{ChatConfig, ChatLimitsConfig};
use crate::db::Db;
use crate::error_code::ErrorCode;
use crate::http::conditional::conditional;
use crate::http::input::{Fields, MAX_BODY_BYTES};
use crate::http::middleware::method_not_allowed;
use crate::http::openapi::schema::Schema;
use crate::http::openapi::{ApiRouter, Described};
use crate::http::origin::cors;
use crate::http::pagination::{Page, json_text};
use crate::http::strangers::Strangers;
use crate::http::{ApiError, Authentication, Caller};
use crate::observability::metrics::{ChatMetrics, PresenceMetrics};
use crate::shutdown::Tasks;

/// The path under which the routes are served.
pub const BASE_PATH: &str = "/api/supabase/user-chat";

/// The state that the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ChatState {
    authentication: Authentication,
    db: Db,
    bus: Bus,
    typing: Typing,
    limits: limits::Limits,
    signals: sync::Signals,
    searches: search::Searches,
    rate_limits: Arc<rate_limits::RateLimits>,
    strangers: Strangers,
    metrics: ChatMetrics,
}

impl ChatState {
    /// Creates the state. Its background tasks and waiting requests end with `tasks`.
    pub fn new(
        authentication: Authentication,
        db: Db,
        bus: Bus,
        limits: ChatLimitsConfig,
        metrics: ChatMetrics,
        tasks: &Tasks,
    ) -> Self {
        Self {
            authentication,
            signals: sync::Signals::start(&bus, metrics.clone(), tasks),
            searches: search::Searches::new(metrics.clone()),
            typing: Typing::new(bus.broadcasts().clone()),
            bus,
            limits: limits::Limits::new(db.clone()),
            rate_limits: Arc::new(rate_limits::RateLimits::new(limits)),
            strangers: Strangers::default(),
            metrics,
            db,
        }
    }

    /// Limits the requests of clients that are not signed in.
    #[must_use]
    pub fn limiting(mut self, strangers: Strangers) -> Self {
        self.strangers = strangers;
        self
    }

    /// Starts the background tasks: events on chat topics, rechecks of their permissions, delivered
    /// positions, and presence by sockets. They end with `tasks`.
    pub fn start(&self, config: &ChatConfig, metrics: PresenceMetrics, tasks: &Tasks) {
        let broadcasts = self.bus.broadcasts();
        let unread = Unread::new(broadcasts.clone());
        let rights = Rights::new(self.bus.rechecks().clone());
        let typing = self.typing.clone();
        let composing = Composing::new(broadcasts.clone());
        let events = Events::new(
            broadcasts.clone(),
            typing,
            unread.clone(),
            rights.clone(),
            composing.clone(),
        );
        tasks.spawn("chat events", events.run(self.bus.clone(), tasks.clone()));
        tasks.spawn("chat rights", rights.run(self.db.clone(), tasks.clone()));
        let standings = Standings::new(&self.bus, composing.clone(), self.metrics.clone());
        let comparing = standings.run(self.db.clone(), tasks.clone());
        tasks.spawn("chat standings", comparing);
        let telling = composing.run(self.db.clone(), tasks.clone());
        tasks.spawn("chat composing", telling);
        tasks.spawn("unread totals", unread.run(self.db.clone(), tasks.clone()));
        tasks.spawn("typing", self.typing.clone().run(tasks.clone()));
        let delivered = self.bus.delivered().clone();
        let writing = delivery::run(delivered, self.db.clone(), tasks.clone());
        tasks.spawn("deliveries", writing);
        let people = self.bus.people().clone();
        let attendance = Attendance::new(self.db.clone(), people, config, metrics);
        tasks.spawn("attendance", attendance.run(tasks.clone()));
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

impl FromRef<ChatState> for Delivered {
    fn from_ref(state: &ChatState) -> Self {
        state.bus.delivered().clone()
    }
}

impl FromRef<ChatState> for Typing {
    fn from_ref(state: &ChatState) -> Self {
        state.typing.clone()
    }
}

impl FromRef<ChatState> for search::Searches {
    fn from_ref(state: &ChatState) -> Self {
        state.searches.clone()
    }
}

impl FromRef<ChatState> for sync::Signals {
    fn from_ref(state: &ChatState) -> Self {
        state.signals.clone()
    }
}

impl FromRef<ChatState> for ChatMetrics {
    fn from_ref(state: &ChatState) -> Self {
        state.metrics.clone()
    }
}

impl FromRef<ChatState> for limits::Limits {
    fn from_ref(state: &ChatState) -> Self {
        state.limits.clone()
    }
}

/// Every route of the chat with its full path, including CORS and caching.
pub fn routes(state: ChatState) -> ApiRouter {
    let cors = from_fn_with_state(state.authentication.origins().clone(), cors);
    api()
        .map(|routes| {
            routes
                .method_not_allowed_fallback(method_not_allowed)
                // Inside the layers: without CORS headers, a page would see a network error.
                .fallback(async || ApiError::new(ErrorCode::NotFound))
                .layer(from_fn(idempotency::read_key))
                .layer(from_fn_with_state(state.clone(), admission::admit))
                .layer(from_fn(conditional))
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
                .layer(cors)
                .with_state(state)
        })
        .under(BASE_PATH)
}

/// Describes the inputs and responses of the routes.
pub fn described() -> Described {
    api().under(BASE_PATH).into_parts().1
}

/// The schemas of the rows in responses, by their names in the OpenAPI document.
pub fn row_schemas() -> Vec<(&'static str, Schema)> {
    reference::schemas()
}

/// The groups of operations, with their descriptions.
pub fn tags() -> &'static [(&'static str, &'static str)] {
    &reference::TAGS
}

/// The routes, each with its description from [`mod@reference`].
fn api() -> ApiRouter<ChatState> {
    use reference as says;

    ApiRouter::new()
        .get(
            "/conversations",
            conversations::list_conversations,
            says::list_conversations(),
        )
        .post(
            "/conversations",
            conversations::open_conversation,
            says::open_conversation(),
        )
        .get(
            "/conversations/{id}",
            conversations::get_conversation,
            says::get_conversation(),
        )
        .patch(
            "/conversations/{id}",
            conversation_settings::set_conversation_settings,
            says::set_conversation_settings(),
        )
        .put(
            "/conversations/{id}",
            conversation_settings::set_conversation_settings,
            says::set_conversation_settings()
                .repeated("put_conversation_settings", "PATCH /conversations/{id}"),
        )
        .delete(
            "/conversations/{id}",
            conversation_settings::clear_conversation,
            says::clear_conversation(),
        )
        .post(
            "/conversations/{id}/read",
            reading::mark_conversation_read,
            says::mark_conversation_read(),
        )
        .post(
            "/conversations/{id}/unread",
            conversation_settings::mark_conversation_unread,
            says::mark_conversation_unread(),
        )
        .post(
            "/conversations/{id}/typing",
            presence::set_conversation_typing,
            says::set_conversation_typing(),
        )
        .get(
            "/conversations/{id}/pins",
            pins::list_pins,
            says::list_pins(),
        )
        .post(
            "/conversations/{id}/delivered",
            reading::mark_delivered,
            says::mark_delivered(),
        )
        .get(
            "/conversations/{id}/members",
            contacts::list_members,
            says::list_members(),
        )
        .get(
            "/conversations/{id}/media",
            media::list_media,
            says::list_media(),
        )
        .get("/me", me::get_me, says::get_me())
        .get("/contacts", contacts::list_contacts, says::list_contacts())
        .get("/messages", history::list_messages, says::list_messages())
        .post("/messages", messages::send_message, says::send_message())
        .patch(
            "/messages",
            reading::mark_messages_read,
            says::mark_messages_read(),
        )
        .put(
            "/messages",
            reading::mark_messages_read,
            says::mark_messages_read().repeated("put_messages_read", "PATCH /messages"),
        )
        .post(
            "/messages/read",
            reading::mark_messages_read,
            says::mark_messages_read().repeated("post_messages_read", "PATCH /messages"),
        )
        .post(
            "/messages/mark-read",
            reading::mark_messages_read,
            says::mark_messages_read().repeated("post_messages_mark_read", "PATCH /messages"),
        )
        .get("/messages/{id}", messages::get_message, says::get_message())
        .patch(
            "/messages/{id}",
            message_changes::edit_message,
            says::edit_message(),
        )
        .put(
            "/messages/{id}",
            message_changes::edit_message,
            says::edit_message().repeated("put_message", "PATCH /messages/{id}"),
        )
        .delete(
            "/messages/{id}",
            message_changes::delete_message,
            says::delete_message(),
        )
        .get(
            "/messages/{id}/history",
            message_changes::list_earlier_wordings,
            says::list_earlier_wordings(),
        )
        .put("/messages/{id}/pin", pins::pin_message, says::pin_message())
        .delete(
            "/messages/{id}/pin",
            pins::unpin_message,
            says::unpin_message(),
        )
        .post(
            "/messages/{id}/report",
            reports::report_message,
            says::report_message(),
        )
        .get(
            "/messages/{id}/reactions",
            reactions::list_reactions,
            says::list_reactions(),
        )
        .post("/messages/{id}/reactions", reactions::react, says::react())
        .put(
            "/messages/{id}/reactions/{reaction}",
            reactions::add_reaction,
            says::add_reaction(),
        )
        .delete(
            "/messages/{id}/reactions/{reaction}",
            reactions::remove_reaction,
            says::remove_reaction(),
        )
        .get("/presence", presence::list_presence, says::list_presence())
        .post("/presence", presence::set_presence, says::set_presence())
        .put(
            "/presence",
            presence::set_presence,
            says::set_presence().repeated("put_presence", "POST /presence"),
        )
        .delete("/presence", presence::end_presence, says::end_presence())
        .post("/presence/typing", presence::set_typing, says::set_typing())
        .put(
            "/presence/typing",
            presence::set_typing,
            says::set_typing().repeated("put_typing", "POST /presence/typing"),
        )
        .get("/blocks", blocks::list_blocks, says::list_blocks())
        .post("/blocks", blocks::block, says::block())
        .delete("/blocks/{user_id}", blocks::unblock, says::unblock())
        .get(
            "/preferences",
            preferences::get_preferences,
            says::get_preferences(),
        )
        .patch(
            "/preferences",
            preferences::set_preferences,
            says::set_preferences(),
        )
        .put(
            "/preferences",
            preferences::set_preferences,
            says::set_preferences().repeated("put_preferences", "PATCH /preferences"),
        )
        .get("/search", search::search, says::search())
        .get("/sync", sync::sync, says::sync())
        .get("/unread-count", reading::count_unread, says::count_unread())
        .get("/config", limits::show_config, says::show_config())
        .post(
            "/client-errors",
            client_errors::report_client_error,
            says::report_client_error(),
        )
}

/// Field names for the other user of a conversation, snake case first (chat API 2.2). `user_id` is
/// accepted only by the route that opens a conversation.
const OTHER_PERSON: [&str; 3] = ["other_user_id", "participant_id", "recipient_id"];

/// Refuses a request that names another user as its caller. `current_user_id` always names the
/// caller; on this route, the fields in `others` do too.
fn check_identity(caller: &Caller, fields: &Fields, others: &[&str]) -> Result<(), ApiError> {
    for name in [&["current_user_id"], others].concat() {
        caller.must_be(fields.uuid(name)?)?;
    }
    Ok(())
}

/// A column of a row that one of Rapport's own statements selected.
fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, ApiError> {
    row.try_get(index)
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// The first column of the only row. Such a statement always returns one row.
fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<T, ApiError> {
    let row = rows
        .first()
        .ok_or_else(|| ApiError::internal("a statement returned no row"))?;
    column(row, 0)
}

/// A list of rows that a statement selected as JSON in its first column.
fn whole_list(rows: &[Row]) -> Result<Page, ApiError> {
    let rows = rows.iter().map(|row| column(row, 0));
    Ok(Page {
        rows: rows.collect::<Result<_, _>>()?,
        ..Page::default()
    })
}

/// A JSON object with more fields appended, without parsing it.
fn extended(row: &str, fields: &str) -> Result<String, ApiError> {
    let open = row
        .trim_end()
        .strip_suffix('}')
        .ok_or_else(|| ApiError::internal("a row is not an object"))?;
    Ok(format!("{open},{fields}}}"))
}

/// The response to a deletion: a message, which dashboards show, and the id of the deleted row.
fn confirmation(message: &str, id: Uuid) -> Response {
    json_text(json!({ "message": message, "success": true, "id": id }).to_string())
}
