//! The rows that the database builds as JSON, as schemas. They are passed on unread, so that the
//! tests hold every answer against these.

use super::super::preferences::EMAIL_MODES;
use crate::http::openapi::schema::{
    Schema, address, any_object, by_id, constant, count, described, extended, flag, integer, list,
    list_up_to, moment, named, nullable, number, object, one_of, text, text_of, text_up_to, uuid,
    with_optional,
};

/// What somebody's presence can be.
pub(super) const STATUSES: [&str; 4] = ["online", "away", "busy", "offline"];

/// Roles in the application.
const ROLES: [&str; 3] = ["user", "admin", "super_admin"];

/// How much of a conversation its member is told.
pub(super) const LEVELS: [&str; 3] = ["all", "mentions", "none"];

/// Kinds of messages that people send.
pub(super) const MESSAGE_TYPES: [&str; 3] = ["text", "image", "file"];

/// Why a message is reported.
pub(super) const REASONS: [&str; 7] = [
    "spam",
    "harassment",
    "hate",
    "violence",
    "sexual",
    "illegal",
    "other",
];

/// Every row and answer that stands under a name in the document.
pub(in super::super) fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("Conversation", conversation()),
        ("OpenedConversation", opened_conversation()),
        ("Participant", participant()),
        ("MessagePreview", message_preview()),
        ("Message", message()),
        ("Sender", sender()),
        ("Reaction", reaction()),
        ("EarlierWording", earlier_wording()),
        ("ReadResult", read_result()),
        ("UnreadCounts", unread_counts()),
        ("Receipt", receipt()),
        ("SyncPage", sync_page()),
        ("Me", me()),
        ("Presence", presence()),
        ("Block", block()),
        ("Preferences", preferences()),
        ("Member", member()),
        ("Contact", contact()),
        ("FoundPerson", found_person()),
        ("ConversationCard", conversation_card()),
        ("MessageHit", message_hit()),
        ("FoundOfAll", found_of_all()),
        ("Confirmation", confirmation()),
        ("ChatConfig", chat_config()),
    ]
}

fn conversation() -> Schema {
    object([
        ("id", uuid(), ""),
        ("kind", one_of(&["direct", "group"]), ""),
        (
            "participant_1_id",
            nullable(uuid()),
            "The smaller id of the two; null for somebody who is gone.",
        ),
        (
            "participant_2_id",
            nullable(uuid()),
            "The larger id of the two; null for somebody who is gone.",
        ),
        ("title", nullable(text_up_to(120)), "Of a group."),
        ("team_id", nullable(text()), ""),
        ("created_by", nullable(uuid()), ""),
        ("created_at", moment(), ""),
        (
            "updated_at",
            moment(),
            "Moved by messages only, never by reading or pinning.",
        ),
        ("last_message_at", nullable(moment()), ""),
        (
            "last_message_id",
            nullable(uuid()),
            "The newest message that the caller sees.",
        ),
        ("is_archived", flag(), "By the caller."),
        ("participant_1", nullable(named("Participant")), ""),
        ("participant_2", nullable(named("Participant")), ""),
        (
            "other_user",
            nullable(named("Participant")),
            "Whom the caller talks to.",
        ),
        (
            "last_message",
            nullable(named("MessagePreview")),
            "The newest message that the caller sees.",
        ),
        ("unread_count", count(), ""),
        (
            "mention_count",
            count(),
            "Unread messages that mention the caller.",
        ),
        ("marked_unread", flag(), "By the caller, whatever was read."),
        ("last_read_message_id", nullable(uuid()), "By the caller."),
        ("last_read_seq", count(), "By the caller."),
        ("last_read_at", nullable(moment()), "By the caller."),
        ("is_pinned", flag(), "To the top of the caller's list."),
        ("pinned_at", nullable(moment()), ""),
        ("is_muted", flag(), "By the caller, now."),
        (
            "muted_until",
            nullable(moment()),
            "Null while muted: for good.",
        ),
        ("notification_level", one_of(&LEVELS), ""),
        (
            "draft",
            nullable(text_of(20_000)),
            "What the caller has not sent yet.",
        ),
        (
            "peer_last_read_message_id",
            nullable(uuid()),
            "By the other person. Null unless both show what they read.",
        ),
        (
            "peer_last_read_seq",
            nullable(count()),
            "By the other person. Null unless both show what they read.",
        ),
        (
            "peer_last_delivered_message_id",
            nullable(uuid()),
            "To the other person.",
        ),
        (
            "peer_last_delivered_seq",
            nullable(count()),
            "To the other person.",
        ),
        ("can_send", flag(), "Whether the caller may write here now."),
        ("last_seq", count(), "The `seq` of the newest message."),
        (
            "cleared_seq",
            count(),
            "Messages up to it are gone for the caller, who cleared the conversation.",
        ),
        ("rev", count(), "Grows with every change of a message here."),
    ])
}

