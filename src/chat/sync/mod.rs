//! `GET /sync`: returns the changes that the caller has not seen since a cursor.
//!
//! A cursor is a snapshot of the database (PostgreSQL manual, 9.27.8, `pg_snapshot`). A change is
//! new to the client if its transaction is not visible in that snapshot. So no change is missed, in
//! whatever order transactions commit, and the server keeps no state for clients that are offline.

mod cursor;
mod signals;

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::Row;
use uuid::Uuid;

use self::cursor::{Chain, Cursor, Position, Snapshot, xid};
pub(super) use self::signals::Signals;
use crate::bus::deliveries::Delivered;
use crate::db::Db;
use crate::http::input::Parameters;
use crate::http::pagination::{self, json_text};
use crate::http::{ApiError, Caller};
use crate::requests::{column, only};

/// Default number of rows per page, for each of conversations, removals and messages.
pub(super) const DEFAULT_LIMIT: i32 = 100;
/// Maximum number of rows per page, for each of conversations, removals and messages.
pub(super) const MAX_LIMIT: i32 = 200;

/// Maximum number of seconds that a request may wait for a change. Proxies commonly give up after
/// 30.
pub(super) const MAX_WAIT: i64 = 25;

/// The first pause before checking again whether a commit in the WAL is visible in snapshots. A
/// commit usually becomes visible within microseconds, but a synchronous standby may delay it for
/// any time.
const MIN_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two such checks. Each pause is twice as long as the previous one.
const MAX_PAUSE: Duration = Duration::from_secs(1);

const SYNC: &str = "\
    select s.conversations::text, s.receipts::text, s.removed_conversation_ids::text, \
        s.removed_message_ids::text, s.messages::text, s.database_identity, s.reached, s.reached_at, \
        s.next_part, s.next_is_pinned, s.next_activity_at, s.next_conversation_id, s.next_xid, s.next_id \
    from chat.sync($1::text, $2::timestamptz, $3::text, $4::text, $5::text, $6::boolean, \
        $7::timestamptz, $8::uuid, $9::text, $10::uuid, $11::int) s";

const MY_CONVERSATIONS: &str = "select array(select chat.my_conversation_ids())";

/// `GET /sync`: returns a page of changes, and waits for one if the request asks for that.
pub(super) async fn sync(
    caller: Caller,
    State(db): State<Db>,
    State(signals): State<Signals>,
    State(delivered): State<Delivered>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let cursor: Option<Cursor> = parameters
        .text("since")
        .map(pagination::position)
        .transpose()?;
    let limit = pagination::limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?.rows();
    let wait = parameters
        .integer("wait")?
        .unwrap_or_default()
        .clamp(0, MAX_WAIT);
    let request = SyncRequest {
        db,
        caller,
        cursor,
        limit,
    };
    let page = match u64::try_from(wait) {
        Ok(seconds @ 1..) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            request.fetch_or_wait(&signals, end).await?
        }
        _ => request.fetch().await?,
    };
    for message in page.messages()? {
        delivered.note(message.conversation_id, request.caller.user_id, message.seq);
    }
    page.respond()
}

/// The parameters of a request.
struct SyncRequest {
    db: Db,
    caller: Caller,
    cursor: Option<Cursor>,
    limit: i32,
}

/// The fields of a message that determine how far the caller has received its conversation.
#[derive(Deserialize)]
struct FetchedMessage {
    conversation_id: Uuid,
    seq: i64,
}

/// A page of the response. Its lists are JSON that the database has built.
struct Page {
    conversations: String,
    receipts: String,
    removed_conversation_ids: String,
    removed_message_ids: String,
    messages: String,
    next: Cursor,
}

