//! Reports of messages to the moderators.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::classes::Writer;
use crate::db::Query;
use crate::http::ApiError;
use crate::http::input::{Fields, PathId};
use crate::http::pagination::json_text;
use crate::requests::{check_identity, only};

const REPORT: &str = "\
    select set_config('rapport.outcome', json_build_object('created', r.created)::text, true) \
    from chat.report_message($1::uuid, $2::text, $3::text) r";

const WAS_CREATED: &str = "select (chat.outcome() ->> 'created')::boolean";

/// `POST /messages/{id}/report`: returns 201, or 200 if the caller has reported the message before.
pub(super) async fn report_message(
    writer: Writer,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&writer.caller, &fields, &["reporter_id"])?;
    let reason = fields.text("reason")?.unwrap_or("other");
    let note = fields.text("note")?;
    let report = Query {
        sql: REPORT,
        parameters: &[&id, &reason, &note],
    };
    let was_created = Query {
        sql: WAS_CREATED,
        parameters: &[],
    };
    let rows = writer.change_then_read(&[report], was_created).await?;
    let status = if only(&rows)? {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = json!({ "success": true, "message_id": id });
    Ok((status, json_text(body.to_string())).into_response())
}
