//! People and settings: `me.rs`, `presence.rs`, `search`, `blocks.rs`, `preferences.rs`, `limits.rs`, and counts.

use serde_json::json;

use super::super::preferences::EMAIL_MODES;
use super::super::{presence, search};
use super::rows::STATUSES;
use super::{MESSAGES, PEOPLE, SETTINGS, own_id};
use crate::error_code::ErrorCode;
use crate::http::openapi::schema::{
    between, described, flag, moment, named, one_of, text, text_of, text_up_to, uuid,
};
use crate::http::openapi::{Operation, input};

pub(in super::super) fn count_unread() -> Operation {
    Operation::of_caller("count_unread", MESSAGES, "How much is unread")
        .details("The totals leave out muted and archived conversations.")
        .answers(200, "The counts.", named("UnreadCounts"))
}

pub(in super::super) fn get_me() -> Operation {
    Operation::of_caller("get_me", PEOPLE, "Who the caller is")
        .details("As the application knows them. `/config` has limits and features, `/preferences` the caller's settings.")
        .answers(200, "The caller.", named("Me"))
}

pub(in super::super) fn list_presence() -> Operation {
    Operation::of_caller("list_presence", PEOPLE, "Who is there")
        .details("Of the people named, of everybody the caller may see, or the caller's own. Whom the caller may not see is left out.")
        .query(input("user_ids", text(), format!("Ids separated by commas, at most {}.", presence::MAX_USER_IDS)))
        .query(input("team", flag(), "Everybody the caller may see."))
        .query(own_id("user_id"))
        .lists("A row for each.", named("Presence"))
}

pub(in super::super) fn set_presence() -> Operation {
    let statuses: Vec<&str> = STATUSES.into_iter().chain(["dnd"]).collect();
    Operation::of_caller("set_presence", PEOPLE, "Report presence, or choose a status")
        .details("A report holds for the time that `/config` tells. A status that is chosen holds until `manual_until`, or until the next. Devices \
            that name themselves by `session_id` report side by side: whoever is online on one of them is online.")
        .beacon([
            input("status", one_of(&statuses), "`dnd` is `busy`. Not given: that of the session stays as it is; without a session nothing is reported."),
            input("current_page", text_up_to(2048), "Where in the application. Kept only with the setting `share_current_page`; the caller and their admins are told."),
            input("manual_until", moment(), "The status is the caller's choice until then. Null: until the next; with `online` or no status nothing is chosen any more."),
            input("is_manual", flag(), "Whether the status is the caller's choice. Not given: it is if it is `busy`, or if `manual_until` is there."),
            input("session_id", text_of(64), "The client's name for a tab or a device. `offline` ends that one alone."),
            input("status_text", text_up_to(100), "Null or empty: no text."),
            input("status_emoji", text_up_to(32), ""),
            own_id("user_id"),
        ])
        .answers(200, "The caller's presence.", named("Presence"))
}

pub(in super::super) fn end_presence() -> Operation {
    Operation::of_caller("end_presence", PEOPLE, "Be offline")
        .details(
            "For signing out: on one device, or everywhere, until one reports or connects again.",
        )
        .beacon([
            input(
                "session_id",
                text_of(64),
                "The device as it named itself. Not given: all of them.",
            ),
            own_id("user_id"),
        ])
        .answers_nothing(204, "Done.")
}

