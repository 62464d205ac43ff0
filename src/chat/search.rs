//! Finding people to talk to.

use axum::extract::State;
use axum::response::Response;

use super::only;
use crate::db::Db;
use crate::http::input::Parameters;
use crate::http::pagination::{self, json_text};
use crate::http::{ApiError, Caller};

/// People that one answer names. Few, so that a directory cannot be read out by its letters.
const MAX_PEOPLE: i32 = 10;

const FIND_PEOPLE: &str = "\
    select coalesce(json_agg(p), '[]')::text \
    from chat.search_people($1::text, $2::int) p";

/// `GET /search`. Whom it finds is decided by the caller's own teams, whatever `teamId` says.
pub(super) async fn search(
    caller: Caller,
    State(db): State<Db>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    match parameters.text("type") {
        None | Some("users") => {}
        Some(_) => return Err(ApiError::invalid("type: this server searches users")),
    }
    let wanted = ["q", "query", "search"]
        .iter()
        .find_map(|name| parameters.text(name))
        .unwrap_or_default();
    let limit = pagination::limit(&parameters, MAX_PEOPLE, MAX_PEOPLE)?;
    let rows = db
        .query_as(&caller.claims, FIND_PEOPLE, &[&wanted, &limit])
        .await?;
    Ok(json_text(only(&rows)?))
}
