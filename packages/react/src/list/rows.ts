import type { TimelineMessage } from '@rapport-chat/client'
import { isSameDay } from '../format/time'

export type Position = 'single' | 'first' | 'middle' | 'last'

/** A message with everything that depends on its neighbours. */
export interface Row {
  readonly message: TimelineMessage
  readonly position: Position
  /** The day begins here: a separator is above the message. */
  readonly startsDay: boolean
  /** The line "New messages" is above the message. */
  readonly isFirstUnread: boolean
}

export interface Chunk {
  readonly id: number
  readonly rows: readonly Row[]
}

/** Messages of one sender belong together if they are less than this apart. */
const GROUP_MS = 5 * 60_000

/** Rows that are mounted and unmounted together. */
export const CHUNK_ROWS = 20

export function layoutRows(messages: readonly TimelineMessage[], firstUnreadSeq: number | null): Row[] {
  const unread = firstUnreadSeq === null ? -1 : messages.findIndex((message) => message.seq >= firstUnreadSeq && !message.isOwn)
  const breaks = messages.map((message, index) => index === unread || !continues(messages[index - 1], message))
  return messages.map((message, index) => {
    const before = messages[index - 1]
    const isFirst = breaks[index] ?? true
    const isLast = breaks[index + 1] ?? true
    return {
      message,
      position: isFirst ? (isLast ? 'single' : 'first') : isLast ? 'last' : 'middle',
      startsDay: !before || !isSameDay(new Date(before.created_at), new Date(message.created_at)),
      isFirstUnread: index === unread,
    }
  })
}

function continues(before: TimelineMessage | undefined, message: TimelineMessage): boolean {
  if (!before || before.sender_id !== message.sender_id) return false
  if (before.message_type === 'system' || message.message_type === 'system') return false
  const from = new Date(before.created_at)
  const to = new Date(message.created_at)
  return to.getTime() - from.getTime() < GROUP_MS && isSameDay(from, to)
}

/**
 * Chunks with borders that do not move when history is prepended, since they follow `seq`. Unsent
 * messages, which have none, count on from the last stored one, so that most stay in their chunk
 * when they are stored.
 */
export function chunkRows(rows: readonly Row[]): Chunk[] {
  const chunks: { id: number; rows: Row[] }[] = []
  let last = 0
  for (const row of rows) {
    const seq = Number.isFinite(row.message.seq) ? row.message.seq : last + 1
    // Echoes that are not stored in order must not open an earlier chunk again.
    const id = Math.max(Math.floor(seq / CHUNK_ROWS), chunks.at(-1)?.id ?? 0)
    last = seq
    const chunk = chunks.at(-1)
    if (chunk?.id === id) chunk.rows.push(row)
    else chunks.push({ id, rows: [row] })
  }
  return chunks
}
