// The list of conversations.
//
// A conversation's row has two parts. The fields about its messages have the revision `rev`, and
// the higher revision wins. The user's own settings and counts have no revision. The value that
// arrived last is shown, and the next `/sync` corrects it if necessary.

import { preview, type MessageRow } from './messages'
import type { Conversation, Unread } from './types'
import type * as wire from './wire'

/** The fields that have the revision `rev`. */
const BY_REVISION = ['rev', 'last_seq', 'last_message', 'last_message_id', 'last_message_at', 'updated_at'] as const

export function mergeConversation(held: wire.Conversation | undefined, incoming: wire.Conversation): wire.Conversation {
  if (!held || incoming.rev >= held.rev) return incoming
  const newer = Object.fromEntries(BY_REVISION.map((name) => [name, held[name]]))
  return { ...incoming, ...newer }
}

/** Applies a message from the socket, because the list shows the newest message. */
export function withMessage(held: wire.Conversation, row: MessageRow): wire.Conversation {
  if (row.rev <= held.rev) return held
  const next = { ...held, rev: row.rev }
  if (row.seq < held.last_seq) return next
  return {
    ...next,
    last_seq: row.seq,
    last_message: preview(row),
    last_message_id: row.id,
    last_message_at: row.created_at,
    updated_at: row.created_at > held.updated_at ? row.created_at : held.updated_at,
  }
}

/**
 * Applies a `conversation.updated` event, which contains some of the row's fields. Fields that the
 * row lacks, and those with a revision, are ignored.
 */
export function withEvent(held: wire.Conversation, payload: Record<string, unknown>): wire.Conversation {
  const known = Object.entries(payload).filter(
    ([name]) => name in held && name !== 'id' && !(BY_REVISION as readonly string[]).includes(name),
  )
  return { ...held, ...Object.fromEntries(known) }
}

/** Sorts pinned conversations first, then by last message, then by id. */
export function byActivity(a: Conversation, b: Conversation): number {
  const pinned = Number(b.is_pinned) - Number(a.is_pinned)
  if (pinned !== 0) return pinned
  const [before, after] = [activity(a), activity(b)]
  return before === after ? descending(a.id, b.id) : descending(before, after)
}

export function countUnread(conversations: Iterable<wire.Conversation>): Unread {
  let total = 0
  let mentions = 0
  const byConversation: Record<string, number> = {}
  for (const { id, unread_count, mention_count, is_archived, is_muted } of conversations) {
    if (unread_count > 0) byConversation[id] = unread_count
    if (is_archived || is_muted) continue
    total += unread_count
    mentions += mention_count
  }
  return { total, mentions, byConversation }
}

/**
 * Returns when the conversation was last active. All times are in UTC, so they can be compared as
 * strings, down to the microsecond.
 */
const activity = ({ last_message_at, created_at }: Conversation): string => last_message_at ?? created_at

const descending = (a: string, b: string): number => (a < b ? 1 : -1)
