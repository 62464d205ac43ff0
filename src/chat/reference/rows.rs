//! Schemas of the rows that the database builds as JSON. The server forwards rows without parsing
//! them, so the tests check every response against these schemas.

use super::super::preferences::EMAIL_MODES;
use crate::http::openapi::schema::{
    Schema, address, any_object, by_id, constant, count, described, extended, flag, integer, list,
    list_up_to, moment, named, nullable, number, object, one_of, text, text_of, text_up_to, uuid,
    with_optional,
};

/// Values of a presence status.
pub(super) const STATUSES: [&str; 4] = ["online", "away", "busy", "offline"];

/// Roles in the application.
const ROLES: [&str; 3] = ["user", "admin", "super_admin"];

/// Notification levels of a conversation.
pub(super) const LEVELS: [&str; 3] = ["all", "mentions", "none"];

/// Types of messages that users send.
pub(super) const MESSAGE_TYPES: [&str; 3] = ["text", "image", "file"];

/// Reasons for a report.
pub(super) const REASONS: [&str; 7] = [
    "spam",
    "harassment",
    "hate",
    "violence",
    "sexual",
    "illegal",
    "other",
];

/// Returns the schemas of all rows and responses that have a name in the document.
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
            "The smaller of the two ids. Null if the account was deleted.",
        ),
        (
            "participant_2_id",
            nullable(uuid()),
            "The larger of the two ids. Null if the account was deleted.",
        ),
        ("title", nullable(text_up_to(120)), "Only for groups."),
        ("team_id", nullable(text()), ""),
        ("created_by", nullable(uuid()), ""),
        ("created_at", moment(), ""),
        (
            "updated_at",
            moment(),
            "Changed only by messages, not by reading or pinning.",
        ),
        ("last_message_at", nullable(moment()), ""),
        (
            "last_message_id",
            nullable(uuid()),
            "The newest message visible to the caller.",
        ),
        ("is_archived", flag(), "Archived by the caller."),
        ("participant_1", nullable(named("Participant")), ""),
        ("participant_2", nullable(named("Participant")), ""),
        (
            "other_user",
            nullable(named("Participant")),
            "The other participant.",
        ),
        (
            "last_message",
            nullable(named("MessagePreview")),
            "The newest message visible to the caller.",
        ),
        ("unread_count", count(), ""),
        (
            "mention_count",
            count(),
            "Unread messages that mention the caller.",
        ),
        (
            "marked_unread",
            flag(),
            "Marked by the caller, independently of the read position.",
        ),
        (
            "last_read_message_id",
            nullable(uuid()),
            "The caller's read position.",
        ),
        ("last_read_seq", count(), "The caller's read position."),
        (
            "last_read_at",
            nullable(moment()),
            "When the caller last read.",
        ),
        (
            "is_pinned",
            flag(),
            "Pinned to the top of the caller's list.",
        ),
        ("pinned_at", nullable(moment()), ""),
        (
            "is_muted",
            flag(),
            "Whether the caller has muted the conversation and the mute has not ended.",
        ),
        (
            "muted_until",
            nullable(moment()),
            "When the mute ends. Null if the conversation is not muted, or is muted without an end.",
        ),
        ("notification_level", one_of(&LEVELS), ""),
        (
            "draft",
            nullable(text_of(20_000)),
            "The caller's unsent text.",
        ),
        (
            "peer_last_read_message_id",
            nullable(uuid()),
            "The other person's read position. Null unless both share read receipts.",
        ),
        (
            "peer_last_read_seq",
            nullable(count()),
            "The other person's read position. Null unless both share read receipts.",
        ),
        (
            "peer_last_delivered_message_id",
            nullable(uuid()),
            "The last message delivered to the other person.",
        ),
        (
            "peer_last_delivered_seq",
            nullable(count()),
            "The last message delivered to the other person.",
        ),
        (
            "can_send",
            flag(),
            "Whether the caller may currently send messages here.",
        ),
        ("last_seq", count(), "The `seq` of the newest message."),
        (
            "cleared_seq",
            count(),
            "Messages up to this `seq` are hidden, because the caller cleared the conversation.",
        ),
        (
            "rev",
            count(),
            "Increases with every change of a message in the conversation.",
        ),
    ])
}

