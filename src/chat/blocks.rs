//! Whom somebody wants nothing to do with. Nobody is told that they are blocked.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{OTHER_PERSON, check_identity, confirmation, only};
use crate::db::{Db, Query};
use crate::http::input::{Fields, PathId};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};

const LIST: &str = "select chat.blocked_people()::text";

const BLOCK: &str = "select b.created from chat.block($1::uuid) b";

const GET: &str = "select (chat.blocked_people($1::uuid) -> 0)::text";

const UNBLOCK: &str = "select chat.unblock($1::uuid)";

/// `GET /blocks`.
pub(super) async fn list_blocks(
    caller: Caller,
    State(db): State<Db>,
) -> Result<Response, ApiError> {
    Ok(json_text(only(
        &db.query_as(&caller.claims, LIST, &[]).await?,
    )?))
}

/// `POST /blocks`: 201, or 200 for somebody who is blocked already.
pub(super) async fn block(
    caller: Caller,
    State(db): State<Db>,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&caller, &fields, &[])?;
    let other = match fields.uuid("user_id")? {
        Some(other) => Some(other),
        None => fields.uuid_of(&OTHER_PERSON)?,
    };
    let Some(other) = other else {
        return Err(ApiError::invalid("user_id is missing"));
    };
    let queries = [
        Query {
            sql: BLOCK,
            parameters: &[&other],
        },
        Query {
            sql: GET,
            parameters: &[&other],
        },
    ];
    let results = db.run_as(&caller.claims, &queries).await?;
    let created: bool = only(&results[0])?;
    let mut response = json_text(only(&results[1])?);
    if created {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// `DELETE /blocks/{user_id}`, whether or not there is such a block.
pub(super) async fn unblock(
    caller: Caller,
    State(db): State<Db>,
    PathId(other): PathId,
) -> Result<Response, ApiError> {
    db.query_as(&caller.claims, UNBLOCK, &[&other]).await?;
    Ok(confirmation("Block deleted successfully", other))
}
