//! Why a broadcast over HTTP is refused: the one place with statuses and bodies (protocol 1.5).

use std::fmt::Write as _;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::channel::authorize::AuthorizeError;
use super::super::error::store_refusal;
use super::super::messages::store::StoreError;
use super::super::protocol::{BroadcastError, PersistError};
use super::request::Unreadable;
use crate::http::input::BodyError;
use crate::observability::metrics::{Limit, RealtimeMetrics};

/// Items of the header that names refused messages, at most. What goes on behind them is said by
/// [`MORE`]; a proxy's limit for a head is commonly 4 to 8 KiB.
const MAX_ITEMS: usize = 50;

/// Ends a list that is not complete.
const MORE: &str = "more";

/// Why nothing is sent.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No token, or no good one.
    Unauthorized,
    /// The server is over its rate of events.
    TooManyRequests,
    /// It went over its rate while the body was read.
    OverRate,
    /// The messages of this batch would take it over its rate.
    BatchOverRate,
    /// The address is not UTF-8.
    Address,
    /// The body is of a kind that is not taken.
    MediaType,
    /// The body did not come, or not all of it.
    Body(BodyError),
    /// Too many bodies arrive, and this is not a small one.
    TooManyBodies,
    /// The body is not what it must be.
    Unreadable(Unreadable),
    /// No frame can hold the message.
    Inexpressible(BroadcastError),
    /// The policies do not let this caller send to the topic.
    Forbidden,
    /// The policies could not be asked.
    Unasked(AuthorizeError),
    /// It cannot be stored as its sender asks.
    Persist(PersistError),
    /// It was not stored, and not sent; why, as the sender on a socket is told.
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
            StoreError::Unasked(error) => Self::Unasked(error),
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
    /// The answer; a limit that was reached is counted.
    pub(super) fn respond(self, metrics: &RealtimeMetrics) -> Response {
        if let Some(limit) = self.limit() {
            metrics.limited(limit);
        }
        let (status, body) = self.answer();
        (status, Json(body)).into_response()
    }

    /// The limit that was reached, if it was one.
    fn limit(&self) -> Option<Limit> {
        match self {
            Self::TooManyRequests | Self::OverRate | Self::BatchOverRate => Some(Limit::Events),
            Self::Body(BodyError::TooLarge) => Some(Limit::Request),
            Self::TooManyBodies => Some(Limit::AllRequests),
            Self::Unreadable(error) if error.is_too_large() => Some(Limit::Broadcast),
            _ => None,
        }
    }

    /// One word for it, in the header that names refused messages.
    pub(super) fn short(&self) -> &'static str {
        match self {
            Self::Unasked(AuthorizeError::Policy { .. }) => "policy_error",
            Self::Unasked(AuthorizeError::Canceled(_)) => "query_canceled",
            Self::Unasked(AuthorizeError::MissingPartition) => "missing_partition",
            Self::Unasked(_) => "database_unavailable",
            _ => "forbidden",
        }
    }

    /// Whether policies have decided, which says nothing of other topics.
    pub(super) fn is_of_policy(&self) -> bool {
        match self {
            Self::Unasked(error) => error.is_refusal(),
            _ => true,
        }
    }

    fn answer(self) -> (StatusCode, Value) {
        let message = |text: &str| json!({ "message": text });
        match self {
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, message("Unauthorized")),
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
                message("The address cannot be read"),
            ),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                json!({ "error": "Unsupported Media Type. Use application/json or application/octet-stream" }),
            ),
            Self::Body(BodyError::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                message("The body is too large"),
            ),
            Self::Body(BodyError::Broken) => {
                (StatusCode::BAD_REQUEST, message("The body broke off"))
            }
            Self::Body(BodyError::Late) => (
                StatusCode::REQUEST_TIMEOUT,
                message("The body did not arrive in time"),
            ),
            Self::Unreadable(Unreadable::NotJson) => {
                (StatusCode::BAD_REQUEST, message("The body is not JSON"))
            }
            Self::Unreadable(Unreadable::TooManyMessages) => Self::BatchOverRate.answer(),
            Self::Unreadable(Unreadable::Fields(errors)) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                json!({ "errors": errors }),
            ),
            Self::Inexpressible(error) => {
                // The payload was checked before: these are left.
                let name = match error {
                    BroadcastError::TopicTooLong => "topic",
                    BroadcastError::EventTooLong => "event",
                    _ => "payload",
                };
                let errors = json!({ "errors": { name: [error.to_string()] } });
                (StatusCode::UNPROCESSABLE_ENTITY, errors)
            }
            Self::Unasked(error) => {
                let (status, text) = unasked(&error);
                (status, message(text))
            }
            Self::Persist(error) => of_field("persist", &error.to_string()),
            Self::NotStored(error) => {
                let name = match error {
                    StoreError::Unsupported => "persist",
                    _ => "payload",
                };
                of_field(name, &store_refusal(&error, ""))
            }
        }
    }
}

/// The protocol's answer where something of a request is wrong. Clients show the message.
fn of_field(name: &str, text: &str) -> (StatusCode, Value) {
    let body = json!({ "message": format!("{name}: {text}"), "errors": { name: [text] } });
    (StatusCode::UNPROCESSABLE_ENTITY, body)
}

/// The protocol's answer where a permission is not known. What the database said stays inside.
fn unasked(error: &AuthorizeError) -> (StatusCode, &'static str) {
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

/// Which messages of a batch were refused, for a header: `0-2;reason=forbidden, 7;reason=database`,
/// positions counted from 0. `None` when there is none. The original drops them without a word.
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
        // Writing into a text cannot fail.
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
    fn refused_messages_are_named_by_position() {
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
