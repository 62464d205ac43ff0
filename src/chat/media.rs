//! The files of a conversation.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use tokio_postgres::Row;

use crate::db::Db;
use crate::http::input::{Parameters, PathId};
use crate::http::pagination::{self, Page};
use crate::http::{ApiError, Caller};
use crate::requests::column;

/// Default number of rows per page.
pub(super) const DEFAULT_LIMIT: i32 = 50;
/// Maximum number of rows per page.
pub(super) const MAX_LIMIT: i32 = 100;

const LIST: &str = "\
    select r.row::text, r.seq, r.rev from chat.file_page($1::uuid, $2::text, $3::int, $4::bigint) r";

/// `GET /conversations/{id}/media`: returns messages with a file, newest first.
pub(super) async fn list_media(
    caller: Caller,
    State(db): State<Db>,
    PathId(conversation): PathId,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let kind = parameters.text("type");
    if !matches!(kind, None | Some("image" | "file")) {
        return Err(ApiError::invalid("type must be image or file"));
    }
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
    let before: Option<i64> = pagination::position_in(conversation, &parameters)?;
    let rows = db
        .query_as(
            &caller.claims,
            LIST,
            &[&conversation, &kind, &limit.fetched(), &before],
        )
        .await?;
    let read = |row: &Row| Ok((column(row, 0)?, Some(column(row, 2)?)));
    let page = Page::forwards(&rows, limit, read, |last| {
        let seq: i64 = column(last, 1)?;
        pagination::cursor_in(conversation, &seq)
    })?;
    Ok(page.respond(&uri, &parameters))
}
