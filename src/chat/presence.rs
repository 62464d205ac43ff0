//! Presence and typing over REST.

use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::http::StatusCode;
use axum::response::Response;
use tokio::time::Instant;
use uuid::Uuid;

use super::classes::Writer;
use super::typing::{Others, Typing};
use crate::db::{Db, Query};
use crate::http::input::{BeaconFields, Parameters, PathId};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, column, only, whole_list};

/// Maximum number of users in one request.
pub(super) const MAX_USER_IDS: usize = 200;

const LIST: &str = "select r.row::text from chat.presence_rows($1::uuid[], $2::boolean) r";

/// Selects the caller's own row.
const GET: &str = "select r.row::text from chat.presence_rows() r";

const SET: &str = "\
    select chat.set_presence( \
        $1::text, $2::text, $3::timestamptz, $4::text, $5::text, $6::boolean, $7::boolean, $8::text)::text";

const END: &str = "select chat.end_presence($1::text)::text";

const TYPE_IN: &str = "\
    select $1::uuid, t.is_shared, t.expires_in_ms, t.others from chat.set_typing($1::uuid, $2::boolean) t";

/// Sets typing in the direct conversation with a user. If there is none, `chat.set_typing` refuses
/// the request.
const TYPE_TO: &str = "\
    select c.id, t.is_shared, t.expires_in_ms, t.others \
    from (values ($1::uuid, $2::uuid)) pair (one, other) \
    left join public.user_conversations c \
        on c.kind = 'direct' \
        and c.participant_1_id = least(pair.one, pair.other) \
        and c.participant_2_id = greatest(pair.one, pair.other) \
    cross join lateral chat.set_typing(c.id, $3::boolean) t";

/// Stops typing to the user that is named in the caller's presence row.
const STOP_TYPING: &str = "\
    select c.id, t.is_shared, t.expires_in_ms, t.others \
    from public.user_presence p \
    join public.user_conversations c \
        on c.kind = 'direct' \
        and c.participant_1_id = least(p.user_id, p.is_typing_to) \
        and c.participant_2_id = greatest(p.user_id, p.is_typing_to) \
    cross join lateral chat.set_typing(c.id, false) t \
    where p.user_id = $1::uuid";

/// `GET /presence`: returns the presence of the users in `user_ids`, of all users visible to the
/// caller (`team`), or only of the caller.
pub(super) async fn list_presence(
    caller: Caller,
    State(db): State<Db>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    caller.must_be(parameters.uuid("user_id")?)?;
    let people = parameters.uuids("user_ids")?;
    if people
        .as_ref()
        .is_some_and(|people| people.len() > MAX_USER_IDS)
    {
        return Err(ApiError::invalid(format!(
            "user_ids may name at most {MAX_USER_IDS} people"
        )));
    }
    let team = parameters.flag("team")?.unwrap_or(false);
    let rows = db.query_as(&caller.claims, LIST, &[&people, &team]).await?;
    Ok(whole_list(&rows)?.respond(&uri, &parameters))
}

/// `POST` and `PUT /presence`: reports a device's status, or sets the status that the user chose.
pub(super) async fn set_presence(
    writer: Writer,
    BeaconFields(fields): BeaconFields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let status_text = fields.text("status_text")?;
    let clear =
        fields.is_null("status_text") || status_text.is_some_and(|text| text.trim().is_empty());
    // With a null `manual_until`, a chosen status has no end. With `online` or without a status,
    // null ends an earlier choice.
    let is_manual = fields
        .flag("is_manual")?
        .or(fields.is_null("manual_until").then_some(true));
    let set = Query {
        sql: SET,
        parameters: &[
            &fields.text("status")?,
            &fields.text("current_page")?,
            &fields.moment("manual_until")?,
            &status_text,
            &fields.text("status_emoji")?,
            &is_manual,
            &clear,
            &fields.text("session_id")?,
        ],
    };
    let get = Query {
        sql: GET,
        parameters: &[],
    };
    let rows = writer.change_or_read(set, get).await?;
    Ok(json_text(only(&rows)?))
}

