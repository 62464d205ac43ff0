//! The caller's private settings for a conversation: archived, pinned, muted, notification level,
//! marked as unread, draft, cleared.

use axum::response::Response;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::classes::Writer;
use super::conversations;
use crate::db::Query;
use crate::http::ApiError;
use crate::http::input::{Fields, PathId};
use crate::http::pagination::json_text;
use crate::requests::{check_identity, confirmation, only};

const SET: &str = "select chat.set_conversation_settings($1::uuid, $2::jsonb)";

const MARK_UNREAD: &str = "select chat.mark_unread($1::uuid, $2::uuid)";

const CLEAR: &str = "select chat.clear_conversation($1::uuid)";

/// Boolean settings.
const FLAGS: [&str; 4] = ["is_archived", "is_pinned", "is_muted", "marked_unread"];

/// `PATCH /conversations/{id}`: sets only the settings in the body.
pub(super) async fn set_conversation_settings(
    writer: Writer,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let settings = settings_from(&fields)?;
    let set = Query {
        sql: SET,
        parameters: &[&id, &settings],
    };
    change_settings(&writer, id, set).await
}

/// Reads the settings in the body. `muted_until` and `draft` may be null, which clears them.
fn settings_from(fields: &Fields) -> Result<Value, ApiError> {
    let mut settings = Map::new();
    for name in FLAGS {
        if let Some(flag) = fields.flag(name)? {
            settings.insert(name.to_owned(), flag.into());
        }
    }
    if let Some(level) = fields.text("notification_level")? {
        settings.insert("notification_level".to_owned(), level.into());
    }
    if let Some(draft) = fields.text("draft")? {
        settings.insert("draft".to_owned(), draft.into());
    }
    if let Some(until) = fields.moment("muted_until")? {
        settings.insert("muted_until".to_owned(), until.to_string().into());
    }
    for name in ["draft", "muted_until"] {
        if fields.is_null(name) {
            settings.insert(name.to_owned(), Value::Null);
        }
    }
    Ok(Value::Object(settings))
}

/// `POST /conversations/{id}/unread`: marks the whole conversation as unread, or all messages from
/// the given one on.
pub(super) async fn mark_conversation_unread(
    writer: Writer,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let from = fields.uuid("message_id")?;
    let mark = Query {
        sql: MARK_UNREAD,
        parameters: &[&id, &from],
    };
    change_settings(&writer, id, mark).await
}

/// `DELETE /conversations/{id}`: clears the conversation and removes it from the list, only for the
/// caller.
pub(super) async fn clear_conversation(
    writer: Writer,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let clear = Query {
        sql: CLEAR,
        parameters: &[&id],
    };
    writer.change(&[clear]).await?;
    Ok(confirmation("Conversation deleted successfully", id))
}

/// Makes a change and returns the conversation as it is afterwards.
async fn change_settings(
    writer: &Writer,
    id: Uuid,
    change: Query<'_>,
) -> Result<Response, ApiError> {
    let get = Query {
        sql: conversations::GET,
        parameters: &[&id],
    };
    let rows = writer.change_then_read(&[change], get).await?;
    Ok(json_text(only(&rows)?))
}
