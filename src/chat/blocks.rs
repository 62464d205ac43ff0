//! The users that the caller has blocked. A blocked user is not notified of the block.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio_postgres::types::ToSql;

use super::classes::Writer;
use super::conversations::OTHER_PERSON;
use crate::db::{Db, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{Fields, Parameters, PathId};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, column, confirmation, whole_list};

const LIST: &str = "select p.row::text from json_array_elements(chat.blocked_people()) p (row)";

const BLOCK: &str = "\
    select set_config('rapport.outcome', json_build_object('created', b.created)::text, true) \
    from chat.block($1::uuid) b";

const GET: &str = "\
    select p.row::text, (chat.outcome() ->> 'created')::boolean \
    from json_array_elements(chat.blocked_people($1::uuid)) p (row)";

const UNBLOCK: &str = "select chat.unblock($1::uuid)";

/// `GET /blocks`: returns the users that the caller has blocked.
pub(super) async fn list_blocks(
    caller: Caller,
    State(db): State<Db>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let rows = db.query_as(&caller.claims, LIST, &[]).await?;
    Ok(whole_list(&rows)?.respond(&uri, &parameters))
}

/// `POST /blocks`: blocks a user. Returns 201, or 200 if the user is already blocked.
pub(super) async fn block(writer: Writer, fields: Fields) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &[])?;
    let other = match fields.uuid("user_id")? {
        Some(other) => Some(other),
        None => fields.uuid_of(&OTHER_PERSON)?,
    };
    let Some(other) = other else {
        return Err(ApiError::invalid("user_id is missing"));
    };
    let parameters: &[&(dyn ToSql + Sync)] = &[&other];
    let [block, get] = [BLOCK, GET].map(|sql| Query { sql, parameters });
    let rows = writer.change_then_read(&[block], get).await?;
    let row = rows
        .first()
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    let mut response = json_text(column(row, 0)?);
    if column(row, 1)? {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// `DELETE /blocks/{user_id}`: removes a block. Succeeds even if there is none.
pub(super) async fn unblock(writer: Writer, PathId(other): PathId) -> Result<Response, ApiError> {
    let unblock = Query {
        sql: UNBLOCK,
        parameters: &[&other],
    };
    writer.change(&[unblock]).await?;
    Ok(confirmation("Block deleted successfully", other))
}
