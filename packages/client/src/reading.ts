// Determines what the user has read of a displayed conversation. Loaded with the actions.

import type { Cancel, Clock } from './clock'
import type { Conversation } from './conversation-client'
import type { Engine } from './engine'
import { ok } from './errors'
import type { Page } from './page'
import type { Result } from './types'

/** Rows in the middle of a conversation count as read after being visible for this long. */
const SHOWN_MS = 1_000

/** The minimum time between two requests. */
const INTERVAL_MS = 1_000

export interface ReaderSettings {
  clock: Clock
  page: Page
  /** Returns the current state of the conversation. */
  state(): { lastReadSeq: number; isMarkedUnread: boolean; newestSeq: number }
  /** Marks everything up to this position as read. Returns whether that succeeded. */
  mark(seq: number): Promise<boolean>
}

export class Reader {
  readonly #settings: ReaderSettings
  #visible: { seq: number; isAtEnd: boolean } | null = null
  /** The user marked the conversation as unread, so it stays unread until it is closed. */
  #isKeptUnread = false
  /** The highest position that was visible long enough. */
  #readSeq = 0
  /** The last position that was sent. The conversation's row may not contain it yet. */
  #markedSeq = 0
  #nextAt = 0
  #cancelShown: Cancel = () => {}
  #cancelMark: Cancel | null = null
  readonly #stopListening: Cancel

  constructor(settings: ReaderSettings) {
    this.#settings = settings
    this.#stopListening = settings.page.listen((signal) => {
      if (signal === 'attention') this.#watch()
    })
  }

  /** Called when the visible part of the list changes. Null means that nothing is visible. */
  show(visible: { seq: number; isAtEnd: boolean } | null): void {
    const before = this.#visible
    if (visible?.seq === before?.seq && visible?.isAtEnd === before?.isAtEnd) return
    this.#visible = visible
    this.#watch()
  }

  /** Called when messages may have arrived. At the end of the list, they are visible at once. */
  changed(): void {
    if (this.#visible?.isAtEnd) this.#watch()
  }

  keepUnread(): void {
    this.#isKeptUnread = true
    this.#readSeq = 0
    this.#cancelShown()
    this.#cancelMark?.()
    this.#cancelMark = null
  }

  /** Called when the conversation is closed. Sends what was read until now. */
  close(): void {
    this.#stopListening()
    this.#cancelShown()
    if (this.#cancelMark) this.#flush()
  }

  #watch(): void {
    this.#cancelShown()
    const { page, clock, state } = this.#settings
    const visible = this.#visible
    if (!visible || this.#isKeptUnread || !page.isVisible() || !page.hasFocus()) return
    if (visible.isAtEnd) return this.#read(Math.max(visible.seq, state().newestSeq))
    this.#cancelShown = clock.after(SHOWN_MS, () => this.#read(visible.seq))
  }

  #read(seq: number): void {
    const { lastReadSeq, isMarkedUnread } = this.#settings.state()
    this.#readSeq = Math.max(this.#readSeq, seq)
    const isNews =
      this.#readSeq > Math.max(lastReadSeq, this.#markedSeq) || (isMarkedUnread && this.#readSeq > this.#markedSeq)
    if (!isNews || this.#cancelMark) return
    const { clock } = this.#settings
    const ms = this.#nextAt - clock.now()
    if (ms <= 0) return this.#flush()
    this.#cancelMark = clock.after(ms, () => this.#flush())
  }

  #flush(): void {
    this.#cancelMark?.()
    this.#cancelMark = null
    this.#nextAt = this.#settings.clock.now() + INTERVAL_MS
    this.#markedSeq = this.#readSeq
    const readSeq = this.#readSeq
    void this.#settings.mark(readSeq).then((isMarked) => {
      // The next call of `#read` tries again.
      if (!isMarked && this.#markedSeq === readSeq) this.#markedSeq = 0
    })
  }
}

/** Called when the visible part of the list changes. Null means that nothing is visible. */
export async function show(
  engine: Engine,
  conversation: Conversation,
  lowest: { seq: number; isAtEnd: boolean } | null,
): Promise<Result<null>> {
  const history = conversation.loaded
  const visible = lowest && {
    seq: Number.isFinite(lowest.seq) ? lowest.seq : history.newestSeq,
    // At the end of an earlier part, messages that are loaded later are not visible at once.
    isAtEnd: lowest.isAtEnd && history.range?.to === Infinity,
  }
  // The anchor follows the reader, because the history is trimmed at the end farther from it.
  if (visible && history.contains(visible.seq)) history.anchor = visible.isAtEnd ? Infinity : visible.seq
  conversation.visible = visible
  startReading(engine, conversation)
  return ok(null)
}

/** Lets visible messages count as read, once it is decided which messages are shown first. */
export function startReading(engine: Engine, conversation: Conversation): void {
  if (!conversation.isOpening) readerOf(engine, conversation)?.show(conversation.visible)
}

/** Returns the reader of a conversation, or null if it is not displayed. */
export function readerOf(engine: Engine, conversation: Conversation): Reader | null {
  if (!conversation.isOpen) return null
  const { store, environment } = engine
  const { id } = conversation
  return (conversation.reader ??= new Reader({
    clock: environment.clock,
    page: environment.page,
    state: () => {
      const row = store.row(id)
      return {
        lastReadSeq: row?.last_read_seq ?? 0,
        isMarkedUnread: row?.marked_unread ?? false,
        newestSeq: conversation.loaded.newestSeq,
      }
    },
    mark: async (seq) => (await engine.act('markRead', id, seq)).error === null,
  }))
}