impl Page {
    fn read(row: &Row, requested: Option<&Cursor>) -> Result<Self, ApiError> {
        let reached: String = column(row, 6)?;
        let reached = Snapshot::try_from(reached).map_err(ApiError::internal)?;
        let reached_at: Timestamp = column(row, 7)?;
        let after = next_position(row)?;
        let since = match &after {
            // Until the first load is finished, the client has no snapshot.
            Some(_) => requested.and_then(|cursor| cursor.since.clone()),
            None => Some(reached.clone()),
        };
        Ok(Self {
            conversations: column(row, 0)?,
            receipts: column(row, 1)?,
            removed_conversation_ids: column(row, 2)?,
            removed_message_ids: column(row, 3)?,
            messages: column(row, 4)?,
            next: Cursor {
                database: column(row, 5)?,
                taken_at_us: reached_at.as_microsecond(),
                since,
                chain: after.map(|after| Chain {
                    until: reached,
                    after,
                }),
            },
        })
    }

    fn messages(&self) -> Result<Vec<FetchedMessage>, ApiError> {
        serde_json::from_str(&self.messages).map_err(|error| ApiError::internal(error.to_string()))
    }

    /// Returns whether the page contains no changes. Receipts appear only with their conversation.
    /// A page within a chain never counts as empty, because the client has to continue.
    fn is_empty(&self) -> bool {
        let lists = [
            &self.conversations,
            &self.removed_conversation_ids,
            &self.removed_message_ids,
            &self.messages,
        ];
        self.next.chain.is_none() && lists.iter().all(|list| *list == "[]")
    }

    /// Returns whether the snapshot of the page includes this commit, which is in the WAL.
    fn sees(&self, xid: u32) -> bool {
        let reached = self.next.since.as_ref().map(Snapshot::as_str);
        let reached = reached.and_then(crate::db::Snapshot::parse);
        reached.is_none_or(|reached| reached.sees(xid))
    }

    fn respond(&self) -> Result<Response, ApiError> {
        Ok(json_text(format!(
            r#"{{"conversations":{},"receipts":{},"removed_conversation_ids":{},"removed_message_ids":{},"messages":{},"cursor":"{}","has_more":{}}}"#,
            self.conversations,
            self.receipts,
            self.removed_conversation_ids,
            self.removed_message_ids,
            self.messages,
            pagination::cursor(&self.next)?,
            self.next.chain.is_some(),
        )))
    }
}

/// Returns the position of the next page, as returned by [`SYNC`].
fn next_position(row: &Row) -> Result<Option<Position>, ApiError> {
    let part: Option<&str> = column(row, 8)?;
    let xid = || -> Result<u64, ApiError> {
        let text: &str = column(row, 12)?;
        xid(text).ok_or_else(|| ApiError::internal("a transaction id is not a number"))
    };
    Ok(Some(match part {
        None => return Ok(None),
        Some("list") => {
            let activity: Timestamp = column(row, 10)?;
            Position::List {
                is_pinned: column(row, 9)?,
                activity_us: activity.as_microsecond(),
                id: column(row, 13)?,
            }
        }
        Some("conversations") => Position::Conversations {
            id: column(row, 11)?,
        },
        Some("removals") => Position::Removals {
            xid: xid()?,
            id: column(row, 13)?,
        },
        Some("messages") => Position::Messages {
            conversation: column(row, 11)?,
            xid: xid()?,
            id: column(row, 13)?,
        },
        Some(part) => return Err(ApiError::internal(format!("unknown part {part}"))),
    }))
}

