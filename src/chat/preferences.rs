//! How somebody wants to be told of things, and what they show of themselves.

use axum::extract::State;
use axum::response::Response;

use super::{check_identity, only};
use crate::db::Db;
use crate::http::input::Fields;
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};

const GET: &str = "select chat.preferences()::text";

const SET: &str = "select chat.set_preferences($1::jsonb)::text";

/// `GET /preferences`.
pub(super) async fn get_preferences(
    caller: Caller,
    State(db): State<Db>,
) -> Result<Response, ApiError> {
    Ok(json_text(only(
        &db.query_as(&caller.claims, GET, &[]).await?,
    )?))
}

/// `PUT /preferences`: sets what the body names, and nothing else.
pub(super) async fn set_preferences(
    caller: Caller,
    State(db): State<Db>,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&caller, &fields, &["user_id"])?;
    let preferences = fields.into_snake_case()?;
    let rows = db.query_as(&caller.claims, SET, &[&preferences]).await?;
    Ok(json_text(only(&rows)?))
}
