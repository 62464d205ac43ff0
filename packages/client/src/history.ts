// The messages of one conversation that are held, and which parts of it they cover.

import { fromAnswer, isIncomplete, merge, type HeldMessage } from './messages'
import { addRange, rangeAt, type Range } from './ranges'
import type { ChatError, Jump, Timeline } from './types'
import type * as wire from './wire'

/** Messages held of one conversation. Beyond it the end farther from the reader is dropped. */
export const MAX_MESSAGES = 2_000

/** Live messages may exceed the limit by this many, so that not each one moves it. */
const SLACK = 100

/** A page that was asked for, and the part of the conversation that its answer covers. */
export type Position =
  | { at: 'newest' }
  | { at: 'before'; seq: number }
  | { at: 'after'; seq: number }
  /** A message's id, its `seq`, or `first_unread`. */
  | { at: 'around'; anchor: string }

export interface LoadedPage {
  messages: readonly wire.Message[]
  hasOlder: boolean
  hasNewer: boolean
}

export class History {
  status: Timeline['status'] = 'idle'
  error: ChatError | null = null
  pageError: ChatError | null = null
  isLoadingOlder = false
  isLoadingNewer = false
  firstUnreadSeq: number | null = null
  jump: Jump | null = null
  /** A position in the part that is displayed. */
  anchor = Infinity
  readonly #held = new Map<string, HeldMessage>()
  /** Messages that the server took away. Answers that were on the way must not bring them back. */
  readonly #removed = new Set<string>()
  #ranges: readonly Range[] = []
  #clearedSeq = 0
  #sorted: readonly HeldMessage[] | null = null

  get(id: string): HeldMessage | undefined {
    return this.#held.get(id)
  }

  /** The part that is displayed. */
  get range(): Range | undefined {
    return rangeAt(this.#ranges, this.anchor)
  }

  /** Whether a position is in the displayed part. */
  contains(seq: number): boolean {
    const { range } = this
    return range !== undefined && range.from <= seq && seq <= range.to
  }

  /** Whether a position is in any part that is loaded; `Infinity` is the end. */
  covers(seq: number): boolean {
    return rangeAt(this.#ranges, seq) !== undefined
  }

  /** The messages of the displayed part, oldest first. */
  get messages(): readonly HeldMessage[] {
    const { range } = this
    if (!range) return []
    this.#sorted ??= this.#within(range)
    return this.#sorted
  }

  /** The part that new messages belong to. */
  get end(): { from: number; messages: readonly HeldMessage[] } | undefined {
    const range = rangeAt(this.#ranges, Infinity)
    return range && { from: range.from, messages: this.#within(range) }
  }

  /** The messages of an interval, oldest first. */
  #within({ from, to }: Range): readonly HeldMessage[] {
    return [...this.#held.values()]
      .filter(({ row }) => from <= row.seq && row.seq <= to)
      .sort((a, b) => a.row.seq - b.row.seq)
  }

  /** Unread messages of others behind a position; undefined if the end is not displayed. */
  countUnread(after: number, userId: string): number | undefined {
    if (this.range?.to !== Infinity) return undefined
    return this.messages.filter(({ row }) => row.seq > after && row.sender_id !== userId && !row.is_deleted).length
  }

  /** Puts back the end of a conversation. */
  restore(messages: readonly HeldMessage[], hasOlder: boolean): void {
    for (const message of messages) this.upsert(message)
    const first = messages[0]
    if (hasOlder && !first) return
    this.#ranges = addRange(this.#ranges, { from: hasOlder && first ? first.row.seq : 0, to: Infinity })
    this.#sorted = null
    this.status = 'ready'
  }

  /** Returns whether the message has to be fetched, because its row does not show what changed. */
  upsert(incoming: HeldMessage): boolean {
    const { id, seq } = incoming.row
    if (this.#removed.has(id) || seq <= this.#clearedSeq) return false
    const before = this.#held.get(id)
    const merged = merge(before, incoming)
    if (merged === before) return false
    this.#held.set(id, merged)
    this.#sorted = null
    this.#trim(MAX_MESSAGES + SLACK)
    return isIncomplete(merged, before)
  }

  addPage(position: Position, page: LoadedPage): void {
    for (const message of page.messages) this.upsert(fromAnswer(message))
    const range = coveredBy(position, page)
    if (range) this.#ranges = addRange(this.#ranges, range)
    this.#sorted = null
    this.#trim(MAX_MESSAGES)
  }

  remove(id: string): void {
    this.#removed.add(id)
    this.#held.delete(id)
    this.#sorted = null
  }

  /** The user cleared the conversation up to this position. */
  clear(seq: number): void {
    if (seq <= this.#clearedSeq) return
    this.#clearedSeq = seq
    for (const [id, { row }] of this.#held) if (row.seq <= seq) this.#held.delete(id)
    this.#ranges = this.#ranges
      .filter(({ to }) => to > seq)
      .map(({ from, to }) => ({ from: from <= seq + 1 ? 0 : from, to }))
    this.#sorted = null
  }

  /** Forgets the messages, not what is displayed: the part is loaded again. */
  forget(): void {
    this.#held.clear()
    this.#removed.clear()
    this.#ranges = []
    this.#clearedSeq = 0
    this.#sorted = null
    this.anchor = Infinity
    this.status = 'idle'
  }

  display(seq: number): void {
    this.anchor = seq
    this.#sorted = null
  }

  /**
   * Displays the end, even if it is not loaded. `lastSeq`: the newest message that the server has
   * announced. Later ones arrive live, so the part after it is complete although it is empty.
   */
  displayEnd(lastSeq: number): void {
    if (!this.covers(Infinity)) this.#ranges = addRange(this.#ranges, { from: lastSeq + 1, to: Infinity })
    this.display(Infinity)
  }

  /** Drops what is held beyond the limit: first other parts, then the end far from the reader. */
  #trim(limit: number): void {
    const { range } = this
    if (!range || this.#held.size <= limit) return
    const { messages } = this
    const isNearEnd = this.anchor > (messages.at(-1)?.row.seq ?? 0) - messages.length / 2
    const kept = isNearEnd ? messages.slice(-MAX_MESSAGES) : messages.slice(0, MAX_MESSAGES)
    const [first, last] = [kept[0], kept.at(-1)]
    if (!first || !last) return
    const isWhole = kept.length === messages.length
    this.#ranges = [
      {
        from: isWhole || !isNearEnd ? range.from : first.row.seq,
        to: isWhole || isNearEnd ? range.to : last.row.seq,
      },
    ]
    this.#held.clear()
    for (const message of kept) this.#held.set(message.row.id, message)
    this.#sorted = null
  }
}

/** The part of a conversation that a page covers, or undefined if it says nothing. */
export function coveredBy(position: Position, { messages, hasOlder, hasNewer }: LoadedPage): Range | undefined {
  const [first, last] = [messages[0]?.seq, messages.at(-1)?.seq]
  const from = hasOlder ? first : 0
  const to = hasNewer ? last : Infinity
  switch (position.at) {
    case 'before':
      return from === undefined ? undefined : { from, to: position.seq - 1 }
    case 'after':
      return to === undefined ? undefined : { from: position.seq + 1, to }
    default:
      return from === undefined || to === undefined ? undefined : { from, to }
  }
}
