// The loaded messages of one conversation, and the ranges of positions that they cover.

import { fromAnswer, isIncomplete, merge, type HeldMessage } from './messages'
import { addRange, type Range } from './ranges'
import type { ChatError, Jump, Timeline } from './types'
import type * as wire from './wire'

/** Maximum messages in memory per conversation. Those far from the reader are dropped first. */
export const MAX_MESSAGES = 2_000

/** Live messages may exceed the limit by this many, so that not every one trims the history. */
const SLACK = 100

/** A page of messages. */
export interface LoadedPage {
  messages: readonly wire.Message[]
  /** The position before which the page was requested, if any. */
  before?: number
  /** The position after which the page was requested, if any. */
  after?: number
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
  /** The position near the reader, which selects the displayed range. `Infinity` is the end. */
  anchor = Infinity
  readonly #held = new Map<string, HeldMessage>()
  /** Messages that the server removed. Responses that are still in flight must not restore them. */
  readonly #removed = new Set<string>()
  #ranges: readonly Range[] = []
  #clearedSeq = 0
  #sorted: readonly HeldMessage[] | null = null

  get(id: string): HeldMessage | undefined {
    return this.#held.get(id)
  }

  /** The displayed range. */
  get range(): Range | undefined {
    return this.rangeAt(this.anchor)
  }

  /** Whether a position is in the displayed range. */
  contains(seq: number): boolean {
    const { range } = this
    return range !== undefined && range.from <= seq && seq <= range.to
  }

  /** Returns the loaded range that contains a position; `Infinity` is the end. */
  rangeAt(seq: number): Range | undefined {
    return this.#ranges.find(({ from, to }) => from <= seq && seq <= to)
  }

  /** The messages of the displayed range, oldest first. */
  get messages(): readonly HeldMessage[] {
    const { range } = this
    if (!range) return []
    this.#sorted ??= this.within(range)
    return this.#sorted
  }

  /** The position of the last displayed message; 0 if there is none. */
  get newestSeq(): number {
    return this.messages.at(-1)?.row.seq ?? 0
  }

  /** Returns the messages of a range, oldest first, even if another part is displayed. */
  within({ from, to }: Range): readonly HeldMessage[] {
    return [...this.#held.values()]
      .filter(({ row }) => from <= row.seq && row.seq <= to)
      .sort((a, b) => a.row.seq - b.row.seq)
  }

  /** Adds or updates a message. Returns whether it must be fetched (`isIncomplete`). */
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

  addPage(page: LoadedPage): void {
    for (const message of page.messages) this.upsert(fromAnswer(message))
    const range = coveredBy(page)
    if (range) this.#ranges = addRange(this.#ranges, range)
    this.#sorted = null
    this.#trim(MAX_MESSAGES)
    this.status = 'ready'
    this.error = null
    this.pageError = null
  }

  remove(id: string): void {
    this.#removed.add(id)
    this.#held.delete(id)
    this.#sorted = null
  }

  /** Removes the messages up to this position, because the user cleared the conversation. */
  clear(seq: number): void {
    if (seq <= this.#clearedSeq) return
    this.#clearedSeq = seq
    for (const [id, { row }] of this.#held) if (row.seq <= seq) this.#held.delete(id)
    this.#ranges = this.#ranges
      .filter(({ to }) => to > seq)
      .map(({ from, to }) => ({ from: from <= seq + 1 ? 0 : from, to }))
    this.#sorted = null
  }

  /** Forgets the messages, so that the first page is loaded again. */
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
   * Displays the end, even if no messages of it are loaded. All messages after `lastSeq` must be
   * known: they are held already, or they arrive live.
   */
  displayEnd(lastSeq: number): void {
    if (!this.rangeAt(Infinity)) this.#ranges = addRange(this.#ranges, { from: lastSeq + 1, to: Infinity })
    this.display(Infinity)
  }

  /**
   * If there are more messages than `limit`, drops all outside the displayed range and, above
   * `MAX_MESSAGES`, those at the end of the range that is farther from the reader.
   */
  #trim(limit: number): void {
    const { range } = this
    if (!range || this.#held.size <= limit) return
    const { messages } = this
    const isNearEnd = this.anchor > this.newestSeq - messages.length / 2
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

/** Returns the range that a page covers. Undefined if the page does not determine one. */
export function coveredBy({ messages, before, after, hasOlder, hasNewer }: LoadedPage): Range | undefined {
  const older = hasOlder ? messages[0]?.seq : 0
  const newer = hasNewer ? messages.at(-1)?.seq : Infinity
  const from = after === undefined ? older : after + 1
  const to = before === undefined ? newer : before - 1
  return from === undefined || to === undefined ? undefined : { from, to }
}
