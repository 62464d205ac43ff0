//! Reads request input: JSON bodies and query parameters.
//!
//! Names are also accepted in camel case: the field `conversation_id` may be sent as
//! `conversationId`. Unknown fields are ignored, and a null field counts as absent.

use std::collections::HashMap;
use std::num::IntErrorKind;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::error::ApiError;
use super::openapi::Declared;
use crate::error_code::ErrorCode;

/// Maximum body size in bytes. This is several times the size of the longest message with every
/// character escaped.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Timeout for receiving a body. The largest body needs 35 kB/s to meet it. A slower or stalled
/// client would occupy a connection without benefit.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The largest integer that every JSON parser reads exactly, because many use doubles (RFC 8259,
/// section 6). The smallest is its negative.
const MAX_EXACT_INTEGER: u64 = (1 << 53) - 1;

/// The description of the values that [`moment`] accepts, for hints.
const MOMENT: &str = "a time such as 2026-01-31T12:00:00Z";

/// The fields of a JSON body. An empty body has no fields.
#[derive(Debug, Default)]
pub struct Fields {
    values: Map<String, Value>,
    /// The names that the route documents. Present only in debug builds, which check that the route
    /// reads no other name.
    declared: Option<Declared>,
}

/// [`Fields`] for routes that pages call while they close: `navigator.sendBeacon` can send only
/// `text/plain` without a preflight request.
#[derive(Debug, Default)]
pub struct BeaconFields(pub Fields);

/// The parameters of a query string. If a parameter appears twice, the last one wins.
#[derive(Debug, Default)]
pub struct Parameters {
    values: HashMap<String, String>,
    /// The names that the route documents. Present only in debug builds, as in [`Fields`].
    declared: Option<Declared>,
}

