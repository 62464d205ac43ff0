//! Documentation of the routes for people and settings. The handlers are in `me.rs`, `presence.rs`,
//! `search`, `blocks.rs`, `preferences.rs`, `limits.rs`, `client_errors.rs` and `reading.rs`
//! (unread counts).

use serde_json::json;

use super::super::preferences::EMAIL_MODES;
use super::super::{presence, search};
use super::rows::STATUSES;
use super::tags::{MESSAGES, PEOPLE, SETTINGS, own_id};
use crate::error_code::ErrorCode;
use crate::http::openapi::schema::{
    between, described, flag, moment, named, one_of, text, text_of, text_up_to, uuid,
};
use crate::http::openapi::{Operation, input};

pub(in super::super) fn count_unread() -> Operation {
    Operation::of_caller("count_unread", MESSAGES, "Unread counts")
        .details("The totals exclude muted and archived conversations.")
        .answers(200, "The counts.", named("UnreadCounts"))
}

pub(in super::super) fn get_me() -> Operation {
    Operation::of_caller("get_me", PEOPLE, "Who the caller is")
        .details("The caller as the application knows them. `/config` contains limits and features, `/preferences` the caller's settings.")
        .answers(200, "The caller.", named("Me"))
}

pub(in super::super) fn list_presence() -> Operation {
    Operation::of_caller("list_presence", PEOPLE, "Presence of people")
        .details("For the given people, for all people visible to the caller, or for the caller. People that the caller may not see are omitted.")
        .query(input("user_ids", text(), format!("At most {} ids, separated by commas.", presence::MAX_USER_IDS)))
        .query(input("team", flag(), "All people visible to the caller."))
        .query(own_id("user_id"))
        .lists("One row per person.", named("Presence"))
}

pub(in super::super) fn set_presence() -> Operation {
    let statuses: Vec<&str> = STATUSES.into_iter().chain(["dnd"]).collect();
    Operation::of_caller("set_presence", PEOPLE, "Report presence, or choose a status")
        .details("A report is valid for `presence_ttl_s` of `/config`. A chosen status is valid until `manual_until`, or until the next one. Devices \
            with a `session_id` report independently: a person is online if any of their devices is.")
        .beacon([
            input("status", one_of(&statuses), "`dnd` means `busy`. If omitted, the status of the session stays unchanged; without a `session_id`, nothing is reported."),
            input("current_page", text_up_to(2048), "The current page in the application. Stored only if the setting `share_current_page` is on. Visible to the caller and their admins."),
            input("manual_until", moment(), "Time until which the chosen status is valid. Null: until the next one; with `online` or without a status, null clears the choice."),
            input("is_manual", flag(), "Whether the user chose the status. Default: true if the status is `busy` or `manual_until` is present."),
            input("session_id", text_of(64), "The client's id for a tab or device. `offline` ends only this device."),
            input("status_text", text_up_to(100), "Null or empty: no text."),
            input("status_emoji", text_up_to(32), ""),
            own_id("user_id"),
        ])
        .answers(200, "The caller's presence.", named("Presence"))
}

pub(in super::super) fn end_presence() -> Operation {
    Operation::of_caller("end_presence", PEOPLE, "Go offline")
        .details(
            "Ends one device (`session_id`), or all devices until one reports or connects again.",
        )
        .beacon([
            input(
                "session_id",
                text_of(64),
                "The session to end. Default: all sessions.",
            ),
            own_id("user_id"),
        ])
        .answers_nothing(204, "Done.")
}

