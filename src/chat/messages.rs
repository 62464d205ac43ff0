//! Messages: a conversation's history, one of them, and sending.

use axum::extract::{OriginalUri, Path, State};
use axum::http::header::ETAG;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{OTHER_PERSON, check_identity, check_identity_in_query, column, only};
use crate::db::{Db, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{Fields, Parameters, path_id};
use crate::http::pagination::{self, Page, json_text};
use crate::http::{ApiError, Caller};

/// Rows of a page that names no limit, and at most.
const DEFAULT_LIMIT: i32 = 50;
const MAX_LIMIT: i32 = 200;

/// The page before a position, or the newest one.
const BEFORE: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_page( \
        $1::uuid, case when $2::text is not null then chat.message_anchor($1::uuid, $2::text) end, \
        null, $3::int, $4::boolean, $5::int) r";

/// The page after a position.
const AFTER: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_page($1::uuid, null, chat.message_anchor($1::uuid, $2::text), $3::int, $4::boolean, 0) r";

/// Both sides of a position, which itself belongs to the newer one.
const OLDER_SIDE: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_page($1::uuid, chat.message_anchor($1::uuid, $2::text), null, $3::int, $4::boolean, 0) r";
const NEWER_SIDE: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_page($1::uuid, null, chat.message_anchor($1::uuid, $2::text) - 1, $3::int, $4::boolean, 0) r";

/// What changed since a revision.
const CHANGES: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_changes($1::uuid, $2::bigint, $3::int) r";

/// The revision of a conversation. Read before the page, so that asking for what changed since
/// can repeat something but not miss it.
const REV: &str = "select c.rev from public.user_conversations c where c.id = $1::uuid";

const GET: &str = "select r.row::text, r.rev from chat.message_rows(array[$1::uuid]) r";

/// Opens the conversation that a message is sent to. The ids that one statement finds and the
/// next one needs stay in the transaction, so that all of them fit into one flight.
const OPEN: &str = "\
    select set_config('rapport.conversation_id', o.conversation_id::text, true) \
    from chat.open_conversation($1::uuid) o";

const SEND: &str = "\
    select s.created, set_config('rapport.message_id', s.message_id::text, true) \
    from chat.send_message( \
        coalesce($1::uuid, current_setting('rapport.conversation_id', true)::uuid), \
        $2::text, $3::text, $4::text, $5::text, $6::uuid, $7::uuid[], $8::jsonb, \
        $9::text, $10::text, $11::bigint, $12::text) s";

const GET_SENT: &str = "\
    select r.row::text from chat.message_rows(array[current_setting('rapport.message_id')::uuid]) r";

/// A value for a statement.
type Parameter<'a> = &'a (dyn ToSql + Sync);

/// Where a page of history begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Position {
    /// The newest messages, this many of them skipped.
    Newest(i32),
    /// What is older than this message or `seq`.
    Before(String),
    /// What is newer than it.
    After(String),
    /// Both sides of it.
    Around(String),
    /// What changed since this revision, in the order it changed.
    Since(i64),
}