impl Fields {
    /// Returns the field as a string. U+0000 is refused, because PostgreSQL cannot store it.
    ///
    /// # Errors
    /// 422 if the field has another type or contains U+0000.
    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.typed(name, "a text without U+0000", |value| {
            value.as_str().filter(|text| !text.contains('\0'))
        })
    }

    /// Returns the field as a string. A value of another type is returned as JSON. Use it only for
    /// values that are shown to humans.
    pub fn lossy_text(&self, name: &str) -> Option<String> {
        self.check_declared(name);
        let found = [name, &camel_case(name)]
            .iter()
            .filter_map(|name| self.values.get(*name))
            .find(|value| !value.is_null())?;
        Some(match found {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// Returns the field as a moment (see [`moment`]).
    ///
    /// # Errors
    /// 422 if the field is not a moment.
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.typed(name, MOMENT, |value| moment(value.as_str()?))
    }

    /// Returns the field as a boolean.
    ///
    /// # Errors
    /// 422 if the field has another type.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// Returns the field as an integer that every JSON parser reads exactly.
    ///
    /// # Errors
    /// 422 if the field is not such an integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, "a whole number below 2^53", |value| {
            value
                .as_i64()
                .filter(|number| number.unsigned_abs() <= MAX_EXACT_INTEGER)
        })
    }

    /// Returns the field as an object. U+0000 is refused as in [`Fields::text`].
    ///
    /// # Errors
    /// 422 if the field has another type or contains U+0000.
    pub fn object(&self, name: &str) -> Result<Option<&Value>, ApiError> {
        self.typed(name, "an object without U+0000", |value| {
            (value.is_object() && !has_nul(value)).then_some(value)
        })
    }

    /// Returns the field as an id.
    ///
    /// # Errors
    /// 422 if the field is not a UUID.
    pub fn uuid(&self, name: &str) -> Result<Option<Uuid>, ApiError> {
        self.typed(name, "a UUID", as_uuid)
    }

    /// Returns the id under the first of these names that is present. The other fields, if present,
    /// must be ids, too.
    ///
    /// # Errors
    /// 422 if any of the fields is not a UUID.
    pub fn uuid_of(&self, names: &[&str]) -> Result<Option<Uuid>, ApiError> {
        let mut first = None;
        for name in names {
            first = first.or(self.uuid(name)?);
        }
        Ok(first)
    }

    /// Returns the field as a list of ids.
    ///
    /// # Errors
    /// 422 if the field is not a list of UUIDs.
    pub fn uuids(&self, name: &str) -> Result<Option<Vec<Uuid>>, ApiError> {
        self.typed(name, "a list of UUIDs", |value| {
            value.as_array()?.iter().map(as_uuid).collect()
        })
    }

    /// Returns all fields, including nulls, under their names in snake case.
    ///
    /// # Errors
    /// 422 if a name or a text contains U+0000, because PostgreSQL cannot store it.
    pub fn into_snake_case(self) -> Result<Value, ApiError> {
        let fields: Map<_, _> = self
            .values
            .into_iter()
            .map(|(name, value)| (snake_case(&name), value))
            .collect();
        if fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value))
        {
            return Err(ApiError::invalid("Texts must not contain U+0000"));
        }
        Ok(Value::Object(fields))
    }

    /// Returns whether the field is present and null, which for some fields means "remove".
    pub fn is_null(&self, name: &str) -> bool {
        self.check_declared(name);
        [name, &camel_case(name)]
            .iter()
            .any(|name| self.values.get(*name).is_some_and(Value::is_null))
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.check_declared(name);
        let found = [name, &camel_case(name)]
            .iter()
            .filter_map(|name| self.values.get(*name))
            .find(|value| !value.is_null());
        match found {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| ApiError::invalid(format!("{name} must be {kind}"))),
        }
    }

    /// Asserts, in debug builds, that the operation documents this name.
    fn check_declared(&self, name: &str) {
        if let Some(declared) = &self.declared {
            debug_assert!(
                declared.fields.contains(name),
                "{} reads the undocumented field {name}",
                declared.operation
            );
        }
    }

    async fn read<S: Send + Sync>(
        request: Request,
        state: &S,
        accepted: &[&str],
    ) -> Result<Self, ApiError> {
        let media_type = request
            .headers()
            .get(CONTENT_TYPE)
            .map(|value| value.as_bytes().to_ascii_lowercase());
        let declared = request.extensions().get().cloned();
        let bytes = body(request, state, BODY_DEADLINE).await?;
        if bytes.is_empty() {
            return Ok(Self {
                values: Map::new(),
                declared,
            });
        }
        let media_type = media_type
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !accepted.contains(&media_type) && !media_type.ends_with("+json") {
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(values)) => Ok(Self { values, declared }),
            Ok(_) => Err(ApiError::invalid("The body must be a JSON object")),
            Err(error) => {
                let hint = format!(
                    "The body is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                );
                Err(ApiError::new(ErrorCode::MalformedRequest).with_hint(hint))
            }
        }
    }
}

/// The reason why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The body exceeds the limit of the route.
    TooLarge,
    /// The connection broke while the body was being sent.
    Broken,
    /// The body did not arrive in time.
    Late,
}

/// Reads the whole body, waiting at most `deadline`. The route's `DefaultBodyLimit` limits its
/// size.
///
/// # Errors
/// [`BodyError`] if the body was not read.
pub async fn body<S: Send + Sync>(
    request: Request,
    state: &S,
    deadline: Duration,
) -> Result<Bytes, BodyError> {
    match tokio::time::timeout(deadline, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(BodyError::TooLarge)
        }
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::Late),
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => {
                Self::new(ErrorCode::PayloadTooLarge).with_hint("A body may have at most 1 MiB")
            }
            BodyError::Broken => Self::new(ErrorCode::MalformedRequest),
            BodyError::Late => {
                Self::new(ErrorCode::MalformedRequest).with_hint("The body did not arrive in time")
            }
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Self::read(request, state, &["application/json"]).await
    }
}

impl<S: Send + Sync> FromRequest<S> for BeaconFields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Fields::read(request, state, &["application/json", "text/plain"])
            .await
            .map(Self)
    }
}