fn opened_conversation() -> Schema {
    extended(
        conversation(),
        [
            ("conversation_id", uuid(), "The same as `id`."),
            ("created", flag(), "Whether it was opened by this request."),
        ],
    )
}

fn participant() -> Schema {
    object([
        ("id", uuid(), ""),
        ("full_name", nullable(text()), ""),
        ("email", nullable(text()), ""),
        ("avatar_url", nullable(text()), ""),
        (
            "status",
            one_of(&STATUSES),
            "`offline` also for those who do not show it.",
        ),
        ("last_seen", nullable(moment()), ""),
    ])
}

fn message_preview() -> Schema {
    object([
        ("id", uuid(), ""),
        ("content", text(), ""),
        ("message_type", sent_type(), ""),
        ("sender_id", nullable(uuid()), ""),
        ("created_at", moment(), ""),
        ("is_deleted", flag(), ""),
        ("file_name", nullable(text()), ""),
    ])
}

/// Kinds of messages that are stored: those of people, and the server's own.
fn sent_type() -> Schema {
    one_of(&["text", "image", "file", "system"])
}

fn message() -> Schema {
    object([
        ("id", uuid(), ""),
        ("conversation_id", uuid(), ""),
        (
            "sender_id",
            nullable(uuid()),
            "Null for somebody who is gone, and for messages of the server.",
        ),
        ("content", text_up_to(20_000), "Empty once deleted."),
        ("message_type", sent_type(), ""),
        ("file_url", nullable(address()), ""),
        ("file_name", nullable(text_up_to(255)), ""),
        ("file_size", nullable(count()), "In bytes."),
        ("file_type", nullable(text_up_to(255)), "Its media type."),
        (
            "created_at",
            moment(),
            "Never earlier than that of a message with a smaller `seq`.",
        ),
        ("updated_at", moment(), ""),
        ("is_edited", flag(), ""),
        ("edited_at", nullable(moment()), ""),
        (
            "is_deleted",
            flag(),
            "A deleted message stays, without what it said.",
        ),
        ("deleted_at", nullable(moment()), ""),
        (
            "read_by",
            list(uuid()),
            "Who read it, without its sender and without those who do not show it.",
        ),
        (
            "metadata",
            any_object(),
            "What its sender's program put there.",
        ),
        (
            "client_message_id",
            nullable(text_of(64)),
            "Its sender's own id for it.",
        ),
        (
            "seq",
            count(),
            "Its number in the conversation, without gaps.",
        ),
        (
            "rev",
            count(),
            "The conversation's revision when it last changed.",
        ),
        ("reply_to_id", nullable(uuid()), ""),
        (
            "reply_to",
            nullable(described(
                named("MessagePreview"),
                "Its `content` is cut at 200 characters.",
            )),
            "",
        ),
        ("mentions", list_up_to(100, uuid()), ""),
        ("sender", nullable(named("Sender")), ""),
        (
            "reactions",
            list(named("Reaction")),
            "In the order in which each was first given.",
        ),
        (
            "is_pinned",
            flag(),
            "Held up for everybody in the conversation.",
        ),
        (
            "attachments",
            list_up_to(0, any_object()),
            "Always empty: this server takes no attachments.",
        ),
        (
            "delivery_status",
            one_of(&["sent", "delivered", "read"]),
            "For its sender: how far it got. For others: whether they read it.",
        ),
    ])
}

fn sender() -> Schema {
    with_optional(
        object([
            ("id", uuid(), ""),
            ("full_name", nullable(text()), ""),
            ("avatar_url", nullable(text()), ""),
            ("status", one_of(&STATUSES), ""),
        ]),
        // Of somebody who never was a member, only the id is known.
        &["full_name", "avatar_url", "status"],
    )
}

fn reaction() -> Schema {
    object([
        ("reaction", text_of(64), ""),
        ("emoji", text_of(64), "The same as `reaction`."),
        ("count", count(), "How many people gave it."),
        ("me", flag(), "Whether the caller did."),
        ("user_ids", list_up_to(10, uuid()), "The first ten of them."),
    ])
}