pub(in super::super) fn set_conversation_typing() -> Operation {
    Operation::of_caller(
        "set_conversation_typing",
        PEOPLE,
        "Type in a conversation, or no longer",
    )
    .beacon([
        input("is_typing", flag(), "`true` if not given."),
        own_id("user_id"),
    ])
    .answers_nothing(204, "Done.")
    .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn set_typing() -> Operation {
    Operation::of_caller("set_typing", PEOPLE, "Type, or no longer")
        .details("In a conversation, to a person, or with nobody named no longer at all.")
        .beacon([
            input("conversation_id", uuid(), ""),
            input(
                "typing_to",
                uuid(),
                "The person typed to; null: nobody any more.",
            )
            .or(&["typing_to_user_id", "is_typing_to"]),
            input("is_typing", flag(), "`true` if not given."),
            own_id("user_id"),
        ])
        .answers_nothing(204, "Done.")
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn search() -> Operation {
    let rows = ["FoundPerson", "Conversation", "MessageHit"].map(named);
    Operation::of_caller("search", PEOPLE, "Find people, conversations and messages")
        .details("People of the caller's teams by name or address, those they have a conversation with first, the latest in front. Fewer \
            than two characters find nobody. Conversations by title, or by the other person. Messages by words, each as the beginning of \
            one and all of them; `\"a phrase\"`; `-word` for what must not be there; and the operators `from:`, `in:`, `before:`, `after:`, \
            `has:` and `is:`, with or without words. Case, accents and vowel marks make no difference; of scripts without spaces two \
            characters are enough, and any part is found. Other parts of words than their beginning are not.")
        .query(input("q", text_up_to(400), "What to look for.").or(&["query", "search"]))
        .query(input("type", one_of(&["users", "messages", "conversations", "all"]), "`users` if not given. Only messages have more than one page."))
        .query(input("from", text(), "Who wrote it: an id, `me`, or part of a name or address. Several as `from:` in `q`: any of them."))
        .query(input("in", text(), "Where: a conversation's id, or the other person as in `from`."))
        .query(input("after", moment(), "Sent then or later."))
        .query(input("before", moment(), "Sent earlier."))
        .query(input("has", text(), "`file`, `image`, `link` or `reaction`; several, separated by commas: all of them."))
        .query(input("is", text(), "`unread`."))
        .query(input("sort", one_of(&["date", "relevance"]), "Of messages; `date` if not given. By relevance the 200 newest are ranked."))
        .query(input("order", one_of(&["desc", "asc"]), "Of messages; `desc` if not given."))
        .query(input("team_id", text(), "Ignored: the caller's teams decide.").legacy())
        .pages(search::DEFAULT_MESSAGES, search::MAX_MESSAGES, json!({ "anyOf": rows }))
        .append_details("At most ten people and thirty conversations are found.")
        .or_answers(described(named("FoundOfAll"), "With `type=all`, whatever `format` says."))
}

pub(in super::super) fn list_blocks() -> Operation {
    Operation::of_caller("list_blocks", PEOPLE, "Whom the caller blocked")
        .lists("The latest first.", named("Block"))
}

pub(in super::super) fn block() -> Operation {
    Operation::of_caller("block", PEOPLE, "Block somebody")
        .details("Neither can write to the other any more. Nobody is told that they are blocked.")
        .body([input("user_id", uuid(), "Whom.").or(&[
            "other_user_id",
            "participant_id",
            "recipient_id",
        ])])
        .needs(&["user_id", "other_user_id", "participant_id", "recipient_id"])
        .answers(201, "The block.", named("Block"))
        .answers(200, "They are blocked already.", named("Block"))
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn unblock() -> Operation {
    Operation::of_caller("unblock", PEOPLE, "Unblock somebody")
        .answers(
            200,
            "Done, whether or not there was a block.",
            named("Confirmation"),
        )
        .refuses(&[ErrorCode::NotFound])
}

pub(in super::super) fn get_preferences() -> Operation {
    Operation::of_caller(
        "get_preferences",
        PEOPLE,
        "How the caller wants to be told of things",
    )
    .answers(200, "The preferences.", named("Preferences"))
}

pub(in super::super) fn set_preferences() -> Operation {
    Operation::of_caller("set_preferences", PEOPLE, "Set preferences")
        .details("Sets what the body names and nothing else.")
        .body([
            input("browser_enabled", flag(), ""),
            input("sound_enabled", flag(), ""),
            input("show_preview", flag(), ""),
            input("email_enabled", flag(), ""),
            input("email_mode", one_of(&EMAIL_MODES), ""),
            input("email_delay_seconds", between(30, 86_400), ""),
            input("digest_hour", between(0, 23), ""),
            input("timezone", text(), "A name of the IANA time zone database."),
            input("dnd_until", moment(), "Null: no longer."),
            input("quiet_start", text(), "A time of day. Null: never."),
            input("quiet_end", text(), "A time of day. Null: never."),
            input("share_read_receipts", flag(), ""),
            input("share_typing", flag(), ""),
            input("share_presence", flag(), ""),
            own_id("user_id"),
        ])
        .answers(
            200,
            "The preferences as they are then.",
            named("Preferences"),
        )
}

pub(in super::super) fn report_client_error() -> Operation {
    Operation::of_caller("report_client_error", SETTINGS, "Report an error of a client")
        .details("For the server's log, without what looks like a token, a key or an address. Long texts are cut.")
        .beacon([
            input("message", text(), "What went wrong."),
            input("code", text(), ""),
            input("stack", text(), ""),
            input("context", json!({}), "Anything that helps."),
            input("url", text(), "The page; what stands behind `?` or `#` is left out."),
            input("user_agent", text(), "Else the header of that name."),
            input("sdk_version", text(), ""),
            input("request_id", text(), "Of the answer that the error is about."),
        ])
        .needs(&["message"])
        .answers_nothing(204, "It is logged.")
        .without_key()
}

pub(in super::super) fn show_config() -> Operation {
    Operation::bare("show_config", SETTINGS, "Limits and switches")
        .details("For composers. A change is seen some seconds later.")
        .conditional()
        .answers(200, "What is in force.", named("ChatConfig"))
        .refuses(&[
            ErrorCode::RateLimited,
            ErrorCode::Internal,
            ErrorCode::PoolExhausted,
            ErrorCode::DatabaseUnavailable,
        ])
}
