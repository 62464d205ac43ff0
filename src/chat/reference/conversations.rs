//! Conversations: `conversations.rs`, `conversation_settings.rs`, `contacts.rs`, `media.rs`, and reading as a whole.

use super::super::{OTHER_PERSON, contacts, conversations, media};
use super::rows::LEVELS;
use super::{CONVERSATIONS, PEOPLE, own_id};
use crate::error_code::ErrorCode;
use crate::http::openapi::schema::{flag, moment, named, one_of, text, text_up_to, uuid};
use crate::http::openapi::{Operation, input};

pub(in super::super) fn list_conversations() -> Operation {
    Operation::of_caller(
        "list_conversations",
        CONVERSATIONS,
        "The caller's conversations",
    )
    .details("Pinned ones first, then the latest activity.")
    .query(input(
        "archived",
        one_of(&["true", "false", "1", "0", "all"]),
        "Which ones; `false` if not given.",
    ))
    .query(input(
        "pinned",
        flag(),
        "Only those that are pinned, or are not.",
    ))
    .query(input(
        "unread",
        flag(),
        "Only those with something unread, or without.",
    ))
    .query(input(
        "search",
        text(),
        "Part of the other person's name or address, or of the title.",
    ))
    .query(input(
        "updated_since",
        moment(),
        "Only those with later activity.",
    ))
    .offset()
    .pages(
        conversations::DEFAULT_LIMIT,
        conversations::MAX_LIMIT,
        named("Conversation"),
    )
    .with_header(200, "X-Total-Unread", true)
}

pub(in super::super) fn open_conversation() -> Operation {
    Operation::of_caller("open_conversation", CONVERSATIONS, "The conversation with somebody")
        .details("Opened if there is none yet. Asking again, or from both sides at once, finds the same one.")
        .query(input("prevent_creation", flag(), "404 instead of opening one."))
        .body([
            input("other_user_id", uuid(), "The other person.").or(&["participant_id", "recipient_id", "user_id"]),
            input("user1_id", uuid(), "With `user2_id`: both people. One of them is the caller."),
            input("user2_id", uuid(), "See `user1_id`."),
            input("prevent_creation", flag(), "As the parameter, which wins."),
        ])
        .needs(&["other_user_id", OTHER_PERSON[1], OTHER_PERSON[2], "user_id", "user1_id"])
        .answers(200, "There was one.", named("OpenedConversation"))
        .answers(201, "It was opened.", named("OpenedConversation"))
        .refuses(&[ErrorCode::NotFound, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn get_conversation() -> Operation {
    Operation::of_caller("get_conversation", CONVERSATIONS, "One conversation")
        .answers(200, "As the caller sees it.", named("Conversation"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn set_conversation_settings() -> Operation {
    Operation::of_caller(
        "set_conversation_settings",
        CONVERSATIONS,
        "Archive, pin, mute, draft",
    )
    .details(
        "Sets what the body names and nothing else. Nobody but the caller sees these settings.",
    )
    .body([
        input("is_archived", flag(), ""),
        input("is_pinned", flag(), ""),
        input("is_muted", flag(), ""),
        input("muted_until", moment(), "Null: muted for good, if muted."),
        input("notification_level", one_of(&LEVELS), ""),
        input("marked_unread", flag(), ""),
        input(
            "draft",
            text_up_to(20_000),
            "What is not sent yet. Null or empty: nothing. Sending empties it.",
        ),
        own_id("user_id"),
    ])
    .answers(
        200,
        "The conversation as it is then.",
        named("Conversation"),
    )
    .refuses(&[ErrorCode::NotFound, ErrorCode::MessageTooLong])
}

pub(in super::super) fn clear_conversation() -> Operation {
    Operation::of_caller(
        "clear_conversation",
        CONVERSATIONS,
        "Empty a conversation for oneself",
    )
    .details(
        "It leaves the caller's list until the next message. The other person keeps everything.",
    )
    .answers(200, "Done, now or before.", named("Confirmation"))
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn mark_conversation_read() -> Operation {
    Operation::of_caller("mark_conversation_read", CONVERSATIONS, "Mark as read")
        .details("Up to a message, or everything. The position never moves back.")
        .body([
            input("message_id", uuid(), "The last message that was read.")
                .or(&["up_to_message_id"]),
            own_id("user_id"),
        ])
        .answers(200, "Where reading stands.", named("ReadResult"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn mark_conversation_unread() -> Operation {
    Operation::of_caller("mark_conversation_unread", CONVERSATIONS, "Mark as unread")
        .details("As a whole, or from a message on. What others are told of the caller's reading does not move back.")
        .body([input("message_id", uuid(), "The first message that is to be unread."), own_id("user_id")])
        .answers(200, "The conversation as it is then.", named("Conversation"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn mark_delivered() -> Operation {
    Operation::of_caller("mark_delivered", CONVERSATIONS, "Mark as delivered")
        .details("For clients that are told of messages by other means than the socket, such as a push. What was fetched from `/messages` or `/sync`, or \
            handed to a socket of the caller, counts without it. Whoever does not share receipts moves nothing.")
        .body([
            input("message_id", uuid(), "The last message that arrived; all there are if not given.")
                .or(&["up_to_message_id"]),
            own_id("user_id"),
        ])
        .answers_nothing(204, "Done, now or before.")
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_members() -> Operation {
    Operation::of_caller("list_members", CONVERSATIONS, "Who is in a conversation")
        .details("In the order of their ids, the caller among them.")
        .pages(
            contacts::DEFAULT_LIMIT,
            contacts::MAX_LIMIT,
            named("Member"),
        )
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_media() -> Operation {
    Operation::of_caller("list_media", CONVERSATIONS, "The files of a conversation")
        .details("The messages that have one, the newest first.")
        .query(input(
            "type",
            one_of(&["image", "file"]),
            "Both if not given.",
        ))
        .pages(media::DEFAULT_LIMIT, media::MAX_LIMIT, named("Message"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_contacts() -> Operation {
    Operation::of_caller("list_contacts", PEOPLE, "Whom the caller may turn to")
        .details("Those they have a conversation with, the latest first, then the others of their teams by name.")
        .pages(contacts::DEFAULT_LIMIT, contacts::MAX_LIMIT, named("Contact"))
}
