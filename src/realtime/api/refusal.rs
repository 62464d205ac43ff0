//! The reasons why a broadcast over HTTP is refused. No other file contains the statuses and bodies
//! of these refusals (protocol 1.5).

use std::fmt::Write as _;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::channel::authorize::AuthorizeError;
use super::super::error::store_refusal;
use super::super::messages::store::StoreError;
use super::super::protocol::{BroadcastError, PersistError};
use super::request::Unreadable;
use crate::auth::TokenError;
use crate::http::error::KEYS_RETRY_SECONDS;
use crate::http::input::BodyError;
use crate::observability::metrics::{Limit, RealtimeMetrics};

/// Maximum number of items in the header that lists refused messages. A longer list ends with
/// [`MORE`]. The length is limited because proxies commonly limit a head to 4 to 8 KiB.
const MAX_ITEMS: usize = 50;

/// The last item of an incomplete list.
const MORE: &str = "more";

/// The reason why a request or one of its messages is refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The token is missing or invalid.
    Unauthorized,
    /// The keys of the token's issuer are not available.
    KeysUnavailable,
    /// The server exceeds its rate of events.
    TooManyRequests,
    /// The server exceeded its rate while the body was read.
    OverRate,
    /// The messages of this batch would exceed the rate.
    BatchOverRate,
    /// The path is not UTF-8.
    Address,
    /// The media type of the body is not supported.
    MediaType,
    /// The body did not arrive completely.
    Body(BodyError),
    /// Too many bodies are arriving at once, and this one is not small.
    TooManyBodies,
    /// The body is invalid.
    Unreadable(Unreadable),
    /// The message cannot be encoded as a frame.
    NotEncodable(BroadcastError),
    /// The policies do not let this caller send to the topic.
    Forbidden,
    /// The permission check failed.
    CheckFailed(AuthorizeError),
    /// The message cannot be stored as requested.
    Persist(PersistError),
    /// The message was neither stored nor sent. The text is the same as for a sender on a socket.
    NotStored(StoreError),
}

impl From<PersistError> for Refusal {
    fn from(error: PersistError) -> Self {
        Self::Persist(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Forbidden => Self::Forbidden,
            StoreError::CheckFailed(error) => Self::CheckFailed(error),
            error => Self::NotStored(error),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<Unreadable> for Refusal {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::TooManyMessages => Self::BatchOverRate,
            error => Self::Unreadable(error),
        }
    }
}

impl Refusal {
    /// Returns the response. Counts the limit that was reached, if any.
    pub(super) fn respond(self, metrics: &RealtimeMetrics) -> Response {
        if let Some(limit) = self.limit() {
            metrics.limited(limit);
        }
        let is_passing = matches!(self, Self::KeysUnavailable);
        let (status, body) = self.status_and_body();
        let mut response = (status, Json(body)).into_response();
        if is_passing {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(KEYS_RETRY_SECONDS));
        }
        response
    }

    /// Returns the limit that was reached, if any.
    fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyRequests | Self::OverRate | Self::BatchOverRate => Some(Limit::Events),
            Self::Body(BodyError::TooLarge) => Some(Limit::Request),
            Self::TooManyBodies => Some(Limit::AllRequests),
            Self::Unreadable(error) if error.is_too_large() => Some(Limit::Broadcast),
            _ => None,
        }
    }

    /// Returns the reason in one word, for the header that lists refused messages.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::CheckFailed(AuthorizeError::Policy { .. }) => "policy_error",
            Self::CheckFailed(AuthorizeError::Canceled(_)) => "query_canceled",
            Self::CheckFailed(AuthorizeError::MissingPartition) => "missing_partition",
            Self::CheckFailed(_) => "database_unavailable",
            _ => "forbidden",
        }
    }

    /// Returns whether the policies refused the message. Any other failure affects other topics as
    /// well.
    pub(super) fn is_policy_decision(&self) -> bool {
        match self {
            Self::CheckFailed(error) => error.is_refusal(),
            _ => true,
        }
    }

    fn status_and_body(self) -> (StatusCode, Value) {
        let message = |text: &str| json!({ "message": text });
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, message("Unauthorized")),
            Self::KeysUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                message(&TokenError::KeysUnavailable.to_string()),
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, message("Unauthorized")),
            Self::TooManyRequests | Self::TooManyBodies => {
                (StatusCode::TOO_MANY_REQUESTS, message("Too many requests"))
            }
            Self::OverRate => (
                StatusCode::TOO_MANY_REQUESTS,
                message("You have exceeded your rate limit"),
            ),
            Self::BatchOverRate => (
                StatusCode::TOO_MANY_REQUESTS,
                message("Too many messages to broadcast, please reduce the batch size"),
            ),
            Self::Address => (
                StatusCode::BAD_REQUEST,
                message("The path of the request is not valid UTF-8"),
            ),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                json!({ "error": "Unsupported Media Type. Use application/json or application/octet-stream" }),
            ),
            Self::Body(BodyError::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                message("The body is too large"),
            ),
            Self::Body(BodyError::Broken) => (
                StatusCode::BAD_REQUEST,
                message("The request body was cut off"),
            ),
            Self::Body(BodyError::Late) => (
                StatusCode::REQUEST_TIMEOUT,
                message("The body did not arrive in time"),
            ),
            Self::Unreadable(Unreadable::NotJson) => {
                (StatusCode::BAD_REQUEST, message("The body is not JSON"))
            }
            Self::Unreadable(Unreadable::TooManyMessages) => Self::BatchOverRate.status_and_body(),
            Self::Unreadable(Unreadable::Fields(errors)) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                json!({ "errors": errors }),
            ),
            Self::NotEncodable(error) => {
                // Broadcasts with any other error were refused earlier.
                let name = match error {
                    BroadcastError::TopicTooLong => "topic",
                    BroadcastError::EventTooLong => "event",
                    _ => "payload",
                };
                let errors = json!({ "errors": { name: [error.to_string()] } });
                (StatusCode::UNPROCESSABLE_ENTITY, errors)
            }
            Self::CheckFailed(error) => {
                let (status, text) = check_failed(&error);
                (status, message(text))
            }
            Self::Persist(error) => field_error("persist", &error.to_string()),
            Self::NotStored(error) => {
                let name = match error {
                    StoreError::Unsupported => "persist",
                    _ => "payload",
                };
                field_error(name, &store_refusal(&error, ""))
            }
        }
    }
}

