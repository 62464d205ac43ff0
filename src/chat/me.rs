//! The caller's data, as the application knows it.

use axum::extract::State;
use axum::response::Response;

use crate::db::Db;
use crate::http::pagination::json_text;
use crate::http::{ApiError, Caller};
use crate::requests::only;

const GET: &str = "select chat.me()::text";

/// `GET /me`: returns the caller's data.
pub(super) async fn get_me(caller: Caller, State(db): State<Db>) -> Result<Response, ApiError> {
    let rows = db.query_as(&caller.claims, GET, &[]).await?;
    Ok(json_text(only(&rows)?))
}
