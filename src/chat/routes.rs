//! The routes of the chat. Each is registered once, with its method, path, handler, documentation
//! from [`super::reference`], and the class whose rate limit it uses.

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};

use super::classes::Class;
use super::reference;
use super::state::ChatState;
use super::{
    blocks, client_errors, contacts, conversation_settings, conversations, history, limits, me,
    media, message_changes, messages, pins, preferences, presence, reactions, reading, reports,
    search, sync,
};
use crate::http::conditional::conditional;
use crate::http::input::MAX_BODY_BYTES;
use crate::http::openapi::schema::Schema;
use crate::http::openapi::{ApiRouter, Described};
use crate::http::origin::cors;
use crate::requests::Routes;

/// The path under which the routes are served.
pub const BASE_PATH: &str = "/api/supabase/user-chat";

/// Returns every route of the chat with its full path, CORS and caching.
pub fn routes(state: ChatState) -> ApiRouter {
    let cors = from_fn_with_state(state.authentication().origins().clone(), cors);
    api()
        .into_router()
        .map(|routes| {
            routes
                // These layers also apply to unknown paths and methods: without CORS headers, a
                // page would see a network error.
                .layer(from_fn(conditional))
                .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
                .layer(cors)
                .with_state(state)
        })
        .under(BASE_PATH)
}

/// Describes the inputs and responses of the routes.
pub fn described() -> Described {
    api().into_router().under(BASE_PATH).into_parts().1
}

/// Returns the schemas of the rows in responses, by their names in the OpenAPI document.
pub fn row_schemas() -> Vec<(&'static str, Schema)> {
    reference::schemas()
}

/// Returns the groups of operations, with their descriptions.
pub fn tags() -> &'static [(&'static str, &'static str)] {
    &reference::TAGS
}

