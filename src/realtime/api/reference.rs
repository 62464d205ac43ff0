//! What the routes to broadcast take and answer, for the OpenAPI document. Refusals have the
//! bodies of the original, see [`super::answer`].

use serde_json::json;

use crate::error_code::ErrorCode;
use crate::http::openapi::document::OPERATIONS;
use crate::http::openapi::schema::{
    Schema, any_object, constant, count, flag, list, named, nullable, object, text, with_optional,
};
use crate::http::openapi::{Operation, input};

/// The group of these operations, with what is said of it.
pub const TAG: (&str, &str) = (
    REALTIME,
    "Broadcasting over HTTP, as Supabase Realtime has it. The socket itself is at `/realtime/v1/websocket` and is described in \
     `docs/protocol.md`.",
);

const REALTIME: &str = "Realtime";

/// What every route here may answer: headers that tell the rate, and the refusal of those over it.
fn within_rate(operation: Operation) -> Operation {
    let mut operation = operation.answers(
        429,
        "The server is over its rate of events, or would be; or this address sent too many requests without a sign-in.",
        json!({ "anyOf": [told(), named("Error")] }),
    );
    operation = operation.with_header(429, "Retry-After", false);
    for status in [200, 202, 400, 401, 403, 408, 413, 415, 422, 429, 500] {
        for name in ["X-Rate-Rolling", "X-Rate-Limit", "X-Rate-Limit-Remaining"] {
            operation = operation.with_header(status, name, true);
        }
    }
    operation
}

/// A refusal in the original's form.
fn told() -> Schema {
    object([("message", text(), "")])
}

fn sending(id: &'static str, summary: &'static str) -> Operation {
    let field_errors = json!({ "type": "object", "properties": { "errors": any_object(), "message": text() }, "required": ["errors"], "additionalProperties": false });
    Operation::bare(id, REALTIME, summary)
        .secured_by(&["token", "apikey"])
        .query(
            input(
                "apikey",
                text(),
                "A key of the project, for clients that leave it on the address.",
            )
            .legacy(),
        )
        .answers_nothing(202, "Sent.")
        .answers(400, "The request cannot be read.", told())
        .answers(401, "No token, or no good one.", told())
        .answers(408, "The body did not arrive in time.", told())
        .answers(413, "The body is too large.", told())
        .answers(
            422,
            "What is wrong, by field; or why the policies could not be asked.",
            json!({ "anyOf": [field_errors, told()] }),
        )
        .answers(500, "The policies failed.", told())
}

pub(super) fn broadcast_batch() -> Operation {
    let message = with_optional(
        object([
            (
                "topic",
                text(),
                "The name of the channel, without `realtime:`.",
            ),
            ("event", text(), ""),
            ("payload", any_object(), ""),
            (
                "private",
                nullable(flag()),
                "For members of the private channel of that name; its policies are asked.",
            ),
            ("id", nullable(text()), "Passed on as `meta.id`."),
        ]),
        &["private", "id"],
    );
    let body = json!({ "type": "object", "required": ["messages"], "properties": { "messages": list(open(message)) } });
    let operation = sending("broadcast_batch", "Broadcast several messages")
        .details("They leave together and in order. Those that the policies refuse are left out, and named in a header.")
        .raw_body("application/json", body)
        .with_header(202, "X-Broadcast-Refused", false);
    within_rate(operation)
}

pub(super) fn broadcast_single() -> Operation {
    let operation = sending(
        "broadcast_single",
        "Broadcast one message, whose payload is the body",
    )
    .path(input(
        "topic",
        text(),
        "The name of the channel, without `realtime:`.",
    ))
    .path(input("event", text(), ""))
    .query(input(
        "private",
        text(),
        "`true`: for members of the private channel of that name; its policies are asked.",
    ))
    .query(input(
        "persist",
        text(),
        "`true`: stored for replay before it is sent. Private topics only.",
    ))
    .query(input(
        "persist[ttl]",
        text(),
        "The same, for so many seconds.",
    ))
    .raw_body("application/json", json!({}))
    .raw_body("application/octet-stream", json!({}))
    .answers(
        403,
        "The policies do not let the caller send there.",
        told(),
    )
    .answers(
        415,
        "The body is of another media type.",
        object([("error", text(), "")]),
    );
    within_rate(operation)
}

pub(super) fn ping() -> Operation {
    let operation = Operation::bare("ping", REALTIME, "Whether the server answers").answers(
        200,
        "It does.",
        object([("message", constant("Success"), "")]),
    );
    within_rate(operation)
}

pub(super) fn healthcheck() -> Operation {
    Operation::bare(
        "healthcheck",
        OPERATIONS,
        "Whether the process lives, as Realtime's health checks ask",
    )
    .answers_as(200, "It does.", "text/plain; charset=utf-8", constant("ok"))
}

pub(super) fn show_tenant_health() -> Operation {
    let health = object([
        ("healthy", flag(), ""),
        ("db_connected", flag(), ""),
        ("replication_connected", flag(), ""),
        ("connected_cluster", count(), "Sockets."),
        ("region", json!({ "type": "null" }), ""),
        ("node", text(), ""),
    ]);
    Operation::bare(
        "show_tenant_health",
        OPERATIONS,
        "What works, as Realtime's health checks ask",
    )
    .secured_by(&["token", "apikey"])
    .path(input("id", text(), "Anything: there is one tenant."))
    .answers(200, "What works.", object([("data", health, "")]))
    .answers_nothing(403, "No token, or no good one.")
    .refuses(&[ErrorCode::RateLimited])
}

/// An object in which other fields are ignored.
fn open(mut object: Schema) -> Schema {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("additionalProperties");
    }
    object
}