/// `DELETE /presence`: ends the presence of the device with this `session_id`, or of all the
/// caller's devices, for signing out.
pub(super) async fn end_presence(
    writer: Writer,
    BeaconFields(fields): BeaconFields,
) -> Result<StatusCode, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let end = Query {
        sql: END,
        parameters: &[&fields.text("session_id")?],
    };
    changed(&writer, end).await
}

/// `POST /conversations/{id}/typing`: reports typing in a conversation, or its end.
pub(super) async fn set_conversation_typing(
    writer: Writer,
    State(typing): State<Typing>,
    PathId(id): PathId,
    BeaconFields(fields): BeaconFields,
) -> Result<StatusCode, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let is_typing = fields.flag("is_typing")?.unwrap_or(true);
    type_in(&writer, &typing, id, is_typing).await
}

/// `POST` and `PUT /presence/typing`: reports typing in a conversation or to a user, or its end.
pub(super) async fn set_typing(
    writer: Writer,
    State(typing): State<Typing>,
    BeaconFields(fields): BeaconFields,
) -> Result<StatusCode, ApiError> {
    check_identity(&writer.caller, &fields, &["user_id"])?;
    let is_typing = fields.flag("is_typing")?.unwrap_or(true);
    let person = fields.uuid_of(&TYPING_TO)?;
    if let Some(conversation) = fields.uuid("conversation_id")? {
        return type_in(&writer, &typing, conversation, is_typing).await;
    }
    if let Some(person) = person {
        let type_to = Query {
            sql: TYPE_TO,
            parameters: &[&writer.caller.user_id, &person, &is_typing],
        };
        return change_typing(&writer, &typing, type_to, is_typing).await;
    }
    if is_typing && !TYPING_TO.iter().any(|name| fields.is_null(name)) {
        return Err(ApiError::invalid("conversation_id or typing_to is missing"));
    }
    let stop = Query {
        sql: STOP_TYPING,
        parameters: &[&writer.caller.user_id],
    };
    change_typing(&writer, &typing, stop, false).await?;
    typing.stopped_everywhere(writer.caller.user_id);
    Ok(StatusCode::NO_CONTENT)
}

/// Field names for the user that the caller is typing to.
const TYPING_TO: [&str; 3] = ["typing_to", "typing_to_user_id", "is_typing_to"];

async fn type_in(
    writer: &Writer,
    typing: &Typing,
    conversation: Uuid,
    is_typing: bool,
) -> Result<StatusCode, ApiError> {
    let type_in = Query {
        sql: TYPE_IN,
        parameters: &[&conversation, &is_typing],
    };
    change_typing(writer, typing, type_in, is_typing).await
}

/// Lets the database decide who may see that the caller types, and sends the typing event. Each row
/// that `change` returns contains the conversation, whether typing is shared in it, how many
/// milliseconds the event is valid, and the other members.
async fn change_typing(
    writer: &Writer,
    typing: &Typing,
    change: Query<'_>,
    is_typing: bool,
) -> Result<StatusCode, ApiError> {
    let person = writer.caller.user_id;
    for row in writer.change_returning(change).await? {
        let conversation: Uuid = column(&row, 0)?;
        let expires_in_ms: i32 = column(&row, 2)?;
        if !column::<bool>(&row, 1)? {
            continue;
        }
        let others: Others = column::<Vec<Uuid>>(&row, 3)?.into();
        if is_typing {
            let expires_in = Duration::from_millis(u64::try_from(expires_in_ms).unwrap_or(0));
            typing.started(conversation, person, &others, expires_in, Instant::now());
        } else {
            typing.stopped(conversation, person, &others);
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a change and responds without a body.
async fn changed(writer: &Writer, change: Query<'_>) -> Result<StatusCode, ApiError> {
    writer.change(&[change]).await?;
    Ok(StatusCode::NO_CONTENT)
}
