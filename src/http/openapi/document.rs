//! Builds the OpenAPI 3.1 document of all registered routes.

use axum::Extension;
use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::operation::Operation;
use super::schema::{self, Schema};
use crate::error_code::ErrorCode;
use crate::http::conditional::tag_of;
use crate::http::responses::SharedBody;

/// The description of the API at the top of the document.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The tag of routes for operators.
pub const OPERATIONS: &str = "Operations";

/// The documentation of registered routes.
#[derive(Clone, Debug, Default)]
pub struct Described {
    routes: Vec<(&'static str, String, Operation)>,
}

impl Described {
    pub(super) fn add(&mut self, verb: &'static str, path: String, operation: Operation) {
        self.routes.push((verb, path, operation));
    }

    pub(super) fn under(mut self, base: &str) -> Self {
        for (_, path, _) in &mut self.routes {
            path.insert_str(0, base);
        }
        self
    }

    /// Combines the documentation of two sets of routes.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Returns the document. It contains these routes, `schemas` to which they refer by name, and
    /// `tags` in this order.
    pub fn document(self, schemas: Vec<(&str, Schema)>, tags: &[(&str, &str)]) -> Value {
        let (mut paths, mut responses) = (Map::new(), Map::new());
        for (verb, path, operation) in self.routes {
            let object = operation.object(verb, &path, &mut responses);
            paths.entry(path).or_insert_with(|| json!({}))[verb] = object;
        }
        let referenced = format!("{paths:?}{responses:?}");
        let is_used =
            |header: &str| referenced.contains(&format!("\"#/components/headers/{header}\""));
        let mut all: Map<String, Value> = schemas
            .into_iter()
            .map(|(name, schema)| (name.to_owned(), schema))
            .collect();
        all.insert("Error".to_owned(), error());
        let tags: Value = tags
            .iter()
            .map(|(name, meaning)| json!({ "name": name, "description": meaning }))
            .collect();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Rapport",
                "version": env!("CARGO_PKG_VERSION"),
                "description": INTRODUCTION,
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "tags": tags,
            "paths": paths,
            "components": {
                "schemas": all,
                "responses": responses,
                "headers": headers(is_used),
                "parameters": {
                    "If-None-Match": {
                        "name": "If-None-Match",
                        "in": "header",
                        "schema": schema::text(),
                        "description": "The entity tag of a cached response. The status is 304 if that response is still current.",
                    },
                    "Idempotency-Key": {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "schema": { "type": "string", "pattern": "^[ -~]{1,255}$" },
                        "description": "Applies the write only once. A retry with the same key within 24 hours gets the same status and the resource in its current state. A UUID is recommended.",
                    },
                },
                "securitySchemes": {
                    "bearer": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": "A user's access token.",
                    },
                    "cookie": {
                        "type": "apiKey",
                        "in": "cookie",
                        "name": "sb-project-auth-token",
                        "description": "The session cookie of the Supabase client libraries, `sb-<project>-auth-token`, unsplit or split (`.0`, `.1`, …). A write by cookie must come from an allowed origin.",
                    },
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A token that the socket accepts: a user's access token or a key of the project.",
                    },
                    "apikey": { "type": "apiKey", "in": "header", "name": "apikey", "description": "The same as `token`." },
                    "metrics": { "type": "http", "scheme": "bearer", "description": "`server.metrics_token`." },
                },
            },
        })
    }
}

/// Returns the schema of the body of all refusals, with all codes of [`ErrorCode::ALL`].
fn error() -> Schema {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let details = schema::object([(
        "sqlstate",
        schema::text(),
        "The SQLSTATE with which the database refused the request.",
    )]);
    schema::object([
        (
            "error",
            schema::text(),
            "The fixed text of the code. Always a string, never an object.",
        ),
        (
            "code",
            schema::one_of(&codes),
            "The reason in machine-readable form. The list is closed, and codes are never renamed.",
        ),
        ("message", schema::text(), "The same as `error`."),
        ("details", schema::nullable(details), ""),
        (
            "hint",
            schema::nullable(schema::text()),
            "What the client can do about the refusal.",
        ),
        (
            "request_id",
            schema::text(),
            "The same as `X-Request-Id`. The server's log contains it.",
        ),
        (
            "retry_after",
            schema::nullable(schema::count()),
            "Seconds to wait before a retry.",
        ),
    ])
}

