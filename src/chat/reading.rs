//! Read and delivered positions, and unread counts.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::classes::Writer;
use crate::db::{Db, Query};
use crate::http::input::{Fields, PathId};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, only};

/// Maximum number of messages per request: more than a user sees at a time. A whole conversation is
/// marked by its id.
pub(super) const MAX_MESSAGE_IDS: usize = 1000;

const MARK_CONVERSATION: &str = "\
    select \
        json_build_object( \
            'success', true, \
            'updated', r.updated, \
            'unread_count', r.unread_count, \
            'last_read_at', r.last_read_at, \
            'last_read_message_id', r.last_read_message_id \
        )::text, \
        set_config( \
            'rapport.outcome', \
            json_build_object('updated', r.updated, 'conversation_ids', json_build_array($1::uuid))::text, \
            true) \
    from chat.mark_read($1::uuid, $2::uuid) r";

/// Like [`MARK_CONVERSATION`], for messages of several conversations. The response contains sums
/// and the latest position.
const MARK_MESSAGES: &str = "\
    select \
        json_build_object( \
            'success', true, \
            'updated', coalesce(sum(r.updated), 0), \
            'unread_count', coalesce(sum(r.unread_count), 0), \
            'last_read_at', max(r.last_read_at), \
            'last_read_message_id', (array_agg(r.last_read_message_id order by r.last_read_at desc nulls last))[1] \
        )::text, \
        set_config( \
            'rapport.outcome', \
            json_build_object( \
                'updated', coalesce(sum(r.updated), 0), \
                'conversation_ids', coalesce(json_agg(r.conversation_id), '[]'))::text, \
            true) \
    from chat.mark_read_messages($1::uuid[]) r";

/// Selects the response to a retry: the current state of the marked conversations.
const POSITIONS: &str = "\
    select json_build_object( \
        'success', true, \
        'updated', chat.outcome() -> 'updated', \
        'unread_count', coalesce(sum(m.unread_count), 0), \
        'last_read_at', max(m.last_read_at), \
        'last_read_message_id', (array_agg(m.last_read_message_id order by m.last_read_at desc nulls last))[1] \
    )::text \
    from public.user_conversation_members m \
    where m.user_id = auth.uid() \
        and m.left_at is null \
        and m.conversation_id in (select c.id::uuid from jsonb_array_elements_text(chat.outcome() -> 'conversation_ids') c (id))";

const MARK_DELIVERED: &str = "select chat.mark_message_delivered($1::uuid, $2::uuid)";

const COUNT: &str = "\
    select json_build_object( \
        'total', c.total, \
        'conversations', c.conversations, \
        'mentions', c.mentions, \
        'by_conversation', c.by_conversation \
    )::text \
    from chat.unread_counts() c";

/// `POST /conversations/{id}/read`: marks messages up to a given one, or all, as read.
pub(super) async fn mark_conversation_read(
    writer: Writer,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let up_to = fields.uuid_of(&["message_id", "up_to_message_id"])?;
    let mark = Query {
        sql: MARK_CONVERSATION,
        parameters: &[&id, &up_to],
    };
    mark_and_respond(&writer, mark).await
}

/// `PATCH /messages` and its synonyms: marks messages as read, by their ids or by their
/// conversation.
pub(super) async fn mark_messages_read(
    writer: Writer,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let conversation = fields.uuid("conversation_id")?;
    let up_to = fields.uuid_of(&["up_to_message_id", "message_id"])?;
    if let Some(messages) = fields.uuids("message_ids")? {
        if messages.len() > MAX_MESSAGE_IDS {
            return Err(ApiError::invalid(format!(
                "message_ids may have at most {MAX_MESSAGE_IDS} messages"
            )));
        }
        let mark = Query {
            sql: MARK_MESSAGES,
            parameters: &[&messages],
        };
        return mark_and_respond(&writer, mark).await;
    }
    let Some(conversation) = conversation else {
        return Err(ApiError::invalid(
            "message_ids or conversation_id is missing",
        ));
    };
    let mark = Query {
        sql: MARK_CONVERSATION,
        parameters: &[&conversation, &up_to],
    };
    mark_and_respond(&writer, mark).await
}

async fn mark_and_respond(writer: &Writer, mark: Query<'_>) -> Result<Response, ApiError> {
    let positions = Query {
        sql: POSITIONS,
        parameters: &[],
    };
    let rows = writer.change_or_read(mark, positions).await?;
    Ok(json_text(only(&rows)?))
}

/// `GET /unread-count`: returns the caller's unread counts.
pub(super) async fn count_unread(
    caller: Caller,
    State(db): State<Db>,
) -> Result<Response, ApiError> {
    let rows = db.query_as(&caller.claims, COUNT, &[]).await?;
    Ok(json_text(only(&rows)?))
}

/// `POST /conversations/{id}/delivered`: marks messages up to a given one, or all, as delivered.
/// For clients that receive messages by means other than Rapport's socket, such as a push
/// notification.
pub(super) async fn mark_delivered(
    writer: Writer,
    PathId(id): PathId,
    fields: Fields,
) -> Result<StatusCode, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let up_to = fields.uuid_of(&["message_id", "up_to_message_id"])?;
    let mark = Query {
        sql: MARK_DELIVERED,
        parameters: &[&id, &up_to],
    };
    writer.change(&[mark]).await?;
    Ok(StatusCode::NO_CONTENT)
}