fn api() -> Routes<ChatState, Class> {
    Routes::default()
        .get(
            "/conversations",
            conversations::list_conversations,
            reference::list_conversations(),
            Class::Read,
        )
        .post(
            "/conversations",
            conversations::open_conversation,
            reference::open_conversation(),
            Class::Open,
        )
        .get(
            "/conversations/{id}",
            conversations::get_conversation,
            reference::get_conversation(),
            Class::Read,
        )
        .patch(
            "/conversations/{id}",
            conversation_settings::set_conversation_settings,
            reference::set_conversation_settings(),
            Class::Write,
        )
        .put(
            "/conversations/{id}",
            conversation_settings::set_conversation_settings,
            reference::set_conversation_settings()
                .repeated("put_conversation_settings", "PATCH /conversations/{id}"),
            Class::Write,
        )
        .delete(
            "/conversations/{id}",
            conversation_settings::clear_conversation,
            reference::clear_conversation(),
            Class::Write,
        )
        .post(
            "/conversations/{id}/read",
            reading::mark_conversation_read,
            reference::mark_conversation_read(),
            Class::MarkRead,
        )
        .post(
            "/conversations/{id}/unread",
            conversation_settings::mark_conversation_unread,
            reference::mark_conversation_unread(),
            Class::Write,
        )
        .post(
            "/conversations/{id}/typing",
            presence::set_conversation_typing,
            reference::set_conversation_typing(),
            Class::Typing,
        )
        .get(
            "/conversations/{id}/pins",
            pins::list_pins,
            reference::list_pins(),
            Class::Read,
        )
        .post(
            "/conversations/{id}/delivered",
            reading::mark_delivered,
            reference::mark_delivered(),
            Class::MarkRead,
        )
        .get(
            "/conversations/{id}/members",
            contacts::list_members,
            reference::list_members(),
            Class::Read,
        )
        .get(
            "/conversations/{id}/media",
            media::list_media,
            reference::list_media(),
            Class::Read,
        )
        .get("/me", me::get_me, reference::get_me(), Class::Read)
        .get(
            "/contacts",
            contacts::list_contacts,
            reference::list_contacts(),
            Class::Read,
        )
        .get(
            "/messages",
            history::list_messages,
            reference::list_messages(),
            Class::Read,
        )
        .post(
            "/messages",
            messages::send_message,
            reference::send_message(),
            Class::Send,
        )
        .patch(
            "/messages",
            reading::mark_messages_read,
            reference::mark_messages_read(),
            Class::MarkRead,
        )
        .put(
            "/messages",
            reading::mark_messages_read,
            reference::mark_messages_read().repeated("put_messages_read", "PATCH /messages"),
            Class::MarkRead,
        )
        .post(
            "/messages/read",
            reading::mark_messages_read,
            reference::mark_messages_read().repeated("post_messages_read", "PATCH /messages"),
            Class::MarkRead,
        )
        .post(
            "/messages/mark-read",
            reading::mark_messages_read,
            reference::mark_messages_read().repeated("post_messages_mark_read", "PATCH /messages"),
            Class::MarkRead,
        )
        .get(
            "/messages/{id}",
            messages::get_message,
            reference::get_message(),
            Class::Read,
        )
        .patch(
            "/messages/{id}",
            message_changes::edit_message,
            reference::edit_message(),
            Class::Write,
        )
        .put(
            "/messages/{id}",
            message_changes::edit_message,
            reference::edit_message().repeated("put_message", "PATCH /messages/{id}"),
            Class::Write,
        )
        .delete(
            "/messages/{id}",
            message_changes::delete_message,
            reference::delete_message(),
            Class::Write,
        )
        .get(
            "/messages/{id}/history",
            message_changes::list_earlier_wordings,
            reference::list_earlier_wordings(),
            Class::Read,
        )
        .put(
            "/messages/{id}/pin",
            pins::pin_message,
            reference::pin_message(),
            Class::Write,
        )
        .delete(
            "/messages/{id}/pin",
            pins::unpin_message,
            reference::unpin_message(),
            Class::Write,
        )
        .post(
            "/messages/{id}/report",
            reports::report_message,
            reference::report_message(),
            Class::Write,
        )
        .get(
            "/messages/{id}/reactions",
            reactions::list_reactions,
            reference::list_reactions(),
            Class::Read,
        )
        .post(
            "/messages/{id}/reactions",
            reactions::react,
            reference::react(),
            Class::Write,
        )
        .put(
            "/messages/{id}/reactions/{reaction}",
            reactions::add_reaction,
            reference::add_reaction(),
            Class::Write,
        )
        .delete(
            "/messages/{id}/reactions/{reaction}",
            reactions::remove_reaction,
            reference::remove_reaction(),
            Class::Write,
        )
        .get(
            "/presence",
            presence::list_presence,
            reference::list_presence(),
            Class::Read,
        )
        .post(
            "/presence",
            presence::set_presence,
            reference::set_presence(),
            Class::Write,
        )
        .put(
            "/presence",
            presence::set_presence,
            reference::set_presence().repeated("put_presence", "POST /presence"),
            Class::Write,
        )
        .delete(
            "/presence",
            presence::end_presence,
            reference::end_presence(),
            Class::Write,
        )
        .post(
            "/presence/typing",
            presence::set_typing,
            reference::set_typing(),
            Class::Typing,
        )
        .put(
            "/presence/typing",
            presence::set_typing,
            reference::set_typing().repeated("put_typing", "POST /presence/typing"),
            Class::Typing,
        )
        .get(
            "/blocks",
            blocks::list_blocks,
            reference::list_blocks(),
            Class::Read,
        )
        .post("/blocks", blocks::block, reference::block(), Class::Write)
        .delete(
            "/blocks/{user_id}",
            blocks::unblock,
            reference::unblock(),
            Class::Write,
        )
        .get(
            "/preferences",
            preferences::get_preferences,
            reference::get_preferences(),
            Class::Read,
        )
        .patch(
            "/preferences",
            preferences::set_preferences,
            reference::set_preferences(),
            Class::Write,
        )
        .put(
            "/preferences",
            preferences::set_preferences,
            reference::set_preferences().repeated("put_preferences", "PATCH /preferences"),
            Class::Write,
        )
        .get(
            "/search",
            search::search,
            reference::search(),
            Class::Search,
        )
        .get("/sync", sync::sync, reference::sync(), Class::Read)
        .get(
            "/unread-count",
            reading::count_unread,
            reference::count_unread(),
            Class::Read,
        )
        .get_unlimited("/config", limits::show_config, reference::show_config())
        .post(
            "/client-errors",
            client_errors::report_client_error,
            reference::report_client_error(),
            Class::ClientErrors,
        )
}
