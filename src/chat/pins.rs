//! Messages pinned for all members of their conversation.

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use super::classes::Writer;
use crate::db::{Db, Query};
use crate::http::input::{Parameters, PathId};
use crate::http::pagination::{self, Page};
use crate::http::{ApiError, Caller};
use crate::requests::column;

/// Default number of rows per page.
pub(super) const DEFAULT_LIMIT: i32 = 50;
/// Maximum number of rows per page.
pub(super) const MAX_LIMIT: i32 = 100;

const PIN: &str = "select chat.pin_message($1::uuid, $2::boolean)";

const LIST: &str = "\
    select r.row::text, r.pinned_at, r.message_id, r.rev \
    from chat.pin_page($1::uuid, $2::int, $3::timestamptz, $4::uuid) r";

/// The pin after which a page begins.
#[derive(Serialize, Deserialize)]
struct Position {
    /// Microseconds since the epoch, the precision of PostgreSQL.
    pinned_at_us: i64,
    message_id: Uuid,
}

/// `PUT /messages/{id}/pin`: pins a message.
pub(super) async fn pin_message(
    writer: Writer,
    PathId(id): PathId,
) -> Result<StatusCode, ApiError> {
    set_pinned(&writer, id, true).await
}

/// `DELETE /messages/{id}/pin`: unpins a message. Succeeds even if it is not pinned.
pub(super) async fn unpin_message(
    writer: Writer,
    PathId(id): PathId,
) -> Result<StatusCode, ApiError> {
    set_pinned(&writer, id, false).await
}

async fn set_pinned(writer: &Writer, id: Uuid, is_pinned: bool) -> Result<StatusCode, ApiError> {
    let pin = Query {
        sql: PIN,
        parameters: &[&id, &is_pinned],
    };
    writer.change(&[pin]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /conversations/{id}/pins`: returns pinned messages, latest pin first.
pub(super) async fn list_pins(
    caller: Caller,
    State(db): State<Db>,
    PathId(conversation): PathId,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
    let from: Option<Position> = pagination::position_in(conversation, &parameters)?;
    let message_id = from.as_ref().map(|from| from.message_id);
    let pinned_at = from
        .map(|from| Timestamp::from_microsecond(from.pinned_at_us))
        .transpose()
        .map_err(|_| pagination::foreign_cursor())?;
    let rows = db
        .query_as(
            &caller.claims,
            LIST,
            &[&conversation, &limit.fetched(), &pinned_at, &message_id],
        )
        .await?;
    let read = |row: &Row| Ok((column(row, 0)?, Some(column(row, 3)?)));
    let page = Page::forwards(&rows, limit, read, |last| {
        let pinned_at: Timestamp = column(last, 1)?;
        let position = Position {
            pinned_at_us: pinned_at.as_microsecond(),
            message_id: column(last, 2)?,
        };
        pagination::cursor_in(conversation, &position)
    })?;
    Ok(page.respond(&uri, &parameters))
}
