//! Listing, reading and opening conversations.

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use super::classes::{Class, Writer};
use crate::db::{Db, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{Fields, Parameters, PathId};
use crate::http::pagination::{self, Page, json_text};
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, column, extended, only};

/// Field names for the other user of a conversation, the preferred one first. Opening a
/// conversation and blocking a user also accept `user_id`.
pub(super) const OTHER_PERSON: [&str; 3] = ["other_user_id", "participant_id", "recipient_id"];

/// Header with the number of unread messages in all conversations that are neither muted nor
/// archived.
const TOTAL_UNREAD: HeaderName = HeaderName::from_static("x-total-unread");

/// Default number of rows per page.
pub(super) const DEFAULT_LIMIT: i32 = 30;
/// Maximum number of rows per page.
pub(super) const MAX_LIMIT: i32 = 100;

const LIST: &str = "\
    select r.row::text, r.rev, r.is_pinned, r.last_activity_at, r.conversation_id \
    from chat.conversation_page( \
        $1::boolean, $2::boolean, $3::boolean, $4::text, $5::timestamptz, \
        $6::int, $7::int, $8::boolean, $9::timestamptz, $10::uuid, $11::boolean) r";

const COUNT_UNREAD: &str = "select c.total from chat.unread_counts() c";

/// Selects a conversation, if the caller is a member of it.
pub(super) const GET: &str = "select r.row::text from chat.conversation_rows(array[$1::uuid]) r";

const OPEN: &str = "\
    select set_config('rapport.outcome', json_build_object('created', o.created)::text, true) \
    from chat.open_conversation($1::uuid) o";

/// Refuses the request unless the conversation with this person exists.
pub(super) const REFUSE_OPENING: &str = "\
    select chat.refuse('rate_limited') \
    where not exists ( \
        select \
        from public.user_conversations c \
        where c.kind = 'direct' \
            and c.participant_1_id = least(auth.uid(), $1::uuid) \
            and c.participant_2_id = greatest(auth.uid(), $1::uuid))";

/// Selects the conversation with a person. It is separate from [`OPEN`], because only later
/// statements see what [`OPEN`] wrote.
const GET_WITH: &str = "\
    select r.row::text, r.conversation_id, coalesce((chat.outcome() ->> 'created')::boolean, false) \
    from chat.conversation_rows(array( \
        select c.id \
        from public.user_conversations c \
        where c.kind = 'direct' \
            and c.participant_1_id = least($1::uuid, $2::uuid) \
            and c.participant_2_id = greatest($1::uuid, $2::uuid) \
    )) r";

/// The start of a page of the list: the sort key of the adjacent row.
#[derive(Serialize, Deserialize)]
struct Position {
    /// Whether the page ends before that row instead of beginning after it.
    is_backwards: bool,
    is_pinned: bool,
    /// Microseconds since the epoch, the precision of PostgreSQL.
    last_activity_us: i64,
    id: Uuid,
}

