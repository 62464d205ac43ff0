//! Reading and sending a message.

use axum::extract::State;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::classes::{Class, Writer};
use super::conversations::{OTHER_PERSON, REFUSE_OPENING};
use crate::db::{Db, Query};
use crate::error_code::ErrorCode;
use crate::http::input::{Fields, PathId};
use crate::http::pagination::{Page, json_text};
use crate::http::{ApiError, Caller};
use crate::requests::{check_identity, column, whole_list};

/// Selects a message, if the caller can see it: the row and its revision.
pub(super) const GET: &str = "\
    select r.row::text, r.rev from chat.message_rows(array[(chat.my_message($1::uuid)).id]) r";

/// Opens the conversation that a message is sent to. Stores its id in a setting of the transaction,
/// from which [`SEND`] reads it, so that both statements fit into one round trip.
const OPEN: &str = "\
    select \
        set_config('rapport.conversation_id', o.conversation_id::text, true), \
        set_config('rapport.opened', o.created::text, true) \
    from chat.open_conversation($1::uuid) o";

const SEND: &str = "\
    select set_config( \
        'rapport.outcome', json_build_object('created', s.created, 'message_id', s.message_id)::text, true) \
    from chat.send_message( \
        coalesce($1::uuid, current_setting('rapport.conversation_id', true)::uuid), \
        $2::text, $3::text, $4::text, $5::text, $6::uuid, $7::uuid[], $8::jsonb, \
        $9::text, $10::text, $11::bigint, $12::text) s";

/// Refuses the request unless its message was sent before.
const REFUSE_NEW: &str = "\
    select chat.refuse('rate_limited') \
    where not exists ( \
        select \
        from public.user_messages m \
        where m.sender_id = auth.uid() \
            and m.client_message_id = $3::text \
            and m.conversation_id = coalesce($1::uuid, ( \
                select c.id \
                from public.user_conversations c \
                where c.kind = 'direct' \
                    and c.participant_1_id = least(auth.uid(), $2::uuid) \
                    and c.participant_2_id = greatest(auth.uid(), $2::uuid))))";

const GET_SENT: &str = "\
    select \
        r.row::text, \
        (chat.outcome() ->> 'created')::boolean, \
        coalesce(current_setting('rapport.opened', true) = 'true', false) \
    from chat.message_rows(array[(chat.outcome() ->> 'message_id')::uuid]) r";

/// `GET /messages/{id}`: returns one message. Its `ETag` contains its revision, which an edit can
/// require.
pub(super) async fn get_message(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    message_response(&db.query_as(&caller.claims, GET, &[&id]).await?)
}

/// Returns the response with the message that [`GET`] selected, or 404.
pub(super) fn message_response(rows: &[Row]) -> Result<Response, ApiError> {
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

/// Returns the rows that `sql` selects for a message, or 404 if the caller cannot see the message.
pub(super) async fn about_message(
    caller: &Caller,
    db: &Db,
    id: Uuid,
    sql: &'static str,
) -> Result<Page, ApiError> {
    let parameters: &[&(dyn ToSql + Sync)] = &[&id];
    let queries = [GET, sql].map(|sql| Query { sql, parameters });
    let results = db.run_as(&caller.claims, &queries).await?;
    if results[0].is_empty() {
        return Err(ApiError::new(ErrorCode::NotFound));
    }
    whole_list(&results[1])
}

/// The message to send.
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
                "attachment_ids: this server does not support attachments",
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

    /// Returns a hash that distinguishes a retry from another request with the same
    /// `client_message_id`.
    fn hash(&self) -> String {
        let fields = json!([
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
        let hash = Sha256::digest(fields.to_string());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns whether a row of [`GET_SENT`] reports that its conversation was opened.
fn is_opened(rows: &[Row]) -> Result<bool, ApiError> {
    rows.first().map_or(Ok(false), |row| column(row, 2))
}

/// `POST /messages`: returns 201 with the message, or 200 if it was sent before.
pub(super) async fn send_message(mut writer: Writer, fields: Fields) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["sender_id"])?;
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
    let parameters: &[&(dyn ToSql + Sync)] = &[&conversation, &other, &draft.client_message_id];
    let refuse_sending = Query {
        sql: REFUSE_NEW,
        parameters,
    };
    let refuse_new = draft
        .client_message_id
        .map(|_| (Class::Send, refuse_sending));
    let rows = match (conversation, &other) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "conversation_id and other_user_id are mutually exclusive",
            ));
        }
        (Some(_), None) => {
            let refuse_new: Vec<_> = refuse_new.into_iter().collect();
            writer.find_or_change(&refuse_new, &[send], get).await?
        }
        (None, Some(other)) => {
            let open = Query {
                sql: OPEN,
                parameters: &[other],
            };
            let refuse_opening = Query {
                sql: REFUSE_OPENING,
                parameters: &[other],
            };
            let refuse_new: Vec<_> = refuse_new
                .into_iter()
                .chain([(Class::Open, refuse_opening)])
                .collect();
            writer.take(Class::Open);
            let found = writer.find_or_change(&refuse_new, &[open, send], get).await;
            let is_opened = match &found {
                Ok(rows) => is_opened(rows)?,
                // If the conversation was opened, the rollback of the transaction removed it.
                Err(_) => false,
            };
            if !is_opened {
                writer.refund(Class::Open);
            }
            found?
        }
        (None, None) => {
            return Err(ApiError::invalid(
                "conversation_id or other_user_id is missing",
            ));
        }
    };
    // On a retry, the caller may no longer be able to see the message.
    let row = rows
        .first()
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    let mut response = json_text(column(row, 0)?);
    if column(row, 1)? {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}
