//! Messages that somebody finds wrong, for those who moderate.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::{check_identity, only};
use crate::db::Db;
use crate::http::input::{Fields, PathId};
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};

const REPORT: &str = "select r.created from chat.report_message($1::uuid, $2::text, $3::text) r";

/// `POST /messages/{id}/report`: 201, or 200 for what the caller has reported before.
pub(super) async fn report_message(
    caller: Caller,
    State(db): State<Db>,
    PathId(id): PathId,
    fields: Fields,
) -> Result<Response, ApiError> {
    check_identity(&caller, &fields, &["reporter_id"])?;
    let reason = fields.text("reason")?.unwrap_or("other");
    let note = fields.text("note")?;
    let rows = db
        .query_as(&caller.claims, REPORT, &[&id, &reason, &note])
        .await?;
    let status = if only(&rows)? {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let body = json!({ "success": true, "message_id": id });
    Ok((status, json_text(body.to_string())).into_response())
}
