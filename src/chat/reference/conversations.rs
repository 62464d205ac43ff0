//! Documentation of the routes for conversations. The handlers are in `conversations.rs`,
//! `conversation_settings.rs`, `contacts.rs`, `media.rs`, `reading.rs` and `presence.rs`.

use super::super::conversations::OTHER_PERSON;
use super::super::{contacts, conversations, media};
use super::rows::LEVELS;
use super::tags::{CONVERSATIONS, PEOPLE, own_id};
use crate::error_code::ErrorCode;
use crate::http::openapi::schema::{flag, moment, named, one_of, text, text_up_to, uuid};
use crate::http::openapi::{Operation, input};

pub(in super::super) fn list_conversations() -> Operation {
    Operation::of_caller(
        "list_conversations",
        CONVERSATIONS,
        "The caller's conversations",
    )
    .details("Pinned conversations first, then by latest activity.")
    .query(input(
        "archived",
        one_of(&["true", "false", "1", "0", "all"]),
        "Filter by archived state. Default: `false`.",
    ))
    .query(input("pinned", flag(), "Filter by pinned state."))
    .query(input(
        "unread",
        flag(),
        "Only conversations with unread messages, or only those without.",
    ))
    .query(input(
        "search",
        text(),
        "Part of the other person's name or e-mail address, or of the title.",
    ))
    .query(input(
        "updated_since",
        moment(),
        "Only conversations with later activity.",
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
    Operation::of_caller("open_conversation", CONVERSATIONS, "Open a conversation with a person")
        .details("Returns the existing conversation if there is one. Repeated requests, even simultaneous ones from both people, return the same conversation.")
        .query(input("prevent_creation", flag(), "Respond 404 instead of opening a new conversation."))
        .body([
            input("other_user_id", uuid(), "The other person.").or(&["participant_id", "recipient_id", "user_id"]),
            input("user1_id", uuid(), "Together with `user2_id`: both people, including the caller."),
            input("user2_id", uuid(), "See `user1_id`."),
            input("prevent_creation", flag(), "Same as the query parameter, which takes precedence."),
        ])
        .needs(&["other_user_id", OTHER_PERSON[1], OTHER_PERSON[2], "user_id", "user1_id"])
        .answers(200, "The conversation already existed.", named("OpenedConversation"))
        .answers(201, "The conversation was opened.", named("OpenedConversation"))
        .refuses(&[ErrorCode::NotFound, ErrorCode::NotAllowedRecipient])
}

pub(in super::super) fn get_conversation() -> Operation {
    Operation::of_caller("get_conversation", CONVERSATIONS, "Get a conversation")
        .answers(
            200,
            "The conversation as the caller sees it.",
            named("Conversation"),
        )
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn set_conversation_settings() -> Operation {
    Operation::of_caller(
        "set_conversation_settings",
        CONVERSATIONS,
        "Archive, pin or mute a conversation, or save a draft",
    )
    .details("Sets only the fields in the body. Only the caller sees these settings.")
    .body([
        input("is_archived", flag(), ""),
        input("is_pinned", flag(), ""),
        input("is_muted", flag(), ""),
        input("muted_until", moment(), "Null: no end, if muted."),
        input("notification_level", one_of(&LEVELS), ""),
        input("marked_unread", flag(), ""),
        input(
            "draft",
            text_up_to(20_000),
            "Unsent text. Null or empty clears it, and so does sending a message.",
        ),
        own_id("user_id"),
    ])
    .answers(200, "The updated conversation.", named("Conversation"))
    .refuses(&[ErrorCode::NotFound, ErrorCode::MessageTooLong])
}

pub(in super::super) fn clear_conversation() -> Operation {
    Operation::of_caller(
        "clear_conversation",
        CONVERSATIONS,
        "Clear a conversation for the caller",
    )
    .details(
        "Removes it from the caller's list until the next message. The other person keeps all messages.",
    )
    .answers(200, "Done, by this or an earlier request.", named("Confirmation"))
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn mark_conversation_read() -> Operation {
    Operation::of_caller("mark_conversation_read", CONVERSATIONS, "Mark as read")
        .details(
            "Marks messages as read, up to the given one or all. The position never moves back.",
        )
        .body([
            input("message_id", uuid(), "The last message read.").or(&["up_to_message_id"]),
            own_id("user_id"),
        ])
        .answers(200, "The read position.", named("ReadResult"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn mark_conversation_unread() -> Operation {
    Operation::of_caller("mark_conversation_unread", CONVERSATIONS, "Mark as unread")
        .details("Marks the whole conversation, or all messages from one on. The read position that others see does not move back.")
        .body([input("message_id", uuid(), "The first unread message."), own_id("user_id")])
        .answers(200, "The updated conversation.", named("Conversation"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn mark_delivered() -> Operation {
    Operation::of_caller("mark_delivered", CONVERSATIONS, "Mark as delivered")
        .details("For clients that receive messages by other means than the socket, such as push notifications. Messages fetched from `/messages` or `/sync`, or \
            sent to a socket of the caller, are marked automatically. Has no effect if the caller does not share receipts.")
        .body([
            input("message_id", uuid(), "The last message that arrived. Default: the newest message.")
                .or(&["up_to_message_id"]),
            own_id("user_id"),
        ])
        .answers_nothing(204, "Done, by this or an earlier request.")
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_members() -> Operation {
    Operation::of_caller(
        "list_members",
        CONVERSATIONS,
        "The members of a conversation",
    )
    .details("Ordered by id, including the caller.")
    .pages(
        contacts::DEFAULT_LIMIT,
        contacts::MAX_LIMIT,
        named("Member"),
    )
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_media() -> Operation {
    Operation::of_caller("list_media", CONVERSATIONS, "The files of a conversation")
        .details("Messages with a file, newest first.")
        .query(input("type", one_of(&["image", "file"]), "Default: both."))
        .pages(media::DEFAULT_LIMIT, media::MAX_LIMIT, named("Message"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn list_contacts() -> Operation {
    Operation::of_caller("list_contacts", PEOPLE, "People that the caller can contact")
        .details("First the people that the caller has a conversation with, latest first; then other members of the caller's teams, by name.")
        .pages(contacts::DEFAULT_LIMIT, contacts::MAX_LIMIT, named("Contact"))
}
