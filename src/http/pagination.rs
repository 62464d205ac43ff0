//! Pages of rows: opaque cursors, the two forms of a page, and the headers of a page.

use axum::http::header::{CONTENT_TYPE, ETAG, LINK};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::conditional::tag_of;
use super::error::ApiError;
use super::input::Parameters;
use crate::error_code::ErrorCode;

/// The header with the cursor of the next page, for clients that do not read `Link`.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// The first element of a cursor. A new format must have a new number, so that an old cursor is
/// refused instead of being misread.
const CURSOR_VERSION: u8 = 1;

/// Parameters that determine where a page begins. The URL of the next page has a cursor instead.
const POSITION_PARAMETERS: [&str; 6] =
    ["cursor", "offset", "before", "after", "around", "since_rev"];

/// Encodes a position as an opaque cursor.
///
/// # Errors
/// 500 if the position cannot be serialized.
pub fn cursor<T: Serialize>(position: &T) -> Result<String, ApiError> {
    let json = serde_json::to_vec(&(CURSOR_VERSION, position))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Decodes the position of a cursor. Cursors are not signed, because a cursor can only select rows
/// that the caller may see anyway.
///
/// # Errors
/// 400 if the cursor is not valid for this list.
pub fn position<T: DeserializeOwned>(cursor: &str) -> Result<T, ApiError> {
    let json = URL_SAFE_NO_PAD
        .decode(cursor)
        .map_err(|_| foreign_cursor())?;
    let (version, position): (u8, T) =
        serde_json::from_slice(&json).map_err(|_| foreign_cursor())?;
    if version == CURSOR_VERSION {
        Ok(position)
    } else {
        Err(foreign_cursor())
    }
}

/// Like [`cursor`], for a list that belongs to a conversation.
///
/// # Errors
/// The same as for [`cursor`].
pub fn cursor_in<T: Serialize>(conversation: Uuid, position: &T) -> Result<String, ApiError> {
    cursor(&(conversation, position))
}

/// Decodes the position in the `cursor` parameter of a request for a list that belongs to a
/// conversation, if the parameter is present.
///
/// # Errors
/// 400 if the cursor is not valid for this list or belongs to another conversation.
pub fn position_in<T: DeserializeOwned>(
    conversation: Uuid,
    parameters: &Parameters,
) -> Result<Option<T>, ApiError> {
    let Some(cursor) = parameters.text("cursor") else {
        return Ok(None);
    };
    let (of, position): (Uuid, T) = position(cursor)?;
    if of == conversation {
        Ok(Some(position))
    } else {
        Err(foreign_cursor())
    }
}

/// Returns the refusal of an invalid cursor.
pub fn foreign_cursor() -> ApiError {
    ApiError::new(ErrorCode::MalformedRequest).with_hint("cursor is not a valid cursor")
}

/// Returns the page size: the parameter `limit`, clamped to the range from 1 to `most`, or
/// `default`.
///
/// # Errors
/// 422 if `limit` is not a number.
pub fn limit(parameters: &Parameters, default: i32, most: i32) -> Result<PageSize, ApiError> {
    let limit = parameters.clamped("limit", 1, most)?;
    Ok(PageSize(limit.unwrap_or(default)))
}

/// The maximum number of rows on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(i32);

impl PageSize {
    /// Returns the number itself.
    pub fn rows(self) -> i32 {
        self.0
    }

    /// Returns the number of rows that the statement for the page must return. This is one more
    /// than the page has. The surplus row shows that another page follows.
    pub fn fetched(self) -> i32 {
        self.0 + 1
    }

    /// Returns the sizes of the two parts of a page around a row. The row belongs to the second
    /// part.
    pub fn halves(self) -> (Self, Self) {
        let first = self.0 / 2;
        (Self(first), Self(self.0 - first))
    }

    /// Returns the rows of the page among those that the statement returned. The surplus row is the
    /// one farthest from the start of the page. If the page goes backwards, that is the first row.
    pub fn cut<R>(self, fetched: &[R], is_backwards: bool) -> PageRows<'_, R> {
        let size = usize::try_from(self.0).unwrap_or_default();
        let surplus = fetched.len().saturating_sub(size);
        let rows = if is_backwards {
            &fetched[surplus..]
        } else {
            &fetched[..fetched.len() - surplus]
        };
        PageRows {
            rows,
            has_more: surplus > 0,
            is_backwards,
        }
    }
}