fn opened_conversation() -> Schema {
    extended(
        conversation(),
        [
            ("conversation_id", uuid(), "Same as `id`."),
            (
                "created",
                flag(),
                "Whether this request opened the conversation.",
            ),
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
            "Also `offline` for people who do not share their presence.",
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

/// Returns the schema of a stored message's type: a type that users send, or the server's own.
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
            "Null for deleted accounts and for messages of the server.",
        ),
        (
            "content",
            text_up_to(20_000),
            "Empty if the message was deleted.",
        ),
        ("message_type", sent_type(), ""),
        ("file_url", nullable(address()), ""),
        ("file_name", nullable(text_up_to(255)), ""),
        ("file_size", nullable(count()), "In bytes."),
        (
            "file_type",
            nullable(text_up_to(255)),
            "The media type of the file.",
        ),
        (
            "created_at",
            moment(),
            "Never earlier than `created_at` of a message with a smaller `seq`.",
        ),
        ("updated_at", moment(), ""),
        ("is_edited", flag(), ""),
        ("edited_at", nullable(moment()), ""),
        (
            "is_deleted",
            flag(),
            "A deleted message remains, without its content.",
        ),
        ("deleted_at", nullable(moment()), ""),
        (
            "read_by",
            list(uuid()),
            "The users who have read the message, except its sender: the caller, and others who read it while they shared read receipts. Contains no others if the caller does not share them.",
        ),
        (
            "metadata",
            any_object(),
            "Arbitrary data from the sender's application.",
        ),
        (
            "client_message_id",
            nullable(text_of(64)),
            "The sending client's id for the message.",
        ),
        (
            "seq",
            count(),
            "The number of the message in the conversation, without gaps.",
        ),
        (
            "rev",
            count(),
            "The conversation's revision at the last change of the message.",
        ),
        ("reply_to_id", nullable(uuid()), ""),
        (
            "reply_to",
            nullable(described(
                named("MessagePreview"),
                "`content` is cut to 200 characters.",
            )),
            "",
        ),
        ("mentions", list_up_to(100, uuid()), ""),
        ("sender", nullable(named("Sender")), ""),
        (
            "reactions",
            list(named("Reaction")),
            "Ordered by when each was first added.",
        ),
        (
            "is_pinned",
            flag(),
            "Pinned for all members of the conversation.",
        ),
        (
            "attachments",
            list_up_to(0, any_object()),
            "Always empty: this server does not support attachments.",
        ),
        (
            "delivery_status",
            one_of(&["sent", "delivered", "read"]),
            "For the sender: how far the message got. For others: whether they have read it.",
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
        // For a person who was never a member, only the id is known.
        &["full_name", "avatar_url", "status"],
    )
}

fn reaction() -> Schema {
    object([
        ("reaction", text_of(64), ""),
        ("emoji", text_of(64), "Same as `reaction`."),
        ("count", count(), "Number of people with this reaction."),
        ("me", flag(), "Whether the caller has added this reaction."),
        ("user_ids", list_up_to(10, uuid()), "The first ten people."),
    ])
}

fn earlier_wording() -> Schema {
    object([
        ("version", integer(), "Starting at 1."),
        ("previous_content", text(), ""),
        ("edited_by", nullable(uuid()), ""),
        ("edited_at", moment(), "When this version was replaced."),
    ])
}

fn read_result() -> Schema {
    object([
        ("success", constant(true), ""),
        (
            "updated",
            count(),
            "Number of messages that were unread before.",
        ),
        (
            "unread_count",
            count(),
            "Messages that are still unread in the affected conversations.",
        ),
        ("last_read_at", nullable(moment()), ""),
        ("last_read_message_id", nullable(uuid()), ""),
    ])
}

fn unread_counts() -> Schema {
    object([
        ("total", count(), "Unread messages."),
        (
            "conversations",
            count(),
            "Conversations with unread messages.",
        ),
        (
            "mentions",
            count(),
            "Unread messages that mention the caller.",
        ),
        (
            "by_conversation",
            by_id(count()),
            "Unread messages per conversation that has any, including muted and archived ones.",
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
            "Read and delivery positions of the other members.",
        ),
        (
            "removed_conversation_ids",
            list(uuid()),
            "Conversations to remove, with all their messages.",
        ),
        ("removed_message_ids", list(uuid()), "Messages to remove."),
        (
            "messages",
            list(named("Message")),
            "Including deleted messages.",
        ),
        (
            "cursor",
            text(),
            "The cursor to send as `since` of the next request.",
        ),
        ("has_more", flag(), "Whether another page is available now."),
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
            "Set only if an application writes it.",
        ),
        (
            "device_count",
            count(),
            "The number of open sockets, or of devices that report with a `session_id`, whichever is greater.",
        ),
        (
            "current_page",
            nullable(text_up_to(2048)),
            "Visible only to the person and their admins.",
        ),
        (
            "manual_status",
            nullable(one_of(&STATUSES)),
            "Only in the caller's own row.",
        ),
        (
            "manual_until",
            nullable(moment()),
            "Only in the caller's own row.",
        ),
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
            "Null for a person unknown to the caller.",
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
            "Whether notifications show the text of messages.",
        ),
        ("email_enabled", flag(), ""),
        ("email_mode", one_of(&EMAIL_MODES), ""),
        ("email_delay_seconds", count(), ""),
        ("digest_hour", count(), "Hour of the day, in `timezone`."),
        ("timezone", text(), "A name of the IANA time zone database."),
        ("dnd_until", nullable(moment()), ""),
        ("quiet_start", nullable(time_of_day()), "In `timezone`."),
        ("quiet_end", nullable(time_of_day()), "In `timezone`."),
        (
            "share_read_receipts",
            flag(),
            "If false, others do not see what the user has read, and the user does not see what others have read.",
        ),
        ("share_typing", flag(), ""),
        (
            "share_presence",
            flag(),
            "If false, the user appears offline to everyone.",
        ),
        ("updated_at", moment(), ""),
    ])
}

