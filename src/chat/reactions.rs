//! Reactions to a message. Every response lists all current reactions.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use uuid::Uuid;

use super::classes::Writer;
use super::messages;
use crate::db::{Db, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{Fields, Parameters, PathId, PathIdAndText};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, column};

const LIST: &str =
    "select r.row::text from json_array_elements(chat.reactions_of($1::uuid)) r (row)";

/// Selects all reactions in one row, if the caller can still see the message.
const LIST_IF_VISIBLE: &str = "\
    select chat.reactions_of(m.id)::text from chat.my_message($1::uuid) m where m.id is not null";

const REACT: &str = "select chat.react($1::uuid, $2::text, $3::boolean)::text";

/// Adds a reaction. If `$3` is true, an existing reaction is removed instead.
const REACT_OR_REMOVE: &str = "\
    select chat.react($1::uuid, $2::text, not ($3::boolean and exists ( \
        select \
        from public.message_reactions r \
        where r.message_id = $1::uuid and r.user_id = auth.uid() and r.reaction = $2::text)))::text";

/// `GET /messages/{id}/reactions`: returns the reactions.
pub(super) async fn list_reactions(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let reactions = messages::about_message(&caller, &db, id, LIST).await?;
    Ok(reactions.respond(&uri, &parameters))
}

/// `POST /messages/{id}/reactions`: adds a reaction. With `toggle`, removes it if it exists.
pub(super) async fn react(
    writer: Writer,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let reaction = match fields.text("reaction")? {
        Some(reaction) => Some(reaction),
        None => fields.text("emoji")?,
    };
    let Some(reaction) = reaction else {
        return Err(ApiError::invalid("reaction is missing"));
    };
    let toggle = fields.flag("toggle")?.unwrap_or(false);
    let react = Query {
        sql: REACT_OR_REMOVE,
        parameters: &[&id, &reaction, &toggle],
    };
    change_reaction(&writer, id, react).await
}

/// `PUT /messages/{id}/reactions/{reaction}`: adds a reaction.
pub(super) async fn add_reaction(
    writer: Writer,
    PathIdAndText(id, reaction): PathIdAndText,
) -> Result<Response, ApiError> {
    set_reaction(&writer, id, &reaction, true).await
}

/// `DELETE /messages/{id}/reactions/{reaction}`: removes a reaction.
pub(super) async fn remove_reaction(
    writer: Writer,
    PathIdAndText(id, reaction): PathIdAndText,
) -> Result<Response, ApiError> {
    set_reaction(&writer, id, &reaction, false).await
}

async fn set_reaction(
    writer: &Writer,
    id: Uuid,
    reaction: &str,
    is_present: bool,
) -> Result<Response, ApiError> {
    let react = Query {
        sql: REACT,
        parameters: &[&id, &reaction, &is_present],
    };
    change_reaction(writer, id, react).await
}

async fn change_reaction(
    writer: &Writer,
    id: Uuid,
    react: Query<'_>,
) -> Result<Response, ApiError> {
    let list = Query {
        sql: LIST_IF_VISIBLE,
        parameters: &[&id],
    };
    let rows = writer.change_or_read(react, list).await?;
    let row = rows
        .first()
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    Ok(json_text(column(row, 0)?))
}