/// The rows of a page, in the order of the list.
#[derive(Clone, Copy, Debug)]
pub struct PageRows<'a, R> {
    /// The rows.
    pub rows: &'a [R],
    /// Whether another page follows in the direction of this one.
    pub has_more: bool,
    is_backwards: bool,
}

impl<'a, R> PageRows<'a, R> {
    /// Returns the row after which the next page begins, or `None` if no page follows.
    pub fn next_from(&self) -> Option<&'a R> {
        let (_, end) = self.ends();
        end.filter(|_| self.has_more)
    }

    /// Returns the row before which the previous page ends, or `None` if this page is empty.
    pub fn previous_from(&self) -> Option<&'a R> {
        self.ends().0
    }

    /// Returns the first and the last row in the direction of the page.
    fn ends(&self) -> (Option<&'a R>, Option<&'a R>) {
        let (first, last) = (self.rows.first(), self.rows.last());
        if self.is_backwards {
            (last, first)
        } else {
            (first, last)
        }
    }
}

/// Returns the number of rows to skip: the parameter `offset`. It is kept for older clients and is
/// unstable while rows are added.
///
/// # Errors
/// 422 if `offset` is not a non-negative number.
pub fn offset(parameters: &Parameters) -> Result<i32, ApiError> {
    let asked = parameters.integer("offset")?.unwrap_or_default();
    i32::try_from(asked)
        .ok()
        .filter(|offset| *offset >= 0)
        .ok_or_else(|| ApiError::invalid("offset must be between 0 and 2147483647"))
}

/// A page of a list. Each row is JSON as the database built it.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<String>,
    /// The cursor of the next page in the requested direction, or `None` at the end.
    pub next_cursor: Option<String>,
    /// The cursor of the previous page.
    pub prev_cursor: Option<String>,
    /// The newest revision that the page covers, if its rows have revisions.
    pub rev: Option<i64>,
}

