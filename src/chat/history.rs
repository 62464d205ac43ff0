//! The history of a conversation, page by page.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::bus::deliveries::Delivered;
use crate::db::{Db, Query};
use crate::http::input::Parameters;
use crate::http::pagination::{self, Page, PageSize};
use crate::http::{ApiError, Caller};
use crate::requests::{column, only};

/// Default number of rows per page.
pub(super) const DEFAULT_LIMIT: i32 = 50;
/// Maximum number of rows per page.
pub(super) const MAX_LIMIT: i32 = 200;

/// Selects messages before the position `$2`, messages after the position `$3`, or the newest
/// messages. If `$4` is 1, the message at `$3` is included.
const PAGE: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_page( \
        $1::uuid, \
        case when $2::text is not null then chat.message_anchor($1::uuid, $2::text) end, \
        case when $3::text is not null then chat.message_anchor($1::uuid, $3::text) - $4::int end, \
        $5::int, $6::boolean, $7::int) r";

/// Selects messages that changed since a revision.
const CHANGES: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_changes($1::uuid, $2::bigint, $3::int) r";

/// Selects the revision of a conversation. The revision is read before the page, so a later request
/// for changes may repeat messages but does not miss any.
const REV: &str = "select c.rev from public.user_conversations c where c.id = $1::uuid";

/// The position in a cursor, as `seq` or revision.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Cursor {
    /// Messages older than this `seq`.
    Before(u64),
    /// Messages newer than this `seq`.
    After(u64),
    /// Messages that changed since this revision.
    Since(i64),
}

/// The requested part of the history.
#[derive(Clone, Debug, PartialEq)]
enum Position {
    /// The newest messages, after skipping this many.
    Newest(i32),
    /// Messages older than this message or `seq`.
    Before(String),
    /// Messages newer than this message or `seq`.
    After(String),
    /// Messages on both sides of this message or `seq`.
    Around(String),
    /// Messages that changed since this revision, in order of change.
    Since(i64),
}

/// A request for part of a conversation.
struct History<'a> {
    db: &'a Db,
    /// Records that fetched messages have reached the caller. The positions are written in the
    /// background, and only if they move.
    delivered: &'a Delivered,
    caller: &'a Caller,
    conversation: Uuid,
    include_deleted: bool,
    size: PageSize,
    /// Whether the response contains the conversation's revision, which costs a statement.
    wants_rev: bool,
}

/// Messages in one direction from a position.
#[derive(Default)]
struct Side<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
    /// 1 if the page includes the message at `after`, otherwise 0.
    includes_after: i32,
    skipped: i32,
}

/// `GET /messages`: returns part of a conversation, oldest message first.
pub(super) async fn list_messages(
    caller: Caller,
    State(db): State<Db>,
    State(delivered): State<Delivered>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let conversation = parameters
        .uuid("conversation_id")?
        .ok_or_else(|| ApiError::invalid("conversation_id is missing"))?;
    let position = requested_position(conversation, &parameters)?;
    let history = History {
        db: &db,
        delivered: &delivered,
        caller: &caller,
        conversation,
        include_deleted: parameters.flag("include_deleted")?.unwrap_or(false),
        size: pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?,
        wants_rev: pagination::is_wrapped(&parameters),
    };
    let page = match &position {
        Position::Around(anchor) => history.around(anchor).await?,
        Position::Since(rev) => history.changes(*rev).await?,
        one_sided => history.one_sided(one_sided).await?,
    };
    Ok(page.respond(&uri, &parameters))
}

/// Returns the requested position. A request with a cursor may repeat the position parameters of
/// the first page, which are then ignored. Without a cursor, two positions are an error.
fn requested_position(conversation: Uuid, parameters: &Parameters) -> Result<Position, ApiError> {
    if let Some(cursor) = pagination::position_in(conversation, parameters)? {
        return Ok(match cursor {
            Cursor::Before(seq) => Position::Before(seq.to_string()),
            Cursor::After(seq) => Position::After(seq.to_string()),
            Cursor::Since(rev) => Position::Since(rev),
        });
    }
    let anchor = |name: &str| parameters.text(name).map(str::to_owned);
    let mut requested: Vec<Position> = [
        anchor("before").map(Position::Before),
        anchor("after").map(Position::After),
        anchor("around").map(Position::Around),
        parameters.integer("since_rev")?.map(Position::Since),
    ]
    .into_iter()
    .flatten()
    .collect();
    if requested.len() > 1 {
        return Err(ApiError::invalid(
            "Only one of before, after, around and since_rev is allowed",
        ));
    }
    match requested.pop() {
        Some(position) => Ok(position),
        None => Ok(Position::Newest(pagination::offset(parameters)?)),
    }
}