/// Returns the protocol's response to an invalid field. Clients show its message.
fn field_error(name: &str, text: &str) -> (StatusCode, Value) {
    let body = json!({ "message": format!("{name}: {text}"), "errors": { name: [text] } });
    (StatusCode::UNPROCESSABLE_ENTITY, body)
}

/// Returns the protocol's response to a failed permission check, without error details of the
/// database.
fn check_failed(error: &AuthorizeError) -> (StatusCode, &'static str) {
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    match error {
        AuthorizeError::Policy { .. } => (unprocessable, "RLS policy error"),
        AuthorizeError::Canceled(_) => (unprocessable, "Query canceled"),
        AuthorizeError::MissingPartition => (unprocessable, "Missing messages partition"),
        AuthorizeError::Unavailable => (unprocessable, "Tenant database unavailable"),
        AuthorizeError::TooManyConnections => {
            (unprocessable, "Tenant database has too many connections")
        }
        AuthorizeError::PoolExhausted => {
            (StatusCode::TOO_MANY_REQUESTS, "Connection pool exhausted")
        }
        AuthorizeError::Failed { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "Unable to authorize broadcast",
        ),
    }
}

/// Returns the header that lists the refused messages of a batch, with positions counted from 0:
/// `0-2;reason=forbidden, 7;reason=policy_error`. Returns `None` if no message was refused.
/// Supabase Realtime drops refused messages silently.
pub(super) fn refused_list(refused: &[(usize, &'static str)]) -> Option<String> {
    let mut ranges: Vec<(usize, usize, &str)> = Vec::new();
    for &(at, reason) in refused {
        match ranges.last_mut() {
            Some((_, last, same)) if *last + 1 == at && *same == reason => *last = at,
            _ => ranges.push((at, at, reason)),
        }
    }
    let mut list = String::new();
    for (number, (first, last, reason)) in ranges.iter().enumerate() {
        let comma = if number > 0 { ", " } else { "" };
        // Writing to a string cannot fail.
        let _ = match (number, first, last) {
            (MAX_ITEMS, ..) => {
                list.push_str(comma);
                list.push_str(MORE);
                break;
            }
            (_, first, last) if first == last => write!(list, "{comma}{first};reason={reason}"),
            (_, first, last) => write!(list, "{comma}{first}-{last};reason={reason}"),
        };
    }
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_messages_are_listed_by_position() {
        let many: Vec<_> = (0..100).map(|at| (at * 2, "forbidden")).collect();
        assert_eq!(refused_list(&[]), None);
        assert_eq!(
            refused_list(&[
                (0, "forbidden"),
                (1, "forbidden"),
                (2, "database"),
                (4, "database")
            ]),
            Some("0-1;reason=forbidden, 2;reason=database, 4;reason=database".to_owned())
        );
        let list = refused_list(&many).unwrap();
        assert_eq!(list.matches("forbidden").count(), MAX_ITEMS);
        assert!(list.ends_with(", more") && list.len() < 2_000, "{list}");
    }
}
