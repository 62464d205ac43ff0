//! The OpenAPI documentation of the broadcast routes. Refusals have the bodies of Supabase
//! Realtime, see [`super::refusal`].

use serde_json::json;

use crate::error_code::ErrorCode;
use crate::http::openapi::document::OPERATIONS;
use crate::http::openapi::schema::{
    Schema, any_object, constant, count, flag, list, named, nullable, object, text, with_optional,
};
use crate::http::openapi::{Operation, input};

/// The group of these operations and its description.
pub const TAG: (&str, &str) = (
    REALTIME,
    "Broadcasting over HTTP, compatible with Supabase Realtime. The socket is at `/realtime/v1/websocket` and is described in \
     `docs/protocol.md`.",
);

const REALTIME: &str = "Realtime";

/// Adds what the broadcast routes and `ping` may return: the `X-Rate-*` headers, and a 429 if a
/// limit is reached.
fn with_rate(operation: Operation) -> Operation {
    let mut operation = operation.answers(
        429,
        "A limit is reached: the server's rate of events, the size of all requests being read, the rate of unauthenticated requests from this address, or the number of permission checks that wait for a connection.",
        json!({ "anyOf": [message_body(), named("Error")] }),
    );
    operation = operation.with_header(429, "Retry-After", false);
    for status in [200, 202, 400, 401, 403, 408, 413, 415, 422, 429, 500] {
        for name in ["X-Rate-Rolling", "X-Rate-Limit", "X-Rate-Limit-Remaining"] {
            operation = operation.with_header(status, name, true);
        }
    }
    operation
}

/// Returns the schema of a refusal in the form of Supabase Realtime.
fn message_body() -> Schema {
    object([("message", text(), "")])
}

fn broadcast_operation(id: &'static str, summary: &'static str) -> Operation {
    let field_errors = json!({ "type": "object", "properties": { "errors": any_object(), "message": text() }, "required": ["errors"], "additionalProperties": false });
    Operation::bare(id, REALTIME, summary)
        .secured_by(&["token", "apikey"])
        .query(
            input(
                "apikey",
                text(),
                "An API key of the project, for clients that send it in the URL.",
            )
            .legacy(),
        )
        .answers_nothing(202, "Sent.")
        .answers(400, "The request is malformed.", message_body())
        .answers(401, "The token is missing or invalid.", message_body())
        .answers(408, "The body did not arrive in time.", message_body())
        .answers(413, "The body is too large.", message_body())
        .answers(
            422,
            "A field is invalid, or the permission check failed: a policy raised an error or was cancelled, a partition is missing, or the database is unavailable.",
            json!({ "anyOf": [field_errors, message_body()] }),
        )
        .answers(500, "The permission check failed with another error of the database.", message_body())
}

pub(super) fn broadcast_batch() -> Operation {
    let message = with_optional(
        object([
            ("topic", text(), "Name of the channel, without `realtime:`."),
            ("event", text(), ""),
            ("payload", any_object(), ""),
            (
                "private",
                nullable(flag()),
                "Send to the private channel with this name, subject to its policies.",
            ),
            ("id", nullable(text()), "Forwarded as `meta.id`."),
        ]),
        &["private", "id"],
    );
    let body = json!({ "type": "object", "required": ["messages"], "properties": { "messages": list(open(message)) } });
    let operation = broadcast_operation("broadcast_batch", "Broadcast several messages")
        .details("The messages are sent together and in order. Messages that the policies refuse are omitted and listed in a header.")
        .raw_body("application/json", body)
        .with_header(202, "X-Broadcast-Refused", false);
    with_rate(operation)
}

pub(super) fn broadcast_single() -> Operation {
    let operation = broadcast_operation(
        "broadcast_single",
        "Broadcast one message, whose payload is the body",
    )
    .path(input(
        "topic",
        text(),
        "Name of the channel, without `realtime:`.",
    ))
    .path(input("event", text(), ""))
    .query(input(
        "private",
        text(),
        "`true`: send to the private channel with this name, subject to its policies.",
    ))
    .query(input(
        "persist",
        text(),
        "`true`: store the message for replay before sending it. Private topics only.",
    ))
    .query(input(
        "persist[ttl]",
        text(),
        "Store the message for this many seconds.",
    ))
    .raw_body("application/json", json!({}))
    .raw_body("application/octet-stream", json!({}))
    .answers(
        403,
        "The policies do not let the caller send to this topic.",
        message_body(),
    )
    .answers(
        415,
        "The media type of the body is not supported.",
        object([("error", text(), "")]),
    );
    with_rate(operation)
}

pub(super) fn ping() -> Operation {
    let operation = Operation::bare("ping", REALTIME, "Check that the server responds").answers(
        200,
        "The server responds.",
        object([("message", constant("Success"), "")]),
    );
    with_rate(operation)
}

pub(super) fn healthcheck() -> Operation {
    Operation::bare(
        "healthcheck",
        OPERATIONS,
        "Liveness check at the path that health checks of Supabase Realtime query",
    )
    .answers_as(
        200,
        "The process is running.",
        "text/plain; charset=utf-8",
        constant("ok"),
    )
}

pub(super) fn show_tenant_health() -> Operation {
    let health = object([
        ("healthy", flag(), ""),
        ("db_connected", flag(), ""),
        ("replication_connected", flag(), ""),
        ("connected_cluster", count(), "Number of open sockets."),
        ("region", json!({ "type": "null" }), ""),
        ("node", text(), ""),
    ]);
    Operation::bare(
        "show_tenant_health",
        OPERATIONS,
        "Health of the server, in the form of Supabase Realtime's tenant health",
    )
    .secured_by(&["token", "apikey"])
    .path(input("id", text(), "Ignored: there is one tenant."))
    .answers(
        200,
        "The state of the server.",
        object([("data", health, "")]),
    )
    .answers_nothing(403, "The token is missing or invalid.")
    .refuses(&[ErrorCode::RateLimited])
}

/// Makes the schema of an object accept unknown fields, which the server ignores.
fn open(mut object: Schema) -> Schema {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("additionalProperties");
    }
    object
}