/// `GET /messages`: part of a conversation, oldest first.
pub(super) async fn list_messages(
    caller: Caller,
    State(db): State<Db>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    check_identity_in_query(&caller, &parameters, &[])?;
    let conversation = parameters
        .uuid("conversation_id")?
        .ok_or_else(|| ApiError::invalid("conversation_id is missing"))?;
    let include_deleted = parameters.flag("include_deleted")?.unwrap_or(false);
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
    let position = asked_position(&parameters)?;

    // One more than asked for tells whether there is another page.
    let wanted = limit + 1;
    let older_half = limit / 2;
    let (older_wanted, newer_wanted) = (older_half + 1, limit - older_half + 1);
    let none: Option<&str> = None;
    let claims = &caller.claims;
    let rev = Query {
        sql: REV,
        parameters: &[&conversation],
    };
    let results = match &position {
        Position::Newest(skipped) => {
            let parameters = [
                &conversation as Parameter,
                &none,
                &wanted,
                &include_deleted,
                skipped,
            ];
            db.run_as(
                claims,
                &[
                    rev,
                    Query {
                        sql: BEFORE,
                        parameters: &parameters,
                    },
                ],
            )
            .await?
        }
        Position::Before(anchor) => {
            let parameters = [
                &conversation as Parameter,
                anchor,
                &wanted,
                &include_deleted,
                &0_i32,
            ];
            db.run_as(
                claims,
                &[
                    rev,
                    Query {
                        sql: BEFORE,
                        parameters: &parameters,
                    },
                ],
            )
            .await?
        }
        Position::After(anchor) => {
            let parameters = [
                &conversation as Parameter,
                anchor,
                &wanted,
                &include_deleted,
            ];
            db.run_as(
                claims,
                &[
                    rev,
                    Query {
                        sql: AFTER,
                        parameters: &parameters,
                    },
                ],
            )
            .await?
        }
        Position::Around(anchor) => {
            let older = [
                &conversation as Parameter,
                anchor,
                &older_wanted,
                &include_deleted,
            ];
            let newer = [
                &conversation as Parameter,
                anchor,
                &newer_wanted,
                &include_deleted,
            ];
            let older = Query {
                sql: OLDER_SIDE,
                parameters: &older,
            };
            let newer = Query {
                sql: NEWER_SIDE,
                parameters: &newer,
            };
            db.run_as(claims, &[rev, older, newer]).await?
        }
        Position::Since(since) => {
            let parameters = [&conversation as Parameter, since, &wanted];
            db.run_as(
                claims,
                &[
                    rev,
                    Query {
                        sql: CHANGES,
                        parameters: &parameters,
                    },
                ],
            )
            .await?
        }
    };
    let rev = only(&results[0])?;
    let mut page = match &position {
        Position::Around(_) => around(&results[1], &results[2], older_half, limit - older_half)?,
        _ => one_sided(&position, &results[1], limit)?,
    };
    page.rev = match &position {
        // What is on later pages is not known yet.
        Position::Since(_) if page.next_cursor.is_some() => page.rev,
        _ => Some(rev),
    };
    Ok(page.respond(&uri, &parameters))
}

/// Which page is asked for. A cursor goes on from wherever the first page began, so clients may
/// leave in what they asked for then; apart from it, two positions are a mistake.
fn asked_position(parameters: &Parameters) -> Result<Position, ApiError> {
    if let Some(cursor) = parameters.text("cursor") {
        return pagination::position(cursor);
    }
    let anchor = |name: &str| parameters.text(name).map(str::to_owned);
    let mut asked: Vec<Position> = [
        anchor("before").map(Position::Before),
        anchor("after").map(Position::After),
        anchor("around").map(Position::Around),
        parameters.integer("since_rev")?.map(Position::Since),
    ]
    .into_iter()
    .flatten()
    .collect();
    if asked.len() > 1 {
        return Err(ApiError::invalid(
            "Only one of before, after, around and since_rev can be given",
        ));
    }
    match asked.pop() {
        Some(position) => Ok(position),
        None => Ok(Position::Newest(pagination::offset(parameters)?)),
    }
}

/// A page in one direction. `rows` are in the order of the answer, one more than `limit` if
/// there is another page.
fn one_sided(position: &Position, rows: &[Row], limit: i32) -> Result<Page, ApiError> {
    let limit = usize::try_from(limit).unwrap_or_default();
    let surplus = rows.len().saturating_sub(limit);
    // The surplus row is the farthest in the direction asked for.
    let kept = match position {
        Position::Newest(_) | Position::Before(_) => &rows[surplus..],
        _ => &rows[..rows.len() - surplus],
    };
    let mut page = Page {
        rows: texts(kept)?,
        ..Page::default()
    };
    let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
        return Ok(page);
    };
    let older = Position::Before(seq(first)?.to_string());
    let newer = Position::After(seq(last)?.to_string());
    let (next, prev) = match position {
        Position::Newest(0) => (older, None),
        Position::After(_) => (newer, Some(older)),
        Position::Since(_) => {
            let rev: i64 = column(last, 2)?;
            page.rev = Some(rev);
            (Position::Since(rev), None)
        }
        _ => (older, Some(newer)),
    };
    page.next_cursor = (surplus > 0)
        .then(|| pagination::cursor(&next))
        .transpose()?;
    page.prev_cursor = prev.map(|prev| pagination::cursor(&prev)).transpose()?;
    Ok(page)
}

