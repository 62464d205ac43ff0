//! Changes to a message after it was sent: editing, deleting it for everyone, hiding it for the
//! caller, and its earlier versions.

use axum::extract::{OriginalUri, State};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::response::Response;

use super::classes::Writer;
use super::messages::{self, message_response};
use crate::db::{Db, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{Fields, Parameters, PathId};
use crate::http::{ApiError, Caller};
use crate::requests::confirmation;

/// Edits a message. If the client expects certain revisions (`$3`), passes the message's current
/// revision if it is one of them, and otherwise a revision that no message has. `chat.edit_message`
/// compares the revision again after it has locked the message.
const EDIT: &str = "\
    select chat.edit_message($1::uuid, $2::text, case when $3::bigint[] is not null then coalesce( \
        (select m.rev from public.user_messages m where m.id = $1::uuid and m.rev = any ($3::bigint[])), -1) end)";

const DELETE: &str = "\
    select chat.delete_message($1::uuid, case when $2::bigint[] is not null then coalesce( \
        (select m.rev from public.user_messages m where m.id = $1::uuid and m.rev = any ($2::bigint[])), -1) end)";

/// Hides a message. The revision is checked second, so that a message that the caller cannot see is
/// reported as not found.
const HIDE: &str = "\
    select chat.hide_message($1::uuid), ( \
        select chat.refuse('stale_revision') from public.user_messages m \
        where m.id = $1::uuid and not m.rev = any ($2::bigint[]))";

const HISTORY: &str = "\
    select json_build_object( \
        'version', e.version, \
        'previous_content', e.previous_content, \
        'edited_by', e.edited_by, \
        'edited_at', e.edited_at)::text \
    from public.message_edits e \
    where e.message_id = $1::uuid \
    order by e.version";

/// The revisions at which the client allows a message to be changed.
struct Expected {
    /// The allowed revisions. `None` if every revision is allowed.
    revs: Option<Vec<i64>>,
    /// Whether `If-Match` is present and is not `*`.
    is_precondition: bool,
}

impl Expected {
    /// Reads `If-Match` and `expected_rev`. If both are present, both must hold.
    fn read(headers: &HeaderMap, fields: &Fields) -> Result<Self, ApiError> {
        let matching = if_match(headers);
        let expected = fields.integer("expected_rev")?;
        let is_precondition = matching.is_some();
        let revs = match (matching, expected) {
            (Some(mut revs), Some(expected)) => {
                revs.retain(|rev| *rev == expected);
                Some(revs)
            }
            (matching, expected) => matching.or(expected.map(|rev| vec![rev])),
        };
        Ok(Self {
            revs,
            is_precondition,
        })
    }

    /// Converts a stale revision to a failed precondition if `If-Match` was given (RFC 9110,
    /// section 13.1.1).
    fn map_error(&self, error: ApiError) -> ApiError {
        if self.is_precondition && error.code() == ErrorCode::StaleRevision {
            error.as_failed_precondition()
        } else {
            error
        }
    }
}

/// Returns the revisions in the tags of `If-Match`. `None` if there is no condition, or one that
/// every message meets. A tag that Rapport did not issue never matches. A weak tag matches, unlike
/// in RFC 9110 (section 8.8.3.2), because Rapport's tags identify revisions instead of bytes, and
/// proxies that compress responses weaken tags.
fn if_match(headers: &HeaderMap) -> Option<Vec<i64>> {
    let mut values = headers.get_all(IF_MATCH).iter().peekable();
    values.peek()?;
    let mut revs = Vec::new();
    for tag in values.flat_map(|value| value.to_str().unwrap_or_default().split(',')) {
        let tag = tag.trim();
        if tag == "*" {
            return None;
        }
        let rev = tag
            .strip_prefix("W/")
            .unwrap_or(tag)
            .strip_prefix("\"m")
            .and_then(|tag| tag.strip_suffix('"'));
        revs.extend(rev.and_then(|rev| rev.parse::<i64>().ok()));
    }
    Some(revs)
}

/// `PATCH /messages/{id}`: changes the text. Only the sender may do so.
pub(super) async fn edit_message(
    writer: Writer,
    PathId(id): PathId,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let Some(content) = fields.text("content")? else {
        return Err(ApiError::invalid("content is missing"));
    };
    let expected = Expected::read(&headers, &fields)?;
    let edit = Query {
        sql: EDIT,
        parameters: &[&id, &content, &expected.revs],
    };
    let get = Query {
        sql: messages::GET,
        parameters: &[&id],
    };
    let rows = writer
        .change_then_read(&[edit], get)
        .await
        .map_err(|error| expected.map_error(error))?;
    message_response(&rows)
}

/// `DELETE /messages/{id}`: deletes the message for everyone, which only the sender may do. With
/// `?for=me`, hides it only for the caller.
pub(super) async fn delete_message(
    writer: Writer,
    PathId(id): PathId,
    parameters: Parameters,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, ApiError> {
    let sql = match parameters.text("for") {
        Some("me") => HIDE,
        None | Some("everyone") => DELETE,
        Some(_) => return Err(ApiError::invalid("for must be me or everyone")),
    };
    let expected = Expected::read(&headers, &fields)?;
    let delete = Query {
        sql,
        parameters: &[&id, &expected.revs],
    };
    writer
        .change(&[delete])
        .await
        .map_err(|error| expected.map_error(error))?;
    Ok(confirmation("Message deleted successfully", id))
}

/// `GET /messages/{id}/history`: returns the earlier versions of a message, oldest first.
pub(super) async fn list_earlier_wordings(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let versions = messages::about_message(&caller, &db, id, HISTORY).await?;
    Ok(versions.respond(&uri, &parameters))
}