fn earlier_wording() -> Schema {
    object([
        ("version", integer(), "From 1 on."),
        ("previous_content", text(), ""),
        ("edited_by", nullable(uuid()), ""),
        ("edited_at", moment(), "When it ceased to be the wording."),
    ])
}

fn read_result() -> Schema {
    object([
        ("success", constant(true), ""),
        ("updated", count(), "Messages that were unread before."),
        (
            "unread_count",
            count(),
            "What is left in the conversations that were named.",
        ),
        ("last_read_at", nullable(moment()), ""),
        ("last_read_message_id", nullable(uuid()), ""),
    ])
}

fn unread_counts() -> Schema {
    object([
        ("total", count(), "Unread messages."),
        ("conversations", count(), "Conversations that have some."),
        (
            "mentions",
            count(),
            "Unread messages that mention the caller.",
        ),
        (
            "by_conversation",
            by_id(count()),
            "Of each conversation that has some, muted and archived ones included.",
        ),
    ])
}

fn receipt() -> Schema {
    object([
        ("conversation_id", uuid(), ""),
        ("user_id", uuid(), ""),
        ("last_read_seq", count(), ""),
        ("last_read_message_id", nullable(uuid()), ""),
        ("last_read_at", nullable(moment()), ""),
        ("last_delivered_seq", count(), ""),
        ("last_delivered_message_id", nullable(uuid()), ""),
        ("last_delivered_at", nullable(moment()), ""),
    ])
}

fn sync_page() -> Schema {
    object([
        ("conversations", list(named("Conversation")), ""),
        (
            "receipts",
            list(named("Receipt")),
            "How far the others have read and received.",
        ),
        (
            "removed_conversation_ids",
            list(uuid()),
            "To be forgotten, with all their messages.",
        ),
        ("removed_message_ids", list(uuid()), "To be forgotten."),
        ("messages", list(named("Message")), "Deleted ones included."),
        ("cursor", text(), "For the next request."),
        ("has_more", flag(), "Whether to go on at once."),
    ])
}

fn presence() -> Schema {
    object([
        ("user_id", uuid(), ""),
        ("status", one_of(&STATUSES), ""),
        ("last_seen", nullable(moment()), ""),
        ("status_text", nullable(text_up_to(100)), ""),
        ("status_emoji", nullable(text_up_to(32)), ""),
        (
            "is_typing_to",
            nullable(uuid()),
            "Only where an application writes it.",
        ),
        (
            "device_count",
            count(),
            "Sockets, or sessions that report, whichever are more.",
        ),
        (
            "current_page",
            nullable(text_up_to(2048)),
            "The caller's own, and for admins that of their people.",
        ),
        (
            "manual_status",
            nullable(one_of(&STATUSES)),
            "The caller's own only.",
        ),
        ("manual_until", nullable(moment()), "The caller's own only."),
        ("last_active_at", nullable(moment()), ""),
        ("updated_at", nullable(moment()), ""),
    ])
}

fn block() -> Schema {
    let person = object([
        ("id", uuid(), ""),
        ("full_name", nullable(text()), ""),
        ("email", nullable(text()), ""),
        ("avatar_url", nullable(text()), ""),
    ]);
    object([
        ("user_id", uuid(), ""),
        ("created_at", moment(), ""),
        (
            "user",
            nullable(person),
            "Null for somebody the caller does not know.",
        ),
    ])
}

fn preferences() -> Schema {
    object([
        ("user_id", uuid(), ""),
        ("browser_enabled", flag(), ""),
        ("sound_enabled", flag(), ""),
        (
            "show_preview",
            flag(),
            "Whether notifications show what was written.",
        ),
        ("email_enabled", flag(), ""),
        ("email_mode", one_of(&EMAIL_MODES), ""),
        ("email_delay_seconds", count(), ""),
        ("digest_hour", count(), "Of the day, in `timezone`."),
        ("timezone", text(), "A name of the IANA time zone database."),
        ("dnd_until", nullable(moment()), ""),
        ("quiet_start", nullable(time_of_day()), "In `timezone`."),
        ("quiet_end", nullable(time_of_day()), "In `timezone`."),
        (
            "share_read_receipts",
            flag(),
            "Off: others do not learn what I read, and I am not told either.",
        ),
        ("share_typing", flag(), ""),
        (
            "share_presence",
            flag(),
            "Off: I look offline to everybody.",
        ),
        ("updated_at", moment(), ""),
    ])
}

/// A time without a date, as PostgreSQL prints it.
fn time_of_day() -> Schema {
    serde_json::json!({ "type": "string", "pattern": r"^\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?$" })
}

