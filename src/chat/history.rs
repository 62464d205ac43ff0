//! A conversation's history, page by page.

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{column, only};
use crate::bus::people::Delivered;
use crate::db::{Db, Query};
use crate::http::input::Parameters;
use crate::http::pagination::{self, Page};
use crate::http::{ApiError, Caller};

/// Rows of a page that names no limit, and at most.
pub(super) const DEFAULT_LIMIT: i32 = 50;
pub(super) const MAX_LIMIT: i32 = 200;

/// Messages before one position, after another, or the newest. `$4` widens the second to take in
/// the message at the position itself.
const PAGE: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_page( \
        $1::uuid, \
        case when $2::text is not null then chat.message_anchor($1::uuid, $2::text) end, \
        case when $3::text is not null then chat.message_anchor($1::uuid, $3::text) - $4::int end, \
        $5::int, $6::boolean, $7::int) r";

/// What changed since a revision.
const CHANGES: &str = "\
    select r.row::text, r.seq, r.rev \
    from chat.message_changes($1::uuid, $2::bigint, $3::int) r";

/// The revision of a conversation. Read before the page, so that asking for what changed since
/// can repeat something but not miss it.
const REV: &str = "select c.rev from public.user_conversations c where c.id = $1::uuid";

/// Where a page begins, as a cursor says it: by `seq` and revision.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Cursor {
    /// What is older than this `seq`.
    Before(u64),
    /// What is newer than it.
    After(u64),
    /// What changed since this revision.
    Since(i64),
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq)]
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

/// A request for part of a conversation.
struct History<'a> {
    db: &'a Db,
    /// What is fetched has reached the caller. Written beside requests, and only where that moves.
    delivered: &'a Delivered,
    caller: &'a Caller,
    conversation: Uuid,
    include_deleted: bool,
    limit: i32,
    /// Whether the page tells the conversation's revision, which costs a statement.
    tells_rev: bool,
}

/// Some messages in one direction from a position.
#[derive(Default)]
struct Side<'a> {
    before: Option<&'a str>,
    after: Option<&'a str>,
    /// 1: the message at `after` belongs to the page; 0: it does not.
    widened: i32,
    skipped: i32,
}

/// `GET /messages`: part of a conversation, oldest first.
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
    let position = asked_position(conversation, &parameters)?;
    let history = History {
        db: &db,
        delivered: &delivered,
        caller: &caller,
        conversation,
        include_deleted: parameters.flag("include_deleted")?.unwrap_or(false),
        limit: pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?,
        tells_rev: pagination::is_wrapped(&parameters),
    };
    let page = match &position {
        Position::Around(anchor) => history.around(anchor).await?,
        Position::Since(rev) => history.changes(*rev).await?,
        one_sided => history.one_sided(one_sided).await?,
    };
    Ok(page.respond(&uri, &parameters))
}

