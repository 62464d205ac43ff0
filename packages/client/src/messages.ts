// Merges the versions of one message.
//
// Messages come from two sources. Responses of the routes are complete. Rows from the socket have
// only the table's columns: no sender, reactions or quoted message. Both carry `rev`, which grows
// with every change. Rows and the additional fields of responses are merged independently, and the
// higher `rev` wins. The result does not depend on the order in which responses and rows arrive,
// nor on repetitions.

import type * as wire from './wire'

/** The fields that only responses contain. */
type Details = Pick<wire.Message, 'sender' | 'reactions' | 'reply_to' | 'is_pinned'>

/** The columns of a row from the socket. Responses contain them too. */
export type MessageRow = Omit<wire.Message, keyof Details | 'attachments' | 'read_by' | 'delivery_status'>

export interface HeldMessage {
  readonly row: MessageRow
  readonly details: (Details & Pick<MessageRow, 'rev'>) | null
}

export const fromAnswer = (message: wire.Message): HeldMessage => ({ row: message, details: message })

/** Drops the columns that responses do not contain. */
export const fromRow = ({
  deleted_by: _by,
  changed_xid: _xid,
  ...row
}: MessageRow & { deleted_by?: unknown; changed_xid?: unknown }): HeldMessage => ({ row, details: null })

/** Returns `held` itself if nothing is new, so that it can be compared by identity. */
export function merge(held: HeldMessage | undefined, incoming: HeldMessage): HeldMessage {
  if (!held) return incoming
  const row = incoming.row.rev > held.row.rev ? incoming.row : held.row
  const isNewer = incoming.details && (!held.details || incoming.details.rev > held.details.rev)
  const details = isNewer ? incoming.details : held.details
  return row === held.row && details === held.details ? held : { row, details }
}

/**
 * Whether something is unknown that rows do not show: the quoted message of a new reply, or a
 * change of the reactions, the pin or the quoted message. The whole message must then be fetched.
 */
export function isIncomplete({ row, details }: HeldMessage, before: HeldMessage | undefined): boolean {
  if (row.is_deleted || (details && details.rev >= row.rev)) return false
  // A response has arrived that is older than the row. What changed in between is unknown.
  if (details && !before?.details) return true
  if (!before) return row.reply_to_id !== null
  return row.rev > before.row.rev && row.updated_at === before.row.updated_at
}

/** Returns the complete message. Fields that are not known yet are empty. */
export function toMessage({ row, details }: HeldMessage): wire.Message {
  const isGone = row.is_deleted
  return {
    ...row,
    sender: details?.sender ?? null,
    reactions: isGone ? [] : [...(details?.reactions ?? [])],
    reply_to: isGone ? null : (details?.reply_to ?? null),
    is_pinned: !isGone && (details?.is_pinned ?? false),
    attachments: [],
    read_by: [],
    delivery_status: 'sent',
  }
}

export function preview({
  id,
  content,
  created_at,
  file_name,
  is_deleted,
  message_type,
  sender_id,
}: MessageRow): wire.MessagePreview {
  return { id, content, created_at, file_name, is_deleted, message_type, sender_id }
}
