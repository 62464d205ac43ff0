#!/usr/bin/env bash
# Sends a message as Ana and reads it as Ben:   examples/curl.sh FILE
# FILE contains the variables that `scripts/dev --env-file FILE` writes.
set -euo pipefail
. "${1:?Usage: examples/curl.sh FILE}"
chat=$API_URL/api/supabase/user-chat

# The routes accept and return JSON. With --fail-with-body, a refused request ends the script but
# still shows its code and hint.
call() {
  local token=$1
  shift
  curl --silent --show-error --fail-with-body \
    -H "Authorization: Bearer $token" -H 'Content-Type: application/json' "$@"
}

# `other_user_id` opens the conversation if there is none. `client_message_id` makes the request
# safe to repeat. If the response is lost, curl sends the same id again, and the server returns the
# message that it has already stored. The id is therefore chosen once per message, not once per
# attempt.
id=$(cat /proc/sys/kernel/random/uuid)
sent=$(call "$USER_TOKEN_ANA" --retry 3 --retry-connrefused "$chat/messages" \
  -d "{\"other_user_id\": \"$USER_ID_BEN\", \"content\": \"Hello Ben\", \"client_message_id\": \"$id\"}")
echo "sent: $sent"

# jq would be the usual tool, but it is often not installed. sed suffices, because the field name
# occurs only once in the response.
conversation=$(sed 's/.*"conversation_id" *: *"\([^"]*\)".*/\1/' <<<"$sent")

echo "read: $(call "$USER_TOKEN_BEN" "$chat/messages?conversation_id=$conversation&limit=1")"

# The request above has marked the message as delivered. Only the following one marks it as read.
call "$USER_TOKEN_BEN" "$chat/conversations/$conversation/read" -d '{}' >/dev/null
