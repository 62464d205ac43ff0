//! The members of a conversation, and the people that the caller can contact.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::db::Db;
use crate::http::input::{Parameters, PathId};
use crate::http::pagination::{self, Page};
use crate::http::{ApiError, Caller};
use crate::requests::column;

/// Default number of rows per page.
pub(super) const DEFAULT_LIMIT: i32 = 50;
/// Maximum number of rows per page.
pub(super) const MAX_LIMIT: i32 = 100;

const MEMBERS: &str = "\
    select r.row::text, r.member_id from chat.member_page($1::uuid, $2::int, $3::uuid) r";

/// A contact without messages has the time `-infinity`, which [`Timestamp`] cannot represent. The
/// query converts it to null, and null in a position back to `-infinity`.
const CONTACTS: &str = "\
    select r.row::text, nullif(r.message_at, '-infinity'), r.name, r.contact_id \
    from chat.contact_page( \
        $1::int, case when $4::uuid is not null then coalesce($2::timestamptz, '-infinity') end, $3::text, $4::uuid) r";

/// The contact after which a page begins.
#[derive(Serialize, Deserialize)]
struct Position {
    /// Microseconds since the epoch, the precision of PostgreSQL.
    message_at_us: Option<i64>,
    name: String,
    id: Uuid,
}

/// `GET /conversations/{id}/members`: returns the members, ordered by id.
pub(super) async fn list_members(
    caller: Caller,
    State(db): State<Db>,
    PathId(conversation): PathId,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
    let from: Option<Uuid> = pagination::position_in(conversation, &parameters)?;
    let rows = db
        .query_as(
            &caller.claims,
            MEMBERS,
            &[&conversation, &limit.fetched(), &from],
        )
        .await?;
    let read = |row: &Row| Ok((column(row, 0)?, None));
    let page = Page::forwards(&rows, limit, read, |last| {
        let id: Uuid = column(last, 1)?;
        pagination::cursor_in(conversation, &id)
    })?;
    Ok(page.respond(&uri, &parameters))
}

/// `GET /contacts`: returns the people that the caller has messages with, latest first, and then
/// other members of the caller's teams.
pub(super) async fn list_contacts(
    caller: Caller,
    State(db): State<Db>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
    let from: Option<Position> = parameters
        .text("cursor")
        .map(pagination::position)
        .transpose()?;
    let message_at = from
        .as_ref()
        .and_then(|from| from.message_at_us)
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(|_| pagination::foreign_cursor())?;
    let name = from.as_ref().map(|from| from.name.as_str());
    if name.is_some_and(|name| name.contains('\0')) {
        return Err(pagination::foreign_cursor());
    }
    let id = from.as_ref().map(|from| from.id);
    let rows = db
        .query_as(
            &caller.claims,
            CONTACTS,
            &[&limit.fetched(), &message_at, &name, &id],
        )
        .await?;
    let read = |row: &Row| Ok((column(row, 0)?, None));
    let page = Page::forwards(&rows, limit, read, |last| {
        let message_at: Option<Timestamp> = column(last, 1)?;
        pagination::cursor(&Position {
            message_at_us: message_at.map(Timestamp::as_microsecond),
            name: column(last, 2)?,
            id: column(last, 3)?,
        })
    })?;
    Ok(page.respond(&uri, &parameters))
}