impl SyncRequest {
    /// Reads the page after the cursor. If it is empty, waits for changes, unless the request has
    /// no cursor or is within a chain. Returns an empty page at `end`, or when the server stops.
    ///
    /// The request is registered for signals before it reads the page that turns out to be empty,
    /// so a change is either in that page or signalled. If a commit is signalled before it is
    /// visible, the page is read again after a pause.
    async fn fetch_or_wait(&self, signals: &Signals, end: Instant) -> Result<Page, ApiError> {
        let mut page = self.fetch().await?;
        // A client without a cursor needs one at once. Within a chain there is nothing to wait for,
        // because later changes come after its end.
        let is_whole = self
            .cursor
            .as_ref()
            .is_some_and(|cursor| cursor.chain.is_none());
        if !page.is_empty() || !is_whole {
            return Ok(page);
        }
        let rows = self
            .db
            .query_as(&self.caller.claims, MY_CONVERSATIONS, &[])
            .await?;
        let conversations: Vec<Uuid> = only(&rows)?;
        let waiting = signals.register(self.caller.user_id, &conversations)?;
        let mut unseen: Vec<u32> = Vec::new();
        let mut pause = MIN_PAUSE;
        loop {
            let permit = signals.acquire_query().await;
            page = self.fetch().await?;
            drop(permit);
            if !page.is_empty() || Instant::now() >= end || signals.is_stopping() {
                return Ok(page);
            }
            unseen.retain(|xid| !page.sees(*xid));
            if unseen.is_empty() {
                pause = MIN_PAUSE;
            }
            tokio::select! {
                commits = waiting.commits() => unseen.extend(commits),
                () = sleep(pause), if !unseen.is_empty() => pause = (pause * 2).min(MAX_PAUSE),
                () = sleep_until(end) => {}
                () = signals.stopped() => {}
            }
        }
    }

    /// Reads the page after the cursor.
    async fn fetch(&self) -> Result<Page, ApiError> {
        let cursor = self.cursor.as_ref();
        let database = cursor.map(|cursor| &*cursor.database);
        let taken_at = cursor
            .map(|cursor| moment(cursor.taken_at_us))
            .transpose()?;
        let since = cursor.and_then(|cursor| cursor.since.as_ref());
        let chain = cursor.and_then(|cursor| cursor.chain.as_ref());
        let after = After::new(since.is_some(), chain.map(|chain| chain.after))?;
        let rows = self
            .db
            .query_as(
                &self.caller.claims,
                SYNC,
                &[
                    &database,
                    &taken_at,
                    &since.map(Snapshot::as_str),
                    &chain.map(|chain| chain.until.as_str()),
                    &after.part,
                    &after.is_pinned,
                    &after.activity_at,
                    &after.conversation,
                    &after.xid,
                    &after.id,
                    &self.limit,
                ],
            )
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| ApiError::internal("a statement returned no row"))?;
        Page::read(row, cursor)
    }
}

/// A position as parameters of [`SYNC`].
#[derive(Default)]
struct After {
    part: Option<&'static str>,
    is_pinned: Option<bool>,
    activity_at: Option<Timestamp>,
    conversation: Option<Uuid>,
    xid: Option<String>,
    id: Option<Uuid>,
}

impl After {
    /// Converts a position. A first load continues in the list of conversations, and a later chain
    /// in one of the lists of changes. Every other combination is invalid.
    fn new(has_seen: bool, position: Option<Position>) -> Result<Self, ApiError> {
        let nothing = Self::default();
        Ok(match (has_seen, position) {
            (_, None) => nothing,
            (
                false,
                Some(Position::List {
                    is_pinned,
                    activity_us,
                    id,
                }),
            ) => Self {
                is_pinned: Some(is_pinned),
                activity_at: Some(moment(activity_us)?),
                id: Some(id),
                ..nothing
            },
            (true, Some(Position::Conversations { id })) => Self {
                part: Some("conversations"),
                conversation: Some(id),
                ..nothing
            },
            (true, Some(Position::Removals { xid, id })) => Self {
                part: Some("removals"),
                xid: Some(xid.to_string()),
                id: Some(id),
                ..nothing
            },
            (
                true,
                Some(Position::Messages {
                    conversation,
                    xid,
                    id,
                }),
            ) => Self {
                part: Some("messages"),
                conversation: Some(conversation),
                xid: Some(xid.to_string()),
                id: Some(id),
                ..nothing
            },
            _ => return Err(pagination::foreign_cursor()),
        })
    }
}

/// Converts a time in a cursor.
fn moment(us: i64) -> Result<Timestamp, ApiError> {
    Timestamp::from_microsecond(us).map_err(|_| pagination::foreign_cursor())
}