impl Parameters {
    /// Returns the query parameters of a URI.
    ///
    /// # Errors
    /// 400 if the query string is malformed.
    pub fn of(uri: &Uri) -> Result<Self, ApiError> {
        match Query::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Query(pairs)) => Ok(Self {
                values: pairs.into_iter().collect(),
                declared: None,
            }),
            Err(_) => Err(ApiError::new(ErrorCode::MalformedRequest)
                .with_hint("The query string is malformed")),
        }
    }

    /// Returns the parameter as a string. An empty parameter counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        if let Some(declared) = &self.declared {
            debug_assert!(
                declared.parameters.contains(name),
                "{} reads the undocumented parameter {name}",
                declared.operation
            );
        }
        let found = self
            .values
            .get(name)
            .or_else(|| self.values.get(&camel_case(name)));
        found.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the parameter as a boolean. The values are `true`, `false`, `1` and `0`.
    ///
    /// # Errors
    /// 422 if the parameter has another value.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", |value| match value {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// Returns the parameter as an integer.
    ///
    /// # Errors
    /// 422 if the parameter is not an integer.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, "a whole number", |value| value.parse().ok())
    }

    /// Returns the parameter as an integer, clamped to these bounds. Numbers too large for any
    /// integer type are clamped, too.
    ///
    /// # Errors
    /// 422 if the parameter is not an integer.
    pub fn clamped(&self, name: &str, least: i32, most: i32) -> Result<Option<i32>, ApiError> {
        self.typed(name, "a whole number", |value| {
            let parsed = value.parse::<i32>().map(|number| number.clamp(least, most));
            parsed.map_or_else(
                |error| match error.kind() {
                    IntErrorKind::PosOverflow => Some(most),
                    IntErrorKind::NegOverflow => Some(least),
                    _ => None,
                },
                Some,
            )
        })
    }

    /// Returns the parameter as an id.
    ///
    /// # Errors
    /// 422 if the parameter is not a UUID.
    pub fn uuid(&self, name: &str) -> Result<Option<Uuid>, ApiError> {
        self.typed(name, "a UUID", |value| Uuid::try_parse(value).ok())
    }

    /// Returns the parameter as a moment (see [`moment`]). A space may stand for the `+` of the
    /// offset. A client that copies a moment from a response without escaping it sends a `+`, which
    /// a query string decodes to a space.
    ///
    /// # Errors
    /// 422 if the parameter is not a moment.
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.typed(name, MOMENT, |value| {
            moment(value).or_else(|| moment(&value.replace(' ', "+")))
        })
    }

    /// Returns the parameter, a comma-separated list, as ids.
    ///
    /// # Errors
    /// 422 if any element is not a UUID.
    pub fn uuids(&self, name: &str) -> Result<Option<Vec<Uuid>>, ApiError> {
        self.typed(name, "a list of UUIDs, separated by commas", |value| {
            let ids = value.split(',').map(str::trim).filter(|id| !id.is_empty());
            ids.map(|id| Uuid::try_parse(id).ok()).collect()
        })
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        kind: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.text(name)
            .map(|value| {
                read(value).ok_or_else(|| ApiError::invalid(format!("{name} must be {kind}")))
            })
            .transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self {
            declared: parts.extensions.get().cloned(),
            ..Self::of(&parts.uri)?
        })
    }
}

/// The id in a path. A segment that is not a UUID cannot identify any row, so it results in 404.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segment = Path::<String>::from_request_parts(parts, state).await.ok();
        segment
            .and_then(|Path(segment)| Uuid::try_parse(&segment).ok())
            .map(Self)
            .ok_or_else(|| ApiError::new(ErrorCode::NotFound))
    }
}

/// The id and the text after it in a path such as `/messages/{id}/reactions/{reaction}`. As with
/// [`PathId`], an invalid id results in 404.
#[derive(Debug)]
pub struct PathIdAndText(pub Uuid, pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathIdAndText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = Path::<(String, String)>::from_request_parts(parts, state).await;
        segments
            .ok()
            .and_then(|Path((id, text))| Some(Self(Uuid::try_parse(&id).ok()?, text)))
            // PostgreSQL cannot store U+0000, so no stored text can match.
            .filter(|Self(_, text)| !text.contains('\0'))
            .ok_or_else(|| ApiError::new(ErrorCode::NotFound))
    }
}

/// Parses a date and time in RFC 3339 format. Without an offset, the time is UTC. Without a time,
/// it is the start of the day. Words that PostgreSQL accepts as times, such as `tomorrow`, are
/// refused.
pub fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

fn as_uuid(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::try_parse(text).ok())
}