impl History<'_> {
    /// Returns a page in one direction.
    async fn one_sided(&self, position: &Position) -> Result<Page, ApiError> {
        let side = match position {
            Position::Before(anchor) => Side {
                before: Some(anchor),
                ..Side::default()
            },
            Position::After(anchor) => Side {
                after: Some(anchor),
                ..Side::default()
            },
            Position::Newest(skipped) => Side {
                skipped: *skipped,
                ..Side::default()
            },
            Position::Around(_) | Position::Since(_) => Side::default(),
        };
        let goes_forward = side.after.is_some();
        let (rev, rows) = self.fetch(&[(side, self.size)]).await?;
        let kept = self.size.cut(&rows[0], !goes_forward);
        let mut page = Page::of(kept.rows, text)?;
        page.rev = rev;
        if let Some(last) = kept.rows.last() {
            self.note_delivered(last)?;
        }
        page.next_cursor = kept
            .next_from()
            .map(|row| self.cursor_from(row, goes_forward))
            .transpose()?;
        page.prev_cursor = kept
            .previous_from()
            .filter(|_| *position != Position::Newest(0))
            .map(|row| self.cursor_from(row, !goes_forward))
            .transpose()?;
        Ok(page)
    }

    /// Returns messages on both sides of a message. The message itself belongs to the newer side.
    /// `next_cursor` leads to older messages, as on a page of the newest messages.
    async fn around(&self, anchor: &str) -> Result<Page, ApiError> {
        let (older_size, newer_size) = self.size.halves();
        let older = Side {
            before: Some(anchor),
            ..Side::default()
        };
        let newer = Side {
            after: Some(anchor),
            includes_after: 1,
            ..Side::default()
        };
        let (rev, rows) = self
            .fetch(&[(older, older_size), (newer, newer_size)])
            .await?;
        let older = older_size.cut(&rows[0], true);
        let newer = newer_size.cut(&rows[1], false);
        let mut kept = older.rows.iter().chain(newer.rows);

        let mut page = Page::of(kept.clone(), text)?;
        page.rev = rev;
        let (first, last) = (kept.clone().next(), kept.next_back());
        if let Some(last) = last {
            self.note_delivered(last)?;
        }
        if let Some(first) = first.filter(|_| older.has_more) {
            page.next_cursor = Some(self.cursor_from(first, false)?);
        }
        if let Some(last) = last.filter(|_| newer.has_more) {
            page.prev_cursor = Some(self.cursor_from(last, true)?);
        }
        Ok(page)
    }

    /// Returns messages that changed since a revision. If this is not the last page, its `rev` is
    /// the revision that it reaches, because later changes are not included yet.
    async fn changes(&self, since: i64) -> Result<Page, ApiError> {
        let rev = Query {
            sql: REV,
            parameters: &[&self.conversation],
        };
        let changes = Query {
            sql: CHANGES,
            parameters: &[&self.conversation, &since, &self.size.fetched()],
        };
        let results = self.db.run_as(&self.caller.claims, &[rev, changes]).await?;
        let kept = self.size.cut(&results[1], false);
        let mut page = Page::of(kept.rows, text)?;
        page.rev = Some(only(&results[0])?);
        for row in kept.rows {
            self.note_delivered(row)?;
        }
        if let Some(last) = kept.next_from() {
            let reached: i64 = column(last, 2)?;
            page.rev = Some(reached);
            page.next_cursor = Some(self.cursor(Cursor::Since(reached))?);
        }
        Ok(page)
    }

    /// Returns the cursor for the messages that are newer, or older, than the message of this row.
    fn cursor_from(&self, row: &Row, goes_forward: bool) -> Result<String, ApiError> {
        let seq: i64 = column(row, 1)?;
        let seq = u64::try_from(seq).map_err(|error| ApiError::internal(error.to_string()))?;
        self.cursor(if goes_forward {
            Cursor::After(seq)
        } else {
            Cursor::Before(seq)
        })
    }

    fn cursor(&self, cursor: Cursor) -> Result<String, ApiError> {
        pagination::cursor_in(self.conversation, &cursor)
    }

    /// Records that the message of this row, and all before it, have reached the caller.
    fn note_delivered(&self, row: &Row) -> Result<(), ApiError> {
        let seq: i64 = column(row, 1)?;
        self.delivered
            .note(self.conversation, self.caller.user_id, seq);
        Ok(())
    }

    /// Fetches the rows of each side, and the revision if the response contains it. If a side has
    /// more rows than its page, one additional row is fetched.
    async fn fetch(
        &self,
        sides: &[(Side<'_>, PageSize)],
    ) -> Result<(Option<i64>, Vec<Vec<Row>>), ApiError> {
        let wanted: Vec<i32> = sides.iter().map(|(_, size)| size.fetched()).collect();
        let parameters: Vec<[&(dyn ToSql + Sync); 7]> = sides
            .iter()
            .zip(&wanted)
            .map(|((side, _), wanted)| {
                let parameters: [&(dyn ToSql + Sync); 7] = [
                    &self.conversation,
                    &side.before,
                    &side.after,
                    &side.includes_after,
                    wanted,
                    &self.include_deleted,
                    &side.skipped,
                ];
                parameters
            })
            .collect();
        let rev = Query {
            sql: REV,
            parameters: &[&self.conversation],
        };
        let pages = parameters.iter().map(|parameters| Query {
            sql: PAGE,
            parameters,
        });
        let queries: Vec<Query<'_>> = self
            .wants_rev
            .then_some(rev)
            .into_iter()
            .chain(pages)
            .collect();
        let mut results = self.db.run_as(&self.caller.claims, &queries).await?;
        let rows = results.split_off(results.len() - sides.len());
        let rev = results.first().map(|rev| only(rev)).transpose()?;
        Ok((rev, rows))
    }
}

/// Returns a row as JSON, without a revision. The page's revision is set separately.
fn text(row: &Row) -> Result<(String, Option<i64>), ApiError> {
    Ok((column(row, 0)?, None))
}
