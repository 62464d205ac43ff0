//! Messages: `history.rs`, `messages.rs`, `message_changes.rs`, `reading.rs`, `reactions.rs`, `pins.rs`, `reports.rs`.

use axum::http::StatusCode;

use super::super::{OTHER_PERSON, history, pins, reading, sync as syncing};
use super::rows::{MESSAGE_TYPES, REASONS};
use super::{MESSAGES, own_id};
use crate::error_code::ErrorCode;
use crate::http::openapi::schema::{
    address, any_object, constant, count, flag, integer, list, list_up_to, named, object, one_of,
    text, text_of, text_up_to, uuid, whole_number,
};
use crate::http::openapi::{Operation, input, limit};

pub(in super::super) fn list_messages() -> Operation {
    Operation::of_caller("list_messages", MESSAGES, "Part of a conversation, oldest first")
        .details(
            "Without a position, the newest messages. Of `before`, `after`, `around` and `since_rev` only one can be given. \
             `next_cursor` leads to older messages, and after `after` and `since_rev` to newer ones.",
        )
        .query(input("conversation_id", uuid(), "").required())
        .query(input("before", text(), "What is older than this message id or `seq`, or than `first_unread`."))
        .query(input("after", text(), "What is newer than it."))
        .query(input("around", text(), "Both sides of it."))
        .query(input("since_rev", integer(), "What changed since this revision, deleted messages included, in the order it changed."))
        .query(input("include_deleted", flag(), "Whether deleted messages are shown, without what they said; `false` if not given."))
        .offset()
        .pages(history::DEFAULT_LIMIT, history::MAX_LIMIT, named("Message"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn send_message() -> Operation {
    Operation::of_caller("send_message", MESSAGES, "Send a message")
        .details(
            "With a `client_message_id`, sending the same again answers the message as it is now, however much later; \
             another message with that id is refused.",
        )
        .body([
            input("conversation_id", uuid(), "Where to: this or whom to, not both."),
            input("other_user_id", uuid(), "Whom to: their conversation, opened if there is none yet.").or(&[OTHER_PERSON[1], OTHER_PERSON[2]]),
            input("content", text_up_to(20_000), "Trimmed of white space at its ends. How long it may be is said by `/config`. A text must show something; images and files need none."),
            input("message_type", one_of(&MESSAGE_TYPES), "`text` if not given."),
            input("client_message_id", text_of(64), "The client's own id for it, best a UUID. Unique in the conversation for its sender."),
            input("reply_to_id", uuid(), "A message of the same conversation."),
            input("mentions", list_up_to(100, uuid()), "Members of the conversation."),
            input("metadata", any_object(), "At most 8 KiB as JSON."),
            input("file_url", address(), "Below the storage address that the server is configured with."),
            input("file_name", text_up_to(255), ""),
            input("file_size", count(), "In bytes."),
            input("file_type", text_up_to(255), "Its media type."),
            input("attachment_ids", list_up_to(0, uuid()), "This server takes no attachments: empty."),
            own_id("sender_id"),
        ])
        .needs(&["conversation_id", OTHER_PERSON[0], OTHER_PERSON[1], OTHER_PERSON[2]])
        .answers(201, "The message.", named("Message"))
        .answers(200, "It was sent before: the message as it is now.", named("Message"))
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
        .details("By the messages' ids, in each conversation up to the newest of them; or by their conversation. Ids that are not visible are ignored.")
        .body([
            input("message_ids", list_up_to(reading::MAX_MESSAGE_IDS as u32, uuid()), ""),
            input("conversation_id", uuid(), ""),
            input("up_to_message_id", uuid(), "With `conversation_id`; without, everything.").or(&["message_id"]),
            own_id("user_id"),
        ])
        .needs(&["message_ids", "conversation_id"])
        .answers(200, "Where reading stands.", named("ReadResult"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn get_message() -> Operation {
    Operation::of_caller("get_message", MESSAGES, "One message")
        .details("Its tag is `\"m<rev>\"`, which `If-Match` of an edit takes.")
        .answers(200, "The message.", named("Message"))
        .refuses(&[ErrorCode::NotFound])
}

/// What a client believes to change.
fn expecting(operation: Operation) -> Operation {
    operation
        .header(input(
            "If-Match",
            text(),
            "The tag of the message that is to be changed; another one is refused with 412, also if `expected_rev` is given as well.",
        ))
        .refuses(&[ErrorCode::StaleRevision])
        .refuses_as(StatusCode::PRECONDITION_FAILED, ErrorCode::StaleRevision)
}

pub(in super::super) fn edit_message() -> Operation {
    let operation = Operation::of_caller("edit_message", MESSAGES, "Change what a message says")
        .details("Its sender may, within the time that `/config` tells.")
        .body([
            input("content", text_up_to(20_000), ""),
            input(
                "expected_rev",
                integer(),
                "The message's `rev`; another one is refused with 409.",
            ),
        ])
        .needs(&["content"])
        .answers(200, "The message as it is then.", named("Message"))
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
        .details("For everybody, which its sender may; what it said is gone, and its place stays. Or for the caller alone.")
        .query(input("for", one_of(&["me", "everyone"]), "`everyone` if not given."))
        .body([input("expected_rev", integer(), "The message's `rev`; another one is refused with 409.")])
        .answers(200, "Done, now or before.", named("Confirmation"))
        .refuses(&[ErrorCode::NotFound, ErrorCode::NotAllowedRecipient]);
    expecting(operation)
}

pub(in super::super) fn list_earlier_wordings() -> Operation {
    Operation::of_caller(
        "list_earlier_wordings",
        MESSAGES,
        "What a message said before it was edited",
    )
    .lists("Oldest first.", named("EarlierWording"))
    .refuses(&[ErrorCode::NotFound])
}

/// The reactions of a message after they were changed.
fn reactions(id: &'static str, summary: &'static str) -> Operation {
    Operation::of_caller(id, MESSAGES, summary)
        .answers(200, "All reactions it has then.", list(named("Reaction")))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_reactions() -> Operation {
    Operation::of_caller("list_reactions", MESSAGES, "The reactions to a message")
        .lists("All reactions it has.", named("Reaction"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn react() -> Operation {
    reactions("react", "React to a message")
        .body([
            input("reaction", text_of(64), "").or(&["emoji"]),
            input("toggle", flag(), "Takes it back if it is there."),
            own_id("user_id"),
        ])
        .needs(&["reaction", "emoji"])
        .refuses(&[ErrorCode::MessageDeleted, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn add_reaction() -> Operation {
    reactions("add_reaction", "Give a reaction")
        .path(input("reaction", text_of(64), ""))
        .refuses(&[ErrorCode::MessageDeleted, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn remove_reaction() -> Operation {
    reactions("remove_reaction", "Take a reaction back")
        .path(input("reaction", text_of(64), ""))
        .refuses(&[ErrorCode::MessageDeleted, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn list_pins() -> Operation {
    Operation::of_caller(
        "list_pins",
        MESSAGES,
        "The pinned messages of a conversation",
    )
    .details("The last pinned first.")
    .pages(pins::DEFAULT_LIMIT, pins::MAX_LIMIT, named("Message"))
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn pin_message() -> Operation {
    Operation::of_caller(
        "pin_message",
        MESSAGES,
        "Hold a message up for everybody in its conversation",
    )
    .answers_nothing(204, "Done, now or before.")
    .refuses(&[
        ErrorCode::NotFound,
        ErrorCode::NotAllowedRecipient,
        ErrorCode::MessageDeleted,
    ])
}

pub(in super::super) fn unpin_message() -> Operation {
    Operation::of_caller("unpin_message", MESSAGES, "No longer hold a message up")
        .answers_nothing(204, "Done, now or before.")
        .refuses(&[ErrorCode::NotFound, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn report_message() -> Operation {
    let reported = || object([("success", constant(true), ""), ("message_id", uuid(), "")]);
    Operation::of_caller(
        "report_message",
        MESSAGES,
        "Tell the moderators of a message",
    )
    .body([
        input("reason", one_of(&REASONS), "`other` if not given."),
        input("note", text_up_to(2000), ""),
        own_id("reporter_id"),
    ])
    .answers(201, "They will know.", reported())
    .answers(200, "The caller has reported it before.", reported())
    .refuses(&[ErrorCode::NotFound, ErrorCode::MessageDeleted])
}

pub(in super::super) fn sync() -> Operation {
    Operation::of_caller("sync", MESSAGES, "What changed since a cursor")
        .details("How a client uses it is told in `docs/sync.md`.")
        .query(input(
            "since",
            text(),
            "The cursor of the last answer; without it, the first load.",
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
                "Seconds to wait for a change when there is none; at most {}.",
                syncing::MAX_WAIT
            ),
        ))
        .answers(200, "A page.", named("SyncPage"))
        .refuses(&[ErrorCode::ResyncRequired])
}
