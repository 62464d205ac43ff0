//! Searching people, conversations and messages.

mod folding;
mod fragments;
mod query;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use self::fragments::Terms;
use self::query::MessageQuery;
use crate::db::Db;
use crate::http::input::Parameters;
use crate::http::pagination::{self, Page, PageSize, json_text};
use crate::http::{ApiError, Caller};
use crate::observability::metrics::RateLimitRefusals;
use crate::requests::{ConcurrencyLimit, column, whole_list};

/// Maximum number of people per response. It is small, so that a directory cannot be enumerated
/// letter by letter.
const MAX_PEOPLE: i32 = 10;

/// Maximum number of simultaneous searches per user. A long search occupies a shared connection,
/// and a user does not need more results at a time.
const MAX_CONCURRENT: usize = 2;

/// Default number of messages per page.
pub(super) const DEFAULT_MESSAGES: i32 = 20;
/// Maximum number of messages per page.
pub(super) const MAX_MESSAGES: i32 = 100;

/// Maximum number of conversations per response. `GET /conversations` returns all of them in pages.
const MAX_CONVERSATIONS: i32 = 30;

const FIND_PEOPLE: &str =
    "select row_to_json(p)::text from chat.search_people($1::text, $2::int) p";

/// Includes archived conversations, because a user who searches for one by name expects to find it.
const FIND_CONVERSATIONS: &str = "\
    select r.row::text \
    from chat.conversation_page(archived => null, search => $1::text, max_rows => $2::int) r";

const FIND_MESSAGES: &str = "\
    with hit as materialized ( \
        select h.* \
        from chat.search_messages( \
            words => $1::text, phrases => $2::text[], unwanted => $3::text[], senders => $4::text[], \
            places => $5::text[], has => $6::text[], unread => $7::boolean, sent_from => $8::timestamptz, \
            sent_before => $9::timestamptz, by_relevance => $10::boolean, ascending => $11::boolean, max_rows => $12::int, \
            from_score => $13::real, from_created_at => $14::timestamptz, from_id => $15::uuid \
        ) with ordinality h (message_id, conversation_id, created_at, score, place) \
    ) \
    select r.row::text, c.card::text, h.score, h.created_at, h.message_id, m.content, m.file_name, r.rev \
    from hit h \
    join chat.message_rows(array(select message_id from hit)) r on r.message_id = h.message_id \
    join chat.conversation_cards(array(select distinct conversation_id from hit)) c \
        on c.conversation_id = h.conversation_id \
    join public.user_messages m on m.id = h.message_id \
    order by h.place";

/// Limits the running searches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Searches(ConcurrencyLimit);

impl Searches {
    pub(super) fn new(refusals: RateLimitRefusals) -> Self {
        Self(ConcurrencyLimit::new(
            MAX_CONCURRENT,
            "searches_at_once",
            refusals,
        ))
    }
}

/// The hit after which a page begins.
#[derive(Serialize, Deserialize)]
struct Position {
    /// The bits of the score, so that the score is exact after the round trip.
    score_bits: u32,
    /// Microseconds since the epoch, the precision of PostgreSQL.
    created_at_us: i64,
    id: Uuid,
    /// When the first page was requested. Later messages would change the ranking between pages.
    requested_at_us: i64,
}

/// The order of messages.
struct Order {
    by_relevance: bool,
    ascending: bool,
}

/// `GET /search`: searches people, unless another `type` is requested. The results depend on the
/// caller's own teams; `teamId` is ignored.
pub(super) async fn search(
    caller: Caller,
    State(db): State<Db>,
    State(searches): State<Searches>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let wanted = ["q", "query", "search"]
        .iter()
        .find_map(|name| parameters.text(name))
        .unwrap_or_default();
    if wanted.contains('\0') {
        return Err(ApiError::invalid("q must not contain U+0000"));
    }
    let _permit = searches.0.acquire(caller.user_id)?;
    match parameters.text("type") {
        None | Some("users") => {
            let limit = pagination::limit(&parameters, MAX_PEOPLE, MAX_PEOPLE)?;
            let people = people(&caller, &db, wanted, limit).await?;
            Ok(people.respond(&uri, &parameters))
        }
        Some("conversations") => {
            let limit = pagination::limit(&parameters, MAX_CONVERSATIONS, MAX_CONVERSATIONS)?;
            let conversations = conversations(&caller, &db, wanted, limit).await?;
            Ok(conversations.respond(&uri, &parameters))
        }
        Some("messages") => {
            let query = MessageQuery::read(wanted, &parameters)?;
            let page = messages(&caller, &db, &query, &parameters).await?;
            Ok(page.respond(&uri, &parameters))
        }
        Some("all") => {
            let query = MessageQuery::read(wanted, &parameters)?;
            let text = query.plain_text();
            let limit = pagination::limit(&parameters, MAX_PEOPLE, MAX_PEOPLE)?;
            let people = people(&caller, &db, &text, limit).await?;
            let conversations = conversations(&caller, &db, &text, limit).await?;
            let messages = messages(&caller, &db, &query, &parameters).await?;
            let [people, conversations, messages] =
                [people, conversations, messages].map(|page| page.rows.join(","));
            Ok(json_text(format!(
                r#"{{"users":[{people}],"conversations":[{conversations}],"messages":[{messages}]}}"#
            )))
        }
        Some(_) => Err(ApiError::invalid(
            "type must be users, messages, conversations or all",
        )),
    }
}