/// Returns the descriptions of the response headers. Each has a variant that is always present and
/// an optional one. Only the used variants are included.
fn headers(is_used: impl Fn(&str) -> bool) -> Value {
    let all = [
        (
            "X-Request-Id",
            schema::text(),
            "The request's id, from the client or generated by the server.",
        ),
        (
            "ETag",
            schema::text(),
            "The entity tag: a hash of the body, or `\"m<rev>\"` for a single message.",
        ),
        (
            "Cache-Control",
            schema::text(),
            "`private, no-cache`: the response may be stored, but must be revalidated before each use.",
        ),
        (
            "Vary",
            schema::text(),
            "The request headers that the response depends on.",
        ),
        (
            "X-Next-Cursor",
            schema::text(),
            "The cursor of the next page, if there is one.",
        ),
        (
            "Link",
            schema::text(),
            "The URL of the next page, if there is one, with `rel=\"next\"`.",
        ),
        (
            "X-Total-Unread",
            schema::count(),
            "Unread messages in all conversations that are neither muted nor archived.",
        ),
        (
            "Idempotency-Replayed",
            schema::one_of(&["true"]),
            "Present if the write was applied earlier and this request was a retry with the same `Idempotency-Key`.",
        ),
        (
            "Retry-After",
            schema::count(),
            "Seconds to wait before a retry.",
        ),
        (
            "WWW-Authenticate",
            schema::text(),
            "`Bearer error=\"invalid_token\"` (RFC 6750).",
        ),
        (
            "X-RateLimit-Limit",
            schema::count(),
            "Maximum burst of requests of this kind, if they are limited.",
        ),
        (
            "X-RateLimit-Remaining",
            schema::count(),
            "Requests of this kind that the caller may still make now.",
        ),
        (
            "X-RateLimit-Reset",
            schema::count(),
            "Seconds until the full burst is available again.",
        ),
        (
            "X-Rate-Rolling",
            schema::count(),
            "Current events per second of all clients.",
        ),
        (
            "X-Rate-Limit",
            schema::count(),
            "Events per second above which requests are refused.",
        ),
        (
            "X-Rate-Limit-Remaining",
            schema::count(),
            "Events per second that remain.",
        ),
        (
            "X-Broadcast-Refused",
            schema::text(),
            "The messages of the batch that were not sent, counted from 0, with the reason: `0-2;reason=forbidden, 7;reason=policy_error`.",
        ),
    ];
    let mut headers = Map::new();
    for (name, schema, meaning) in all {
        let header = json!({ "schema": schema, "description": meaning });
        let mut required = header.clone();
        required["required"] = true.into();
        let kinds = [
            (name.to_owned(), required),
            (format!("Optional-{name}"), header),
        ];
        headers.extend(kinds.into_iter().filter(|(name, _)| is_used(name)));
    }
    headers.into()
}

/// The document in serialized form, which is created once at the start.
#[derive(Clone, Debug)]
pub struct Document {
    text: Bytes,
    tag: HeaderValue,
}

impl Document {
    /// Serializes `document`.
    pub fn new(document: &Value) -> Self {
        let text = Bytes::from(document.to_string());
        let tag = tag_of(&text).unwrap_or_else(|| HeaderValue::from_static("\"\""));
        Self { text, tag }
    }

    /// Responds to a request for the document, which is the same for every caller and may be
    /// cached.
    pub fn respond(&self, headers: &HeaderMap) -> Response {
        let common = [
            (ETAG, self.tag.clone()),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        if headers.get(IF_NONE_MATCH) == Some(&self.tag) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (common, kind, Extension(SharedBody), self.text.clone()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clients_share_the_body() {
        let document = Document::new(&json!({ "openapi": "3.1.0" }));
        let response = document.respond(&HeaderMap::new());
        assert!(response.extensions().get::<SharedBody>().is_some());
    }
}