fn me() -> Schema {
    let team = object([
        ("id", text(), ""),
        (
            "name",
            nullable(text()),
            "Null if the application keeps no names of teams.",
        ),
    ]);
    object([
        ("id", uuid(), ""),
        ("full_name", nullable(text()), ""),
        ("email", nullable(text()), ""),
        ("avatar_url", nullable(text()), ""),
        (
            "role",
            nullable(one_of(&ROLES)),
            "Null if the application does not know the caller.",
        ),
        ("teams", list(team), "Sorted by name."),
        (
            "can_write",
            flag(),
            "Whether the caller may write at all. False if the application suspended or does not know them. \
             `can_send` of a conversation covers its other members as well.",
        ),
    ])
}

fn found_person() -> Schema {
    object([
        ("id", uuid(), ""),
        ("full_name", nullable(text()), ""),
        ("email", nullable(text()), ""),
        ("avatar_url", nullable(text()), ""),
        ("status", one_of(&STATUSES), ""),
        (
            "team_id",
            nullable(text()),
            "A team that the caller is in, if there is one.",
        ),
        ("role", one_of(&ROLES), ""),
    ])
}

fn member() -> Schema {
    extended(
        participant(),
        [
            ("member_role", one_of(&["member", "owner"]), ""),
            ("joined_at", moment(), ""),
            (
                "last_read_message_id",
                nullable(uuid()),
                "As they show it; null where either side does not share receipts.",
            ),
            ("last_read_at", nullable(moment()), ""),
            ("last_delivered_message_id", nullable(uuid()), ""),
            ("last_delivered_at", nullable(moment()), ""),
        ],
    )
}

fn contact() -> Schema {
    extended(
        participant(),
        [
            ("team_id", nullable(text()), "A team that the caller is in."),
            ("role", one_of(&ROLES), ""),
            (
                "conversation_id",
                nullable(uuid()),
                "The conversation of the two, if there is one.",
            ),
            (
                "last_message_at",
                nullable(moment()),
                "Of that conversation.",
            ),
        ],
    )
}

fn conversation_card() -> Schema {
    object([
        ("id", uuid(), ""),
        ("kind", one_of(&["direct", "group"]), ""),
        ("title", nullable(text_up_to(120)), "Of a group."),
        ("participant_1_id", nullable(uuid()), ""),
        ("participant_2_id", nullable(uuid()), ""),
        ("is_archived", flag(), ""),
        (
            "other_user",
            nullable(named("Participant")),
            "Of a direct conversation.",
        ),
    ])
}

fn message_hit() -> Schema {
    let range = list_up_to(2, count());
    let fragment = object([
        (
            "field",
            one_of(&["content", "file_name"]),
            "Which text of the message it is from.",
        ),
        (
            "text",
            text(),
            "As it was written: plain text, never markup.",
        ),
        (
            "ranges",
            list(range),
            "Begin and end of each hit in UTF-16 code units, half-open.",
        ),
    ]);
    object([
        ("message", named("Message"), ""),
        ("conversation", named("ConversationCard"), ""),
        (
            "score",
            number(),
            "How well it has the words; 0 without words.",
        ),
        (
            "fragments",
            list(fragment),
            "Its texts around the hits; none without words.",
        ),
    ])
}

fn found_of_all() -> Schema {
    object([
        ("users", list(named("FoundPerson")), ""),
        ("conversations", list(named("Conversation")), ""),
        ("messages", list(named("MessageHit")), "The first page."),
    ])
}

fn confirmation() -> Schema {
    object([
        ("message", text(), "For people."),
        ("success", constant(true), ""),
        ("id", uuid(), "What was deleted."),
    ])
}

fn chat_config() -> Schema {
    let features = object([
        (
            "admin_cross_team",
            flag(),
            "Whether admins may message other teams.",
        ),
        ("attachments", flag(), ""),
        ("groups", flag(), ""),
    ]);
    object([
        ("max_message_length", count(), "In code points."),
        ("max_client_message_id_length", count(), "In code points."),
        ("max_body_bytes", count(), "Of a request."),
        ("message_types", list(one_of(&MESSAGE_TYPES)), ""),
        (
            "edit_window_s",
            count(),
            "Seconds in which a message can be edited; 0: for ever.",
        ),
        (
            "typing_expires_in_ms",
            count(),
            "How long somebody counts as typing.",
        ),
        (
            "presence_ttl_s",
            count(),
            "Seconds for which a report of presence holds.",
        ),
        ("features", features, ""),
    ])
}
