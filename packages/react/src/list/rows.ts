import type { TimelineMessage } from '@rapport-chat/client'

export type Position = 'single' | 'first' | 'middle' | 'last'

/** A message, with the properties that depend on its neighbours. */
export interface Row {
  readonly message: TimelineMessage
  readonly position: Position
  /** Whether the message is the first of its day, with a separator above it. */
  readonly startsDay: boolean
  /** Whether the line "New messages" is above the message. */
  readonly isFirstUnread: boolean
  /** Whether the message is the last one. */
  readonly isNewest: boolean
}

/** Consecutive rows that are mounted together. */
export interface Chunk {
  readonly id: number
  readonly rows: readonly Row[]
}

/**
 * Consecutive messages of a sender form a group if each was sent less than this time after the one
 * before it, and on the same day.
 */
const GROUP_MS = 5 * 60_000

/** The number of `seq` values per chunk. */
export const CHUNK_ROWS = 10

export function layoutRows(messages: readonly TimelineMessage[], firstUnreadSeq: number | null): Row[] {
  const unread = firstUnreadAt(messages, firstUnreadSeq)
  const breaks = messages.map((message, index) => index === unread || !continues(messages[index - 1], message))
  return messages.map((message, index) => {
    const before = messages[index - 1]
    const isFirst = breaks[index] ?? true
    const isLast = breaks[index + 1] ?? true
    return {
      message,
      position: isFirst ? (isLast ? 'single' : 'first') : isLast ? 'last' : 'middle',
      startsDay: !before || stampOf(before).day !== stampOf(message).day,
      isFirstUnread: index === unread,
      isNewest: index === messages.length - 1,
    }
  })
}

/**
 * Returns the index of the message below the line "New messages". Returns -1 if there is no such
 * message, or if the line belongs above all loaded messages.
 */
function firstUnreadAt(messages: readonly TimelineMessage[], seq: number | null): number {
  if (seq === null || (messages[0]?.seq ?? 0) > seq) return -1
  return messages.findIndex((message) => message.seq >= seq && !message.isOwn)
}

interface Stamp {
  readonly time: number
  /** Days since 1970 in the local zone. */
  readonly day: number
}

/** A cache, because parsing dates is most of the work of a layout, which runs very often. */
const stamps = new WeakMap<TimelineMessage, Stamp>()

function stampOf(message: TimelineMessage): Stamp {
  const known = stamps.get(message)
  if (known) return known
  const date = new Date(message.created_at)
  const stamp = {
    time: date.getTime(),
    day: Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000,
  }
  stamps.set(message, stamp)
  return stamp
}

function continues(before: TimelineMessage | undefined, message: TimelineMessage): boolean {
  if (!before || before.sender_id !== message.sender_id) return false
  if (before.message_type === 'system' || message.message_type === 'system') return false
  const from = stampOf(before)
  const to = stampOf(message)
  return to.time - from.time < GROUP_MS && from.day === to.day
}

/**
 * Divides rows into chunks. The borders follow `seq`, so prepended history does not move them.
 * Unsent messages have no `seq`. They are numbered after the last stored message, so that most of
 * them stay in their chunk when they are stored.
 */
export function chunkRows(rows: readonly Row[]): Chunk[] {
  const chunks: { id: number; rows: Row[] }[] = []
  let last = 0
  for (const row of rows) {
    const seq = Number.isFinite(row.message.seq) ? row.message.seq : last + 1
    // If unsent messages are not stored in order, `seq` may decrease. Chunks must stay in order.
    const id = Math.max(Math.floor(seq / CHUNK_ROWS), chunks.at(-1)?.id ?? 0)
    last = seq
    const chunk = chunks.at(-1)
    if (chunk?.id === id) chunk.rows.push(row)
    else chunks.push({ id, rows: [row] })
  }
  return chunks
}

/**
 * Lays out a list each time that it changes. Unchanged rows and chunks remain the same objects, so
 * that only changed ones are rendered. For example, a page of history renders no other chunk.
 */
export class RowLayout {
  private rows = new Map<string, Row>()
  private chunks = new Map<number, Chunk>()

  layout(messages: readonly TimelineMessage[], firstUnreadSeq: number | null): readonly Chunk[] {
    const rows = layoutRows(messages, firstUnreadSeq).map((row) => {
      const before = this.rows.get(row.message.key)
      return before && isSameRow(before, row) ? before : row
    })
    const chunks = chunkRows(rows).map((chunk) => {
      const before = this.chunks.get(chunk.id)
      const isSame =
        before?.rows.length === chunk.rows.length && chunk.rows.every((row, index) => row === before.rows[index])
      return isSame ? before : chunk
    })
    this.rows = new Map(rows.map((row) => [row.message.key, row]))
    this.chunks = new Map(chunks.map((chunk) => [chunk.id, chunk]))
    return chunks
  }
}

function isSameRow(a: Row, b: Row): boolean {
  return (
    a.message === b.message &&
    a.position === b.position &&
    a.startsDay === b.startsDay &&
    a.isFirstUnread === b.isFirstUnread &&
    a.isNewest === b.isNewest
  )
}
