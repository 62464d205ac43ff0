//! The OpenAPI 3.1 document of the routes that were registered.

use axum::body::Bytes;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::operation::Operation;
use super::schema::{self, Schema};
use crate::error_code::ErrorCode;
use crate::http::conditional::tag_of;

/// What this API is, at the head of the document.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The group of what those who run the server look at.
pub const OPERATIONS: &str = "Operations";

/// What registered routes take and answer.
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

    /// Both routers' routes.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// The document: these routes, with the schemas they name and the tags they stand under, in
    /// this order.
    pub fn document(self, schemas: Vec<(&str, Schema)>, tags: &[(&str, &str)]) -> Value {
        let (mut paths, mut responses) = (Map::new(), Map::new());
        for (verb, path, operation) in self.routes {
            let object = operation.object(verb, &path, &mut responses);
            paths.entry(path).or_insert_with(|| json!({}))[verb] = object;
        }
        let promised = format!("{paths:?}{responses:?}");
        let is_used =
            |header: &str| promised.contains(&format!("\"#/components/headers/{header}\""));
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
                        "description": "The tag of an answer that is at hand: 304 if it is still true.",
                    },
                    "Idempotency-Key": {
                        "name": "Idempotency-Key",
                        "in": "header",
                        "schema": { "type": "string", "pattern": "^[ -~]{1,255}$" },
                        "description": "Makes the write once: a repetition with the same key within 24 hours gets the same status with the resource as it is then. Best a UUID.",
                    },
                },
                "securitySchemes": {
                    "bearer": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": "A person's access token.",
                    },
                    "cookie": {
                        "type": "apiKey",
                        "in": "cookie",
                        "name": "sb-project-auth-token",
                        "description": "The session cookie of the Supabase client libraries, `sb-<project>-auth-token`, whole or in pieces (`.0`, `.1`, …). A write by cookie must come from an allowed origin.",
                    },
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A token that opens sockets: a person's, or a key of the project.",
                    },
                    "apikey": { "type": "apiKey", "in": "header", "name": "apikey", "description": "The same as `token`." },
                    "metrics": { "type": "http", "scheme": "bearer", "description": "`server.metrics_token`." },
                },
            },
        })
    }
}

/// The body that all refusals have. Its codes are those of [`ErrorCode::ALL`].
fn error() -> Schema {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let details = schema::object([(
        "sqlstate",
        schema::text(),
        "The SQLSTATE behind the refusal.",
    )]);
    schema::object([
        (
            "error",
            schema::text(),
            "A fixed text for the code. Always a text, never an object.",
        ),
        (
            "code",
            schema::one_of(&codes),
            "The reason, for programs. The list is closed, and a code is never renamed.",
        ),
        ("message", schema::text(), "The same as `error`."),
        ("details", schema::nullable(details), ""),
        (
            "hint",
            schema::nullable(schema::text()),
            "What the client can do about it.",
        ),
        (
            "request_id",
            schema::text(),
            "The same as `X-Request-Id`: by it the server's log names the request.",
        ),
        (
            "retry_after",
            schema::nullable(schema::count()),
            "Seconds after which it is worth trying again.",
        ),
    ])
}

/// Headers of answers, each as always there and as sometimes there, as far as they are used.
fn headers(is_used: impl Fn(&str) -> bool) -> Value {
    let all = [
        (
            "X-Request-Id",
            schema::text(),
            "The request's id, as sent by the client or made by the server.",
        ),
        (
            "ETag",
            schema::text(),
            "The answer's tag: a hash of its body, or `\"m<rev>\"` of a single message.",
        ),
        (
            "Cache-Control",
            schema::text(),
            "`private, no-cache`: keep it, and ask each time whether it is still true.",
        ),
        (
            "Vary",
            schema::text(),
            "Which headers of a request the answer depends on.",
        ),
        (
            "X-Next-Cursor",
            schema::text(),
            "The cursor of the next page, if there is one.",
        ),
        (
            "Link",
            schema::text(),
            "The address of the next page, if there is one, with `rel=\"next\"`.",
        ),
        (
            "X-Total-Unread",
            schema::count(),
            "Unread messages of all conversations that are neither muted nor archived.",
        ),
        (
            "Idempotency-Replayed",
            schema::one_of(&["true"]),
            "This was done before: the answer is to a repetition with the same `Idempotency-Key`.",
        ),
        (
            "Retry-After",
            schema::count(),
            "Seconds after which it is worth trying again.",
        ),
        (
            "WWW-Authenticate",
            schema::text(),
            "`Bearer error=\"invalid_token\"` (RFC 6750).",
        ),
        (
            "X-RateLimit-Limit",
            schema::count(),
            "Requests of this kind that the caller may make at once, where there is a limit.",
        ),
        (
            "X-RateLimit-Remaining",
            schema::count(),
            "Of these, those that are left.",
        ),
        (
            "X-RateLimit-Reset",
            schema::count(),
            "Seconds until all of them are there again.",
        ),
        (
            "X-Rate-Rolling",
            schema::count(),
            "Events per second at present, over all clients.",
        ),
        (
            "X-Rate-Limit",
            schema::count(),
            "Events per second at which requests are refused.",
        ),
        (
            "X-Rate-Limit-Remaining",
            schema::count(),
            "What is left of it.",
        ),
        (
            "X-Broadcast-Refused",
            schema::text(),
            "Which messages of the batch were not sent, counted from 0, and why: `0-2;reason=forbidden, 7;reason=policy_error`.",
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

/// The document as it is served: written once.
#[derive(Clone, Debug)]
pub struct Document {
    text: Bytes,
    tag: HeaderValue,
}

impl Document {
    /// Of this document.
    pub fn new(document: &Value) -> Self {
        let text = Bytes::from(document.to_string());
        let tag = tag_of(&text).unwrap_or_else(|| HeaderValue::from_static("\"\""));
        Self { text, tag }
    }

    /// The answer to a request for it. It is the same for everybody and may be kept.
    pub fn respond(&self, headers: &HeaderMap) -> Response {
        let common = [
            (ETAG, self.tag.clone()),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        if headers.get(IF_NONE_MATCH) == Some(&self.tag) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (common, kind, self.text.clone()).into_response()
    }
}