/// `GET /conversations`: returns pinned conversations first, then the others by latest activity.
pub(super) async fn list_conversations(
    caller: Caller,
    State(db): State<Db>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let archived = match parameters.text("archived") {
        Some("all") => None,
        _ => Some(parameters.flag("archived")?.unwrap_or(false)),
    };
    let pinned = parameters.flag("pinned")?;
    let unread = parameters.flag("unread")?;
    let search = parameters.text("search");
    let updated_since = parameters.moment("updated_since")?;
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
    let from: Option<Position> = parameters
        .text("cursor")
        .map(pagination::position)
        .transpose()?;
    let offset = if from.is_some() {
        0
    } else {
        pagination::offset(&parameters)?
    };
    let is_continued = from.is_some();
    let is_backwards = from.as_ref().is_some_and(|from| from.is_backwards);
    let is_pinned = from.as_ref().map(|from| from.is_pinned);
    let id = from.as_ref().map(|from| from.id);
    let activity = from
        .map(|from| Timestamp::from_microsecond(from.last_activity_us))
        .transpose()
        .map_err(|_| pagination::foreign_cursor())?;

    let queries = [
        Query {
            sql: LIST,
            parameters: &[
                &archived,
                &pinned,
                &unread,
                &search,
                &updated_since,
                &limit.fetched(),
                &offset,
                &is_pinned,
                &activity,
                &id,
                &is_backwards,
            ],
        },
        Query {
            sql: COUNT_UNREAD,
            parameters: &[],
        },
    ];
    let results = db.run_as(&caller.claims, &queries).await?;
    let (rows, counts) = (&results[0], &results[1]);

    let kept = limit.cut(rows, is_backwards);
    let mut page = Page::of(kept.rows, |row| {
        Ok((column(row, 0)?, Some(column(row, 1)?)))
    })?;
    page.next_cursor = kept
        .next_from()
        .map(|row| cursor_at(row, is_backwards))
        .transpose()?;
    page.prev_cursor = kept
        .previous_from()
        .filter(|_| is_continued)
        .map(|row| cursor_at(row, !is_backwards))
        .transpose()?;
    let mut response = page.respond(&uri, &parameters);
    let total: i32 = only(counts)?;
    response
        .headers_mut()
        .insert(TOTAL_UNREAD, HeaderValue::from(total));
    Ok(response)
}

/// Returns the cursor for the page after a row of [`LIST`], or for the page before the row.
fn cursor_at(row: &Row, is_backwards: bool) -> Result<String, ApiError> {
    let last_activity_at: Timestamp = column(row, 3)?;
    pagination::cursor(&Position {
        is_backwards,
        is_pinned: column(row, 2)?,
        last_activity_us: last_activity_at.as_microsecond(),
        id: column(row, 4)?,
    })
}

/// `GET /conversations/{id}`: returns one conversation.
pub(super) async fn get_conversation(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let rows = db.query_as(&caller.claims, GET, &[&id]).await?;
    let row = rows
        .first()
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    Ok(json_text(column(row, 0)?))
}

/// `POST /conversations`: returns the conversation with a person. Opens it if there is none.
pub(super) async fn open_conversation(
    writer: Writer,
    parameters: Parameters,
    fields: Fields,
) -> Result<Response, ApiError> {
    let caller = &writer.caller;
    check_identity(caller, &fields, &[])?;
    let other = other_person(caller, &fields)?;
    if other == caller.user_id {
        return Err(ApiError::invalid(
            "You cannot open a conversation with yourself",
        ));
    }
    let prevent_creation = match parameters.flag("prevent_creation")? {
        Some(prevent) => prevent,
        None => fields.flag("prevent_creation")?.unwrap_or(false),
    };
    let get = Query {
        sql: GET_WITH,
        parameters: &[&caller.user_id, &other],
    };
    let found = if prevent_creation {
        writer.read(get).await?
    } else {
        let open = Query {
            sql: OPEN,
            parameters: &[&other],
        };
        let refuse_new = Query {
            sql: REFUSE_OPENING,
            parameters: &[&other],
        };
        writer
            .find_or_change(&[(Class::Open, refuse_new)], &[open], get)
            .await?
    };
    let row = found
        .first()
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    let id: Uuid = column(row, 1)?;
    let created: bool = column(row, 2)?;
    let fields = format!(r#""conversation_id":"{id}","created":{created}"#);
    let mut response = json_text(extended(column(row, 0)?, &fields)?);
    if created {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Returns the person that the caller wants to talk to. The request names only this person, or both
/// participants.
fn other_person(caller: &Caller, fields: &Fields) -> Result<Uuid, ApiError> {
    if let (Some(first), Some(second)) = (fields.uuid("user1_id")?, fields.uuid("user2_id")?) {
        if first == caller.user_id {
            return Ok(second);
        }
        caller.must_be(Some(second))?;
        return Ok(first);
    }
    let named = match fields.uuid_of(&OTHER_PERSON)? {
        Some(named) => Some(named),
        None => fields.uuid("user_id")?,
    };
    named.ok_or_else(|| ApiError::invalid("other_user_id is missing"))
}
