"""Replaces some generated ids by ids of existing rows, so that not every answer is 404."""

import os
import uuid

import schemathesis

CONVERSATION = os.environ["SCHEMATHESIS_CONVERSATION"]
MESSAGE = os.environ["SCHEMATHESIS_MESSAGE"]
CALLER = os.environ["SCHEMATHESIS_CALLER"]
OTHER = os.environ["SCHEMATHESIS_OTHER"]

# Fields that must contain the caller's id, and existing values for other fields.
OWN = {"current_user_id", "sender_id", "reporter_id"}
KNOWN = {
    "conversation_id": CONVERSATION,
    "message_id": MESSAGE,
    "up_to_message_id": MESSAGE,
    "reply_to_id": MESSAGE,
    "other_user_id": OTHER,
    "participant_id": OTHER,
    "recipient_id": OTHER,
    "typing_to": OTHER,
}


def known(name, path, value):
    """The value to send for a generated id. Depends only on the arguments, for reproducible failures."""
    if name in OWN or (name == "user_id" and path.rsplit("/", 1)[-1] not in ("blocks", "conversations", "{user_id}")):
        return CALLER
    if not isinstance(value, str) or len(value) != 36 or value[-1] not in "01234567":
        return value
    if name == "user_id":
        return OTHER
    if name == "id":
        return CONVERSATION if "/conversations/" in path else MESSAGE
    return KNOWN.get(name, value)


@schemathesis.hook
def before_call(context, case, kwargs):
    meta = case.meta
    # Schemathesis often generates the same key twice, which would make the second request a retry.
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if meta is not None and not meta.generation.mode.is_positive:
        # The routes accept these: an empty parameter counts as absent, and 0 and 1 are booleans.
        for name, value in (case.query or {}).items():
            if value in ("", "0", "1", 0, 1):
                case.query[name] = "?"
        return
    for fields in (case.path_parameters, case.query, case.body):
        if isinstance(fields, dict):
            for name, value in fields.items():
                if value is not None:
                    fields[name] = known(name, case.path, value)