/// Which page is asked for. A cursor goes on from wherever the first page began, so clients may
/// leave in what they asked for then; apart from it, two positions are a mistake.
fn asked_position(conversation: Uuid, parameters: &Parameters) -> Result<Position, ApiError> {
    if let Some(cursor) = pagination::position_in(conversation, parameters)? {
        return Ok(match cursor {
            Cursor::Before(seq) => Position::Before(seq.to_string()),
            Cursor::After(seq) => Position::After(seq.to_string()),
            Cursor::Since(rev) => Position::Since(rev),
        });
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

impl History<'_> {
    /// A page in one direction.
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
        let (rev, rows) = self.fetch(&[(side, self.limit)]).await?;
        let (kept, has_more) = trimmed(&rows[0], self.limit, !goes_forward);
        let mut page = Page {
            rows: texts(kept)?,
            rev,
            ..Page::default()
        };
        let (Some(first), Some(last)) = (kept.first(), kept.last()) else {
            return Ok(page);
        };
        self.note_delivered(last)?;
        let (older, newer) = (self.older_than(first)?, self.newer_than(last)?);
        let (next, prev) = match position {
            Position::Newest(0) => (older, None),
            _ if goes_forward => (newer, Some(older)),
            _ => (older, Some(newer)),
        };
        page.next_cursor = has_more.then_some(next);
        page.prev_cursor = prev;
        Ok(page)
    }

    /// Both sides of a message, which itself counts among the newer ones. The next page is the
    /// older one, as everywhere.
    async fn around(&self, anchor: &str) -> Result<Page, ApiError> {
        let older_limit = self.limit / 2;
        let newer_limit = self.limit - older_limit;
        let older = Side {
            before: Some(anchor),
            ..Side::default()
        };
        let newer = Side {
            after: Some(anchor),
            widened: 1,
            ..Side::default()
        };
        let (rev, rows) = self
            .fetch(&[(older, older_limit), (newer, newer_limit)])
            .await?;
        let (older, has_older) = trimmed(&rows[0], older_limit, true);
        let (newer, has_newer) = trimmed(&rows[1], newer_limit, false);

        let mut page = Page {
            rows: texts(older)?,
            rev,
            ..Page::default()
        };
        page.rows.extend(texts(newer)?);
        if let Some(last) = newer.last().or(older.last()) {
            self.note_delivered(last)?;
        }
        if let Some(first) = older.first().or(newer.first()).filter(|_| has_older) {
            page.next_cursor = Some(self.older_than(first)?);
        }
        if let Some(last) = newer.last().or(older.last()).filter(|_| has_newer) {
            page.prev_cursor = Some(self.newer_than(last)?);
        }
        Ok(page)
    }

    /// What changed since a revision. A page that is not the last tells the revision it reaches:
    /// what lies behind it is not known yet.
    async fn changes(&self, since: i64) -> Result<Page, ApiError> {
        let wanted = self.limit + 1;
        let rev = Query {
            sql: REV,
            parameters: &[&self.conversation],
        };
        let changes = Query {
            sql: CHANGES,
            parameters: &[&self.conversation, &since, &wanted],
        };
        let results = self.db.run_as(&self.caller.claims, &[rev, changes]).await?;
        let (kept, has_more) = trimmed(&results[1], self.limit, false);
        let mut page = Page {
            rows: texts(kept)?,
            rev: Some(only(&results[0])?),
            ..Page::default()
        };
        for row in kept {
            self.note_delivered(row)?;
        }
        if let Some(last) = kept.last().filter(|_| has_more) {
            let reached: i64 = column(last, 2)?;
            page.rev = Some(reached);
            page.next_cursor = Some(self.cursor(Cursor::Since(reached))?);
        }
        Ok(page)
    }

    fn older_than(&self, row: &Row) -> Result<String, ApiError> {
        self.cursor(Cursor::Before(seq(row)?))
    }

    fn newer_than(&self, row: &Row) -> Result<String, ApiError> {
        self.cursor(Cursor::After(seq(row)?))
    }

    fn cursor(&self, cursor: Cursor) -> Result<String, ApiError> {
        pagination::cursor_in(self.conversation, &cursor)
    }

    /// The message of this row, and all before it, have reached the caller.
    fn note_delivered(&self, row: &Row) -> Result<(), ApiError> {
        let seq: i64 = column(row, 1)?;
        self.delivered
            .note(self.conversation, self.caller.user_id, seq);
        Ok(())
    }

    /// The rows of each side, one more than its limit if there are more, and the revision.
    async fn fetch(
        &self,
        sides: &[(Side<'_>, i32)],
    ) -> Result<(Option<i64>, Vec<Vec<Row>>), ApiError> {
        let wanted: Vec<i32> = sides.iter().map(|(_, limit)| limit + 1).collect();
        let parameters: Vec<[&(dyn ToSql + Sync); 7]> = sides
            .iter()
            .zip(&wanted)
            .map(|((side, _), wanted)| {
                let parameters: [&(dyn ToSql + Sync); 7] = [
                    &self.conversation,
                    &side.before,
                    &side.after,
                    &side.widened,
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
            .tells_rev
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

/// The rows within the limit, and whether there were more. The row too many is the farthest from
/// where the page begins: the first one where the page goes back in time.
fn trimmed(rows: &[Row], limit: i32, goes_back: bool) -> (&[Row], bool) {
    let surplus = rows
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or_default());
    let kept = if goes_back {
        &rows[surplus..]
    } else {
        &rows[..rows.len() - surplus]
    };
    (kept, surplus > 0)
}

fn texts(rows: &[Row]) -> Result<Vec<String>, ApiError> {
    rows.iter().map(|row| column(row, 0)).collect()
}

fn seq(row: &Row) -> Result<u64, ApiError> {
    let seq: i64 = column(row, 1)?;
    u64::try_from(seq).map_err(|error| ApiError::internal(error.to_string()))
}