/// Returns whether any string in the value contains U+0000.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut whole, part| {
        let (head, tail) = part.split_at(part.len().min(1));
        whole.push_str(&head.to_ascii_uppercase());
        whole.push_str(tail);
        whole
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_by_both_spellings_and_typed() {
        let Value::Object(map) = json!({
            "conversationId": "0a000000-0000-4000-8000-000000000001", "is_typing": true, "count": 1.5, "gone": null,
            "messageIds": ["0a000000-0000-4000-8000-000000000001"], "bad": ["x"], "typingTo": null,
            "reply_to_id": null, "replyToId": "0a000000-0000-4000-8000-000000000002",
        }) else {
            panic!("an object")
        };
        let fields = Fields {
            values: map,
            declared: None,
        };
        assert!(fields.uuid("conversation_id").expect("good").is_some());
        assert!(
            fields.uuid("reply_to_id").expect("good").is_some(),
            "a null does not hide the other spelling"
        );
        assert_eq!(fields.flag("is_typing").expect("good"), Some(true));
        assert_eq!(fields.text("gone").expect("absent"), None);
        assert_eq!(fields.text("missing").expect("absent"), None);
        assert_eq!(
            fields
                .uuids("message_ids")
                .expect("good")
                .map(|ids| ids.len()),
            Some(1)
        );
        assert!(fields.is_null("typing_to") && !fields.is_null("missing"));
        for error in [
            fields.integer("count").err(),
            fields.uuids("bad").err(),
            fields.uuid("is_typing").err(),
        ] {
            assert_eq!(
                error.expect("wrong type").code(),
                ErrorCode::ValidationFailed
            );
        }
    }

    #[tokio::test]
    async fn a_stalled_body_times_out() {
        let rest = futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>();
        let request = Request::new(axum::body::Body::from_stream(rest));
        let error = body(request, &(), Duration::from_millis(1)).await;
        let answer = ApiError::from(error.expect_err("refused")).body("r");
        assert_eq!(answer["code"], "malformed_request");
        assert_eq!(answer["hint"], "The body did not arrive in time");
    }

    #[test]
    fn moments_follow_rfc_3339() {
        let noon = "2026-01-31T12:00:00Z".parse().ok();
        let cases = [
            ("2026-01-31T12:00:00Z", noon),
            ("2026-01-31T12:00:00+00:00", noon),
            ("2026-01-31T13:00:00.000000+01:00", noon),
            ("2026-01-31T12:00:00", noon),
            ("2026-01-31 12:00:00", noon),
            ("2026-01-31", "2026-01-31T00:00:00Z".parse().ok()),
            ("tomorrow", None),
            ("now", None),
            ("infinity", None),
            ("12:00", None),
            ("0044-03-15 BC", None),
            ("200000-01-01", None),
            ("2026-02-30", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(moment(text), expected, "{text}");
        }
        let unescaped = Parameters::of(&Uri::from_static("/?since=2026-01-31T12:00:00+00:00"));
        assert_eq!(
            unescaped.expect("good").moment("since").expect("good"),
            noon
        );
    }

    #[test]
    fn the_hint_names_the_invalid_field() {
        let Value::Object(map) = json!({
            "text": "a\u{0}", "exact": 9_007_199_254_740_991_i64, "rounded": 9_007_199_254_740_992_i64,
        }) else {
            panic!("an object")
        };
        let fields = Fields {
            values: map,
            declared: None,
        };
        assert!(fields.integer("exact").is_ok());
        for (error, name) in [
            (fields.text("text").err(), "text"),
            (fields.integer("rounded").err(), "rounded"),
        ] {
            let body = error.expect("refused").body("r");
            assert_eq!(body["code"], "validation_failed");
            assert!(
                body["hint"]
                    .as_str()
                    .is_some_and(|hint| hint.contains(name))
            );
        }
    }

    #[test]
    fn names_turn_into_camel_case() {
        for (snake, camel) in [
            ("a", "a"),
            ("other_user_id", "otherUserId"),
            ("q", "q"),
            ("up_to_message_id", "upToMessageId"),
        ] {
            assert_eq!(camel_case(snake), camel);
        }
    }
}