/// Returns people whose name or e-mail address contains the text.
async fn people(caller: &Caller, db: &Db, text: &str, limit: PageSize) -> Result<Page, ApiError> {
    let rows = db
        .query_as(&caller.claims, FIND_PEOPLE, &[&text, &limit.rows()])
        .await?;
    whole_list(&rows)
}

/// Returns the caller's conversations whose title, or whose other person's name or e-mail address,
/// contains the text.
async fn conversations(
    caller: &Caller,
    db: &Db,
    text: &str,
    limit: PageSize,
) -> Result<Page, ApiError> {
    if text.trim().is_empty() {
        return Ok(Page::default());
    }
    let rows = db
        .query_as(&caller.claims, FIND_CONVERSATIONS, &[&text, &limit.rows()])
        .await?;
    whole_list(&rows)
}

async fn messages(
    caller: &Caller,
    db: &Db,
    query: &MessageQuery,
    parameters: &Parameters,
) -> Result<Page, ApiError> {
    let order = order(parameters)?;
    let limit = pagination::limit(parameters, DEFAULT_MESSAGES, MAX_MESSAGES)?;
    let from: Option<Position> = parameters
        .text("cursor")
        .map(pagination::position)
        .transpose()?;
    if query.is_empty() {
        return Ok(Page::default());
    }
    let requested_at_us = from.as_ref().map_or_else(
        || Timestamp::now().as_microsecond(),
        |from| from.requested_at_us,
    );
    let score = from.as_ref().map(|from| f32::from_bits(from.score_bits));
    let id = from.as_ref().map(|from| from.id);
    let created_at = from
        .as_ref()
        .map(|from| moment(from.created_at_us))
        .transpose()?;
    // With `sort=relevance`, later pages omit messages that were sent after the first page was
    // requested. The first page does not, because the database's clock may differ from this
    // server's, and the newest messages could then be missing.
    let before = match from.filter(|_| order.by_relevance) {
        Some(from) => {
            let requested_at = moment(from.requested_at_us)?;
            Some(
                query
                    .before
                    .map_or(requested_at, |before| before.min(requested_at)),
            )
        }
        None => query.before,
    };
    let senders = Some(&query.senders).filter(|senders| !senders.is_empty());
    let places = Some(&query.places).filter(|places| !places.is_empty());
    let rows = db
        .query_as(
            &caller.claims,
            FIND_MESSAGES,
            &[
                &query.words.join(" "),
                &query.phrases,
                &query.unwanted,
                &senders,
                &places,
                &query.has,
                &query.unread,
                &query.after,
                &before,
                &order.by_relevance,
                &order.ascending,
                &limit.fetched(),
                &score,
                &created_at,
                &id,
            ],
        )
        .await?;

    let terms = Terms::new(&query.words, &query.phrases);
    let read = |row: &Row| Ok((hit(row, &terms)?, None));
    Page::forwards(&rows, limit, read, |last| {
        let score: f32 = column(last, 2)?;
        let created_at: Timestamp = column(last, 3)?;
        pagination::cursor(&Position {
            score_bits: score.to_bits(),
            created_at_us: created_at.as_microsecond(),
            id: column(last, 4)?,
            requested_at_us,
        })
    })
}

/// Returns a row of [`FIND_MESSAGES`] as JSON.
fn hit(row: &Row, terms: &Terms) -> Result<String, ApiError> {
    let message: &str = column(row, 0)?;
    let conversation: &str = column(row, 1)?;
    let score: f32 = column(row, 2)?;
    let mut fragments = terms.fragments("content", column(row, 5)?);
    if let Some(name) = column::<Option<&str>>(row, 6)? {
        fragments.extend(terms.fragments("file_name", name));
    }
    let fragments =
        serde_json::to_string(&fragments).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(format!(
        r#"{{"message":{message},"conversation":{conversation},"score":{score},"fragments":{fragments}}}"#
    ))
}

fn order(parameters: &Parameters) -> Result<Order, ApiError> {
    let by_relevance = match parameters.text("sort") {
        None | Some("date") => false,
        Some("relevance") => true,
        Some(_) => return Err(ApiError::invalid("sort must be date or relevance")),
    };
    let ascending = match parameters.text("order") {
        None | Some("desc") => false,
        Some("asc") => true,
        Some(_) => return Err(ApiError::invalid("order must be asc or desc")),
    };
    Ok(Order {
        by_relevance,
        ascending,
    })
}

/// Converts a time in a cursor.
fn moment(microseconds: i64) -> Result<Timestamp, ApiError> {
    Timestamp::from_microsecond(microseconds).map_err(|_| pagination::foreign_cursor())
}