/// Returns the schema of a time of day, as PostgreSQL prints it.
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
            "A team shared with the caller, if there is one.",
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
                "Null unless both sides share read receipts.",
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
            (
                "team_id",
                nullable(text()),
                "A team shared with the caller.",
            ),
            ("role", one_of(&ROLES), ""),
            (
                "conversation_id",
                nullable(uuid()),
                "The direct conversation with the caller, if there is one.",
            ),
            (
                "last_message_at",
                nullable(moment()),
                "The time of the latest message in that conversation.",
            ),
        ],
    )
}

fn conversation_card() -> Schema {
    object([
        ("id", uuid(), ""),
        ("kind", one_of(&["direct", "group"]), ""),
        ("title", nullable(text_up_to(120)), "Only for groups."),
        ("participant_1_id", nullable(uuid()), ""),
        ("participant_2_id", nullable(uuid()), ""),
        ("is_archived", flag(), ""),
        (
            "other_user",
            nullable(named("Participant")),
            "Only for direct conversations.",
        ),
    ])
}

fn message_hit() -> Schema {
    let range = list_up_to(2, count());
    let fragment = object([
        (
            "field",
            one_of(&["content", "file_name"]),
            "The field of the message that contains the fragment.",
        ),
        ("text", text(), "Plain text as written, never markup."),
        (
            "ranges",
            list(range),
            "Start (inclusive) and end (exclusive) of each hit, in UTF-16 code units.",
        ),
    ]);
    object([
        ("message", named("Message"), ""),
        ("conversation", named("ConversationCard"), ""),
        (
            "score",
            number(),
            "Relevance; 0 if the search has no words.",
        ),
        (
            "fragments",
            list(fragment),
            "Text around the hits; empty if the search has no words.",
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
        ("message", text(), "A text for humans."),
        ("success", constant(true), ""),
        ("id", uuid(), "The id of the deleted object."),
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
        ("max_message_length", count(), "In Unicode code points."),
        (
            "max_client_message_id_length",
            count(),
            "In Unicode code points.",
        ),
        ("max_body_bytes", count(), "Maximum size of a request body."),
        ("message_types", list(one_of(&MESSAGE_TYPES)), ""),
        (
            "edit_window_s",
            count(),
            "Seconds after sending during which a message can be edited; 0: no limit.",
        ),
        (
            "typing_expires_in_ms",
            count(),
            "Milliseconds after which a typing state expires.",
        ),
        (
            "presence_ttl_s",
            count(),
            "Seconds for which a presence report is valid.",
        ),
        ("features", features, ""),
    ])
}
