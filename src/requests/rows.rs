//! Reads the rows of a feature's statements, and builds responses from rows that the database
//! rendered as JSON. Such rows are not parsed.

use axum::response::Response;
use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::http::ApiError;
use crate::http::pagination::{Page, json_text};

/// Returns a column of a row that one of Rapport's own statements selected.
///
/// # Errors
/// 500 if the statement does not select what its caller expects.
pub fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, ApiError> {
    row.try_get(index)
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// Returns the first column of the only row, for statements that always return one row.
///
/// # Errors
/// 500 if there is no row.
pub fn only<'a, T: FromSql<'a>>(rows: &'a [Row]) -> Result<T, ApiError> {
    let row = rows
        .first()
        .ok_or_else(|| ApiError::internal("a statement returned no row"))?;
    column(row, 0)
}

/// Returns a list of rows that a statement selected as JSON in its first column.
///
/// # Errors
/// 500 if the column is not a text.
pub fn whole_list(rows: &[Row]) -> Result<Page, ApiError> {
    let rows = rows.iter().map(|row| column(row, 0));
    Ok(Page {
        rows: rows.collect::<Result<_, _>>()?,
        ..Page::default()
    })
}

/// Appends fields to a JSON object without parsing it.
///
/// # Errors
/// 500 if the row is not an object.
pub fn extended(row: &str, fields: &str) -> Result<String, ApiError> {
    let open = row
        .trim_end()
        .strip_suffix('}')
        .ok_or_else(|| ApiError::internal("a row is not an object"))?;
    Ok(format!("{open},{fields}}}"))
}

/// Returns the response to a deletion: a message, which dashboards show, and the id of the deleted
/// row.
pub fn confirmation(message: &str, id: Uuid) -> Response {
    json_text(json!({ "message": message, "success": true, "id": id }).to_string())
}
