//! Reactions to a message. Every answer is the list of all that it has now.

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;

use super::{check_identity, messages, only};
use crate::db::Db;
use crate::http::input::{Fields, PathId, PathIdAndText};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};

const LIST: &str = "select chat.reactions_of($1::uuid)::text";

const REACT: &str = "select chat.react($1::uuid, $2::text, $3::boolean)::text";

/// With `$3`, what is there already is taken away.
const REACT_OR_TAKE_BACK: &str = "\
    select chat.react($1::uuid, $2::text, not ($3::boolean and exists ( \
        select \
        from public.message_reactions r \
        where r.message_id = $1::uuid and r.user_id = auth.uid() and r.reaction = $2::text)))::text";

/// `GET /messages/{id}/reactions`.
pub(super) async fn list_reactions(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    messages::about_message(&caller, &db, id, LIST).await
}

/// `POST /messages/{id}/reactions`: adds one; with `toggle` takes it back when it is there.
pub(super) async fn react(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&caller, &fields, &["user_id"])?;
    let reaction = match fields.text("reaction")? {
        Some(reaction) => Some(reaction),
        None => fields.text("emoji")?,
    };
    let Some(reaction) = reaction else {
        return Err(ApiError::invalid("reaction is missing"));
    };
    let toggle = fields.flag("toggle")?.unwrap_or(false);
    let rows = db
        .query_as(
            &caller.claims,
            REACT_OR_TAKE_BACK,
            &[&id, &reaction, &toggle],
        )
        .await?;
    Ok(json_text(only(&rows)?))
}

/// `PUT /messages/{id}/reactions/{reaction}`.
pub(super) async fn add_reaction(
    caller: Caller,
    State(db): State<Db>,
    PathIdAndText(id, reaction): PathIdAndText,
) -> Result<Response, ApiError> {
    set_reaction(&caller, &db, id, &reaction, true).await
}

/// `DELETE /messages/{id}/reactions/{reaction}`.
pub(super) async fn remove_reaction(
    caller: Caller,
    State(db): State<Db>,
    PathIdAndText(id, reaction): PathIdAndText,
) -> Result<Response, ApiError> {
    set_reaction(&caller, &db, id, &reaction, false).await
}

async fn set_reaction(
    caller: &Caller,
    db: &Db,
    id: Uuid,
    reaction: &str,
    is_present: bool,
) -> Result<Response, ApiError> {
    let rows = db
        .query_as(&caller.claims, REACT, &[&id, &reaction, &is_present])
        .await?;
    Ok(json_text(only(&rows)?))
}
