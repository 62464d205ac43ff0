//! Documentation of the routes for messages. The handlers are in `history.rs`, `messages.rs`,
//! `message_changes.rs`, `reading.rs`, `reactions.rs`, `pins.rs`, `reports.rs` and `sync`.

use axum::http::StatusCode;

use super::super::conversations::OTHER_PERSON;
use super::super::{history, pins, reading, sync as syncing};
use super::rows::{MESSAGE_TYPES, REASONS};
use super::tags::{MESSAGES, own_id};
use crate::error_code::ErrorCode;
use crate::http::openapi::schema::{
    address, any_object, constant, count, flag, integer, list, list_up_to, named, object, one_of,
    text, text_of, text_up_to, uuid, whole_number,
};
use crate::http::openapi::{Operation, input, limit};

pub(in super::super) fn list_messages() -> Operation {
    Operation::of_caller("list_messages", MESSAGES, "Messages of a conversation, oldest first")
        .details(
            "Returns the newest messages unless a position is given. At most one of `before`, `after`, `around` and `since_rev` is allowed. \
             `next_cursor` leads to older messages, or to newer ones if the request used `after` or `since_rev`.",
        )
        .query(input("conversation_id", uuid(), "").required())
        .query(input("before", text(), "Messages older than this message id or `seq`, or than `first_unread`."))
        .query(input("after", text(), "Messages newer than this message id or `seq`, or than `first_unread`."))
        .query(input("around", text(), "Messages on both sides of this message id or `seq`, or of `first_unread`."))
        .query(input("since_rev", integer(), "Messages that changed since this revision, including deleted ones, in order of change."))
        .query(input("include_deleted", flag(), "Whether to include deleted messages, without their content. Default: `false`."))
        .offset()
        .pages(history::DEFAULT_LIMIT, history::MAX_LIMIT, named("Message"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn send_message() -> Operation {
    Operation::of_caller("send_message", MESSAGES, "Send a message")
        .details(
            "If a message with the same `client_message_id` is sent again, even much later, the response contains its current state. \
             A different message with that id is refused.",
        )
        .body([
            input("conversation_id", uuid(), "Target conversation. Mutually exclusive with `other_user_id`."),
            input("other_user_id", uuid(), "Recipient. The conversation is opened if there is none yet.").or(&[OTHER_PERSON[1], OTHER_PERSON[2]]),
            input("content", text_up_to(20_000), "Leading and trailing white space is removed. `/config` contains the maximum length. Required for messages of type `text`, where it must contain a visible character."),
            input("message_type", one_of(&MESSAGE_TYPES), "Default: `text`."),
            input("client_message_id", text_of(64), "The client's id for the message, preferably a UUID. Unique per sender and conversation."),
            input("reply_to_id", uuid(), "A message of the same conversation."),
            input("mentions", list_up_to(100, uuid()), "Members of the conversation."),
            input("metadata", any_object(), "At most 8 KiB of JSON."),
            input("file_url", address(), "Must be below `storage_url` of the table `chat.config`: in printable ASCII without spaces and `\\`, and without `.` or `..` as a segment of the path, also when encoded."),
            input("file_name", text_up_to(255), ""),
            input("file_size", count(), "In bytes."),
            input("file_type", text_up_to(255), "The media type of the file."),
            input("attachment_ids", list_up_to(0, uuid()), "Must be empty: this server does not support attachments."),
            own_id("sender_id"),
        ])
        .needs(&["conversation_id", OTHER_PERSON[0], OTHER_PERSON[1], OTHER_PERSON[2]])
        .answers(201, "The message.", named("Message"))
        .answers(200, "The message was sent before; its current state.", named("Message"))
        .refuses(&[
            ErrorCode::NotFound,
            ErrorCode::NotAllowedRecipient,
            ErrorCode::MessageEmpty,
            ErrorCode::MessageTooLong,
            ErrorCode::ClientMessageIdConflict,
        ])
}

pub(in super::super) fn mark_messages_read() -> Operation {
    Operation::of_caller("mark_messages_read", MESSAGES, "Mark as read")
        .details("Either by message ids, in each conversation up to the newest one; or by conversation. Ids that are not visible are ignored.")
        .body([
            input("message_ids", list_up_to(reading::MAX_MESSAGE_IDS as u32, uuid()), ""),
            input("conversation_id", uuid(), ""),
            input("up_to_message_id", uuid(), "Used with `conversation_id`. Default: everything.").or(&["message_id"]),
            own_id("user_id"),
        ])
        .needs(&["message_ids", "conversation_id"])
        .answers(200, "The read position.", named("ReadResult"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn get_message() -> Operation {
    Operation::of_caller("get_message", MESSAGES, "Get a message")
        .details("The ETag is `\"m<rev>\"`, for use in `If-Match` of an edit.")
        .answers(200, "The message.", named("Message"))
        .refuses(&[ErrorCode::NotFound])
}

/// Adds `If-Match`, with which a client states the revision that it expects of the message, and the
/// refusals of any other revision.
fn expecting(operation: Operation) -> Operation {
    operation
        .header(input(
            "If-Match",
            text(),
            "The expected ETag of the message. If it differs, the response is 412, even if `expected_rev` is also given.",
        ))
        .refuses(&[ErrorCode::StaleRevision])
        .refuses_as(StatusCode::PRECONDITION_FAILED, ErrorCode::StaleRevision)
}

pub(in super::super) fn edit_message() -> Operation {
    let operation = Operation::of_caller("edit_message", MESSAGES, "Edit a message")
        .details("Only for the sender, within `edit_window_s` of `/config`.")
        .body([
            input("content", text_up_to(20_000), ""),
            input(
                "expected_rev",
                integer(),
                "The expected `rev` of the message. If it differs, the response is 409.",
            ),
        ])
        .needs(&["content"])
        .answers(200, "The updated message.", named("Message"))
        .with_header(200, "ETag", true)
        .refuses(&[
            ErrorCode::NotFound,
            ErrorCode::NotAllowedRecipient,
            ErrorCode::EditWindowPassed,
            ErrorCode::MessageDeleted,
            ErrorCode::MessageEmpty,
            ErrorCode::MessageTooLong,
        ]);
    expecting(operation)
}

pub(in super::super) fn delete_message() -> Operation {
    let operation = Operation::of_caller("delete_message", MESSAGES, "Delete a message")
        .details("For everyone, which only the sender may do: the content is removed, and the deleted message remains in its place. Or only for the caller.")
        .query(input("for", one_of(&["me", "everyone"]), "Default: `everyone`."))
        .body([input("expected_rev", integer(), "The expected `rev` of the message. If it differs, the response is 409.")])
        .answers(200, "Done, by this or an earlier request.", named("Confirmation"))
        .refuses(&[ErrorCode::NotFound, ErrorCode::NotAllowedRecipient]);
    expecting(operation)
}

pub(in super::super) fn list_earlier_wordings() -> Operation {
    Operation::of_caller(
        "list_earlier_wordings",
        MESSAGES,
        "Earlier versions of an edited message",
    )
    .lists("Oldest first.", named("EarlierWording"))
    .refuses(&[ErrorCode::NotFound])
}

/// Returns an operation that changes a message's reactions and returns them.
fn reactions(id: &'static str, summary: &'static str) -> Operation {
    Operation::of_caller(id, MESSAGES, summary)
        .answers(
            200,
            "All reactions after the change.",
            list(named("Reaction")),
        )
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_reactions() -> Operation {
    Operation::of_caller("list_reactions", MESSAGES, "The reactions to a message")
        .lists("All reactions.", named("Reaction"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn react() -> Operation {
    reactions("react", "React to a message")
        .body([
            input("reaction", text_of(64), "").or(&["emoji"]),
            input("toggle", flag(), "Remove the reaction if it exists."),
            own_id("user_id"),
        ])
        .needs(&["reaction", "emoji"])
        .refuses(&[ErrorCode::MessageDeleted, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn add_reaction() -> Operation {
    reactions("add_reaction", "Add a reaction")
        .path(input("reaction", text_of(64), ""))
        .refuses(&[ErrorCode::MessageDeleted, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn remove_reaction() -> Operation {
    reactions("remove_reaction", "Remove a reaction")
        .path(input("reaction", text_of(64), ""))
        .refuses(&[ErrorCode::MessageDeleted, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn list_pins() -> Operation {
    Operation::of_caller(
        "list_pins",
        MESSAGES,
        "The pinned messages of a conversation",
    )
    .details("Latest pin first.")
    .pages(pins::DEFAULT_LIMIT, pins::MAX_LIMIT, named("Message"))
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn pin_message() -> Operation {
    Operation::of_caller(
        "pin_message",
        MESSAGES,
        "Pin a message for all members of its conversation",
    )
    .answers_nothing(204, "Done, by this or an earlier request.")
    .refuses(&[
        ErrorCode::NotFound,
        ErrorCode::NotAllowedRecipient,
        ErrorCode::MessageDeleted,
    ])
}

pub(in super::super) fn unpin_message() -> Operation {
    Operation::of_caller("unpin_message", MESSAGES, "Unpin a message")
        .answers_nothing(204, "Done, by this or an earlier request.")
        .refuses(&[ErrorCode::NotFound, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn report_message() -> Operation {
    let reported = || object([("success", constant(true), ""), ("message_id", uuid(), "")]);
    Operation::of_caller(
        "report_message",
        MESSAGES,
        "Report a message to the moderators",
    )
    .body([
        input("reason", one_of(&REASONS), "Default: `other`."),
        input("note", text_up_to(2000), ""),
        own_id("reporter_id"),
    ])
    .answers(201, "Reported.", reported())
    .answers(200, "The caller has reported it before.", reported())
    .refuses(&[ErrorCode::NotFound, ErrorCode::MessageDeleted])
}

pub(in super::super) fn sync() -> Operation {
    Operation::of_caller("sync", MESSAGES, "Changes since a cursor")
        .details("`docs/sync.md` describes how clients use it.")
        .query(input(
            "since",
            text(),
            "The cursor of the last response. Omit it for the first load.",
        ))
        .query(limit(syncing::DEFAULT_LIMIT))
        .append_details(&format!(
            "A page has at most {} rows of each list.",
            syncing::MAX_LIMIT
        ))
        .query(input(
            "wait",
            whole_number(),
            format!(
                "Seconds to wait for a change if there is none (maximum {}).",
                syncing::MAX_WAIT
            ),
        ))
        .answers(200, "A page.", named("SyncPage"))
        .refuses(&[ErrorCode::ResyncRequired])
}