/// Both sides of a position. The next page is the older one, as everywhere.
fn around(
    older: &[Row],
    newer: &[Row],
    older_limit: i32,
    newer_limit: i32,
) -> Result<Page, ApiError> {
    let size = |limit: i32| usize::try_from(limit).unwrap_or_default();
    let more_older = older.len().saturating_sub(size(older_limit));
    let older = &older[more_older..];
    let more_newer = newer.len().saturating_sub(size(newer_limit));
    let newer = &newer[..newer.len() - more_newer];

    let mut page = Page {
        rows: texts(older)?,
        ..Page::default()
    };
    page.rows.extend(texts(newer)?);
    if let Some(first) = older.first().or(newer.first()).filter(|_| more_older > 0) {
        page.next_cursor = Some(pagination::cursor(&Position::Before(
            seq(first)?.to_string(),
        ))?);
    }
    if let Some(last) = newer.last().or(older.last()).filter(|_| more_newer > 0) {
        page.prev_cursor = Some(pagination::cursor(&Position::After(
            seq(last)?.to_string(),
        ))?);
    }
    Ok(page)
}

fn texts(rows: &[Row]) -> Result<Vec<String>, ApiError> {
    rows.iter().map(|row| column(row, 0)).collect()
}

fn seq(row: &Row) -> Result<i64, ApiError> {
    column(row, 1)
}

/// `GET /messages/{id}`. Its tag is its revision: what a client compares before it edits.
pub(super) async fn get_message(
    caller: Caller,
    State(db): State<Db>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let rows = db.query_as(&caller.claims, GET, &[&path_id(&id)?]).await?;
    let row = rows
        .first()
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    let rev: i64 = column(row, 1)?;
    let mut response = json_text(column(row, 0)?);
    let tag = HeaderValue::from_str(&format!("\"m{rev}\""))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// What `POST /messages` sends.
struct Draft<'a> {
    content: &'a str,
    message_type: &'a str,
    client_message_id: Option<&'a str>,
    reply_to_id: Option<Uuid>,
    mentions: Vec<Uuid>,
    metadata: Value,
    file_url: Option<&'a str>,
    file_name: Option<&'a str>,
    file_size: Option<i64>,
    file_type: Option<&'a str>,
}

impl<'a> Draft<'a> {
    fn read(fields: &'a Fields) -> Result<Self, ApiError> {
        if fields
            .uuids("attachment_ids")?
            .is_some_and(|ids| !ids.is_empty())
        {
            return Err(ApiError::invalid(
                "attachment_ids: this server takes no attachments",
            ));
        }
        Ok(Self {
            content: fields.text("content")?.unwrap_or_default(),
            message_type: fields.text("message_type")?.unwrap_or("text"),
            client_message_id: fields.text("client_message_id")?,
            reply_to_id: fields.uuid("reply_to_id")?,
            mentions: fields.uuids("mentions")?.unwrap_or_default(),
            metadata: fields
                .object("metadata")?
                .cloned()
                .unwrap_or_else(|| json!({})),
            file_url: fields.text("file_url")?,
            file_name: fields.text("file_name")?,
            file_size: fields.integer("file_size")?,
            file_type: fields.text("file_type")?,
        })
    }

    /// By which a repetition of a request is told from another one with the same
    /// `client_message_id`.
    fn hash(&self) -> String {
        let written = json!([
            self.content,
            self.message_type,
            self.reply_to_id,
            self.mentions,
            self.metadata,
            self.file_url,
            self.file_name,
            self.file_size,
            self.file_type,
        ]);
        let hash = Sha256::digest(written.to_string());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// `POST /messages`: 201 with the message, or 200 when it was sent before.
pub(super) async fn send_message(
    caller: Caller,
    State(db): State<Db>,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&caller, &fields, &["sender_id"])?;
    let conversation = fields.uuid("conversation_id")?;
    let other = fields.uuid_of(&OTHER_PERSON)?;
    let draft = Draft::read(&fields)?;
    let hash = draft.hash();

    let send = Query {
        sql: SEND,
        parameters: &[
            &conversation,
            &draft.content,
            &draft.message_type,
            &draft.client_message_id,
            &hash,
            &draft.reply_to_id,
            &draft.mentions,
            &draft.metadata,
            &draft.file_url,
            &draft.file_name,
            &draft.file_size,
            &draft.file_type,
        ],
    };
    let get = Query {
        sql: GET_SENT,
        parameters: &[],
    };
    let results = match (conversation, &other) {
        (Some(_), _) => db.run_as(&caller.claims, &[send, get]).await?,
        (None, Some(other)) => {
            let open = Query {
                sql: OPEN,
                parameters: &[other],
            };
            let mut results = db.run_as(&caller.claims, &[open, send, get]).await?;
            results.split_off(1)
        }
        (None, None) => {
            return Err(ApiError::invalid(
                "conversation_id or other_user_id is missing",
            ));
        }
    };
    let created: bool = only(&results[0])?;
    let mut response = json_text(only(&results[1])?);
    if created {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}
