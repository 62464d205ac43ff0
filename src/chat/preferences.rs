//! How somebody wants to be told of things, and what they show of themselves.

use axum::extract::State;
use axum::response::Response;

use super::idempotency::Writer;
use super::{check_identity, only};
use crate::db::{Db, Query};
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
pub(super) async fn set_preferences(writer: Writer, fields: Fields) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let preferences = fields.into_snake_case()?;
    let set = Query {
        sql: SET,
        parameters: &[&preferences],
    };
    let get = Query {
        sql: GET,
        parameters: &[],
    };
    let rows = writer.change_or_show(set, get).await?;
    Ok(json_text(only(&rows)?))
}
