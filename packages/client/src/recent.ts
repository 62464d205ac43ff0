// The state that a page shows before the server responds: the conversations, and the last messages
// of those that were displayed recently. The state is never older than its cursor, so `/sync`
// brings it up to date.

import type { Cancel, Clock } from './clock'
import type { HeldMessage } from './messages'
import type { ChatStorage } from './storage'
import type { ReceiptPositions } from './receipts'
import type { Me } from './types'
import type * as wire from './wire'

/** The pause after the first change, so that several changes are written together. */
const RECENT_SAVE_MS = 2_000

/** Messages stored per conversation, enough to fill a screen. */
export const RECENT_MESSAGES = 50

export interface RecentState {
  cursor: string
  me: Me
  conversations: readonly wire.Conversation[]
  receipts: readonly ReceiptPositions[]
  pages: readonly RecentPage[]
}

export interface RecentPage {
  conversationId: string
  messages: readonly HeldMessage[]
  hasOlder: boolean
}

export class Recent {
  readonly #clock: Clock
  readonly #storage: ChatStorage
  readonly #read: () => RecentState | null
  #cancelSave: Cancel | null = null

  constructor(
    clock: Clock,
    storage: ChatStorage,
    /** Returns the state to store, or null while there is none. */
    read: () => RecentState | null,
  ) {
    this.#clock = clock
    this.#storage = storage
    this.#read = read
  }

  async load(): Promise<RecentState | null> {
    const [entry] = await this.#storage.all<RecentState>('recent')
    return entry?.[1] ?? null
  }

  changed(): void {
    this.#cancelSave ??= this.#clock.after(RECENT_SAVE_MS, () => {
      this.#cancelSave = null
      const state = this.#read()
      if (state) void this.#storage.put('recent', 'state', state)
    })
  }

  stop(): void {
    this.#cancelSave?.()
    this.#cancelSave = null
  }
}