impl Page {
    /// Creates a page of these rows. `read` returns a row as JSON, with its revision if it has one.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn of<'a, R: 'a>(
        rows: impl IntoIterator<Item = &'a R>,
        read: impl Fn(&R) -> Result<(String, Option<i64>), ApiError>,
    ) -> Result<Self, ApiError> {
        let mut page = Self::default();
        for row in rows {
            let (text, rev) = read(row)?;
            page.rows.push(text);
            page.rev = page.rev.max(rev);
        }
        Ok(page)
    }

    /// Creates the page of a list that is only read forwards, from the rows that its statement
    /// returned for [`PageSize::fetched`]. `cursor` returns the cursor of the page after a row.
    ///
    /// # Errors
    /// The errors of `read` and `cursor`.
    pub fn forwards<R>(
        fetched: &[R],
        size: PageSize,
        read: impl Fn(&R) -> Result<(String, Option<i64>), ApiError>,
        cursor: impl FnOnce(&R) -> Result<String, ApiError>,
    ) -> Result<Self, ApiError> {
        let kept = size.cut(fetched, false);
        let mut page = Self::of(kept.rows, read)?;
        page.next_cursor = kept.next_from().map(cursor).transpose()?;
        Ok(page)
    }

    /// Renders the page in the form that the request at `uri` selects: a plain list or, with
    /// `format=page`, an object with cursors.
    pub fn respond(&self, uri: &Uri, parameters: &Parameters) -> Response {
        let rows = format!("[{}]", self.rows.join(","));
        let mut response = if is_wrapped(parameters) {
            self.wrapped(&rows)
        } else {
            json_text(rows)
        };
        let links = [("next", &self.next_cursor), ("prev", &self.prev_cursor)];
        let links: Vec<String> = links
            .iter()
            .filter_map(|(relation, cursor)| {
                let address = with_cursor(uri, cursor.as_deref()?);
                Some(format!("<{address}>; rel=\"{relation}\""))
            })
            .collect();
        let link = (!links.is_empty()).then(|| links.join(", "));
        for (name, value) in [(LINK, &link), (NEXT_CURSOR, &self.next_cursor)] {
            if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// Renders the page as an object. The `ETag` does not cover `server_time`, because the tag
    /// would otherwise differ in every response.
    fn wrapped(&self, rows: &str) -> Response {
        let quoted = |cursor: &Option<String>| {
            cursor
                .as_deref()
                .map_or_else(|| "null".to_owned(), |cursor| format!("\"{cursor}\""))
        };
        let content = format!(
            r#""data":{rows},"next_cursor":{},"prev_cursor":{},"has_more":{},"rev":{}"#,
            quoted(&self.next_cursor),
            quoted(&self.prev_cursor),
            self.next_cursor.is_some(),
            self.rev
                .map_or_else(|| "null".to_owned(), |rev| rev.to_string()),
        );
        let mut response = json_text(format!(r#"{{{content},"server_time":"{}"}}"#, now()));
        if let Some(tag) = tag_of(content.as_bytes()) {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}

/// Returns whether the request selects the page as an object. Only that form contains
/// [`Page::rev`].
pub fn is_wrapped(parameters: &Parameters) -> bool {
    parameters.text("format") == Some("page")
}

/// Returns a response with this body, which is already JSON.
pub fn json_text(body: String) -> Response {
    (
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        body,
    )
        .into_response()
}

/// Returns the current time in the format of PostgREST: UTC, six fractional digits, `+00:00`.
fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00")
        .to_string()
}

/// Returns the URL of another page of the same list, relative to the host.
fn with_cursor(uri: &Uri, cursor: &str) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !pair.is_empty() && !POSITION_PARAMETERS.contains(&name) && name != "sinceRev"
    });
    let mut query: Vec<&str> = kept.collect();
    let cursor = format!("cursor={cursor}");
    query.push(&cursor);
    format!("{}?{}", uri.path(), query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_cursors_are_read_and_others_refused() {
        let written = cursor(&(true, "2026-01-02T03:04:05Z", 7)).expect("writes");
        assert_eq!(
            position::<(bool, String, i64)>(&written).expect("ours"),
            (true, "2026-01-02T03:04:05Z".into(), 7)
        );
        let old = URL_SAFE_NO_PAD.encode("[0,[true,\"\",7]]");
        for other in ["", "x", "!!", &URL_SAFE_NO_PAD.encode("{}"), &old] {
            let error = position::<(bool, String, i64)>(other).expect_err(other);
            assert_eq!(error.code(), ErrorCode::MalformedRequest);
        }
    }

    #[test]
    fn a_surplus_row_belongs_to_the_next_page() {
        let size = PageSize(2);
        assert_eq!((size.rows(), size.fetched()), (2, 3));
        // (fetched rows, whether the page goes backwards, the page, and the rows of its two
        // cursors)
        let cases = [
            (vec![], false, vec![], None, None),
            (vec![1, 2], false, vec![1, 2], None, Some(1)),
            (vec![1, 2, 3], false, vec![1, 2], Some(2), Some(1)),
            (vec![], true, vec![], None, None),
            (vec![1, 2], true, vec![1, 2], None, Some(2)),
            (vec![1, 2, 3], true, vec![2, 3], Some(2), Some(3)),
        ];
        for (fetched, is_backwards, rows, next, previous) in cases {
            let page = size.cut(&fetched, is_backwards);
            assert_eq!(page.rows, rows);
            assert_eq!(page.next_from().copied(), next, "{fetched:?}");
            assert_eq!(page.previous_from().copied(), previous, "{fetched:?}");
        }
        assert_eq!(PageSize(5).halves(), (PageSize(2), PageSize(3)));
        // The part before a row may be empty although there are earlier rows.
        let (before, _) = PageSize(1).halves();
        let page = before.cut(&[1], true);
        assert!(page.rows.is_empty() && page.has_more && page.next_from().is_none());
    }

    #[test]
    fn a_page_has_the_newest_revision_and_the_cursor_of_its_last_row() {
        let read = |row: &i64| Ok((format!("{row}"), Some(*row)));
        let cursor = |row: &i64| Ok(format!("after {row}"));
        let page = Page::forwards(&[7, 5, 9], PageSize(2), read, cursor).unwrap();
        assert_eq!(page.rows, ["7", "5"]);
        assert_eq!(page.next_cursor.as_deref(), Some("after 5"));
        assert_eq!((page.prev_cursor, page.rev), (None, Some(7)));
        let page = Page::forwards(&[7, 5], PageSize(2), read, cursor).unwrap();
        assert_eq!(page.next_cursor, None);
    }

    #[test]
    fn the_next_url_keeps_everything_but_the_position() {
        let uri: Uri = "/a/messages?conversation_id=c&limit=5&before=9&cursor=old&format=page"
            .parse()
            .expect("an address");
        assert_eq!(
            with_cursor(&uri, "new"),
            "/a/messages?conversation_id=c&limit=5&format=page&cursor=new"
        );
        assert_eq!(
            with_cursor(&"/a".parse().expect("an address"), "new"),
            "/a?cursor=new"
        );
    }
}