pub(in super::super) fn set_conversation_typing() -> Operation {
    Operation::of_caller(
        "set_conversation_typing",
        PEOPLE,
        "Start or stop typing in a conversation",
    )
    .beacon([
        input("is_typing", flag(), "Default: `true`."),
        own_id("user_id"),
    ])
    .answers_nothing(204, "Done.")
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn set_typing() -> Operation {
    Operation::of_caller("set_typing", PEOPLE, "Start or stop typing")
        .details("In a conversation or to a person. Without either, typing stops everywhere.")
        .beacon([
            input("conversation_id", uuid(), ""),
            input("typing_to", uuid(), "The recipient. Null: stop typing.")
                .or(&["typing_to_user_id", "is_typing_to"]),
            input("is_typing", flag(), "Default: `true`."),
            own_id("user_id"),
        ])
        .answers_nothing(204, "Done.")
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn search() -> Operation {
    let rows = ["FoundPerson", "Conversation", "MessageHit"].map(named);
    Operation::of_caller("search", PEOPLE, "Find people, conversations and messages")
        .details("People of the caller's teams are found by name or e-mail address. Those with a conversation come first, latest first. A term of \
            fewer than two characters finds no people. Conversations are found by title, or by the other person. Messages are found by words, \
            all of which must match the beginning of a word; by `\"a phrase\"`; by `-word` to exclude a word; and by the operators `from:`, `in:`, `before:`, `after:`, \
            `has:` and `is:`, with or without words. Case, accents and vowel marks are ignored. In scripts without spaces, two \
            characters suffice and match anywhere. In other scripts, only the beginnings of words match.")
        .query(input("q", text_up_to(400), "The search terms.").or(&["query", "search"]))
        .query(input("type", one_of(&["users", "messages", "conversations", "all"]), "Default: `users`. Only messages can have more than one page."))
        .query(input("from", text(), "The sender: an id, `me`, or part of a name or e-mail address. For several alternatives use `from:` in `q`."))
        .query(input("in", text(), "The conversation: its id, or the other person as in `from`."))
        .query(input("after", moment(), "Sent at this time or later."))
        .query(input("before", moment(), "Sent before this time."))
        .query(input("has", text(), "`file`, `image`, `link` or `reaction`. Of several, separated by commas, all must match."))
        .query(input("is", text(), "`unread`."))
        .query(input("sort", one_of(&["date", "relevance"]), "Sort order of messages. Default: `date`. `relevance` ranks the 200 newest matches (with `order=asc`, the oldest)."))
        .query(input("order", one_of(&["desc", "asc"]), "Sort direction of messages. Default: `desc`."))
        .query(input("team_id", text(), "Ignored: the teams are always the caller's.").legacy())
        .pages(search::DEFAULT_MESSAGES, search::MAX_MESSAGES, json!({ "anyOf": rows }))
        .append_details("At most ten people and thirty conversations are found.")
        .or_answers(described(named("FoundOfAll"), "With `type=all`, for any `format`."))
}

pub(in super::super) fn list_blocks() -> Operation {
    Operation::of_caller("list_blocks", PEOPLE, "People blocked by the caller")
        .lists("Latest first.", named("Block"))
}

pub(in super::super) fn block() -> Operation {
    Operation::of_caller("block", PEOPLE, "Block a person")
        .details(
            "Neither can send messages to the other afterwards. Blocked people are not notified.",
        )
        .body([input("user_id", uuid(), "The person to block.").or(&[
            "other_user_id",
            "participant_id",
            "recipient_id",
        ])])
        .needs(&["user_id", "other_user_id", "participant_id", "recipient_id"])
        .answers(201, "The block.", named("Block"))
        .answers(200, "The person was already blocked.", named("Block"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn unblock() -> Operation {
    Operation::of_caller("unblock", PEOPLE, "Unblock a person")
        .answers(
            200,
            "Done, even if there was no block.",
            named("Confirmation"),
        )
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn get_preferences() -> Operation {
    Operation::of_caller("get_preferences", PEOPLE, "The caller's preferences").answers(
        200,
        "The preferences.",
        named("Preferences"),
    )
}

pub(in super::super) fn set_preferences() -> Operation {
    Operation::of_caller("set_preferences", PEOPLE, "Set preferences")
        .details("Sets only the fields in the body.")
        .body([
            input("browser_enabled", flag(), ""),
            input("sound_enabled", flag(), ""),
            input("show_preview", flag(), ""),
            input("email_enabled", flag(), ""),
            input("email_mode", one_of(&EMAIL_MODES), ""),
            input("email_delay_seconds", between(30, 86_400), ""),
            input("digest_hour", between(0, 23), ""),
            input("timezone", text(), "A name of the IANA time zone database."),
            input("dnd_until", moment(), "Null: off."),
            input("quiet_start", text(), "A time of day. Null: never."),
            input("quiet_end", text(), "A time of day. Null: never."),
            input("share_read_receipts", flag(), ""),
            input("share_typing", flag(), ""),
            input("share_presence", flag(), ""),
            own_id("user_id"),
        ])
        .answers(200, "The updated preferences.", named("Preferences"))
}

pub(in super::super) fn report_client_error() -> Operation {
    Operation::of_caller("report_client_error", SETTINGS, "Report a client error")
        .details("Written to the server's log, after removing text that looks like a token, a key or an e-mail address. Long texts are cut.")
        .beacon([
            input("message", text(), "The error message."),
            input("code", text(), ""),
            input("stack", text(), ""),
            input("context", json!({}), "Any additional data."),
            input("url", text(), "The page. The query string and the fragment are removed."),
            input("user_agent", text(), "Default: the `User-Agent` header."),
            input("sdk_version", text(), ""),
            input("request_id", text(), "The id of the request that failed."),
        ])
        .needs(&["message"])
        .answers_nothing(204, "Logged.")
        .without_key()
}

pub(in super::super) fn show_config() -> Operation {
    Operation::bare("show_config", SETTINGS, "Limits and features")
        .details("For message composers. Changes become visible after some seconds.")
        .conditional()
        .answers(200, "The current configuration.", named("ChatConfig"))
        .refuses(&[
            ErrorCode::RateLimited,
            ErrorCode::Internal,
            ErrorCode::PoolExhausted,
            ErrorCode::DatabaseUnavailable,
        ])
}
