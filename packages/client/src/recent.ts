// The state that a page shows before the server responds: the conversations, and the last messages
// of those that were displayed recently. The state is never older than its cursor, so `/sync`
// brings it up to date. Loaded with the actions.

import type { Cancel } from './clock'
import type { Engine } from './engine'
import { ok } from './errors'
import type { HeldMessage } from './messages'
import type { ChatStorage } from './storage'
import type { Snapshot } from './tabs'
import type { Result } from './types'

/** The pause after the first change, so that several changes are written together. */
const RECENT_SAVE_MS = 2_000

/** Messages stored per conversation, enough to fill a screen. */
const RECENT_MESSAGES = 50

interface RecentState extends Snapshot {
  pages: readonly RecentPage[]
}

interface RecentPage {
  conversationId: string
  messages: readonly HeldMessage[]
  hasOlder: boolean
}

/** Creates the `Recent`. This function is an action, because its code is loaded later. */
export async function openRecent(engine: Engine, storage: ChatStorage): Promise<Result<Recent>> {
  return ok(new Recent(engine, storage))
}

export class Recent {
  readonly #engine: Engine
  readonly #storage: ChatStorage
  #cancelSave: Cancel | null = null

  constructor(engine: Engine, storage: ChatStorage) {
    this.#engine = engine
    this.#storage = storage
  }

  /** Restores what an earlier page stored, unless there is a newer state. */
  async restore(): Promise<void> {
    const [entry] = await this.#storage.all<RecentState>('recent')
    const { store, sync } = this.#engine
    if (!entry || sync.position !== undefined) return
    const { pages, ...snapshot } = entry[1]
    this.#engine.restore(snapshot)
    for (const { conversationId, messages, hasOlder } of pages) {
      const first = messages[0]
      if (hasOlder && !first) continue
      store.changeHistory(conversationId, (history) => {
        for (const message of messages) history.upsert(message)
        history.displayEnd(hasOlder && first ? first.row.seq - 1 : -1)
        history.status = 'ready'
      })
    }
  }

  changed(): void {
    this.#cancelSave ??= this.#engine.environment.clock.after(RECENT_SAVE_MS, () => {
      this.#cancelSave = null
      const state = this.#state()
      if (state) void this.#storage.put('recent', 'state', state)
    })
  }

  stop(): void {
    this.#cancelSave?.()
    this.#cancelSave = null
  }

  /** Returns the state to store, or null while there is none. */
  #state(): RecentState | null {
    const snapshot = this.#engine.snapshot()
    if (!snapshot || snapshot.hasMore || !this.#engine.tabs.leads) return null
    const pages = this.#engine.store.histories().flatMap(([conversationId, history]) => {
      const end = history.rangeAt(Infinity)
      if (!end) return []
      const held = history.within(end)
      const messages = held.slice(-RECENT_MESSAGES)
      return [{ conversationId, messages, hasOlder: end.from > 0 || messages.length < held.length }]
    })
    return { ...snapshot, pages }
  }
}
